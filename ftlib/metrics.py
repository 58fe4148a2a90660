"""Accuracies over seen and absent classes, the exact seen-unseen curve with its area, and nearest class means.

A calibrated classifier predicts argmax_c f_c(x) + γ·1[c ∈ U]. Per sample, margin = max_{c∈S} f_c − max_{c∈U} f_c,
in float64, says all that γ can do: the sample is predicted absent if and only if γ > margin (a tie stays seen). So
every accuracy follows from N margins and from whether the label is the best class of its own side, and sorting the
margins gives the whole curve at once. Everything takes torch tensors on any device or NumPy arrays, needs one pass
over the logits, and returns Python floats or NumPy arrays on the CPU. Accuracies are fractions in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ftlib.checks import Array, check_finite, check_gamma, check_labels, check_matrix, check_outputs
from ftlib.core import ClassSplit, whole


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
    sides = [best.margin[best.hit & side] for side in (~best.absent, best.absent)]
    edges, lost, won = merge_steps(*sides)
    seen_right = len(sides[0]) - lost
    sy, uy, yy = seen_right / n_seen, won / n_absent, (seen_right + won) / len(best.absent)
    ausuc = float(np.dot(sy[:-1] - sy[1:], uy[:-1] + uy[1:]) / 2)
    return Curve(sy, uy, yy, ausuc, edges)


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


# --- margins: all that γ can do, from one pass over the logits -------------------------------------------------------


class Best(NamedTuple):
    """Per sample: the margin; is the label the best class of its side; is that side absent; the label. All [N]."""

    margin: np.ndarray
    hit: np.ndarray
    absent: np.ndarray
    label: np.ndarray


def best_of_sides(logits: Array, labels: Array, split: ClassSplit) -> Best:
    """One pass over the logits; ties on one side go to the lowest class id. Errors as for `split_accuracies`."""
    logits, labels = check_outputs(logits, labels, split)
    device, columns = logits.device, list(split.classes)
    all_columns = len(columns) == logits.shape[1]
    absent_column = torch.isin(torch.tensor(columns, device=device), torch.tensor(split.absent, device=device))
    place = torch.zeros(logits.shape[1], dtype=torch.int64, device=device)
    place[columns] = torch.arange(len(columns), device=device)
    place = labels if all_columns else place[labels]
    is_absent = absent_column[place]
    no_absent = torch.zeros(len(columns), dtype=logits.dtype, device=device).masked_fill(absent_column, -torch.inf)
    no_seen = torch.zeros_like(no_absent).masked_fill(~absent_column, -torch.inf)
    margin = torch.empty(len(logits), dtype=torch.float64, device=device)
    hit, tied = torch.empty_like(is_absent), torch.empty_like(is_absent)
    finite = True
    # Blocks that stay in the CPU's cache. Adding −inf takes a column out and adding 0 keeps it as it is, which with a
    # row's maximum costs less than gathering the columns of a side. The label's logit is taken out too, which leaves
    # its rivals: whether it is the best is one comparison, and the slow argmax is needed for exact ties only.
    step = max(1, (2**19 if device.type == "cpu" else 2**28) // len(columns))

    def reduce(start: int) -> None:
        nonlocal finite
        rows = slice(start, start + step)
        block = (logits[rows] if all_columns else logits[rows][:, columns]).contiguous()
        at = torch.arange(0, block.numel(), len(columns), device=device) + place[rows]  # labels: gather takes thrice
        own, kept, sides = block.view(-1)[at], torch.empty_like(block), []
        for mask in (no_absent, no_seen):
            torch.add(block, mask, out=kept).view(-1).index_fill_(0, at, -torch.inf)
            sides.append(kept.amax(1))
        rival, other = torch.where(is_absent[rows], sides[1], sides[0]), torch.where(is_absent[rows], *sides)
        torch.gt(own, rival, out=hit[rows])
        torch.eq(own, rival, out=tied[rows])
        lead = torch.maximum(own, rival).double() - other
        torch.where(is_absent[rows], -lead, lead, out=margin[rows])
        if not block.sum(dtype=torch.promote_types(block.dtype, torch.float32)).isfinite():
            finite = False

    _for_each(reduce, range(0, len(logits), step))
    if not (finite and all_columns):
        check_finite(logits, "logits", columns)
    rows = tied.nonzero()[:, 0]
    for side, classes in ((False, split.seen), (True, split.absent)):
        of_side = rows[is_absent[rows] == side]
        first = logits[of_side][:, list(classes)].argmax(1)
        hit[of_side] = torch.tensor(classes, device=device)[first] == labels[of_side]
    return Best(*(t.cpu().numpy() for t in (margin, hit, is_absent, labels)))


def strongest_rival(logits: Tensor, labels: Tensor, classes: Sequence[int]) -> Tensor:
    """The largest logit of ``classes`` less the label's own, [N]; −inf where the label is the only one of them."""
    return logits.scatter(1, labels[:, None], -torch.inf)[:, list(classes)].amax(1)


def merge_steps(falls: np.ndarray, rises: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct margins, ascending [K − 1], and how many falls and rises are below each of the K pieces between them."""
    if len(falls) + len(rises) == 0:
        return np.zeros(1), np.zeros(2, int), np.zeros(2, int)  # nothing ever changes: two equal ends
    margins = np.concatenate([np.sort(falls), np.sort(rises)])
    order = margins.argsort(kind="stable")  # of two ascending runs, which costs no more than merging them
    margins = margins[order]
    last = np.flatnonzero(margins[1:] != margins[:-1])  # of each run of equal margins
    below = np.concatenate([[0], last + 1, [len(margins)]])
    won = np.concatenate([[0], np.cumsum(order >= len(falls))])[below]
    return margins[below[1:] - 1], below - won, won


def _for_each(work: Callable[[int], None], starts: range) -> None:
    """Blocks over as many threads as torch may use, each serial inside.

    Left to itself torch splits every small operation over its threads and waits for the slowest; on a busy machine
    that costs ten times the work.
    """
    threads = min(torch.get_num_threads(), len(starts))
    if threads == 1:
        for start in starts:
            work(start)
        return
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(work, starts))
    finally:
        torch.set_num_threads(torch.get_num_threads())  # the workers' 1 is now what new threads would start from
