"""ftlib.reliability by hand, against a loop, and on logits whose temperature is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ftlib.core import ClassSplit
from ftlib.reliability import expected_calibration_error, fit_temperature, reliability_curve

SPLIT = ClassSplit([0, 2], [3])  # class 1 is outside Y
rng = np.random.default_rng(0)


def probabilities_as_logits(rows):
    logits = np.full((len(rows), 4), 50.0)  # the column outside of Y must not matter
    logits[:, [0, 2, 3]] = np.log(rows)
    return logits


def test_ece_by_hand():
    logits = probabilities_as_logits([[0.9, 0.05, 0.05], [0.9, 0.05, 0.05], [0.2, 0.7, 0.1]])
    # Two at 0.9, one of them right: |1 − 1.8| / 3; one at 0.7, right: |1 − 0.7| / 3.
    assert expected_calibration_error(logits, np.array([0, 3, 2]), SPLIT) == pytest.approx((0.8 + 0.3) / 3)


def test_ece_equals_a_loop_over_bins():
    logits, labels = rng.normal(size=(500, 4)) * 3, rng.choice(SPLIT.classes, 500)
    e = np.exp(logits[:, [0, 2, 3]])
    p = e / e.sum(1, keepdims=True)
    confidence, right = p.max(1), np.array(SPLIT.classes)[p.argmax(1)] == labels
    total = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence >= low) & (confidence < low + 1 / 15)
        if inside.any():
            total += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    assert expected_calibration_error(torch.from_numpy(logits), torch.from_numpy(labels), SPLIT) == pytest.approx(total)


def test_the_curve_has_a_row_for_each_bin_that_is_not_empty():
    logits = probabilities_as_logits([[0.9, 0.05, 0.05], [0.94, 0.03, 0.03], [0.3, 0.6, 0.1]])
    rows = reliability_curve(logits, np.array([0, 3, 2]), SPLIT)
    np.testing.assert_allclose(rows, [[0.6, 1.0, 1 / 3], [0.92, 0.5, 2 / 3]])


def test_the_temperature_of_logits_that_were_multiplied_is_found():
    true = rng.normal(size=(20000, 4)) * 1.5
    e = np.exp(true[:, [0, 2, 3]])
    p = e / e.sum(1, keepdims=True)
    labels = np.array(SPLIT.classes)[[rng.choice(3, p=row) for row in p]]
    assert fit_temperature(true * 4, labels, SPLIT) == pytest.approx(4, rel=0.05)
    assert expected_calibration_error(true, labels, SPLIT) < 0.015
    assert expected_calibration_error(true * 4, labels, SPLIT) > 0.1


@pytest.mark.parametrize(
    ("label", "bound"),
    [([0, 2, 3], "0.0067.* is the bound .* right"), ([2, 3, 0], "148 is the bound .* random")],
)
def test_a_temperature_that_ends_at_its_bound_says_so(label, bound):
    with pytest.warns(UserWarning, match=bound):
        fit_temperature(np.eye(4)[[0, 2, 3]], np.array(label), SPLIT)


@pytest.mark.parametrize("function", [expected_calibration_error, reliability_curve, fit_temperature])
def test_infinite_logits_are_refused_in_y_and_masked_elsewhere(function):
    logits = np.where(np.arange(4) == 1, -np.inf, np.eye(4)[[0, 2, 0]])
    function(logits, np.array([0, 2, 3]), SPLIT)
    logits[1, 0] = np.inf
    with pytest.raises(ValueError, match="hold 1 infinite values in 1 of 3 rows, the first at row 1, column 0"):
        function(logits, np.array([0, 2, 3]), SPLIT)


def test_a_label_outside_y_is_refused():
    with pytest.raises(ValueError, match=r"labels \[1\] are not among"):
        fit_temperature(np.zeros((1, 4)), np.array([1]), SPLIT)
