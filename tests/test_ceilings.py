"""ftlib.book.ceilings by hand."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import SPLIT, FakeRun

from ftlib.book.ceilings import best_read, ceilings, class_biases, halves
from ftlib.calibration import apply
from ftlib.metrics import split_accuracies

rng = np.random.default_rng(0)


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


def test_halves_are_whole_together_and_drawn_within_each_class():
    labels = np.arange(80) % 4
    (this, other), (again, first) = halves(labels)
    assert sorted([*this, *other]) == list(range(80))
    assert np.array_equal(again, other) and np.array_equal(first, this)
    assert np.bincount(labels[this]).tolist() == [10] * 4


def test_each_half_gets_the_head_that_the_seen_images_of_the_other_choose():
    labels = np.arange(400) % 4
    good = np.eye(4)[labels] * 6 + rng.normal(size=(400, 4))
    bad = rng.normal(size=(400, 4))
    (this, other), _ = halves(labels)
    one, two = good.copy(), bad.copy()
    seen, absent = labels < 2, labels >= 2
    one[np.ix_(this, range(4))], two[np.ix_(this, range(4))] = bad[this], good[this]  # each is good on one half
    heads = {"one": (one, one, 0.5), "two": (two, two, -0.5)}
    found = best_read(heads, labels, SPLIT)
    np.testing.assert_array_equal(found[this], apply(one, 0.5, SPLIT.absent)[this])
    np.testing.assert_array_equal(found[other], apply(two, -0.5, SPLIT.absent)[other])
    spoilt = {name: (np.where(absent[:, None], np.nan, x), old, g) for name, (x, old, g) in heads.items()}
    np.testing.assert_array_equal(best_read(spoilt, labels, SPLIT)[seen], found[seen])  # no absent image is asked
