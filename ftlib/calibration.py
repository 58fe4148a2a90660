"""Ways to find γ, the number that is added to every absent class's logit: each takes arrays and returns a `Gamma`.

    average_logit_gap       ALG: the mean logit of S against that of U
    competitor_gap          the strongest rival in S against the strongest in U
    rival_share             as often as chance would have it, the strongest rival is one of U
    margin_quantile         a fixed share of the seen images is given up
    mirrored                the best trade-off, with absent images imitated by mirrored seen ones
    recommended             the larger of the last two, the one to take
    prior_gamma             the number of training images alone, blind to the model
    absent_share            the expected share of unlabelled target images is predicted absent
    pseudo_cross_validation PCV: hide half of S, fine-tune again, choose on what was hidden
    oracle_gamma            γ*: the best on the test images themselves, the reference

All but the last three take images that fine-tuning saw, and refuse a label of an absent class: estimating γ on labelled
images of absent classes would be a leak. `apply` uses γ on logits, `fold_gamma` in a checkpoint. Which rows make those
logits is a question before that of γ: `ftlib.heads`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ftlib.checks import (
    SEEN_ONLY,
    Array,
    as_tensor,
    check_absent,
    check_gamma,
    check_labels,
    check_logits,
    check_seen,
    kind_of,
)
from ftlib.core import ClassSplit
from ftlib.heads import add_to_bias, layers_of
from ftlib.margins import Mirrored, drawn_rivals, mirrored_margins, rivals, same_images
from ftlib.metrics import seen_unseen_curve, split_accuracies


class Gamma(float):
    """γ in logits, a float that knows the split it was found for, so that it is refused on another."""

    split: ClassSplit

    def __new__(cls, value: float, split: ClassSplit) -> Gamma:
        gamma = super().__new__(cls, value)
        gamma.split = split
        return gamma

    def __reduce__(self) -> tuple[type[Gamma], tuple[float, ClassSplit]]:
        return Gamma, (float(self), self.split)


def average_logit_gap(logits: Array, labels: Array, split: ClassSplit) -> Gamma:
    """ALG: γ = mean over samples of (mean logit over S without the true class) − (mean logit over U).

    Parameters
    ----------
    logits : floating array [N, C]
        Of the fine-tuned model on its fine-tuning training images.
    labels : integer array [N], each a class of S.
    split : ClassSplit

    Raises
    ------
    ValueError
        A label that is not a seen class, fewer than two seen classes, NaN or infinite logits, or input that
        `ftlib.metrics.split_accuracies` refuses. All estimators raise alike.

    Examples
    --------
    >>> split = ClassSplit(seen=[0, 1], absent=[2, 3])
    >>> float(average_logit_gap(np.array([[9.0, 3, 1, 0], [2, 8, 0, 1]]), np.array([0, 1]), split))  # 5/2 − 1/2
    2.0
    """
    logits, labels = check_seen(logits, labels, split)
    seen, absent = (torch.tensor(side, device=logits.device) for side in (split.seen, split.absent))
    mean = logits.mean(0, dtype=torch.float64)
    true = logits.gather(1, labels[:, None]).mean(dtype=torch.float64)
    return Gamma(float((mean[seen].sum() - true) / (len(seen) - 1) - mean[absent].mean()), split)


def competitor_gap(
    logits: Array, labels: Array, split: ClassSplit, before: Array | None = None, soft: bool = False
) -> Gamma:
    """γ = mean of (strongest rival in S − strongest in U), of equally many rivals: what ALG does for means, for maxima.

    The maximum of many logits is larger than that of few. So where |S| − 1 and |U| differ, the larger side's maximum is
    replaced by its mean over all ways to draw as many rivals from that side as the other has. Of ``before`` [N, C], the
    pre-trained model's logits on the same images, the own gap is subtracted. ``soft`` takes the log of the mean
    exponential in place of the maximum. The other arguments are those of `average_logit_gap`.

    Examples
    --------
    >>> split = ClassSplit(seen=[0, 1], absent=[2, 3])  # one rival in S, two in U
    >>> float(competitor_gap(np.array([[9.0, 3, 1, 0], [2, 8, 0, 1]]), np.array([0, 1]), split))  # 5/2 − (1 + 0)/2
    2.0
    """
    sides = drawn_rivals(logits, labels, split)
    if soft:
        seen, absent = (float(side.logits.logsumexp(1).mean()) - math.log(len(side.chance)) for side in sides)
    else:
        seen, absent = (float((side.logits @ side.chance).mean()) for side in sides)
    if before is not None:
        seen -= competitor_gap(same_images(before, logits), labels, split, soft=soft)
    return Gamma(seen - absent, split)


def rival_share(logits: Array, labels: Array, split: ClassSplit) -> Gamma:
    """γ at which the strongest wrong class is an absent one as often as if all wrong classes were alike.

    That is in a share |U| / (|S| − 1 + |U|) of the images. Arguments as for `average_logit_gap`.
    """
    gap = rivals(logits, labels, split)
    share = len(split.absent) / (len(split.seen) - 1 + len(split.absent))
    return Gamma(float(np.quantile(gap.seen - gap.absent, share)), split)


def margin_quantile(logits: Array, labels: Array, split: ClassSplit, loss: float = 0.05) -> Gamma:
    """γ at which a share ``loss`` of the seen images is taken for an absent class.

    Arguments as for `average_logit_gap`. The share is what it says on images like these: those that were trained on are
    known by heart, and new ones lose more.
    """
    gap = rivals(logits, labels, split)
    margin = np.maximum(gap.true, gap.seen) - gap.absent
    return Gamma(float(np.quantile(margin, _share(loss, "loss", "seen images"))), split)


def absent_share(logits: Array, split: ClassSplit, share: float | None = None) -> Gamma:
    """γ at which the expected share of unlabelled images of the target domain is predicted absent.

    The logits [N, C] are the fine-tuned model's on images of all classes of Y, mixed as they will be in use. ``share``
    is that of absent images among them, |U| / |Y| if not given; γ is wrong as far as the share is.
    """
    logits = check_logits(logits, split)
    share = len(split.absent) / len(split.classes) if share is None else _share(share, "share", "images")
    seen, absent = (logits[:, list(side)].amax(1).double() for side in (split.seen, split.absent))
    return Gamma(float(np.quantile((seen - absent).cpu().numpy(), share)), split)


def estimated_share(logits: Array, split: ClassSplit, gamma: float) -> float:
    """The share of absent images among unlabelled ones, re-estimated until it agrees with itself.

    Saerens et al. (Neural Computation 2002) on two classes, S and U: the softmax with γ is taken for the posterior
    under |U| / |Y|. On drawn characters it is better than no look at the images, and too low where most are absent.

    ``gamma`` is the best one where |U| / |Y| of the images are absent, as `mirrored` finds it; the other arguments are
    those of `absent_share`. The answer is between 0.01 and 0.99.
    """
    logits = check_logits(logits, split)
    prior = len(split.absent) / len(split.classes)
    seen, absent = (logits[:, list(side)].double().logsumexp(1) for side in (split.seen, split.absent))
    ratio = (absent + check_gamma(gamma, split.absent) - seen).exp().clamp(max=1e300) * (1 - prior) / prior
    share, last = prior, -1.0
    while abs(share - last) > 1e-6:  # every step gains likelihood, so that it ends
        last, share = share, float((share * ratio / (share * ratio + 1 - share)).mean())
    return min(max(share, 0.01), 0.99)


def prior_gamma(labels: Array, split: ClassSplit) -> Gamma:
    """γ = log(n + 1), where n is the mean number of training images of a seen class: blind to what the model learnt.

    Logit adjustment (Menon et al., ICLR 2021) as one number, if each class of Y is counted with one image more.
    """
    labels = as_tensor(labels, "labels", "integers [N]")
    if not len(check_labels(labels, labels, split.seen, SEEN_ONLY)):
        raise ValueError("0 labels: expected those of the fine-tuning images, at least one")
    return Gamma(math.log(len(labels) / len(split.seen) + 1), split)


def mirrored(
    logits: Array,
    labels: Array,
    split: ClassSplit,
    old_head: Array,
    share: float | None = None,
    class_balanced: bool = True,
) -> Gamma:
    """γ of the best overall accuracy when each seen image stands for itself and, mirrored, for an absent one.

    Images of seen classes and the two checkpoints are all that it needs, no training. Near its
    best point the curve is flat and jagged, so γ is the middle of the stretch around it on which the accuracy is within
    one standard error of the best.

    Parameters
    ----------
    logits, labels, split, old_head : as for `mirrored_margins`.
    share : float, optional
        Of absent images in use, the weight of the mirror images; |U| / |Y| if not given.
    class_balanced : bool
        Every seen class counts the same, however many images it has.

    Examples
    --------
    >>> split = ClassSplit(seen=[0, 1], absent=[2, 3])
    >>> logits, old_head = np.array([[9.0, 3, 1, 0], [2, 8, 0, 1]]), np.array([[5.0, 3, 1, 0], [2, 5, 0, 1]])
    >>> margins = mirrored_margins(logits, np.array([0, 1]), split, old_head)
    >>> margins.seen.tolist(), margins.absent.tolist()  # 9 − 1, 8 − 1; and 3 − (1 + 2), 2 − (1 + 3)
    ([8.0, 7.0], [0.0, -2.0])
    >>> float(mirrored(logits, np.array([0, 1]), split, old_head))  # all are right for 0 < γ ≤ 7
    3.5
    """
    margins = mirrored_margins(logits, labels, split, old_head)
    return best_of_mirrored(margins, torch.as_tensor(labels).cpu().numpy(), split, share, class_balanced)


def best_of_mirrored(
    m: Mirrored, labels: np.ndarray, split: ClassSplit, share: float | None = None, class_balanced: bool = True
) -> Gamma:
    """What `mirrored` finds, from the margins of images with labels [N] alone."""
    classes, place, n = np.unique(labels, return_inverse=True, return_counts=True)
    weight = (len(labels) / (len(classes) * n))[place] if class_balanced else np.ones(len(labels))  # 1 on average
    absent = len(split.classes) * _share(share, "share", "images") if share is not None else len(split.absent)
    lost, won = (len(split.classes) - absent) * weight[m.seen_hit], absent * weight[m.absent_hit]
    edges, place = np.unique(np.concatenate([m.seen[m.seen_hit], m.absent[m.absent_hit]]), return_inverse=True)
    if not len(edges):
        return Gamma(0.0, split)  # no class leads its side: one γ is as good as another
    right = lost.sum() + np.append(0, np.cumsum(np.bincount(place, np.concatenate([-lost, won]))))
    total = len(labels)
    # Rounded, equal ones stay equal, whatever the order of the sum; which may end a little above 1.
    accuracy = (right.round(9) / (total * len(split.classes))).clip(max=1)
    best = int(accuracy.argmax())
    independent = total**2 / np.square(weight).sum()  # images that would make as good a mean if all counted the same
    error = math.sqrt(accuracy[best] * (1 - accuracy[best]) / (2 * independent))
    worse = np.flatnonzero(accuracy < accuracy[best] - error)
    ends = np.concatenate([edges[:1] - 1, edges, edges[-1:] + 1])  # piece i lies between ends i and i + 1
    first, last = worse[worse < best].max(initial=-1) + 1, worse[worse > best].min(initial=len(accuracy)) - 1
    return Gamma(float(ends[first] + ends[last + 1]) / 2, split)


def recommended(logits: Array, labels: Array, split: ClassSplit, old_head: Array | None = None) -> Gamma:
    """The estimator to take: the larger of `mirrored` and `margin_quantile`; the latter alone if the old head is lost.

    Either alone makes γ too small somewhere: `mirrored` where few rivals within S flatter the absent classes,
    `margin_quantile` where giving up more than one seen image in twenty pays. Too large a γ costs seen images, which
    can be counted; what too small a one loses cannot. Chapter 7 of the book measures both, over recipes, splits and
    worlds; with features from ImageNet `mirrored` alone leaves as little or less.

    Parameters
    ----------
    logits, labels, split, old_head : as for `mirrored`.
    """
    quantile = margin_quantile(logits, labels, split)
    return quantile if old_head is None else max(mirrored(logits, labels, split, old_head), quantile)


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
        why = "keeps the pre-trained accuracy on pseudo-absent classes: fine-tune more gently or hold out more images"
        raise ValueError(f"none of {len(gammas)} pseudo-splits has a γ that {why}")
    return PCV(Gamma(float(np.mean(feasible)), split), tuple(gammas))


def oracle_gamma(logits: Array, labels: Array, split: ClassSplit) -> Gamma:
    """γ*: the best overall accuracy along the exact curve of the test outputs, all classes.

    The reference that estimators are judged against; it needs test labels and cannot be deployed. Arguments,
    errors and ties as for `ftlib.metrics.seen_unseen_curve` and its ``best_gamma``.
    """
    return Gamma(seen_unseen_curve(logits, labels, split).best_gamma(), split)


def _share(share: float, name: str, of: str) -> float:
    if not 0 < share < 1:
        raise ValueError(f"{name}={share}: expected a share of the {of}, between 0 and 1")
    return share


# --- putting γ to use -------------------------------------------------------------------------------------------------

AnyArray = TypeVar("AnyArray", Tensor, np.ndarray)


def apply(logits: AnyArray, gamma: float, absent: Iterable[int]) -> AnyArray:
    """logits + γ·1[c ∈ absent] as a new array [..., C] of the same type and precision.

    Raises
    ------
    ValueError
        γ is NaN or was found for other absent classes, or an absent class is outside the logits.

    Examples
    --------
    >>> apply(np.zeros((1, 4)), 1.5, [1, 3]).tolist(), apply(np.zeros((1, 2)), 1.5, [False, True]).tolist()
    ([[0.0, 1.5, 0.0, 1.5]], [[0.0, 1.5]])
    """
    if not isinstance(logits, Tensor | np.ndarray) or not as_tensor(logits, "logits", "floating").is_floating_point():
        raise ValueError(f"logits are {kind_of(logits)}, expected a floating array or tensor [..., C]")
    columns = check_absent(absent, logits.shape[-1])
    gamma = check_gamma(gamma, columns)
    calibrated: Any = logits.clone() if isinstance(logits, Tensor) else logits.copy()
    calibrated[..., columns] += gamma
    return calibrated


def fold_gamma(model: nn.Module, gamma: float, absent: Iterable[int]) -> nn.Module:
    """Add γ to the absent classes' bias in place: what is left is a plain checkpoint that needs no code to serve.

    Folding twice adds twice. What comes back is the same model.

    Parameters
    ----------
    model : Module
        A classifier that `ftlib.models` can take apart, in any wrapper, or its head alone. A Linear or Conv2d head
        without a bias gets one; where two heads are averaged, each gets γ.
    gamma : float
        Finite, in logits.
    absent : iterable of int, or bool [C]
        Class ids, or a mask of them.

    Raises
    ------
    ValueError
        γ is not finite or was found for other absent classes, an absent class is outside the head, or there is no head
        that can carry a bias, or one of half precision, which would round it.

    Examples
    --------
    >>> fold_gamma(nn.Linear(8, 4, bias=False), 1.5, absent=[1, 3]).bias.tolist()
    [0.0, 1.5, 0.0, 1.5]
    """
    layers = layers_of(model)
    columns = check_absent(absent, len(layers[0].weight))
    if not math.isfinite(gamma := check_gamma(gamma, columns)):
        raise ValueError(f"γ is {gamma}: only a finite γ can be folded into a checkpoint")
    shift = np.zeros(len(layers[0].weight))
    shift[columns] = gamma
    add_to_bias(layers, shift)
    return model
