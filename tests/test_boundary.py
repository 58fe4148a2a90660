"""ftlib.book.boundary by hand."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from fakes import SPLIT, FakeRun, identity, runs

from ftlib.book.boundary import by_rank, extremes, gains, over_better, reading, recommended_gamma, served, word
from ftlib.book.estimates import Estimate
from ftlib.calibration import recommended
from ftlib.heads import levels
from ftlib.metrics import seen_unseen_curve, split_accuracies


def test_a_gain_is_that_of_the_calibrated_model_over_a_reference_as_it_is():
    run, before, head = FakeRun(0), FakeRun(1, strength=0.5), identity()
    gamma = recommended_gamma(run.seen_train, SPLIT, head)
    assert gamma == recommended(run.seen_train.logits, run.seen_train.labels, SPLIT, run.seen_train.features)
    gained = gains(run, {"before": before}, head)
    now, then = (split_accuracies(r.test.logits, r.test.labels, SPLIT, g) for r, g in ((run, gamma), (before, 0.0)))
    assert gained["yy", "before"] == pytest.approx(100 * (now.yy - then.yy))
    assert gained["uy", "before"] == pytest.approx(100 * (now.uy - then.uy))
    areas = [seen_unseen_curve(r.test.logits, r.test.labels, SPLIT).ausuc for r in (run, before)]
    assert gained["area", "before"] == pytest.approx(100 * (areas[0] - areas[1]))
    assert set(gains(run, {"itself": run}, head)) == {(m, "itself") for m in ("ncm", "area", "yy", "uy")}


def test_restored_rows_are_those_of_the_old_head_on_the_new_features_with_a_gamma_of_their_own():
    run, head = FakeRun(0), identity()
    head.weight.data *= 2.0
    old, seen = 2 * run.test.features, run.seen_train
    logits, gamma = served(run, head, "restored")
    for side, of in (("seen", run.test.logits), ("absent", old)):
        classes = list(getattr(SPLIT, side))
        assert torch.equal(logits[:, classes], of[:, classes])
    on_seen = seen.logits.clone()
    on_seen[:, list(SPLIT.absent)] = 2 * seen.features[:, list(SPLIT.absent)]
    assert gamma == recommended(on_seen, seen.labels, SPLIT, 2 * seen.features) != recommended_gamma(seen, SPLIT, head)
    assert torch.equal(reading(run, head, "restored")[1], old)
    assert torch.equal(served(run, head, "new")[0], run.test.logits)
    level = torch.tensor(levels(on_seen, SPLIT))  # of the images that it was trained on, not of those that it is for
    torch.testing.assert_close(served(run, head, "levelled")[0].double(), logits.double() - level)


def test_the_extremes_of_a_seed_are_chosen_by_the_others():
    table = runs({"gain": [-1.0, -2.0, 9.0, 3.0, 4.0, -7.0]}, seeds=range(3))  # a loses on seeds 0, 1; b on seed 2
    # seed 0: the others' means are a 3.5, b −1.5, so the loss is −3 and the gain −1; seed 2: a is worst, b best.
    assert extremes(table.gain).to_dict() == {"seed 0": -3.0, "seed 1": -4.0, "seed 2": -9.0}


@pytest.mark.parametrize(("ends", "said"), [((0.1, 2), "gains"), ((-2, -0.1), "loses"), ((-1, 1), "cannot tell")])
def test_the_word_for_a_gain_is_that_of_its_interval(ends, said):
    assert word(Estimate(sum(ends) / 2, *ends, n=3)) == said


def test_a_gain_is_over_the_better_reference_measure_by_measure():
    columns = pd.MultiIndex.from_product([["area", "yy"], ["pre-trained", "AdaBN"]])
    table = pd.DataFrame([[1.0, -2.0, 3.0, 4.0], [0.0, 5.0, -1.0, -3.0]], ["a", "b"], columns)
    assert over_better(table).to_dict("index") == {"a": {"area": -2.0, "yy": 3.0}, "b": {"area": 0.0, "yy": -3.0}}


def test_ranks_agree_within_a_seed_whatever_other_seeds_have():
    index = pd.MultiIndex.from_product([["one", "two", "three"], ["p"], [0, 1]], names=["setup", "pair", "seed"])
    effect = pd.Series([1.0, 9.0, 2.0, 8.0, 30.0, 7.0], index)
    sign = pd.Series([1.0, 1.0, 2.0, 2.0, 3.0, 3.0], index)
    assert by_rank(effect, sign[::-1]).to_dict() == pytest.approx({"seed 0": 1.0, "seed 1": -1.0})
