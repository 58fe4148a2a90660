"""ftlib.book.boundary by hand and against loops."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from ftlib.book.boundary import (
    SIGNS,
    Rule,
    ceilings,
    cka,
    class_biases,
    difference,
    extremes,
    gains,
    in_a_mix,
    informed,
    levels,
    misfit,
    mix,
    recommended_gamma,
    recorded_rules,
    rules,
    signs,
    word,
)
from ftlib.book.estimates import Estimate
from ftlib.calibration import mirrored
from ftlib.core import ClassSplit, Outputs
from ftlib.margins import mirrored_margins
from ftlib.metrics import seen_unseen_curve, split_accuracies

SPLIT = ClassSplit([0, 1], [2, 3])
rng = np.random.default_rng(0)


class FakeRun:
    """What the measures read of a Run."""

    def __init__(self, seed: int, images: int = 80, strength: float = 2.0) -> None:
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(images) % 4
        features = torch.randn(images, 4, generator=generator) + strength * nn.functional.one_hot(labels, 4)
        self.test = self.train = Outputs(features, features @ torch.eye(4), labels)
        self.split = SPLIT
        seen = labels < 2
        self.seen_train = Outputs(*(part[seen] for part in self.train))


def identity() -> nn.Linear:
    head = nn.Linear(4, 4, bias=False)
    nn.init.eye_(head.weight)
    return head


def runs(columns, seeds=(0, 1), setups=("a", "b")):
    keys = list(product(setups, ["p"], seeds))
    index = pd.MultiIndex.from_tuples(keys, names=["setup", "pair", "seed"])
    return pd.DataFrame(columns, index)


def test_a_gain_is_that_of_the_calibrated_model_over_a_reference_as_it_is():
    run, before, head = FakeRun(0), FakeRun(1, strength=0.5), identity()
    gamma = recommended_gamma(run.seen_train, SPLIT, head)
    assert gamma == mirrored(run.seen_train.logits, run.seen_train.labels, SPLIT, run.seen_train.features)
    gained = gains(run, {"before": before}, head)
    now, then = (split_accuracies(r.test.logits, r.test.labels, SPLIT, g) for r, g in ((run, gamma), (before, 0.0)))
    assert gained["yy", "before"] == pytest.approx(100 * (now.yy - then.yy))
    assert gained["uy", "before"] == pytest.approx(100 * (now.uy - then.uy))
    areas = [seen_unseen_curve(r.test.logits, r.test.labels, SPLIT).ausuc for r in (run, before)]
    assert gained["area", "before"] == pytest.approx(100 * (areas[0] - areas[1]))
    assert set(gains(run, {"itself": run}, head)) == {(m, "itself") for m in ("ncm", "area", "yy", "uy")}


def test_signs_look_at_no_image_of_an_absent_class():
    run, before = FakeRun(0), FakeRun(1)
    there = signs(run, {"pre-trained": before}, identity())
    assert set(there) == set(SIGNS)
    for of in (run, before):
        absent = of.test.labels >= 2
        of.test.features[absent], of.test.logits[absent] = 7.0, -3.0
    assert signs(run, {"pre-trained": before}, identity()) == there


def test_signs_by_hand():
    run, before, better = FakeRun(0), FakeRun(1, strength=0.5), FakeRun(2, strength=1.0)
    found = signs(run, {"pre-trained": before, "AdaBN": better}, identity())
    x, y = run.test.features[run.test.labels < 2], run.test.labels[run.test.labels < 2]
    assert found["old head"] == pytest.approx(float((x[:, :2].argmax(1) == y).float().mean()))
    own, best = (split_accuracies(of.test.logits, of.test.labels, SPLIT).ss for of in (before, better))
    assert best > own == pytest.approx(found["accuracy"])
    assert found["old head, gain"] == pytest.approx(found["old head"] - own)
    assert found["old head, errors mended"] == pytest.approx((found["old head"] - best) / (1 - best))
    assert (found["seen share"], found["images a class"]) == (0.5, 20)


def test_cka_is_one_for_a_turned_copy_and_small_for_noise():
    x = torch.randn(500, 5, generator=torch.Generator().manual_seed(0))
    turn = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(1)))[0]
    assert cka(x, 3 * x @ turn + 1) == pytest.approx(1)
    assert cka(x, torch.randn(500, 5, generator=torch.Generator().manual_seed(2))) < 0.05


def test_a_threshold_is_the_best_of_all_on_the_sign_s_side():
    table = runs({"old head": rng.normal(size=40)}, seeds=range(20))
    lost = (table["old head"] + rng.normal(size=40)) < 0
    rule = rules(table, lost)["old head"]
    every = [Rule("old head", True, t + 1e-9) for t in table["old head"]]
    assert difference(rule, table, lost) == pytest.approx(max(difference(of, table, lost) for of in every))


def test_a_threshold_lies_in_the_widest_of_equally_good_gaps():
    table = runs({"CKA": [1.0, 2.0, 5.0, 6.0]})
    assert rules(table, pd.Series([True, True, False, False], table.index)) == {"CKA": Rule("CKA", True, 3.5)}
    assert Rule("CKA", True, 3.5).written == "below 3.5"


def test_a_sign_never_warns_on_the_side_that_has_no_reason():
    table = runs({"CKA": [1.0, 2.0, 5.0, 6.0]})
    rule = rules(table, pd.Series([False, False, True, True], table.index))["CKA"]  # all losses where it is large
    assert rule.below and difference(rule, table, pd.Series([False, False, True, True], table.index)) <= 0


def test_the_sign_that_carries_from_pair_to_pair_comes_before_one_that_is_better_within_each():
    keys = [(f"s{i}", pair, 0) for pair in ("p", "q") for i in range(4)]
    index = pd.MultiIndex.from_tuples(keys, names=["setup", "pair", "seed"])
    lost = pd.Series([True, True, False, False] * 2, index)
    within = [1.0, 2, 3, 4, 11, 12, 13, 14]  # tells all apart on each pair, at a threshold of its own
    carried = [1.0, 2, 3, 1.5, 1.0, 2, 3, 4]
    assert list(rules(pd.DataFrame({"CKA": within, "old head": carried}, index), lost)) == ["old head", "CKA"]


def test_recorded_rules_are_those_of_the_other_profile_s_file():
    rule = Rule("CKA", True, 0.5)
    assert recorded_rules({"cpu": {"rules": [rule._asdict()]}}, "cpu") == {"CKA": rule}
    with pytest.raises(ValueError, match="'cpu' has recorded no rules here: execute this chapter under it first"):
        recorded_rules({"cpu": {}}, "cpu")


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_a_mix_has_its_share_of_absent_images_and_as_many_as_there_are(share):
    mixed = mix(FakeRun(0, images=80).test, SPLIT, share)
    assert float((mixed.labels >= 2).float().mean()) == pytest.approx(share, abs=0.02)
    assert len(mixed.labels) >= 40


def test_in_a_mix_accuracies_are_those_of_images_mixed_so():
    run, head = FakeRun(0, images=400), identity()
    found = in_a_mix(run, head, 0.25)
    curve = seen_unseen_curve(run.test.logits, run.test.labels, SPLIT)
    assert found["no γ"] == pytest.approx(100 * (0.75 * curve.at(0.0).sy + 0.25 * curve.at(0.0).uy))
    assert max(found.values()) == found["γ*"]
    told = mirrored(run.seen_train.logits, run.seen_train.labels, SPLIT, head(run.seen_train.features), share=0.25)
    assert found["mirrored, told"] == pytest.approx(100 * (0.75 * curve.at(told).sy + 0.25 * curve.at(told).uy))


def test_effects_of_a_rule_have_its_difference_of_rates_as_their_mean():
    table = runs({"x": rng.normal(size=40)}, seeds=range(10), setups="abcd")
    warned, lost = table.x > 0.3, pd.Series(rng.random(40) < 0.4, table.index)
    effects = informed(warned, lost)
    assert list(effects) == [f"seed {i}" for i in range(10)]
    assert np.mean(list(effects.values())) == pytest.approx(100 * (warned[lost].mean() - warned[~lost].mean()))


@pytest.mark.parametrize("value", [True, False])
def test_without_both_kinds_there_is_nothing_to_learn_or_judge(value):
    table = runs({"CKA": [1.0, 2.0, 5.0, 6.0]})
    lost = pd.Series(value, table.index)
    with pytest.raises(ValueError, match="a rule needs setups of both kinds"):
        rules(table, lost)
    with pytest.raises(ValueError, match=f"{4 * value} of 4 runs lost"):
        informed(lost, lost)


def test_the_extremes_of_a_seed_are_chosen_by_the_others():
    table = runs({"gain": [-1.0, -2.0, 9.0, 3.0, 4.0, -7.0]}, seeds=range(3))  # a loses on seeds 0, 1; b on seed 2
    # seed 0: the others' means are a 3.5, b −1.5, so the loss is −3 and the gain −1; seed 2: a is worst, b best.
    assert extremes(table.gain) == {"seed 0": -3.0, "seed 1": -4.0, "seed 2": -9.0}


@pytest.mark.parametrize(("ends", "said"), [((0.1, 2), "gains"), ((-2, -0.1), "loses"), ((-1, 1), "cannot tell")])
def test_the_word_for_a_gain_is_that_of_its_interval(ends, said):
    assert word(Estimate(sum(ends) / 2, *ends, n=3)) == said


def test_levels_are_mean_absent_logits_around_their_own_mean():
    assert levels(np.array([[9.0, 1, 2, 4], [7, 3, 0, 4]]), SPLIT).tolist() == [0, 0, -1.5, 1.5]


def test_biases_undo_shifts_of_classes():
    labels = np.arange(4000) % 4
    logits = 3 * np.eye(4)[labels] + rng.gumbel(size=(4000, 4))
    shift = np.array([0.0, 1.0, 6.0, -4.0])
    bias = class_biases(logits - shift, labels, SPLIT)
    np.testing.assert_allclose(bias - bias[0], shift, atol=0.4)


def test_what_the_other_half_chooses_is_no_better_than_the_half_itself_and_what_is_given_is_judged_as_it_is():
    test = FakeRun(0, images=400).test
    test.logits[:, 2:] -= 4
    found = ceilings(test, SPLIT, [0.5, 1.0, 2.0], {"as it is": test.logits})
    assert found["as it is"] == pytest.approx(100 * split_accuracies(test.logits, test.labels, SPLIT).yy)
    for name in ("γ", "scale + γ", "bias a class"):
        assert found["as it is"] + 10 < found[name] <= 100


@pytest.mark.parametrize("lag", [0.0, 3.0])
def test_the_regret_of_mirroring_is_below_its_bound_and_both_sides_are_measured(lag):
    run = FakeRun(0, images=400)
    run.test = run.test._replace(
        logits=run.test.logits - lag * (torch.arange(4) >= 2) * (run.test.labels >= 2)[:, None]
    )
    found = misfit(run, identity())
    assert found["seen side"] == pytest.approx(0, abs=1e-9)  # train is test
    assert 0 <= found["regret"] <= found["bound"]
    gammas = np.linspace(-8, 12, 400)
    curve = seen_unseen_curve(run.test.logits, run.test.labels, SPLIT)
    m = mirrored_margins(run.seen_train.logits, run.seen_train.labels, SPLIT, run.seen_train.features)
    far = [abs(curve.at(g).uy - np.mean(m.absent_hit & (m.absent < g))) for g in gammas]
    assert found["absent side"] == pytest.approx(100 * max(far), abs=2)
