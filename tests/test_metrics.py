"""Every exact statement of metrics against an oracle that is written to be obvious, not fast."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from ftlib.core import ClassSplit
from ftlib.metrics import ncm_logits, seen_unseen_curve, split_accuracies

SPLIT = ClassSplit([0, 1], [2, 3])
many = settings(max_examples=100, deadline=None)


# The oracle: one sample, one γ, one loop at a time. ---------------------------------------------------------------


def first_best(row, classes):
    best = None
    for c in sorted(classes):
        if best is None or row[c] > row[best]:
            best = c
    return best


def predicted(row, split, gamma):
    seen, absent = first_best(row, split.seen), first_best(row, split.absent)
    return absent if gamma > float(row[seen]) - float(row[absent]) else seen


def share(hits):
    return sum(hits) / len(hits) if hits else math.nan


def brute(logits, labels, split, gamma):
    """(yy, sy, uy, ss, uu)"""
    rows = list(zip(np.asarray(logits, dtype=np.float64), np.asarray(labels).tolist(), strict=True))
    seen, absent = ([(r, y) for r, y in rows if y in side] for side in (split.seen, split.absent))

    def accuracy(of):
        return share([predicted(r, split, gamma) == y for r, y in of])

    within = [share([first_best(r, side) == y for r, y in of]) for of, side in
              ((seen, split.seen), (absent, split.absent))]  # fmt: skip
    return accuracy(rows), accuracy(seen), accuracy(absent), *within


def thresholds(logits, split):
    """±inf, every margin, and a value between each two neighbours."""
    rows = np.asarray(logits, dtype=np.float64)
    margins = sorted({max(r[list(split.seen)]) - max(r[list(split.absent)]) for r in rows})
    between = [(a + b) / 2 for a, b in pairwise(margins)]
    return sorted([-math.inf, *margins, *between, margins[-1] + 1, math.inf])


@st.composite
def cases(draw, both_sides=True):
    """Random outputs: ties (small integers) or not, classes outside Y, one-sample sides, both libraries and types."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    columns = draw(st.integers(2, 7))
    order = rng.permutation(columns)
    k = draw(st.integers(1, columns - 1))
    split = ClassSplit(order[:k], order[k : draw(st.integers(k + 1, columns))])
    n = draw(st.integers(1, 12))
    labels = rng.choice(split.classes, n)
    if both_sides:
        labels = np.concatenate([labels, [rng.choice(split.seen), rng.choice(split.absent)]])
    shape = (len(labels), columns)
    logits = rng.integers(-2, 3, shape) if draw(st.booleans()) else rng.normal(size=shape)
    logits = logits.astype(draw(st.sampled_from([np.float32, np.float64])))
    if draw(st.booleans()):
        logits[:, [c for c in range(columns) if c not in split.classes]] = -np.inf
    if draw(st.booleans()):
        return torch.from_numpy(logits), torch.from_numpy(labels), split
    return logits, labels, split


def same(found, expected):
    np.testing.assert_array_equal(np.array(found), np.array(expected))


# Accuracies ------------------------------------------------------------------------------------------------------


@many
@given(cases(both_sides=False))
def test_accuracies_equal_the_loop_at_every_threshold(case):
    logits, labels, split = case
    for gamma in thresholds(logits, split):
        a = split_accuracies(logits, labels, split, gamma)
        same((a.yy, a.sy, a.uy, a.ss, a.uu), brute(logits, labels, split, gamma))


def test_accuracies_by_hand():
    logits = np.array([[3.0, 0, 1, 0], [0, 1, 2, 0], [2, 0, 1, 0], [0, 0, 0, 5]])
    a = split_accuracies(logits, np.array([0, 1, 2, 3]), SPLIT)  # the second is called 2, the third 0
    assert (a.yy, a.sy, a.uy, a.ss, a.uu) == (0.5, 0.5, 0.5, 1.0, 1.0)
    assert split_accuracies(logits, np.array([0, 1, 2, 3]), SPLIT, gamma=1.5).uy == 1.0


def test_a_tie_goes_to_the_seen_side_and_within_a_side_to_the_lowest_class():
    zeros = np.zeros((4, 4), np.float32)
    a = split_accuracies(zeros, np.arange(4), SPLIT)
    assert (a.yy, a.sy, a.uy, a.ss, a.uu) == (0.25, 0.5, 0.0, 0.5, 0.5)


def test_per_class_averages_over_the_classes_that_have_samples():
    logits = np.eye(4)[[0, 0, 0, 1, 0, 2]]
    labels = np.array([0, 0, 0, 1, 1, 2])
    a = split_accuracies(logits, labels, SPLIT, per_class=True)
    assert a.sy == (1 + 0.5) / 2 and a.uy == 1.0 and a.yy == pytest.approx((1 + 0.5 + 1) / 3)
    assert split_accuracies(logits, labels, SPLIT).sy == 4 / 5


def test_a_side_without_samples_is_nan_and_yy_is_not():
    a = split_accuracies(np.eye(4)[:2], np.array([0, 1]), SPLIT)
    assert math.isnan(a.uy) and math.isnan(a.uu) and a.yy == a.sy == 1.0


# The curve -------------------------------------------------------------------------------------------------------


@many
@given(cases())
def test_curve_equals_the_loop_at_every_threshold(case):
    logits, labels, split = case
    curve = seen_unseen_curve(logits, labels, split)
    for gamma in thresholds(logits, split):
        yy, sy, uy, _, _ = brute(logits, labels, split, gamma)
        assert curve.at(gamma) == (sy, uy, yy)
        a = split_accuracies(logits, labels, split, gamma)
        assert curve.at(gamma) == (a.sy, a.uy, a.yy)


@many
@given(cases())
def test_each_knot_is_reproduced_by_its_gamma_and_no_knot_is_missing(case):
    logits, labels, split = case
    curve = seen_unseen_curve(logits, labels, split)
    for gamma, *knot in zip(curve.gamma, curve.sy, curve.uy, curve.yy, strict=True):
        a = split_accuracies(logits, labels, split, gamma)
        assert knot == [a.sy, a.uy, a.yy]
    points = {brute(logits, labels, split, gamma)[:3] for gamma in thresholds(logits, split)}
    assert points == set(zip(curve.yy, curve.sy, curve.uy, strict=True))


@many
@given(cases())
def test_curve_is_ascending_in_gamma_and_monotone_in_both_accuracies(case):
    curve = seen_unseen_curve(*case)
    assert curve.gamma[0] == -np.inf and curve.gamma[-1] == np.inf and (np.diff(curve.gamma) > 0).all()
    assert (np.diff(curve.sy) <= 0).all() and (np.diff(curve.uy) >= 0).all()
    assert all(a.dtype == np.float64 for a in (curve.gamma, curve.sy, curve.uy, curve.yy))


@many
@given(cases())
def test_ausuc_equals_the_trapezoid_between_brute_force_points(case):
    logits, labels, split = case
    points = [brute(logits, labels, split, gamma)[1:3] for gamma in thresholds(logits, split)]
    area = sum((a[0] - b[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(points))
    assert seen_unseen_curve(logits, labels, split).ausuc == pytest.approx(area, abs=1e-12)


@many
@given(cases(), st.floats(0, 1))
def test_best_gamma_is_finite_and_no_threshold_does_better(case, min_uy):
    logits, labels, split = case
    curve = seen_unseen_curve(logits, labels, split)
    points = [brute(logits, labels, split, gamma)[:3] for gamma in thresholds(logits, split)]
    gamma = curve.best_gamma()
    assert math.isfinite(gamma) and curve.at(gamma)[2] == max(yy for yy, _, _ in points)
    good_enough = [yy for yy, _, uy in points if uy >= min_uy]
    if good_enough:
        _, uy, yy = curve.at(curve.best_gamma(min_uy))
        assert uy >= min_uy and yy == max(good_enough)
    else:
        with pytest.raises(ValueError, match=f"{min_uy}.*highest is {curve.uy[-1]}"):
            curve.best_gamma(min_uy)


def test_of_equally_good_pieces_the_one_closest_to_zero_is_taken():
    # Margins 8 and 2 of seen samples, 4 and −6 of absent ones: right counts 2, 3, 2, 3, 2 on the five pieces.
    logits = np.array([[8.0, -9, 0, -9], [2, -9, 0, -9], [4, -9, 0, -9], [-6, -9, 0, -9]])
    curve = seen_unseen_curve(logits, np.array([0, 0, 2, 2]), SPLIT)
    same(curve.gamma, [-np.inf, -2, 3, 6, np.inf])
    same(curve.yy * 4, [2, 3, 2, 3, 2])
    assert curve.best_gamma() == -2 and curve.best_gamma(min_uy=1.0) == 6


def test_on_unbounded_pieces_best_gamma_is_zero_or_one_logit_beyond():
    logits = np.array([[3.0, 0, 0, 0], [0, 3, 0, 0], [0, 0, 3, 0]])
    assert seen_unseen_curve(logits, np.array([0, 1, 3]), SPLIT).best_gamma() == 0
    logits[:, :2] += 5  # the last margin is 2, and of the labels below only the absent one is ever right
    curve = seen_unseen_curve(logits, np.array([1, 0, 2]), SPLIT)
    assert curve.best_gamma() == 3.0


def test_margins_that_are_neighbouring_floats_keep_their_own_knot():
    tiny = np.nextafter(1.0, 2)
    logits = np.array([[1.0, 0, 0, 0], [tiny, 0, 0, 0]])
    curve = seen_unseen_curve(logits, np.array([0, 2]), SPLIT)
    same(curve.sy, [1, 0, 0])
    same(curve.uy, [0, 0, 1])
    assert curve.gamma[1] == tiny  # nothing lies between, and a margin belongs to the piece below it


def test_a_classifier_that_is_never_right_has_two_equal_ends():
    logits = np.array([[0.0, 1, 1, 0], [1, 0, 0, 1]])
    curve = seen_unseen_curve(logits, np.array([0, 2]), SPLIT)
    same(curve.gamma, [-np.inf, np.inf])
    assert curve.ausuc == 0 and not curve.yy.any() and curve.best_gamma() == 0.0


@pytest.mark.parametrize(
    "gamma", [np.float32(0.5), np.array(0.5), torch.tensor(0.5), torch.tensor([0.5], requires_grad=True)]
)
def test_gamma_may_be_an_array_or_tensor_of_one_number(gamma):
    logits, labels = np.random.default_rng(5).normal(size=(40, 4)), np.arange(40) % 4
    assert split_accuracies(logits, labels, SPLIT, gamma) == split_accuracies(logits, labels, SPLIT, 0.5)
    curve = seen_unseen_curve(logits, labels, SPLIT)
    assert curve.at(gamma) == curve.at(0.5)


# NCM -------------------------------------------------------------------------------------------------------------


def test_ncm_equals_a_loop_over_classes():
    rng = np.random.default_rng(2)
    train, labels, test = rng.normal(size=(40, 5)), rng.integers(0, 6, 40), rng.normal(size=(9, 5))
    labels[labels == 4] = 3
    found = ncm_logits(train, labels, test, 7)
    for i, x in enumerate(test):
        for c in range(7):
            members = [t / np.linalg.norm(t) for t, y in zip(train, labels, strict=True) if y == c]
            if not members:
                assert found[i, c] == -np.inf
                continue
            mean = sum(members) / len(members)
            assert found[i, c] == pytest.approx(x @ mean / np.linalg.norm(x) / np.linalg.norm(mean))
    same(found, ncm_logits(torch.from_numpy(train), torch.from_numpy(labels), torch.from_numpy(test), 7))


def test_ncm_of_balanced_means_predicts_as_the_nearest_mean_on_the_sphere():
    rng = np.random.default_rng(3)
    train, labels = rng.normal(size=(60, 8)) + 2 * np.eye(8)[np.arange(60) % 4], np.arange(60) % 4
    test = rng.normal(size=(50, 8))
    unit = train / np.linalg.norm(train, axis=1, keepdims=True)
    means = np.stack([unit[labels == c].mean(0) for c in range(4)])
    reference = KNeighborsClassifier(1).fit(means / np.linalg.norm(means, axis=1, keepdims=True), np.arange(4))
    expected = reference.predict(test / np.linalg.norm(test, axis=1, keepdims=True))
    same(ncm_logits(train, labels, test, 4).argmax(1), expected)


def test_ncm_is_at_least_single_precision():
    half = torch.randn(8, 4, dtype=torch.bfloat16)
    assert ncm_logits(half, torch.arange(8) % 2, half, 2).dtype == np.float32


# Bad input -------------------------------------------------------------------------------------------------------

GOOD = np.zeros((4, 5))
LABELS = np.arange(4)
BAD = {
    "NaN": (np.where(np.eye(4, 5) > 0, np.nan, 0), LABELS, "logits hold 4 NaN in 4 of 4 rows.*row 0, column 0"),
    "NaN outside Y": (np.where(np.arange(5) == 4, np.nan, GOOD), LABELS, "4 NaN in 4 of 4 rows.*column 4"),
    "label outside Y": (GOOD, np.array([0, 4, 4, 9]), r"labels \[4, 9\] are not among the split's classes"),
    "negative label": (GOOD, np.array([0, -1, 2, 3]), r"labels \[-1\]"),
    "narrow head": (GOOD[:, :3], LABELS, "class 3, but the logits have only 3 columns"),
    "empty": (GOOD[:0], LABELS[:0], r"\[0, 5\], expected floating \[N, D\], not empty"),
    "one-dimensional": (GOOD[0], LABELS, r"logits are torch.float64 \[5\]"),
    "integer logits": (GOOD.astype(int), LABELS, "logits are torch.int64"),
    "fewer labels": (GOOD, LABELS[:3], r"labels are torch.int64 \[3\], expected integers \[4\]"),
    "floating labels": (GOOD, LABELS.astype(float), "labels are torch.float64"),
    "boolean labels": (GOOD, LABELS > 0, "labels are torch.bool"),
    "infinite": (
        np.where(np.eye(4, 5) > 0, np.inf, 0),
        LABELS,
        "hold 4 infinite values in 4 of 4 rows.*row 0, column 0",
    ),
    "a class that is −inf": (
        np.where(np.arange(5) == 3, -np.inf, GOOD),
        LABELS,
        "4 infinite values.*column 3: leave out",
    ),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("function", [split_accuracies, seen_unseen_curve])
def test_bad_input_is_named(function, case):
    logits, labels, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        function(logits, labels, SPLIT)
    with pytest.raises(ValueError, match=message):
        function(torch.from_numpy(logits), torch.from_numpy(labels), SPLIT)


@pytest.mark.parametrize("value", [np.inf, -np.inf, 7.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_classes_outside_y_may_be_anything_but_nan(value, dtype):
    logits = torch.eye(4, 5, dtype=dtype)
    logits[:, 4] = value
    assert split_accuracies(logits, LABELS, SPLIT).yy == 1


def test_sums_that_overflow_are_no_infinite_logits():
    logits = np.full((4, 5), 3e38, np.float32)
    assert split_accuracies(logits, LABELS, SPLIT).yy == 0.25
