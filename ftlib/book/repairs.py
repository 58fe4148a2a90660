"""Other ways to change a fine-tuned classifier's logits after training, to be compared with one γ.

    align_norms         rescale the head's absent rows to the norm of the seen ones
    adjust_for_prior    subtract the log of how often each class was seen
    match_rivals        a scale and a shift for U, such that its strongest classes rival those of S
    best_scale          the scale and γ of the best test accuracy: how much a second number could add at most
    folds_for           how many folds PCV can have

All but best_scale need no image of an absent class. Logits are floating arrays [N, C]; the results are new ones.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ftlib.calibration import Gamma
from ftlib.checks import Array, as_tensor, check_labels, check_logits, check_matrix
from ftlib.core import ClassSplit
from ftlib.margins import drawn_rivals
from ftlib.metrics import seen_unseen_curve


def align_norms(features: Array, weight: Array, bias: Array | None, split: ClassSplit) -> np.ndarray:
    """Logits [N, C] of features [N, D] and a head [C, D] whose absent rows are scaled to the seen rows' mean norm.

    The bias [C] stays as it is. "Weight aligning" of Zhao et al. (CVPR 2020), made for class-incremental learning; it
    needs the checkpoint alone.
    """
    features = check_matrix(features, "features").double().cpu().numpy()
    weight = check_matrix(weight, "weight").double().cpu().numpy()
    if (last := split.classes[-1]) >= len(weight):
        raise ValueError(f"the split names class {last}, but the head has only {len(weight)} rows")
    norms = np.linalg.norm(weight, axis=1)
    factor = np.ones(len(weight))
    factor[list(split.absent)] = norms[list(split.seen)].mean() / norms[list(split.absent)].mean()
    logits = features @ (weight * factor[:, None]).T
    return logits if bias is None else logits + np.asarray(bias, float)


def adjust_for_prior(logits: Array, train_labels: Array, split: ClassSplit) -> np.ndarray:
    """Logits less the log of each class's share of the training labels, each class of Y counted with one image more.

    Logit adjustment of Menon et al. (ICLR 2021); without the one image an absent class has the log of zero. With n
    images a seen class it is one γ for all of U, `ftlib.calibration.prior_gamma`: log(n + 1), which depends on nothing
    that the model learnt.
    """
    adjusted = check_logits(logits, split).double().cpu().numpy().copy()
    labels = as_tensor(train_labels, "labels", "integers [N]")
    labels = check_labels(labels, labels, split.classes, "the split's classes Y = S ∪ U").cpu().numpy()
    count = np.bincount(labels, minlength=adjusted.shape[1])[list(split.classes)] + 1
    adjusted[:, list(split.classes)] -= np.log(count / count.sum())
    return adjusted


class ScaleShift(NamedTuple):
    """Absent logits become scale · f + γ."""

    scale: float
    gamma: Gamma


def match_rivals(logits: Array, labels: Array, split: ClassSplit) -> ScaleShift:
    """The scale and shift by which the strongest absent logit gets the mean and spread of the strongest wrong seen one.

    Of equally many rivals, as `ftlib.calibration.competitor_gap` has them, of which this is the version with two
    numbers; arguments as there.
    """
    means, spreads = [], []
    for side in drawn_rivals(logits, labels, split):
        means.append(float((side.logits @ side.chance).mean()))
        centred = side.logits - means[-1]
        spreads.append(math.sqrt(float((centred.square() @ side.chance).mean())))
    if spreads[1] == 0:
        raise ValueError("the strongest absent logit is the same on all images: its spread cannot be matched")
    scale = spreads[0] / spreads[1]
    return ScaleShift(scale, Gamma(means[0] - scale * means[1], split))


def best_scale(logits: Array, labels: Array, split: ClassSplit, scales: Sequence[float]) -> ScaleShift:
    """Of the given scales of U the one with the best Acc_{Y/Y} at its own γ*: on test images, so a reference only.

    Of equally good ones the nearest to 1. A warning says if it is the smallest or the largest of several.
    """
    found = []
    for scale in sorted(map(float, scales), key=lambda scale: abs(scale - 1)):
        curve = seen_unseen_curve(rescale(logits, scale, split), labels, split)
        gamma = curve.best_gamma()
        found.append((curve.at(gamma).yy, ScaleShift(scale, Gamma(gamma, split))))
    if not found:
        raise ValueError("there are no scales to choose from: give at least one")
    best = max(found, key=lambda pair: pair[0])[1]  # the first of equal ones
    if len(found) > 1 and best.scale in (min(scales), max(scales)):
        warnings.warn(f"the best scale, {best.scale:.3g}, is at the end of those tried: try further ones", stacklevel=2)
    return best


def folds_for(split: ClassSplit, folds: int) -> int:
    """The folds of PCV that are asked for, or none, with a word, where its halves of S would hold a class alone."""
    if not folds or len(split.seen) >= 4:
        return folds
    print(f"PCV is left out: it halves the seen classes and needs four, here are {len(split.seen)}.")
    return 0


def rescale(logits: Array, scale: float, split: ClassSplit) -> np.ndarray:
    """Logits with the absent ones multiplied by ``scale``, before any γ."""
    scaled = check_logits(logits, split).double().cpu().numpy().copy()
    scaled[:, list(split.absent)] *= scale
    return scaled
