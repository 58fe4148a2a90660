"""Ways to find γ, the number that is added to every absent class's logit: each takes arrays and returns a `Gamma`.

    average_logit_gap       ALG: the mean logit of S against that of U
    competitor_gap          the strongest wrong class of S against the strongest of U
    rival_share        as often as chance would have it, the strongest wrong class is one of U
    margin_quantile         a fixed share of the seen images is given up
    mirrored                the best trade-off, with absent images imitated by mirrored seen ones
    pseudo_cross_validation PCV: hide half of S, fine-tune again, choose on what was hidden
    oracle_gamma            γ*: the best on the test images themselves, the reference

All but the last two take outputs on the images that fine-tuning saw, and refuse a label of an absent class: estimating
γ on images of absent classes would be a leak. `apply` uses γ on logits, `fold_gamma` puts it into a checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ftlib.checks import Array, check_gamma, check_labels, check_no_nan, check_outputs
from ftlib.core import ClassSplit, class_ids
from ftlib.metrics import merge_steps, seen_unseen_curve, split_accuracies, strongest_rival


class Gamma(float):
    """γ in logits, a float that knows the split it was found for, so that it is refused on another."""

    split: ClassSplit

    def __new__(cls, value: float, split: ClassSplit) -> Gamma:
        gamma = super().__new__(cls, value)
        gamma.split = split
        return gamma

    def __getnewargs__(self) -> tuple[float, ClassSplit]:
        return float(self), self.split


def average_logit_gap(logits: Array, labels: Array, split: ClassSplit) -> Gamma:
    """ALG: γ = mean over samples of (mean logit over S without the true class) − (mean logit over U).

    Parameters
    ----------
    logits : floating array [N, C]
        Of the fine-tuned model on its fine-tuning training images.
    labels : integer array [N], each a class of S.
    split : ClassSplit

    Returns
    -------
    Gamma
        In logits.

    Raises
    ------
    ValueError
        A label that is not a seen class, fewer than two seen classes, NaN or infinite logits, or input that
        `ftlib.metrics.split_accuracies` refuses. All estimators raise alike.
    """
    logits, labels = _check(logits, labels, split)
    seen, absent = (torch.tensor(side, device=logits.device) for side in (split.seen, split.absent))
    mean = logits.mean(0, dtype=torch.float64)
    true = logits.gather(1, labels[:, None]).mean(dtype=torch.float64)
    return Gamma(float((mean[seen].sum() - true) / (len(seen) - 1) - mean[absent].mean()), split)


def competitor_gap(
    logits: Array, labels: Array, split: ClassSplit, before: Array | None = None, soft: bool = False
) -> Gamma:
    """γ = mean of (max over S without the true class − max over U): what ALG does for means, for maxima.

    Parameters
    ----------
    logits, labels, split
        As for `average_logit_gap`.
    before : floating array [N, C], optional
        The pre-trained model's logits on the same images; its own gap is subtracted.
    soft : bool
        Log-sum-exp in place of the maximum.
    """
    gap = rivals(logits, labels, split, soft)
    gamma = float(gap.seen.mean() - gap.absent.mean())
    if before is None:
        return Gamma(gamma, split)
    return Gamma(gamma - competitor_gap(_same_images(before, logits), labels, split, soft=soft), split)


def rival_share(logits: Array, labels: Array, split: ClassSplit) -> Gamma:
    """γ at which the strongest wrong class is an absent one as often as if all wrong classes were alike.

    That is in a share |U| / (|S| − 1 + |U|) of the images. Arguments as for `average_logit_gap`.
    """
    gap = rivals(logits, labels, split)
    share = len(split.absent) / (len(split.seen) - 1 + len(split.absent))
    return Gamma(float(np.quantile(gap.seen - gap.absent, share)), split)


def margin_quantile(logits: Array, labels: Array, split: ClassSplit, loss: float = 0.05) -> Gamma:
    """γ at which a share ``loss`` of the seen images is taken for an absent class.

    Arguments as for `average_logit_gap`; images that were held out of training give the more honest answer.
    """
    if not 0 < loss < 1:
        raise ValueError(f"loss={loss}: expected a share of the seen images, between 0 and 1")
    gap = rivals(logits, labels, split)
    return Gamma(float(np.quantile(np.maximum(gap.true, gap.seen) - gap.absent, loss)), split)


class Mirrored(NamedTuple):
    """Margins (best seen − best absent logit) and whether the true class leads its side, all [N]."""

    seen: np.ndarray
    seen_hit: np.ndarray
    absent: np.ndarray
    absent_hit: np.ndarray


def mirrored_margins(logits: Array, labels: Array, split: ClassSplit, old_head: Array) -> Mirrored:
    """The margins of the seen images, and those that absent images would have, imitated by mirroring the seen ones.

    An image of an absent class differs from a seen one in one respect: its own row of the head was never fine-tuned.
    So give a seen image back its pre-trained row: a = what the pre-trained head says for the true class minus its
    strongest rival in S, on the fine-tuned features. The mirror image's own logit is then that much above the strongest
    absent rival, and its margin is r_S − (r_U + max(a, 0)), with r the strongest wrong logits of the fine-tuned model.

    Parameters
    ----------
    logits, labels, split
        As for `average_logit_gap`.
    old_head : floating array [N, C]
        Logits that the pre-trained head gives to the fine-tuned features of the same images.
    """
    gap = rivals(logits, labels, split)
    old = rivals(_same_images(old_head, logits), labels, split)
    advantage = old.true - old.seen
    return Mirrored(
        np.maximum(gap.true, gap.seen) - gap.absent,
        gap.true > gap.seen,
        gap.seen - gap.absent - np.maximum(advantage, 0),
        advantage > 0,
    )


def mirrored(logits: Array, labels: Array, split: ClassSplit, old_head: Array) -> Gamma:
    """γ of the best overall accuracy when each seen image stands for itself and, mirrored, for an absent one.

    The default estimator: images of seen classes and the two checkpoints are all that it needs, no training. Arguments
    as for `mirrored_margins`. Each side counts with its number of classes. Near its best point the curve is flat and
    jagged, so γ is the middle of the stretch around it on which the accuracy is within one standard error of the best.
    """
    m = mirrored_margins(logits, labels, split, old_head)
    edges, lost, won = merge_steps(np.sort(m.seen[m.seen_hit]), np.sort(m.absent[m.absent_hit]))
    seen_right, absent_right = np.count_nonzero(m.seen_hit) - np.append(0, lost), np.append(0, won)
    right = len(split.seen) * seen_right + len(split.absent) * absent_right
    accuracy = right / (len(m.seen) * len(split.classes))
    best = int(accuracy.argmax())
    error = math.sqrt(accuracy[best] * (1 - accuracy[best]) / (2 * len(m.seen)))
    worse = np.flatnonzero(accuracy < accuracy[best] - error)
    ends = np.concatenate([edges[:1] - 1, edges, edges[-1:] + 1])  # piece i lies between ends i and i + 1
    first, last = worse[worse < best].max(initial=-1) + 1, worse[worse > best].min(initial=len(accuracy)) - 1
    return Gamma(float(ends[first] + ends[last + 1]) / 2, split)


class PCV(NamedTuple):
    """γ, the mean over the feasible folds, and each fold's own; nan where no γ was feasible."""

    gamma: Gamma
    gammas: tuple[float, ...]


def pseudo_cross_validation(folds: Iterable[tuple[Array, Array, Array, ClassSplit]], split: ClassSplit) -> PCV:
    """PCV: the mean over folds of the best γ that keeps the pre-trained model's pseudo-absent accuracy.

    Parameters
    ----------
    folds : iterable of (before, after, labels, pseudo)
        Logits [N, C] of the pre-trained model and of one that was fine-tuned on the pseudo-seen classes, on held-out
        images of S with labels [N], and the pseudo-split of S. No image of U takes part.
    split : ClassSplit
        The split that γ is for.

    Raises
    ------
    ValueError
        A pseudo-split that is not one of S, a head that lacks a class, or no fold with a feasible γ.
    """
    gammas = []
    for number, (before, after, labels, pseudo) in enumerate(folds):
        if pseudo.classes != split.seen:
            raise ValueError(f"fold {number} divides {list(pseudo.classes)}, not the seen classes {list(split.seen)}")
        least = split_accuracies(before, labels, pseudo).uy
        curve = seen_unseen_curve(after, labels, pseudo)
        try:
            gammas.append(curve.best_gamma(min_uy=least))
        except ValueError:
            gammas.append(math.nan)
    feasible = [g for g in gammas if not math.isnan(g)]
    if not feasible:
        raise ValueError(
            f"none of {len(gammas)} pseudo-splits has a γ that keeps the pre-trained model's pseudo-absent accuracy: "
            "fine-tune more gently, hold out more images, or use an estimator that needs no retraining"
        )
    return PCV(Gamma(float(np.mean(feasible)), split), tuple(gammas))


def oracle_gamma(logits: Array, labels: Array, split: ClassSplit) -> Gamma:
    """γ*: the best overall accuracy along the exact curve of the test outputs, all classes.

    The reference that estimators are judged against; it needs test labels and cannot be deployed. Arguments,
    errors and ties as for `ftlib.metrics.seen_unseen_curve` and its ``best_gamma``.
    """
    return Gamma(seen_unseen_curve(logits, labels, split).best_gamma(), split)


# --- putting γ to use -------------------------------------------------------------------------------------------------

AnyArray = TypeVar("AnyArray", Tensor, np.ndarray)


def apply(logits: AnyArray, gamma: float, absent: Iterable[int]) -> AnyArray:
    """logits + γ·1[c ∈ absent] as a new array [..., C] of the same type and precision.

    Raises
    ------
    ValueError
        γ is NaN or was found for other absent classes, or an absent class is outside the logits.
    """
    absent = _columns(absent, logits.shape[-1])
    gamma = check_gamma(gamma, absent)
    calibrated = logits.clone() if isinstance(logits, Tensor) else logits.copy()
    calibrated[..., absent] += gamma
    return calibrated


def fold_gamma(model: nn.Module, gamma: float, absent: Iterable[int]) -> nn.Module:
    """Add γ to the absent classes' bias in place: what is left is a plain checkpoint that needs no code to serve.

    Folding twice adds twice.

    Parameters
    ----------
    model : Module
        A timm model, or its head: Linear, 1×1 Conv2d, or any module with a weight and a bias for each class.
        A Linear or Conv2d head without a bias gets one.
    gamma : float
        Finite, in logits.
    absent : iterable of int
        Class ids.

    Returns
    -------
    Module
        The same model.

    Raises
    ------
    ValueError
        γ is not finite or was found for other absent classes, an absent class is outside the head, or there is no head
        that can carry a bias.
    """
    if not math.isfinite(gamma):
        raise ValueError(f"γ is {float(gamma)}: only a finite γ can be folded into a checkpoint")
    head = model.get_classifier() if hasattr(model, "get_classifier") else model
    weight, bias = getattr(head, "weight", None), getattr(head, "bias", None)
    if not isinstance(weight, Tensor) or (bias is None and not isinstance(head, nn.Linear | nn.Conv2d)):
        raise ValueError(f"the head is {type(head).__name__}, which has no bias: expected Linear or 1×1 Conv2d")
    if weight.ndim < 2 or weight[0, 0].numel() != 1:
        raise ValueError(f"the head's weight is {list(weight.shape)}, expected [classes, features] or 1×1 Conv2d")
    columns = _columns(absent, len(weight))
    gamma = check_gamma(gamma, columns)
    if bias is None:
        head.bias = nn.Parameter(weight.new_zeros(len(weight)), requires_grad=weight.requires_grad)
    with torch.no_grad():
        head.bias[columns] += gamma
    return model


def _columns(absent: Iterable[int], num_classes: int) -> list[int]:
    columns = class_ids(absent, num_classes, "absent classes")
    if not columns:
        raise ValueError(f"the absent classes are empty: expected at least one of {num_classes}")
    return list(columns)


# --- what the estimators look at --------------------------------------------------------------------------------------


class Rivals(NamedTuple):
    """On images of seen classes, all float64 [N]: logits of the true class and of the strongest others."""

    true: np.ndarray
    seen: np.ndarray  # the strongest class of S that is not the true one
    absent: np.ndarray  # the strongest class of U


def rivals(logits: Array, labels: Array, split: ClassSplit, soft: bool = False) -> Rivals:
    """What all estimators but ALG look at; ``soft`` takes the log-sum-exp in place of the maximum."""
    logits, labels = _check(logits, labels, split)
    logits, reduce = logits.double(), torch.logsumexp if soft else torch.amax
    rivals = (strongest_rival(logits, labels, side, reduce) for side in (split.seen, split.absent))
    parts = logits.gather(1, labels[:, None])[:, 0], *rivals
    return Rivals(*(part.cpu().numpy() for part in parts))


def _check(logits: Array, labels: Array, split: ClassSplit) -> tuple[Tensor, Tensor]:
    if len(split.seen) < 2:
        raise ValueError(f"class {split.seen[0]} is the only seen class: γ is found by comparing it with others")
    logits, labels = check_outputs(logits, labels, split)
    check_labels(
        labels,
        logits,
        split.seen,
        "the seen classes: an estimator takes fine-tuning training outputs only, since absent-class data would leak",
    )
    check_no_nan(logits, "logits")
    if not logits[:, list(split.classes)].isfinite().all():
        raise ValueError("the logits of Y must be finite: some are infinite")
    return logits, labels


def _same_images(other: Array, logits: Array) -> Array:
    if len(other) != len(logits):
        raise ValueError(f"{len(other)} rows of one model, {len(logits)} of the other: both must see the same images")
    return other
