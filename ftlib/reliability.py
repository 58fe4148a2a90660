"""The other meaning of "calibration": whether a prediction made with 80 % confidence is right in 80 % of the cases."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar

from ftlib.checks import Array, check_outputs
from ftlib.core import ClassSplit

BOUND = 5.0  # temperatures from exp(−5) to exp(5) are searched
BINS = 15  # of confidence, equally wide, that an error is summed over
DRAWN = 10  # and those that a curve has


def expected_calibration_error(logits: Array, labels: Array, split: ClassSplit) -> float:
    """ECE: the mean distance between confidence and accuracy over 15 equal bins of confidence (Guo et al., 2017).

    Between 0 and 1, of logits [N, C] with γ and temperature applied, the softmax over the classes of the split, and
    labels [N], each a class of Y.

    Examples
    --------
    >>> logits = np.log([[0.75, 0.25], [0.75, 0.25]])  # both sure by 3/4 of class 0, and one of them is right
    >>> round(expected_calibration_error(logits, np.array([0, 1]), ClassSplit(seen=[0], absent=[1])), 9)
    0.25
    """
    confidence, right, place = _binned(logits, labels, split, BINS)
    distance = np.abs(np.bincount(place, right - confidence))
    return float(distance.sum() / len(right))


def reliability_curve(logits: Array, labels: Array, split: ClassSplit) -> np.ndarray:
    """float64 [K, 3], a row for each of ten bins that is not empty: mean confidence, accuracy, share of the samples."""
    confidence, right, place = _binned(logits, labels, split, DRAWN)
    n = np.bincount(place)
    rows = np.stack([np.bincount(place, confidence), np.bincount(place, right), n * n / len(right)], 1)
    return rows[n > 0] / n[n > 0, None]


def fit_temperature(logits: Array, labels: Array, split: ClassSplit) -> float:
    """T > 0 such that logits / T have the least cross-entropy (Guo et al., 2017); γ is applied before.

    A warning says if T ended at a bound, as it does on images that are all right (T → 0) or no better than chance.
    """
    logits, labels, columns = _inside(logits, labels, split)

    def loss(log_temperature: float) -> float:
        return float(torch.nn.functional.cross_entropy(logits[:, columns] / np.exp(log_temperature), labels))

    found: Any = minimize_scalar(loss, bounds=(-BOUND, BOUND), method="bounded")
    best = float(found.x)
    for bound, why in ((-BOUND, "all predictions are right"), (BOUND, "the labels are as good as random")):
        if loss(bound) <= loss(best):
            best = bound
            text = f"the temperature {np.exp(bound):.3g} is the bound of what is searched, as when {why}"
            warnings.warn(f"{text}: fit it on held-out images of all classes", stacklevel=2)
    return float(np.exp(best))


def _binned(logits: Array, labels: Array, split: ClassSplit, bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every sample the confidence, whether it is right, and its bin."""
    logits, labels, columns = _inside(logits, labels, split)
    confidence, guess = logits[:, columns].softmax(1).max(1)
    confidence, right = confidence.cpu().numpy(), (guess == labels).double().cpu().numpy()
    return confidence, right, np.minimum((confidence * bins).astype(int), bins - 1)


def _inside(logits: Array, labels: Array, split: ClassSplit) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """float64 logits, labels as places among the split's classes, and these classes."""
    logits, labels = check_outputs(logits, labels, split)
    columns = torch.tensor(split.classes, device=logits.device)
    return logits.double(), torch.searchsorted(columns, labels), columns
