"""ftlib.probes against classes that are laid out by hand, and scikit-learn's ridge regression."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from ftlib.core import ClassSplit
from ftlib.probes import RIDGE, separability

SPLIT = ClassSplit([0, 1, 2, 3], [4, 5, 6, 7])


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def images(centres: torch.Tensor, count: int, noise: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.arange(len(centres)).repeat_interleave(count)
    return centres[labels] + noise * draws(len(labels), centres.shape[1], seed=seed), labels


def test_classes_that_can_be_told_apart_are_learnt_by_heart_in_any_two_groups():
    """One axis a class and nothing in common within a side: told of all classes the probe is right, else it guesses."""
    found = separability(images(torch.eye(8).double(), 30, 0.05, 0), images(torch.eye(8).double(), 30, 0.05, 1), SPLIT)
    assert found.known > 0.99 and found.known_halving > 0.99
    assert found.unknown == pytest.approx(0.5, abs=0.1) and found.unknown_halving == pytest.approx(0.5, abs=0.1)


def test_a_direction_of_the_sides_works_for_classes_that_the_probe_was_not_told_of():
    centres = torch.cat([torch.eye(8), torch.tensor([[3.0]] * 4 + [[-3.0]] * 4)], 1).double()
    found = separability(images(centres, 30, 0.1, 0), images(centres, 30, 0.1, 1), SPLIT)
    assert found.unknown > 0.99
    assert found.unknown_halving < 0.7


def test_features_that_say_nothing_are_a_coin_toss():
    nothing = torch.zeros(8, 5).double()
    found = separability(images(nothing, 200, 1.0, 0), images(nothing, 200, 1.0, 1), SPLIT)
    assert all(abs(accuracy - 0.5) < 0.06 for accuracy in found)


def test_the_probe_is_a_ridge_regression_cut_halfway_between_the_sides():
    split = ClassSplit([2, 0], [1, 3, 4])
    centres = draws(5, 6)
    (x, y), (x_test, y_test) = images(centres, 12, 1.0, 1), images(centres, 9, 1.0, 2)
    found = separability((x, y), (x_test, y_test), split)
    seen, seen_test = (np.isin(labels, split.seen) for labels in (y, y_test))
    trace = float((x - x.mean(0)).square().sum())
    model = Ridge(alpha=RIDGE * trace / 6).fit(x.numpy(), seen * 2.0 - 1)
    scores = model.predict(x.numpy())
    answers = model.predict(x_test.numpy()) > (scores[seen].mean() + scores[~seen].mean()) / 2
    assert found.known == pytest.approx((answers[seen_test].mean() + (~answers[~seen_test]).mean()) / 2)


def test_a_crowded_side_is_no_better_answer():
    """With ten times the images on one side, features that say nothing are still a coin toss."""
    labels = torch.cat([torch.arange(4).repeat(100), torch.arange(4, 8).repeat(10)])
    train, test = ((draws(len(labels), 3, seed=seed), labels) for seed in (1, 2))
    found = separability(train, test, SPLIT)
    assert found.known == pytest.approx(0.5, abs=0.15)


def test_a_side_of_one_class_cannot_be_asked_about_unknown_classes():
    data = images(draws(3, 4), 5, 1.0, 1)
    with pytest.raises(ValueError, match="1 seen and 2 absent classes: expected two of each"):
        separability(data, data, ClassSplit([0], [1, 2]))


def test_a_label_outside_the_split_is_refused():
    data = images(draws(9, 4), 5, 1.0, 1)
    with pytest.raises(ValueError, match=r"labels \[8\] are not among the split's classes"):
        separability(data, data, SPLIT)
