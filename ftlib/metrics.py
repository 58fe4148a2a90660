"""Accuracies over seen and absent classes, the exact seen-unseen curve with its area, and nearest class means.

A calibrated classifier predicts argmax_c f_c(x) + γ·1[c ∈ U]. Every accuracy follows from N margins and from whether
the label is the best class of its own side (`ftlib.margins`), and sorting the margins gives the whole curve at once.
Everything takes torch tensors on any device or NumPy arrays, and returns Python floats or NumPy arrays on the CPU.
Accuracies are fractions in [0, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import normalize

from ftlib.checks import Array, check_finite, check_gamma, check_labels, check_matrix
from ftlib.core import ClassSplit, whole
from ftlib.margins import best_of_sides


@dataclass(frozen=True)
class Accuracies:
    """Acc_{A/B}: over samples whose label is in A, argmax over the classes B; nan where A has no sample."""

    yy: float
    sy: float
    uy: float
    ss: float
    uu: float


def split_accuracies(
    logits: Array, labels: Array, split: ClassSplit, gamma: float = 0.0, per_class: bool = False
) -> Accuracies:
    """Accuracies of argmax_c f_c + γ·1[c ∈ U] over Y = S ∪ U; other columns are masked.

    Parameters
    ----------
    logits : floating array [N, C]
    labels : integer array [N], each a class of Y.
    split : ClassSplit
    gamma : float
        γ in logits, ±inf allowed. Acc_{S/S} and Acc_{U/U} do not depend on it.
    per_class : bool
        Average over the classes that have samples instead of over the samples.

    Raises
    ------
    ValueError
        NaN among the logits or as γ, infinite logits in Y (other columns may hold them), a label outside Y, a class of
        the split outside the head, no samples, shapes that disagree, logits that are not floating or labels that are
        not integers.

    Notes
    -----
    Of equal logits on one side the lowest class id wins, and a seen class wins against an absent one.

    Examples
    --------
    >>> logits, labels = np.array([[3.0, 1, 0], [1, 0, 0], [3, 1, 2]]), np.array([0, 1, 2])
    >>> split_accuracies(logits, labels, ClassSplit(seen=[0, 1], absent=[2]), gamma=1.5)  # margins 3, 1, 1
    Accuracies(yy=0.6666666666666666, sy=0.5, uy=1.0, ss=0.5, uu=1.0)
    """
    best = best_of_sides(logits, labels, split)
    gamma = check_gamma(gamma, split.absent)
    right = best.hit & ((gamma > best.margin) == best.absent)
    every, absent = slice(None), best.absent
    parts = (right, every), (right, ~absent), (right, absent), (best.hit, ~absent), (best.hit, absent)
    return Accuracies(*(_average(hit[rows], best.label[rows], per_class) for hit, rows in parts))


class Point(NamedTuple):
    """Acc_{S/Y}, Acc_{U/Y} and Acc_{Y/Y} at one γ."""

    sy: float
    uy: float
    yy: float


@dataclass(frozen=True, eq=False)
class Curve:
    """Acc_{U/Y} against Acc_{S/Y} over all γ, exactly: a knot for each of the K pieces on which nothing changes.

    Attributes
    ----------
    gamma : float64 [K]
        A γ inside each piece, ascending from −inf to +inf: passed to `split_accuracies` it gives the knot again.
    sy, uy, yy : float64 [K]
        Accuracies on the pieces; ``yy`` is the average over all samples.
    ausuc : float
        Area under ``uy`` against ``sy``, trapezoid between the knots (Chao et al., ECCV 2016).
    """

    sy: np.ndarray
    uy: np.ndarray
    yy: np.ndarray
    ausuc: float
    _edges: np.ndarray = field(repr=False)  # [K − 1], ascending: piece i is (edge i−1, edge i]

    @cached_property
    def gamma(self) -> np.ndarray:
        middle = self._edges[:-1] / 2 + self._edges[1:] / 2
        inside = np.where(middle > self._edges[:-1], middle, self._edges[1:])  # the upper edge belongs to its piece
        return np.concatenate([[-np.inf], inside, [np.inf]])

    def at(self, gamma: float) -> Point:
        """The accuracies at γ, ±inf allowed: the same as `split_accuracies` gives."""
        i = np.searchsorted(self._edges, check_gamma(gamma))  # the edges below γ
        return Point(float(self.sy[i]), float(self.uy[i]), float(self.yy[i]))

    def best_gamma(self, min_uy: float | None = None) -> float:
        """A finite γ of the best Acc_{Y/Y} on the curve, if asked among the knots with ``uy >= min_uy``.

        Of equally good pieces the one whose γ is closest to 0 is taken, and of two as close the negative one. γ is
        the middle of its piece; on the two unbounded pieces 0 if that is inside, else one logit beyond the margin.
        ValueError if no finite γ reaches ``min_uy``.
        """
        gamma, low, high = self.gamma.copy(), self._edges[0], self._edges[-1]
        gamma[0] = 0.0 if low >= 0 else low - 1
        gamma[-1] = 0.0 if high < 0 else max(high + 1, np.nextafter(high, np.inf))
        allowed = np.isfinite(gamma)
        if min_uy is not None:
            highest = self.uy[allowed].max()
            allowed &= self.uy >= min_uy
            if not allowed.any():
                raise ValueError(f"no γ reaches an absent accuracy of {min_uy}: the highest is {highest}")
        best = gamma[allowed & (self.yy == self.yy[allowed].max())]
        return float(best[np.abs(best).argmin()])


def seen_unseen_curve(logits: Array, labels: Array, split: ClassSplit) -> Curve:
    """The exact seen-unseen accuracy curve and its area (AUSUC), in O(N log N).

    A seen sample whose best seen class is right is right while γ ≤ margin; an absent sample whose best absent
    class is right is right once γ > margin. Sorted, these samples' margins are the edges between the pieces.
    Arguments and errors as for `split_accuracies`; ValueError also if one side of the split has no sample.

    Examples
    --------
    >>> logits, labels = np.array([[3.0, 1, 0], [1, 0, 0], [3, 1, 2]]), np.array([0, 1, 2])
    >>> curve = seen_unseen_curve(logits, labels, ClassSplit(seen=[0, 1], absent=[2]))  # steps at margins 1 and 3
    >>> curve.sy.tolist(), curve.uy.tolist(), curve.gamma.tolist()
    ([0.5, 0.5, 0.0], [0.0, 1.0, 1.0], [-inf, 2.0, inf])
    >>> curve.ausuc, curve.best_gamma(), curve.at(2).uy
    (0.5, 2.0, 1.0)
    """
    best = best_of_sides(logits, labels, split)
    n_absent = int(np.count_nonzero(best.absent))
    n_seen = len(best.absent) - n_absent
    if not (n_seen and n_absent):
        side = "absent" if n_seen else "seen"
        raise ValueError(f"no sample of the {side} classes: the curve needs test samples of both sides")
    falls, rises = (best.margin[best.hit & side] for side in (~best.absent, best.absent))
    return curve_of(falls, rises, n_seen, n_absent)


def curve_of(falls: np.ndarray, rises: np.ndarray, n_seen: int, n_absent: int) -> Curve:
    """The curve of margins at which one of so many seen samples is lost, and of those at which an absent one is won."""
    margins = np.concatenate([np.sort(falls), np.sort(rises)])
    order = margins.argsort(kind="stable")  # of two ascending runs, which costs no more than merging them
    margins = margins[order]
    last = np.flatnonzero(margins[1:] != margins[:-1])  # of each run of equal margins
    below = np.concatenate([[0], last + 1, [len(margins)]])  # how many of both are below each piece
    won = np.concatenate([[0], np.cumsum(order >= len(falls))])[below]
    right = len(falls) - (below - won)
    sy, uy = right / n_seen, won / n_absent
    ausuc = float(np.dot(sy[:-1] - sy[1:], uy[:-1] + uy[1:]) / 2)
    edges = margins[below[1:] - 1] if len(margins) else np.zeros(1)  # nothing ever changes: two equal ends
    return Curve(sy, uy, (right + won) / (n_seen + n_absent), ausuc, edges)


def ncm_logits(train_features: Array, train_labels: Array, features: Array, num_classes: int) -> np.ndarray:
    """Cosine of L2-normalised features to the re-normalised class means of L2-normalised training features (NCM).

    Parameters
    ----------
    train_features : floating array [M, D]
        Of the target domain's training images of all classes: a diagnostic, not a method one can deploy.
    train_labels : integer array [M], in 0 … num_classes − 1.
    features : floating array [N, D]

    Returns
    -------
    float array [N, num_classes]
        Cosines in [−1, 1]; −inf in the column of a class without training data.

    Raises
    ------
    ValueError
        NaN or infinities, labels outside 0 … num_classes − 1, empty arrays, or shapes or types that disagree.

    Examples
    --------
    >>> train, labels = np.array([[2.0, 0], [0, 1]]), np.array([0, 1])  # class 2 has no training data
    >>> ncm_logits(train, labels, np.array([[3.0, 4.0]]), 3).tolist()
    [[0.6, 0.8, -inf]]
    """
    features = check_matrix(features, "features")
    train = check_matrix(train_features, "training features").to(features.device)
    whole("num_classes", num_classes, 1)
    check_finite(features, "features")
    check_finite(train, "training features")
    if train.shape[1] != features.shape[1]:
        raise ValueError(f"training features have {train.shape[1]} dimensions, features {features.shape[1]}")
    labels = check_labels(train_labels, train, range(num_classes), f"the classes 0 to {num_classes - 1}")
    dtype = torch.promote_types(torch.promote_types(features.dtype, train.dtype), torch.float32)
    sums = torch.zeros(num_classes, train.shape[1], dtype=dtype, device=train.device)
    sums.index_add_(0, labels, normalize(train.to(dtype)))  # a sum has the direction of its mean
    cosines = normalize(features.to(dtype)) @ normalize(sums).T
    cosines[:, torch.bincount(labels, minlength=num_classes) == 0] = -torch.inf
    return cosines.cpu().numpy()


def _average(right: np.ndarray, label: np.ndarray, per_class: bool) -> float:
    if not len(right):
        return math.nan
    if not per_class:
        return float(np.count_nonzero(right) / len(right))
    n = np.bincount(label)
    return float((np.bincount(label, weights=right)[n > 0] / n[n > 0]).mean())
