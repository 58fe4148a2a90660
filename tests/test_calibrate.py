"""ftlib.calibrate and ftlib.collect: what is recommended, how firm it is, and what is said of bad inputs."""

from __future__ import annotations

import ftlib  # isort: skip  # before timm, which needs it where torchvision's operators are missing

import json
import warnings
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

from ftlib import calibration
from ftlib.core import ClassSplit
from ftlib.heads import HEADS, read_by
from ftlib.metrics import seen_unseen_curve, split_accuracies
from ftlib.recommend import choose_head

calibrate, collect = ftlib.calibrate, ftlib.collect
SPLIT = ClassSplit(seen=range(10), absent=range(10, 20))
VECTORS = sorted(Path(__file__).with_name("vectors").glob("*.json"))


def draw(seed=0, n=400, gap=4.0, signal=4.0, absent=False, share=0.5):
    """Logits of classes with a gap in favour of S, labels, and what an old head without the gap says."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(10, size=n)
    if absent:
        labels = np.where(rng.random(n) < share, labels + 10, labels)
    old = rng.normal(size=(n, 20)) + signal * np.eye(20)[labels]
    new = old + rng.normal(size=(n, 20)) * 0.1 + gap * (np.arange(20) < 10)
    new[labels < 10, labels[labels < 10]] += 2  # fine-tuning has learnt the seen ones
    return new.astype(np.float32), labels, old.astype(np.float32)


def codes(found, *levels):
    return {a.code for a in found.advice if not levels or a.level in levels}


# ---------------------------------------------------------------------------------------------- what is recommended


@pytest.mark.parametrize(("signal", "estimator"), [(1.0, "mirrored"), (4.0, "margin_quantile")])
def test_with_the_old_head_the_larger_of_both_is_recommended_and_named(signal, estimator):
    """Classes that are told apart with ease leave a wide margin, of which the quantile takes the far end."""
    logits, labels, old = draw(signal=signal)
    found = calibrate(logits, labels, SPLIT, old)
    both = calibration.mirrored(logits, labels, SPLIT, old), calibration.margin_quantile(logits, labels, SPLIT)
    assert found.gamma == max(both) == calibration.recommended(logits, labels, SPLIT, old)
    assert (found.by_estimator["mirrored"], found.by_estimator["margin_quantile"]) == pytest.approx(both)
    assert found.estimator == estimator and found.by_estimator[estimator] == max(both)


def test_without_it_a_quantile_of_the_margins_is_and_every_other_estimator_is_told():
    logits, labels, _ = draw()
    found = calibrate(logits, labels, SPLIT)
    assert found.estimator == "margin_quantile" and found.gamma == found.by_estimator["margin_quantile"]
    assert found.gamma == calibration.recommended(logits, labels, SPLIT)
    for name, gamma in found.by_estimator.items():
        arguments = (labels, SPLIT) if name == "prior_gamma" else (logits, labels, SPLIT)
        assert gamma == pytest.approx(getattr(calibration, name)(*arguments)), name
    assert len(found.by_estimator) == 5


@pytest.mark.parametrize("signal", [1.0, 4.0])
def test_told_the_mix_that_is_taken_for_granted_gamma_is_what_it_was(signal):
    logits, labels, old = draw(signal=signal)
    untold = calibrate(logits, labels, SPLIT, old)
    for prefer in ({"share": 0.5}, {"weight": 1.0}, {"min_uy": 0.01}):
        told = calibrate(logits, labels, SPLIT, old, prefer=prefer)
        assert (told.gamma, told.estimator) == (pytest.approx(untold.gamma), untold.estimator)


def test_where_absent_images_are_rare_fewer_seen_ones_are_given_up():
    logits, labels, old = draw()
    margins = calibration.mirrored_margins(logits, labels, SPLIT, old)
    found = calibrate(logits, labels, SPLIT, old, prefer={"share": 0.2})  # odds of 1 : 4 for 1 : 1
    assert found.estimator == "margin_quantile" and found.gamma == np.quantile(margins.seen, 0.05 / 4)


def test_the_recommended_gamma_repairs_what_the_gap_broke():
    logits, labels, old = draw()
    test, truth, _ = draw(1, absent=True)
    for found in (calibrate(logits, labels, SPLIT, old), calibrate(logits, labels, SPLIT)):
        assert found.advised and found.interval[0] <= found.gamma <= found.interval[1]
        before, after = (split_accuracies(test, truth, SPLIT, g).yy for g in (0.0, found.gamma))
        assert after > before + 0.1


def test_tensors_give_what_arrays_give():
    logits, labels, old = draw()
    a = calibrate(logits, labels, SPLIT, old)
    b = calibrate(torch.from_numpy(logits), torch.from_numpy(labels), SPLIT, torch.from_numpy(old))
    assert (a.gamma, a.interval, a.advice) == (b.gamma, b.interval, b.advice)


def test_heads_of_different_precision_are_compared():
    logits, labels, old_head = draw()
    found = calibrate(logits.astype(np.float32), labels, SPLIT, old_head.astype(np.float64))
    assert found.gamma == pytest.approx(calibrate(logits, labels, SPLIT, old_head).gamma, abs=1e-4)


def test_the_head_is_chosen_that_has_the_best_overall_accuracy_at_its_gamma():
    logits, labels, old_head = draw()
    noise = 9 * np.random.default_rng(5).normal(size=old_head.shape)
    for best, new, old in (("new", logits, old_head + noise), ("old", logits + noise, old_head)):
        head, found = choose_head(new, labels, SPLIT, old)
        each = {name: calibrate(x, labels, SPLIT, y) for name in HEADS for x, y in [read_by(name, new, SPLIT, old)]}
        overall = {name: of.with_gamma.overall(SPLIT, of.share) for name, of in each.items()}
        assert head == best == max(overall, key=overall.__getitem__) and found.gamma == each[head].gamma
    assert choose_head(logits, labels, SPLIT, None, heads=["new"])[0] == "new"
    mixed = np.tile(logits, (2, 1)), np.tile(old_head, (2, 1))
    told = choose_head(logits, labels, SPLIT, old_head, mixed, {"share": "unlabelled"}, ["both"])[1]
    assert "absent_share" in told.by_estimator


def test_another_head_is_advised_by_its_own_gap_and_stopped_by_what_is_amiss_between_the_checkpoints():
    logits, labels, old_head = draw(signal=2.0)
    old_head = old_head + 2 * (np.arange(20) < 10)  # features that were trained on seen classes widen its gap, too
    for heads in (["old"], ["restored"], HEADS):
        assert choose_head(logits, labels, SPLIT, old_head, heads=heads)[1].advised
    for head in HEADS:
        assert "same" in codes(choose_head(logits, labels, SPLIT, logits, heads=[head])[1], "stop")
        assert "exchanged" in codes(choose_head(old_head, labels, SPLIT, logits, heads=[head])[1], "stop")


def test_accuracies_and_curve_are_those_of_images_and_mirror_images():
    logits, labels, old = draw()
    found = calibrate(logits, labels, SPLIT, old)
    m = calibration.mirrored_margins(logits, labels, SPLIT, old)
    for gamma, has in ((0.0, found.without), (found.gamma, found.with_gamma)):
        seen, absent = np.mean(m.seen_hit & (m.seen >= gamma)), np.mean(m.absent_hit & (m.absent < gamma))
        assert has == pytest.approx((seen, absent)) and found.curve().at(gamma)[:2] == pytest.approx((seen, absent))


def test_an_accuracy_that_rounding_lifts_above_one_is_one():
    rng = np.random.default_rng(90)
    labels, split = rng.choice(34, 2000), ClassSplit(range(34), range(34, 68))
    right = np.ones(2000, bool)
    margins = calibration.Mirrored(rng.random(2000) + 5, right, -rng.random(2000), right)
    gamma = calibration.best_of_mirrored(margins, labels, split)
    assert gamma == pytest.approx((margins.absent.max() + margins.seen.min()) / 2)


def test_the_interval_narrows_with_more_images():
    widths = [np.ptp(calibrate(*draw(n=n)[:2], SPLIT).spread["images"]) for n in (100, 6400)]
    assert widths[0] > 4 * widths[1]


def test_classes_that_differ_widen_the_spread_over_classes_alone():
    logits, labels, _ = draw(n=2000)
    logits[:, 10:] += (labels % 5)[:, None]
    spread = calibrate(logits, labels, SPLIT).spread
    assert np.ptp(spread["classes"]) > 3 * np.ptp(spread["images"])


def test_of_very_many_images_some_are_looked_at_and_that_is_said():
    logits, labels, old = draw(n=30_000)
    found = calibrate(logits, labels, SPLIT, old)
    assert "sampled" in codes(found) and "sampled" not in codes(calibrate(*draw()[:2], SPLIT))
    assert found.gamma == pytest.approx(calibration.recommended(logits, labels, SPLIT, old), abs=0.2)


# ---------------------------------------------------------------------------------------------- along the curve


@pytest.mark.parametrize("least", [0.5, 0.9, 0.97])
def test_seen_accuracy_that_is_asked_for_is_kept_by_the_largest_gamma_that_can(least):
    logits, labels, old = draw(signal=2.0)
    free = calibrate(logits, labels, SPLIT, old)
    kept = calibrate(logits, labels, SPLIT, old, prefer={"min_sy": least})
    assert kept.with_gamma.seen >= least
    if free.with_gamma.seen < least:
        beyond = np.nextafter(float(kept.gamma), np.inf)
        assert split_accuracies(logits, labels, SPLIT, beyond).sy < least
    else:
        assert kept.gamma == free.gamma


def test_absent_accuracy_that_is_asked_for_is_reached_by_the_smallest_gamma_that_can():
    logits, labels, old = draw(signal=2.0)
    free = calibrate(logits, labels, SPLIT, old)
    least = free.with_gamma.absent_at_most + 0.0212  # between two counts of images
    found = calibrate(logits, labels, SPLIT, old, prefer={"min_uy": least})
    assert found.with_gamma.absent_at_most >= least and found.gamma > free.gamma
    below = np.nextafter(float(found.gamma), -np.inf)
    assert found.curve().at(below).uy < least


def test_a_promise_that_no_gamma_keeps_is_refused():
    logits, labels, old = draw(signal=2.0)
    for prefer in ({"min_uy": 0.99999}, {"min_sy": 0.999, "min_uy": 0.8}):
        with pytest.raises(ValueError, match=r"no γ keeps min_.* ask for less"):
            calibrate(logits, labels, SPLIT, old, prefer=prefer)


def test_the_more_absent_images_are_expected_or_count_the_larger_gamma():
    asked = ("share", (0.05, 0.5, 0.95)), ("weight", (0.1, 1.0, 10.0))
    for signal, (name, values) in product((1.0, 2.0), asked):
        given = draw(signal=signal)
        few, even, many = (calibrate(*given[:2], SPLIT, given[2], prefer={name: v}).gamma for v in values)
        assert few < even <= many
        assert even < many or signal == 2.0  # where the quantile, which never takes more than one in twenty, leads


def test_the_mix_of_unlabelled_images_is_estimated_and_moves_gamma():
    logits, labels, old = draw(signal=3.0)
    gammas = []
    for share in (0.1, 0.5, 0.9):
        test, _, _ = draw(2, n=4000, signal=3.0, absent=True, share=share)
        found = calibrate(logits, labels, SPLIT, old, test, {"share": "unlabelled"})
        assert abs(found.share - share) < 0.2 and "share" in codes(found)
        gammas.append(found.gamma)
    assert gammas == sorted(gammas) and gammas[0] < gammas[-1]


def test_the_estimated_mix_is_the_mean_of_the_posteriors_that_it_leads_to():
    split = ClassSplit(range(10), range(10, 18))
    logits, _, _ = draw(3, n=300, absent=True, share=0.3)
    share, prior = calibration.estimated_share(logits, split, 5.0), 8 / 18
    posteriors = []
    for row in logits.astype(float):
        odds = np.exp(row[10:18]).sum() * np.exp(5.0) / np.exp(row[:10]).sum() * (1 - prior) / prior
        odds *= share / (1 - share)
        posteriors.append(odds / (1 + odds))
    assert 0.05 < share < 0.9 and np.mean(posteriors) == pytest.approx(share, abs=1e-5)


def test_the_estimated_mix_is_that_of_quapy():
    quapy = pytest.importorskip("quapy.method.aggregative")
    logits, _, _ = draw(3, n=1000, absent=True, share=0.2)
    seen, absent = (np.logaddexp.reduce(logits[:, side].astype(float), 1) for side in (slice(10), slice(10, 20)))
    posterior = 1 / (1 + np.exp(seen - absent - 5.0))
    shares, _ = quapy.EMQ.EM(np.array([0.5, 0.5]), np.stack([1 - posterior, posterior], 1), epsilon=1e-9)
    assert calibration.estimated_share(logits, SPLIT, 5.0) == pytest.approx(shares[1], abs=1e-3)


# ---------------------------------------------------------------------------------------------- when not to


def test_a_sound_model_is_advised_without_a_caution():
    assert not codes(calibrate(*draw()[:2], SPLIT), "stop", "caution")
    logits, labels, old = draw()
    assert not codes(calibrate(logits, labels, SPLIT, old), "stop", "caution")


def test_probabilities_are_told_from_logits_and_log_probabilities_serve():
    logits, labels, old = (torch.from_numpy(a) for a in draw())
    assert "probabilities" in codes(calibrate(logits.softmax(1), labels, SPLIT), "stop")
    assert "probabilities" in codes(calibrate(logits.sigmoid(), labels, SPLIT), "stop")
    found = calibrate(logits.log_softmax(1), labels, SPLIT, old.log_softmax(1))
    assert found.advised and "log-probabilities" in codes(found, "note")
    assert found.gamma == pytest.approx(calibrate(logits, labels, SPLIT, old).gamma, abs=1e-4)


def test_a_constant_is_not_taken_for_probabilities():
    assert "probabilities" not in codes(calibrate(np.ones((40, 20)), np.arange(40) % 10, SPLIT))


def test_percentages_are_probabilities_too():
    logits, labels, _ = draw()
    assert "probabilities" in codes(calibrate(100 * torch.from_numpy(logits).softmax(1), labels, SPLIT), "stop")


def test_a_sigmoid_head_is_told_with_what_gamma_lights_at_one_half():
    rng = np.random.default_rng(4)
    labels = rng.integers(10, size=400)
    logits = rng.normal(-9, 0.5, (400, 20)) + 15 * np.eye(20)[labels] + 3 * (np.arange(20) < 10)
    found = calibrate(logits, labels, SPLIT)
    (told,) = [a.text for a in found.advice if a.code == "sigmoid"]
    lit = np.mean((logits[:, 10:] + found.gamma > 0).any(1))
    assert f"{lit:.0%} of these images" in told and "in place of 0%" in told
    assert "sigmoid" not in codes(calibrate(*draw()[:2], SPLIT))
    assert "sigmoid" not in codes(calibrate(torch.from_numpy(logits).log_softmax(1), labels, SPLIT))


def test_checkpoints_that_are_the_same_or_exchanged_are_noticed():
    logits, labels, old = draw(signal=2.0)
    assert "same" in codes(calibrate(logits, labels, SPLIT, logits), "stop")
    assert "exchanged" in codes(calibrate(old, labels, SPLIT, logits), "stop")


def test_labels_off_by_one_are_noticed():
    logits, labels, _ = draw()
    assert "labels" in codes(calibrate(logits, (labels + 1) % 10, SPLIT), "stop")
    assert "labels" in codes(calibrate(logits, (labels - 1) % 10, SPLIT), "stop")


def test_features_that_suffered_stop_it_and_doubtful_ones_are_told():
    logits, labels, _ = draw()
    blind = np.random.default_rng(5).normal(size=logits.shape).astype(np.float32)
    assert "features" in codes(calibrate(logits, labels, SPLIT, blind), "stop")
    assert "features" in codes(calibrate(blind, labels, SPLIT), "stop")
    doubtful = blind + 1.8 * np.eye(20, dtype=np.float32)[labels]
    assert "features" in codes(calibrate(logits, labels, SPLIT, doubtful), "caution")


def test_a_gamma_that_is_folded_already_leaves_nothing_to_do():
    logits, labels, old = draw()
    folded = calibration.apply(logits, calibrate(logits, labels, SPLIT, old).gamma, SPLIT.absent)
    for old_head in (old, None):
        assert "nothing" in codes(calibrate(folded, labels, SPLIT, old_head), "stop")


def test_few_classes_few_images_and_missing_classes_are_told():
    logits, labels, _ = draw()
    few = ClassSplit(range(4), range(10, 20))
    assert "few-classes" in codes(calibrate(logits[labels < 4], labels[labels < 4], few), "caution")
    found = calibrate(logits[labels < 9][:40], labels[labels < 9][:40], SPLIT)
    assert {"few-images", "missing"} <= codes(found, "caution")


def test_images_known_by_heart_are_told():
    assert "memorised" in codes(calibrate(*draw(signal=9.0)[:2], SPLIT), "note")
    assert "memorised" not in codes(calibrate(*draw(signal=1.0)[:2], SPLIT))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"labels": np.full(400, 12)}, "not among the seen classes"),
        ({"labels": np.zeros(400)}, "expected integers"),
        ({"labels": np.zeros(7, int)}, "expected integers"),
        ({"labels": np.zeros((400, 20), int)}, "expected integers"),
        ({"logits": np.full((400, 20), np.nan)}, "NaN"),
        ({"logits": np.full((400, 20), np.inf)}, "infinite"),
        ({"logits": np.zeros((400, 20), int)}, "expected floating"),
        ({"logits": np.zeros(400)}, "expected floating"),
        ({"logits": np.zeros((0, 20))}, "not empty"),
        ({"logits": np.zeros((400, 15))}, "only 15 columns"),
        ({"old_head": np.zeros((400, 21))}, "old_head has 21 columns, the logits 20"),
        ({"old_head": np.zeros((399, 20))}, "old_head has 399 rows, the logits 400"),
        ({"old_head": np.full((400, 20), np.nan)}, "old_head hold 8000 NaN"),
        ({"old_head": np.zeros((400, 20), int)}, "old_head are torch.int64"),
        ({"old_head": np.zeros(400)}, "old_head are torch.float64"),
        ({"old_head": [[0.0]]}, "old_head has 1 columns"),
        ({"unlabelled": np.zeros((5, 21))}, "unlabelled has 21 columns, the logits 20"),
        ({"unlabelled": np.zeros((0, 20))}, "unlabelled are .* not empty"),
        ({"unlabelled": np.zeros((5, 3))}, "unlabelled has 3 columns"),
        ({"unlabelled": np.full((5, 20), np.nan)}, "unlabelled hold 100 NaN"),
        ({"split": ClassSplit([0], range(10, 20)), "labels": np.zeros(400, int)}, "only seen class.* absent_share"),
        ({"split": None}, "expected ClassSplit"),
        ({"logits": np.zeros((400, 20), complex)}, "expected floating"),
        ({"logits": "logits.npz"}, "expected floating"),
        ({"labels": np.zeros(400, bool)}, "expected integers"),
        ({"labels": np.full(400, -1)}, "not among the seen"),
        ({"prefer": {"weight": np.inf}}, "finite number above 0"),
        ({"prefer": {"share": np.nan}}, "between 0 and 1"),
        ({"prefer": {"min_sy": 0}}, "between 0 and 1"),
        ({"prefer": {"min_yy": 0.5}}, "unknown preference 'min_yy'"),
        ({"prefer": {"min_sy": 1.5}}, "between 0 and 1"),
        ({"prefer": {"min_sy": "0.5"}}, "between 0 and 1"),
        ({"prefer": {"share": 0.0}}, "between 0 and 1"),
        ({"prefer": {"share": "some"}}, "between 0 and 1"),
        ({"prefer": {"weight": -1.0}}, "above 0"),
        ({"prefer": {"share": "unlabelled"}}, "needs the logits of unlabelled"),
        ({"prefer": {"min_uy": 0.5}, "old_head": None}, "needs old_head"),
        ({"prefer": {"share": 0.5}, "old_head": None}, "needs old_head"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_with_what_is_wrong(change, says):
    logits, labels, old = draw()
    given = {"logits": logits, "labels": labels, "split": SPLIT, "old_head": old} | change
    with pytest.raises(TypeError if given["split"] is None else ValueError, match=says):
        calibrate(**given)


# ---------------------------------------------------------------------------------------------- collecting


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=6).eval()


class Answer(nn.Module):
    """As transformers' classifiers answer."""

    def __init__(self, model):
        super().__init__()
        self.backbone, self.classifier = model, nn.Linear(6, 6)

    def forward(self, pixel_values):
        return SimpleNamespace(logits=self.classifier(self.backbone(pixel_values)))


def test_batches_of_tensors_pairs_and_mappings_are_collected(model):
    images, labels = torch.randn(5, 3, 32, 32), torch.arange(5)
    with torch.no_grad():
        whole = model(images)
    features, logits, none = collect(model, images.split(2))
    assert none is None and torch.allclose(logits, whole, atol=1e-5) and len(features) == 5
    pairs = zip(images.split(2), labels.split(2), strict=True)
    assert torch.equal(collect(model, pairs)[2], labels)
    mappings = [{"pixel_values": images, "labels": labels}]
    _, logits, found = collect(Answer(model).eval(), mappings, "cpu")
    assert torch.equal(found, labels) and logits.shape == (5, 6) and not logits.requires_grad


def test_a_model_in_training_mode_or_without_images_is_refused(model):
    with pytest.raises(ValueError, match=r"call model\.eval\(\)"):
        collect(timm.create_model("test_resnet", num_classes=6), [torch.randn(1, 3, 32, 32)])
    with pytest.raises(ValueError, match="no batch"):
        collect(model, [])


def test_images_that_were_not_normalised_are_noticed(model):
    images = torch.rand(4, 3, 32, 32)
    for bad in (images, 255 * images):
        with pytest.warns(UserWarning, match=r"normalise them as in training, by mean \("):
            collect(model, [bad])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        collect(model, [images - 0.5, images])


def test_a_folder_is_read_as_timm_prepares_images(model, tmp_path):
    for label, name in enumerate(("ant", "bee")):
        (tmp_path / name).mkdir()
        Image.fromarray(np.full((40, 40, 3), 90 * label, np.uint8)).save(tmp_path / name / "0.png")
    _, logits, labels = collect(model, tmp_path)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    images = torch.stack([transform(Image.open(tmp_path / name / "0.png")) for name in ("ant", "bee")])
    with torch.no_grad():
        assert torch.allclose(logits, model(images), atol=1e-4) and labels.tolist() == [0, 1]
    with pytest.raises(FileNotFoundError, match="no folder"):
        collect(model, tmp_path / "none")


# ---------------------------------------------------------------------------------------------- vectors for others


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_a_vector_holds(path):
    v = json.loads(path.read_text(encoding="utf-8"))
    split, logits, labels = ClassSplit(v["seen"], v["absent"]), np.array(v["logits"], float), np.array(v["labels"])
    for name in {"average_logit_gap", "competitor_gap", "rival_share"} & v["expected"].keys():
        assert getattr(calibration, name)(logits, labels, split) == pytest.approx(v["expected"][name]), name
    if "old_head" in v:
        gamma = calibration.mirrored(logits, labels, split, np.array(v["old_head"], float))
        assert gamma == pytest.approx(v["expected"]["mirrored"])
    if "folds" in v:
        folds = [
            (
                np.array(f["before"], float),
                np.array(f["after"], float),
                np.array(f["labels"]),
                ClassSplit(f["seen"], f["absent"]),
            )
            for f in v["folds"]
        ]
        found = calibration.pseudo_cross_validation(folds, split)
        assert found.gamma == pytest.approx(v["expected"]["pcv"])
    if "test_logits" in v:
        test, truth = np.array(v["test_logits"], float), np.array(v["test_labels"])
        curve = seen_unseen_curve(test, truth, split)
        assert curve.ausuc == pytest.approx(v["expected"]["ausuc"])
        assert curve.best_gamma() == pytest.approx(v["expected"]["best_gamma"])
        for gamma, expected in v["expected"]["accuracies"].items():
            has = split_accuracies(test, truth, split, float(gamma))
            assert {name: getattr(has, name) for name in expected} == pytest.approx(expected), gamma


def test_the_vectors_cover_every_quantity_that_they_document():
    keys = {key for path in VECTORS for key in json.loads(path.read_text(encoding="utf-8"))["expected"]}
    document = (VECTORS[0].parent / "README.md").read_text(encoding="utf-8")
    expected = "average_logit_gap competitor_gap rival_share mirrored pcv best_gamma ausuc accuracies"
    assert keys == set(expected.split()) and all(f"`{key}`" in document for key in keys)
