"""ftlib.calibration against loops over samples, cases worked by hand, and inputs that must be refused."""

from __future__ import annotations

import ftlib  # isort: skip  # before timm, which needs it where torchvision's operators are missing

import copy
import math
import pickle
from itertools import combinations, pairwise

import numpy as np
import pytest
import timm
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from ftlib.calibration import (
    Gamma,
    absent_share,
    apply,
    average_logit_gap,
    competitor_gap,
    fold_gamma,
    margin_quantile,
    mirrored,
    oracle_gamma,
    prior_gamma,
    pseudo_cross_validation,
    rival_share,
)
from ftlib.core import ClassSplit
from ftlib.margins import mirrored_margins
from ftlib.metrics import seen_unseen_curve, split_accuracies

assert ftlib.__version__
SPLIT = ClassSplit([0, 2, 4], [1, 5])  # class 3 is outside Y
# Two images, of classes 0 and 2. By hand: strongest wrong seen 3 and 9, strongest absent 5 and 3.
LOGITS = np.array([[9.0, 1, 3, 99, -1, 5], [1, 0, 7, 99, 9, 3]])
LABELS = np.array([0, 2])


def draw(seed: int, n: int, classes=SPLIT.seen):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 6)), rng.choice(classes, n), rng.normal(size=(n, 6))


def rivals(row, label):
    return max(row[c] for c in SPLIT.seen if c != label), max(row[c] for c in SPLIT.absent)


# ---------------------------------------------------------------------------------------- by hand and against loops


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.sampled_from([np.float32, np.float64]))
def test_alg_equals_a_double_loop(seed, n, dtype):
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(size=(n, 6)).astype(dtype), rng.choice(SPLIT.seen, n)
    gaps = []
    for row, y in zip(logits.astype(float), labels, strict=True):
        others = [row[c] for c in SPLIT.seen if c != y]
        gaps.append(sum(others) / len(others) - sum(row[c] for c in SPLIT.absent) / len(SPLIT.absent))
    expected = sum(gaps) / n
    assert average_logit_gap(logits, labels, SPLIT) == pytest.approx(expected, abs=1e-6)
    assert average_logit_gap(torch.from_numpy(logits), torch.from_numpy(labels), SPLIT) == pytest.approx(
        expected, abs=1e-6
    )


def test_alg_by_hand():
    logits = np.array([[9.0, 1, 3, 99, 5, 3], [1, 0, 9, 99, 3, 0]])  # gaps 4 − 2 and 2 − 0
    assert average_logit_gap(logits, np.array([0, 2]), SPLIT) == 2.0


def test_alg_ignores_masked_columns():
    logits = np.where(np.arange(6) == 3, -np.inf, np.arange(12.0).reshape(2, 6))
    assert math.isfinite(average_logit_gap(logits, np.array([0, 2]), SPLIT))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(2, 6), st.integers(1, 6))
def test_the_competitor_gap_equals_a_loop_over_all_draws_of_equally_many_rivals(seed, n, s, u):
    rng = np.random.default_rng(seed)
    order = rng.permutation(s + u + 1)
    split, k = ClassSplit(order[:s], order[s : s + u]), min(s - 1, u)
    logits, labels, before = rng.normal(size=(n, s + u + 1)), rng.choice(split.seen, n), rng.normal(size=(n, s + u + 1))

    def gap(of, soft=False):
        total = 0.0
        for row, y in zip(of, labels, strict=True):
            for sign, side in ((1, [row[c] for c in split.seen if c != y]), (-1, [row[c] for c in split.absent])):
                hard = np.mean([max(draw) for draw in combinations(side, k)])
                total += sign * (math.log(np.mean(np.exp(side))) if soft else hard)
        return total / n

    assert competitor_gap(logits, labels, split) == pytest.approx(gap(logits))
    assert competitor_gap(logits, labels, split, soft=True) == pytest.approx(gap(logits, soft=True))
    assert competitor_gap(logits, labels, split, before=before) == pytest.approx(gap(logits) - gap(before))


@pytest.mark.parametrize("absent", [1, 3, 30])
def test_without_a_gap_the_competitor_gap_is_zero_however_many_classes_are_absent(absent):
    """Rivals that are alike on both sides: what is compared must not depend on how many there are."""
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(4000, 10 + absent)), rng.integers(0, 10, 4000)
    assert competitor_gap(logits, labels, ClassSplit(range(10), range(10, 10 + absent))) == pytest.approx(0, abs=0.06)


def test_the_competitor_gap_by_hand():
    assert competitor_gap(LOGITS, LABELS, SPLIT) == ((3 - 5) + (9 - 3)) / 2


def test_with_the_rival_share_absent_classes_are_the_strongest_rivals_as_often_as_chance_has_it():
    logits, labels, _ = draw(0, 4001)
    logits[:, list(SPLIT.absent)] -= 3
    gamma = rival_share(logits, labels, SPLIT)
    absent_first = np.mean([seen < absent + gamma for seen, absent in map(rivals, logits, labels)])
    assert absent_first == pytest.approx(2 / (2 + 2), abs=1e-3)  # two other seen classes, two absent ones


@pytest.mark.parametrize("loss", [0.05, 0.3])
def test_the_margin_quantile_gives_up_the_share_that_was_asked_for(loss):
    logits, labels, _ = draw(1, 1001)
    gamma = margin_quantile(logits, labels, SPLIT, loss)
    best_seen = logits[:, list(SPLIT.seen)].max(1)
    assert np.mean(best_seen - logits[:, list(SPLIT.absent)].max(1) < gamma) == pytest.approx(loss, abs=2e-3)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.booleans(), st.sampled_from([None, 0.1, 0.8]), st.booleans())
def test_mirrored_is_within_a_standard_error_of_the_best_of_all_thresholds(seed, n, rounded, share, balanced):
    logits, labels, old_head = draw(seed, n)
    if rounded:  # many equal margins
        logits, old_head = logits.round(), old_head.round()
    m = mirrored_margins(logits, labels, SPLIT, old_head)
    weight = np.array([1 / np.count_nonzero(labels == y) if balanced else 1.0 for y in labels])
    weight /= weight.sum()
    q = 2 / 5 if share is None else share

    def accuracy(gamma):
        seen = weight[m.seen_hit & (gamma <= m.seen)].sum()
        absent = weight[m.absent_hit & (gamma > m.absent)].sum()
        return (1 - q) * seen + q * absent

    ends = np.concatenate([m.seen, m.absent])
    best = max(accuracy(g) for g in np.concatenate([ends, ends + 1e-9, ends - 1, [0.0]]))
    error = math.sqrt(best * (1 - best) * (weight**2).sum() / 2)
    assert accuracy(mirrored(logits, labels, SPLIT, old_head, share, balanced)) >= best - error - 1e-9


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 10), st.booleans())
def test_on_balanced_classes_mirrored_counts_images(seed, n, rounded):
    """Right images, seen ones times |S| and mirrored ones times |U|, counted as integers."""
    logits, _, old_head = draw(seed, 3 * n)
    labels = np.repeat(SPLIT.seen, n)
    if rounded:
        logits, old_head = logits.round(), old_head.round()
    m = mirrored_margins(logits, labels, SPLIT, old_head)
    falls, rises = m.seen[m.seen_hit], m.absent[m.absent_hit]
    assume(len(falls) + len(rises) > 0)
    edges = np.unique(np.concatenate([falls, rises]))
    ends = [edges[0] - 1, *edges, edges[-1] + 1]
    pieces = [(low + high) / 2 for low, high in pairwise(ends)]
    right = [3 * np.count_nonzero(falls >= g) + 2 * np.count_nonzero(rises < g) for g in pieces]
    best, most = right.index(max(right)), max(right) / (15 * n)
    least = most - math.sqrt(most * (1 - most) / (6 * n))
    first = last = best
    while first > 0 and right[first - 1] / (15 * n) >= least:
        first -= 1
    while last < len(pieces) - 1 and right[last + 1] / (15 * n) >= least:
        last += 1
    assert mirrored(logits, labels, SPLIT, old_head) == pytest.approx((ends[first] + ends[last + 1]) / 2, abs=1e-12)


def test_the_more_absent_images_are_expected_the_larger_is_the_mirrored_gamma():
    logits, labels, old_head = draw(7, 400)
    gammas = [mirrored(logits, labels, SPLIT, old_head, share) for share in (0.02, 0.2, 0.4, 0.7, 0.98)]
    assert gammas == sorted(gammas) and gammas[0] < gammas[-1] - 1
    assert gammas[2] == mirrored(logits, labels, SPLIT, old_head)  # |U| / |Y|


def test_mirrored_is_zero_where_no_class_ever_leads_its_side():
    assert mirrored(np.zeros((2, 6)), LABELS, SPLIT, np.zeros((2, 6))) == 0


def test_the_absent_share_is_predicted_absent():
    logits = draw(2, 2000)[0]
    for share in (None, 0.1):
        gamma = absent_share(logits, SPLIT, share)
        called = apply(logits, gamma, SPLIT.absent)[:, SPLIT.classes].argmax(1)
        assert np.isin(np.array(SPLIT.classes)[called], SPLIT.absent).mean() == pytest.approx(share or 2 / 5, abs=1e-3)
        assert gamma == pytest.approx(absent_share(torch.from_numpy(logits), SPLIT, share))


def test_another_mix_than_the_expected_one_misleads_the_absent_share():
    """Perfect but for an offset of 5: right if the mix is |U| / |Y|, and wrong if no image is of an absent class."""
    labels = np.arange(500) % 6
    labels = labels[labels != 3]
    logits = np.random.default_rng(0).normal(size=(len(labels), 6)) + 20 * np.eye(6)[labels]
    logits[:, list(SPLIT.absent)] -= 5
    as_expected, seen_only = absent_share(logits, SPLIT), absent_share(logits[np.isin(labels, SPLIT.seen)], SPLIT)
    assert split_accuracies(logits, labels, SPLIT, as_expected).yy > 0.99
    assert split_accuracies(logits, labels, SPLIT, seen_only).sy < 0.65


def test_the_prior_gamma_counts_images_and_is_blind_to_logits():
    assert prior_gamma(np.repeat([0, 2, 4], 9), SPLIT) == math.log(10)
    with pytest.raises(ValueError, match=r"labels \[1\].*absent-class data would leak"):
        prior_gamma(np.array([0, 1]), SPLIT)


def test_mirrored_takes_the_middle_of_a_flat_top():
    """Two seen margins of 4, one mirror margin of −3: every γ between them is right on all three."""
    old_head = np.array([[4.0, 0, 3, 0, 1, 0], [2, 0, 5, 0, 8, 0]])
    logits = LOGITS.copy()
    logits[1, 4] = 5.0  # now the second image, too, leads its side: its margin is 7 − 3
    m = mirrored_margins(logits, LABELS, SPLIT, old_head)
    assert sorted(m.seen[m.seen_hit]) == [4, 4] and m.absent[m.absent_hit].tolist() == [-3]
    assert mirrored(logits, LABELS, SPLIT, old_head) == 0.5


def test_mirrored_finds_the_threshold_of_a_model_whose_absent_logits_were_lowered():
    """Seen and absent images that differ in nothing but an offset: the offset is the answer, and is found."""
    rng = np.random.default_rng(0)
    split = ClassSplit(range(10), range(10, 20))
    labels = rng.integers(0, 20, 4000)
    scores = rng.normal(size=(4000, 20)) + 4.0 * np.eye(20)[labels]
    lowered = apply(scores, -5.0, split.absent)
    seen = labels < 10
    gamma = mirrored(lowered[seen], labels[seen], split, scores[seen])
    best = split_accuracies(lowered, labels, split, oracle_gamma(lowered, labels, split)).yy
    assert split_accuracies(lowered, labels, split, gamma).yy > best - 0.005
    assert split_accuracies(lowered, labels, split).yy < best - 0.2


def test_torch_and_numpy_agree():
    logits, labels, other = draw(3, 50)
    tensors = [torch.from_numpy(a) for a in (logits, labels, other)]
    for estimator in (average_logit_gap, competitor_gap, rival_share, margin_quantile):
        assert estimator(*tensors[:2], SPLIT) == pytest.approx(estimator(logits, labels, SPLIT))
    assert mirrored(*tensors[:2], SPLIT, tensors[2]) == pytest.approx(mirrored(logits, labels, SPLIT, other))


# ---------------------------------------------------------------------------------------- PCV

S = ClassSplit([0, 1, 2, 3], [4, 5])
PSEUDO = ClassSplit([0, 1], [2, 3])


def fold(after_absent: float, before_right: bool = True):
    """Four held-out images, one a class; fine-tuned they are right but for an offset of the pseudo-absent logits."""
    labels = np.arange(4)
    before = np.zeros((4, 6))
    before[labels, labels if before_right else labels[::-1]] = 1.0
    after = np.zeros((4, 6))
    after[labels, labels] = 4.0
    return before, apply(after, after_absent, PSEUDO.absent), labels, PSEUDO


def test_pcv_undoes_the_offset_of_each_fold_and_averages():
    result = pseudo_cross_validation([fold(-6.0), fold(-8.0)], S)
    # Right on all four: pseudo-absent images need γ > offset − 4, pseudo-seen ones γ <= offset + 4.
    assert result.gammas == (6.0, 8.0) and result.gamma == 7.0


def test_pcv_leaves_out_a_fold_without_a_feasible_gamma():
    hopeless = fold(-6.0)
    hopeless[1][2:] = np.array([[9.0, 0, 0, 1, 0, 0]] * 2)  # an absent image that no γ can bring to class 2
    result = pseudo_cross_validation([hopeless, fold(-8.0)], S)
    assert math.isnan(result.gammas[0]) and result.gamma == 8.0
    with pytest.raises(ValueError, match="none of 1 pseudo-splits has a γ that keeps"):
        pseudo_cross_validation([hopeless], S)


def test_pcv_asks_for_the_pretrained_accuracy_on_pseudo_absent_images():
    """Nearly all images are pseudo-seen: best overall is to give the others up, which the constraint forbids."""
    labels = np.array([0] * 20 + [2])
    after = np.zeros((21, 6))
    after[:20, 0], after[20, 2], after[:20, 2] = 5.0, 5.0, 4.5
    after[20, 0] = 6.0
    right, wrong = np.eye(6)[labels], np.eye(6)[np.zeros(21, int)]
    kept = pseudo_cross_validation([(right, after, labels, PSEUDO)], S).gamma
    free = pseudo_cross_validation([(wrong, after, labels, PSEUDO)], S).gamma
    assert split_accuracies(after, labels, PSEUDO, float(kept)).uy == 1.0
    assert split_accuracies(after, labels, PSEUDO, float(free)).uy == 0.0


def test_pcv_refuses_what_is_no_pseudo_split_and_a_head_that_lacks_a_class():
    before, after, labels, _ = fold(-6.0)
    with pytest.raises(ValueError, match=r"fold 0 divides \[0, 1, 2, 3, 4\], not the seen classes \[0, 1, 2, 3\]"):
        pseudo_cross_validation([(before, after, labels, ClassSplit([0, 1], [2, 3, 4]))], S)
    with pytest.raises(ValueError, match="the split names class 3, but the logits have only 3 columns"):
        pseudo_cross_validation([(before[:, :3], after, labels, PSEUDO)], S)


# ---------------------------------------------------------------------------------------- what must be refused


def test_two_models_must_have_seen_the_same_images_with_the_same_head():
    with pytest.raises(ValueError, match="3 rows of one model, 2 of the other"):
        mirrored(LOGITS, LABELS, SPLIT, np.zeros((3, 6)))
    with pytest.raises(ValueError, match="the split names class 5, but the logits have only 4 columns"):
        competitor_gap(LOGITS, LABELS, SPLIT, before=np.zeros((2, 4)))
    with pytest.raises(ValueError, match=r"loss=1.5: expected a share"):
        margin_quantile(LOGITS, LABELS, SPLIT, loss=1.5)
    with pytest.raises(ValueError, match=r"share=1: expected a share of the images, between 0 and 1"):
        absent_share(LOGITS, SPLIT, share=1)
    with pytest.raises(ValueError, match="hold 1 infinite values"):
        absent_share(np.array([[np.inf, 0, 0, -np.inf, 0, 0]]), SPLIT)


OTHER = ClassSplit([0, 1, 4], [2, 5])


@pytest.mark.parametrize(
    "use",
    [
        lambda gamma: split_accuracies(LOGITS, LABELS, OTHER, gamma),
        lambda gamma: apply(LOGITS, gamma, OTHER.absent),
        lambda gamma: fold_gamma(nn.Linear(3, 6), gamma, OTHER.absent),
    ],
)
def test_a_gamma_is_refused_on_another_split(use):
    with pytest.raises(ValueError, match=r"found for another split, whose absent classes differ in \[1, 2\]"):
        use(competitor_gap(LOGITS, LABELS, SPLIT))
    use(2.0)  # a plain number is the user's own responsibility


def test_a_gamma_is_a_float_that_survives_copies():
    gamma = Gamma(1.5, SPLIT)
    for twin in (copy.deepcopy(gamma), pickle.loads(pickle.dumps(gamma))):
        assert twin == 1.5 and twin.split == SPLIT and isinstance(twin, float)


# ---------------------------------------------------------------------------------------- putting γ to use


def test_oracle_is_at_least_as_good_as_any_gamma():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(200, 6)), rng.choice(SPLIT.classes, 200)
    best = split_accuracies(logits, labels, SPLIT, oracle_gamma(logits, labels, SPLIT)).yy
    assert best >= max(split_accuracies(logits, labels, SPLIT, g).yy for g in np.linspace(-5, 5, 1001))


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_apply_shifts_absent_columns_of_a_copy(kind):
    logits = kind(np.zeros((2, 6), np.float32))
    shifted = apply(logits, 1.5, SPLIT.absent)
    assert type(shifted) is type(logits) and shifted.dtype == logits.dtype and not logits.any()
    np.testing.assert_array_equal(np.asarray(shifted), [[0, 1.5, 0, 0, 0, 1.5]] * 2)


def test_apply_and_gamma_agree_on_predictions():
    rng = np.random.default_rng(4)
    logits, labels = rng.normal(size=(500, 6)), rng.choice(SPLIT.classes, 500)
    for gamma in (-0.7, 0.3, 2.0):
        assert split_accuracies(apply(logits, gamma, SPLIT.absent), labels, SPLIT) == split_accuracies(
            logits, labels, SPLIT, gamma
        )


def with_same_predictions(model, images, head_call=lambda m, x: m(x)):
    with torch.no_grad():
        before = head_call(model, images)
        assert fold_gamma(model, 0.25, SPLIT.absent) is model
        after = head_call(model, images)
    expected = apply(before, 0.25, SPLIT.absent)
    torch.testing.assert_close(after, expected, rtol=0, atol=1e-5)
    assert torch.equal(after.argmax(1), expected.argmax(1))


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
def test_a_folded_timm_model_predicts_as_the_shifted_logits(backbone):
    torch.manual_seed(0)
    size = {"img_size": 32, "patch_size": 4} if backbone == "test_vit" else {}
    model = timm.create_model(backbone, num_classes=6, **size).eval()
    with_same_predictions(model, torch.randn(16, 3, 32, 32))
    assert model.get_classifier().bias.requires_grad


@pytest.mark.parametrize("bias", [True, False])
def test_a_head_itself_is_folded_with_or_without_a_bias(bias):
    torch.manual_seed(0)
    with_same_predictions(nn.Linear(8, 6, bias=bias), torch.randn(16, 8))
    with_same_predictions(nn.Conv2d(8, 6, 1, bias=bias), torch.randn(16, 8, 1, 1), lambda m, x: m(x)[..., 0, 0])


def test_a_folded_model_is_a_plain_checkpoint():
    head = fold_gamma(nn.Linear(8, 6, bias=False), 2.0, SPLIT.absent)
    served = nn.Linear(8, 6)
    served.load_state_dict(head.state_dict())
    assert served.bias.tolist() == [0, 2, 0, 0, 0, 2]


class Cosine(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6, 8))


@pytest.mark.parametrize(
    ("model", "gamma", "absent", "message"),
    [
        (nn.Linear(8, 6), math.inf, [1], "γ is inf: only a finite"),
        (nn.Linear(8, 6), math.nan, [1], "γ is NaN"),
        (nn.Linear(8, 6), 1.0, [1, 6, -1], r"absent classes \[-1, 6\]: expected.*0 to 5"),
        (nn.Linear(8, 6), 1.0, [], r"the absent classes are empty"),
        (nn.Identity(), 1.0, [1], "the head is Identity: expected one linear layer"),
        (Cosine(), 1.0, [1], "the head is Cosine, which has no bias"),
        (nn.Conv2d(8, 6, 3), 1.0, [1], "the head is Conv2d: expected one linear layer or 1×1 Conv2d"),
        (timm.create_model("test_resnet", num_classes=0), 1.0, [1], "the head is Identity"),
    ],
)
def test_what_cannot_be_folded_is_named_and_left_alone(model, gamma, absent, message):
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        fold_gamma(model, gamma, absent)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


# ------------------------------------------------ book/theory.md: mirror images with the law of absent ones

HALVES = ClassSplit(range(4), range(4, 8))


def imagined(n, lead, seed):
    """Logits and labels of n seen and n absent images, which lead by ``lead``, and the old head's of the former."""
    draw = np.random.default_rng(seed)
    rivals, true = draw.normal([2.0, 0.0], 1.0, (2 * n, 2)), draw.normal(3.0, 1.0, n)
    of_absent, of_mirror = draw.normal(lead, 1.0, n), draw.normal(1.5, 1.0, n)
    logits, old, labels = np.full((2 * n, 8), -9.0), np.full((2 * n, 8), -9.0), draw.integers(4, size=2 * n)
    row, absent = np.arange(2 * n), np.arange(2 * n) >= n
    logits[row, (labels + 1) % 4] = rivals[:, 0]
    logits[row, 4 + (labels + 1) % 4] = rivals[:, 1]
    labels = labels + 4 * absent
    logits[row, labels] = np.where(absent, rivals[:, 1], rivals[:, 0]) + np.concatenate([true, of_absent])
    old[row[:n], labels[:n]], old[row[:n], (labels[:n] + 1) % 4] = of_mirror, 0.0
    return logits, labels, old[:n]


def mirroring(n, lead, seed):
    """Margins of n seen images, γ by `mirrored` on them, and the exact curve of 40,000 others."""
    logits, labels, old = imagined(n, lead, seed)
    seen = logits[:n], labels[:n], HALVES, old
    return mirrored_margins(*seen), mirrored(*seen), seen_unseen_curve(*imagined(20_000, lead, seed + 1)[:2], HALVES)


def test_with_mirror_images_of_the_law_of_absent_ones_mirroring_reaches_gamma_star_as_images_become_many():
    regrets = {n: [] for n in (30, 20_000)}
    for n, found in regrets.items():
        for seed in range(0, 10, 2):
            _, gamma, curve = mirroring(n, 1.5, seed)
            found.append(curve.yy.max() - curve.at(gamma).yy)
    assert np.mean(regrets[20_000]) < 0.002 < np.mean(regrets[30])


@pytest.mark.parametrize("lead", [1.5, 0.5, -2.0])
def test_the_regret_of_mirroring_is_within_the_distance_of_the_laws(lead):
    m, gamma, curve = mirroring(2000, lead, 0)
    at = np.sort(np.concatenate([curve.gamma[1:-1], m.seen, m.absent]))[::100]
    on_seen, on_absent = 0.0, 0.0
    for g, point in ((g, curve.at(g)) for g in at):
        on_seen = max(on_seen, abs(point.sy - np.mean(m.seen_hit & (g <= m.seen))))
        on_absent = max(on_absent, abs(point.uy - np.mean(m.absent_hit & (g > m.absent))))
    bound = 2 * (on_seen + on_absent) / 2 + math.sqrt(0.25 / (2 * 2000)) + 0.005  # at each hundredth margin only
    assert 0 <= curve.yy.max() - curve.at(gamma).yy <= bound
