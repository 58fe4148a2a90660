"""The other meaning of "calibration": whether a prediction made with 80 % confidence is right in 80 % of the cases."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import minimize_scalar

from ftlib.checks import Array, check_no_nan, check_outputs
from ftlib.core import ClassSplit


def expected_calibration_error(logits: Array, labels: Array, split: ClassSplit, bins: int = 15) -> float:
    """ECE: the mean distance between confidence and accuracy over equally wide bins of confidence (Guo et al., 2017).

    Parameters
    ----------
    logits : floating array [N, C]
        With γ and temperature applied; the softmax is over the classes of the split.
    labels : integer array [N], each a class of Y.
    bins : int

    Returns
    -------
    float
        Between 0 and 1.
    """
    if bins < 1:
        raise ValueError(f"bins={bins}: expected at least 1")
    confidence, right = _confidence(logits, labels, split)
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    distance = np.abs(np.bincount(place, right - confidence, bins))
    return float(distance.sum() / len(right))


def reliability_curve(logits: Array, labels: Array, split: ClassSplit, bins: int = 10) -> np.ndarray:
    """float64 [K, 3], a row a bin that is not empty: mean confidence, accuracy, share of the samples."""
    confidence, right = _confidence(logits, labels, split)
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    n = np.bincount(place, minlength=bins)
    rows = np.stack([np.bincount(place, confidence, bins), np.bincount(place, right, bins), n * n / len(right)], 1)
    return rows[n > 0] / n[n > 0, None]


def fit_temperature(logits: Array, labels: Array, split: ClassSplit) -> float:
    """T > 0 such that logits / T have the least cross-entropy (Guo et al., 2017); γ is applied before."""
    logits, labels, columns = _inside(logits, labels, split)

    def loss(log_temperature: float) -> float:
        return float(torch.nn.functional.cross_entropy(logits[:, columns] / np.exp(log_temperature), labels))

    return float(np.exp(minimize_scalar(loss, bounds=(-5, 5), method="bounded").x))


def _confidence(logits: Array, labels: Array, split: ClassSplit) -> tuple[np.ndarray, np.ndarray]:
    logits, labels, columns = _inside(logits, labels, split)
    confidence, guess = logits[:, columns].softmax(1).max(1)
    return confidence.cpu().numpy(), (guess == labels).double().cpu().numpy()


def _inside(logits: Array, labels: Array, split: ClassSplit) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """float64 logits, labels as places among the split's classes, and these classes."""
    logits, labels = check_outputs(logits, labels, split)
    check_no_nan(logits, "logits")
    columns = torch.tensor(split.classes, device=logits.device)
    return logits.double(), torch.searchsorted(columns, labels), columns
