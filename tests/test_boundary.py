"""ftlib.book.boundary by hand and against loops."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from ftlib.book.boundary import (
    Rule,
    ceilings,
    cka,
    class_biases,
    extremes,
    gains,
    informed,
    learn,
    levels,
    recommended_gamma,
    signs,
    word,
)
from ftlib.book.estimates import Estimate
from ftlib.calibration import mirrored
from ftlib.core import ClassSplit, Outputs
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
    there = signs(run, before, identity())
    for of in (run, before):
        absent = of.test.labels >= 2
        of.test.features[absent], of.test.logits[absent] = 7.0, -3.0
    assert signs(run, before, identity()) == there


def test_signs_by_hand():
    run, before = FakeRun(0), FakeRun(1)
    found = signs(run, before, identity())
    x, y = run.test.features[run.test.labels < 2], run.test.labels[run.test.labels < 2]
    assert found["old head"] == pytest.approx(float((x[:, :2].argmax(1) == y).float().mean()))
    assert found["accuracy"] == pytest.approx(split_accuracies(before.test.logits, before.test.labels, SPLIT).ss)
    assert found["old head, change"] == pytest.approx(found["old head"] - found["accuracy"])
    assert (found["seen share"], found["images"]) == (0.5, 40)


def test_cka_is_one_for_a_turned_copy_and_small_for_noise():
    x = torch.randn(500, 5, generator=torch.Generator().manual_seed(0))
    turn = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(1)))[0]
    assert cka(x, 3 * x @ turn + 1) == pytest.approx(1)
    assert cka(x, torch.randn(500, 5, generator=torch.Generator().manual_seed(2))) < 0.05


def test_the_rule_is_the_best_of_all_signs_sides_and_thresholds():
    table = runs({"x": rng.normal(size=40), "y": rng.normal(size=40)}, seeds=range(20))
    lost = (table.y + rng.normal(size=40)) < 0
    rule = learn(table, lost)

    def difference(rule):
        return rule.warns(table)[lost].mean() - rule.warns(table)[~lost].mean()

    every = [Rule(n, below, t + 1e-9) for n in table for below in (True, False) for t in table[n]]
    assert difference(rule) == pytest.approx(max(map(difference, every)))


def test_a_threshold_lies_in_the_widest_of_equally_good_gaps():
    table = runs({"x": [1.0, 2.0, 5.0, 6.0]})
    assert learn(table, pd.Series([True, True, False, False], table.index)) == Rule("x", True, 3.5)
    assert Rule("x", True, 3.5).written == "below 3.5"


def test_effects_of_a_rule_have_its_difference_of_rates_as_their_mean():
    table = runs({"x": rng.normal(size=40)}, seeds=range(10), setups="abcd")
    warned, lost = table.x > 0.3, pd.Series(rng.random(40) < 0.4, table.index)
    effects = informed(warned, lost)
    assert list(effects) == [f"seed {i}" for i in range(10)]
    assert np.mean(list(effects.values())) == pytest.approx(100 * (warned[lost].mean() - warned[~lost].mean()))


@pytest.mark.parametrize("value", [True, False])
def test_without_both_kinds_there_is_nothing_to_learn_or_judge(value):
    table = runs({"x": [1.0, 2.0, 5.0, 6.0]})
    lost = pd.Series(value, table.index)
    with pytest.raises(ValueError, match="a rule needs setups of both kinds"):
        learn(table, lost)
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
