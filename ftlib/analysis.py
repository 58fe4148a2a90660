"""Why the logits are what they are: pure functions of a run's arrays that the chapters turn into pictures.

This room has what happened to norms and logits in the course of a fine-tuning, and which part of a classifier is to
blame for it; where weight rows and features went; and whether the two sides can be told apart there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize, one_hot

from ftlib.checks import check_labels
from ftlib.core import ClassSplit
from ftlib.margins import strongest_rival
from ftlib.metrics import split_accuracies


def trajectory(history: Mapping[str, Tensor], labels: Tensor, split: ClassSplit) -> dict[str, np.ndarray]:
    """How a fine-tuning went, at every evaluation of its history. (Figures 6b and 12 of Mai et al., 2024.)

    Parameters
    ----------
    history : mapping
        ``epoch`` [E], test ``logits`` [E, N, C] and head ``weight`` [E, C, D], as a Run keeps them.
    labels : int64 [N], of the test images.

    Returns
    -------
    dict of float64 [E]
        ``epoch``; ``yy``, ``sy``, ``uy``, ``ss``, ``uu`` (fractions); ``seen_norm`` and ``absent_norm`` (mean L2 norm
        of the head's rows); and on the test images of each side, as means of logits, ``SIDE_true``,
        ``SIDE_other_seen`` and ``SIDE_other_absent``: the true class and the largest other seen and absent one; nan
        where a side has but one class and so no other.
    """
    if lacking := [name for name in ("epoch", "logits", "weight") if name not in history]:
        raise ValueError(f"the history has no {', '.join(lacking)}: train with Recipe.evaluations of 1 or more")
    points = []
    for logits, weight in zip(history["logits"], history["weight"], strict=True):
        accuracies = split_accuracies(logits, labels, split)
        point = {name: getattr(accuracies, name) for name in ("yy", "sy", "uy", "ss", "uu")}
        for side in ("seen", "absent"):
            classes = torch.tensor(getattr(split, side))
            point[f"{side}_norm"] = float(weight[classes].norm(dim=1).mean())
            of_side = torch.isin(labels, classes)
            point |= {f"{side}_{name}": value for name, value in _rivals(logits[of_side], labels[of_side], split)}
        points.append(point)
    return {"epoch": history["epoch"].double().numpy()} | {
        name: np.array([point[name] for point in points]) for name in (points or [{}])[0]
    }


def lead(logits: Tensor, labels: Tensor, classes: tuple[int, ...]) -> np.ndarray:
    """How far the true logit is above the largest other logit of ``classes``, below zero where it is not: float64 [n].

    Of logits [N, C] and labels [N], images of other classes are left out. (The gap between the curves of figure 6b.)
    """
    if len(classes) < 2:
        raise ValueError(f"classes {classes}: a lead needs at least two, a class and another one")
    of_classes = torch.isin(labels, torch.tensor(classes))
    logits, labels = logits[of_classes].double(), labels[of_classes]
    return (logits.gather(1, labels[:, None])[:, 0] - strongest_rival(logits, labels, classes)).numpy()


# --- a classifier taken apart ----------------------------------------------------------------------------------------


def head_parts(weight: Tensor, bias: Tensor | None = None) -> dict[str, Tensor]:
    """A linear head [C, D] as ``norms`` [C, 1] and unit ``directions`` [C, D] of its rows, and ``biases`` [C]."""
    weight = weight.double()
    norms = weight.norm(dim=1, keepdim=True)
    biases = weight.new_zeros(len(weight)) if bias is None else bias.double()
    return {"norms": norms, "directions": weight / norms.clamp_min(1e-300), "biases": biases}


def logits_of(features: Tensor, norms: Tensor, directions: Tensor, biases: Tensor) -> Tensor:
    """The logits [N, C] of a classifier put together from parts, some of which may be another classifier's."""
    return features.double() @ (norms * directions).T + biases


def contributions(measure: Callable[..., Any], before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """How much each part contributes to ``measure(**after) - measure(**before)``; the contributions add up to it.

    Replacing a part matters more or less depending on which others are replaced already. Its contribution is the
    change that it makes, averaged over all orders in which the parts can be replaced: its Shapley value. The measure,
    a number or an array, is taken once of each of the 2^n mixtures of the n parts.
    """
    if before.keys() != after.keys():
        raise ValueError(f"parts before {sorted(before)} and after {sorted(after)}: expected the same names")
    names, value = list(before), {}
    for size in range(len(names) + 1):
        for new in combinations(names, size):
            value[frozenset(new)] = measure(**(dict(before) | {name: after[name] for name in new}))
    n, orders = len(names), [math.factorial(k) for k in range(len(names) + 1)]  # of k parts
    share = [orders[k] * orders[n - 1 - k] / orders[n] for k in range(n)]  # of them in which k come before a part
    without = {name: [(new, v) for new, v in value.items() if name not in new] for name in names}
    return {name: sum(share[len(new)] * (value[new | {name}] - v) for new, v in of) for name, of in without.items()}


def shift_shares(change: Tensor) -> dict[str, float]:
    """What a change of logits [N, K] consists of, as shares of its mean square; they add up to one.

    ``constant``: the same for all images and classes, what one γ can undo. ``image``: one number for each image, over
    and above that. ``class``: one for each class. ``rest``: what is special to an image and a class. (Two-way analysis
    of variance, the grand mean counted in.)
    """
    change = change.double()
    constant = change.mean()
    image, column = change.mean(1, keepdim=True) - constant, change.mean(0, keepdim=True) - constant
    parts = {"constant": constant, "image": image, "class": column, "rest": change - constant - image - column}
    total = float(change.square().mean())
    if total == 0:
        raise ValueError("the logits did not change: there is nothing to take apart")
    return {name: float(part.square().mean()) / total for name, part in parts.items()}


def _rivals(logits: Tensor, labels: Tensor, split: ClassSplit) -> list[tuple[str, float]]:
    """Mean true logit and mean largest other logit of each side, on images of one side."""
    means = [("true", float(logits.gather(1, labels[:, None]).mean()))]
    for side in ("seen", "absent"):
        largest = strongest_rival(logits, labels, getattr(split, side))
        means.append((f"other_{side}", float(largest.mean()) if largest.isfinite().all() else float("nan")))
    return means


# --- where weight rows and features went ------------------------------------------------------------------------------


def cosines(rows: Tensor) -> Tensor:
    """Pairwise cosine similarities [K, K] of rows [K, D]; 0 for a row of zeros. (Figure 5 of Mai et al., 2024.)"""
    rows = normalize(rows.double())
    return rows @ rows.T


def group_cosines(rows: Tensor, split: ClassSplit) -> dict[str, float]:
    """Mean pairwise cosine of rows [C, D] within ``seen``, within ``absent``, and ``between`` them.

    Pairs of a row with itself are left out; nan within a side of one class.
    """
    similar = cosines(rows)
    sides = {side: torch.tensor(getattr(split, side)) for side in ("seen", "absent")}
    means = {"between": float(similar[sides["seen"]][:, sides["absent"]].mean())}
    for side, classes in sides.items():
        n, block = len(classes), similar[classes][:, classes]
        means[side] = float((block.sum() - block.trace()) / (n * (n - 1))) if n > 1 else float("nan")
    return means


def softmax_step(features: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """Where one step of gradient descent on the mean cross-entropy takes each row of the head, up to the step size.

    The mean over images of (1[y = c] − p_c) φ, the negative gradient with respect to the weight [C, D], of features φ
    [N, D], logits [N, C] and labels y [N]. A class that no image belongs to has −mean(p_c φ) alone: it leaves the
    features of all images, the more the likelier it finds them.
    """
    labels = check_labels(labels, logits, range(logits.shape[1]), f"the columns 0 to {logits.shape[1] - 1}")
    error = one_hot(labels, logits.shape[1]) - logits.double().softmax(1)
    return error.T @ features.double() / len(features)


# --- class means -----------------------------------------------------------------------------------------------------


def class_means(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Mean features [C, D] of each class; nan where a class has no image."""
    labels = check_labels(labels, features, range(num_classes), f"the classes 0 to {num_classes - 1}")
    sums = torch.zeros(num_classes, features.shape[1], dtype=torch.float64)
    sums.index_add_(0, labels, features.double())
    return sums / torch.bincount(labels, minlength=num_classes)[:, None]


class Alignment(NamedTuple):
    """Mean cosines over absent classes. (Figure 6a of Mai et al., 2024, as numbers.)"""

    seen: float  # of an absent class's shift with the shifts of all seen classes
    nearest: float  # both less the mean shift of the seen classes: with the seen class that was nearest before
    others: float  # ... and with the seen classes but that one


def alignment(before: Tensor, after: Tensor, split: ClassSplit) -> Alignment:
    """Do absent classes move as seen ones do, and beyond what all do, as the seen class does that is most like them?

    From class means [C, D] of both models. Most like a class is that of the largest cosine between means before, less
    their overall mean.
    """
    first, *others = split.seen
    if not others:
        raise ValueError(f"class {first} is the only seen class: its shift less the mean shift is zero")
    seen, absent = torch.tensor(split.seen), torch.tensor(split.absent)
    shifts = after - before
    own = cosines(shifts - shifts[seen].mean(0))[absent][:, seen]
    like = cosines(before - before[list(split.classes)].mean(0))[absent][:, seen]
    nearest = own.gather(1, like.argmax(1, keepdim=True))[:, 0]
    others = (own.sum(1) - nearest) / (len(seen) - 1)
    return Alignment(group_cosines(shifts, split)["between"], float(nearest.mean()), float(others.mean()))


class Approach(NamedTuple):
    """How classes come nearer to a goal of their own, such as their means in the source domain; means over classes."""

    own: float  # cosine of a class's shift with the way to its own goal
    other: float  # ... with the way to the goal of the next class: what one would see without an aim
    gone: float  # share of the distance to the own goal that is gone after the shift, below zero if it has grown


def approach(before: Tensor, after: Tensor, goal: Tensor) -> Approach:
    """Do class means [K, D] move towards their goals [K, D]?

    The way to any goal starts where the shift starts, so that noise in a mean before looks like an aim. ``other`` has
    the same noise.
    """
    shift, far, near = after - before, goal - before, goal - after
    return Approach(
        mean_cosine(shift, far),
        mean_cosine(shift, goal.roll(1, 0) - before),
        float((1 - near.norm(dim=1) / far.norm(dim=1)).mean()),
    )


def mean_cosine(a: Tensor, b: Tensor) -> float:
    """Mean over rows of the cosine between a row of ``a`` and the same row of ``b`` (or the only one)."""
    return float(cosine_similarity(a.double(), b.double(), dim=-1).mean())
