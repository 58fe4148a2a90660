"""Why the logits are what they are: pure functions of a run's arrays that the chapters turn into pictures.

This room has what happened to norms and logits in the course of a fine-tuning, and which part of a classifier is to
blame for it. Where weight rows and features went to is in `ftlib.movement`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ftlib.benchmarks import ClassSplit
from ftlib.margins import strongest_rival
from ftlib.metrics import split_accuracies

Measure = TypeVar("Measure", float, np.ndarray)


def trajectory(history: Mapping[str, Tensor], labels: Tensor, split: ClassSplit) -> dict[str, np.ndarray]:
    """How a fine-tuning went, at every evaluation of its history.

    Parameters
    ----------
    history : mapping
        ``epoch`` [E], test ``logits`` [E, N, C] and head ``weight`` [E, C, D], as a Run keeps them.
    labels : Tensor
        int64 [N], of the test images.
    split : ClassSplit

    Returns
    -------
    dict of float64 [E]
        ``epoch``; ``yy``, ``sy``, ``uy``, ``ss``, ``uu`` (fractions); ``seen_norm`` and ``absent_norm`` (mean L2 norm
        of the head's rows); and on the test images of each side, as means of logits, ``SIDE_true``,
        ``SIDE_other_seen`` and ``SIDE_other_absent``: the true class and the largest other seen and absent one.
        nan where a side has but one class and so no other. (Figures 6b and 12 of Mai et al., 2024.)
    """
    points = []
    for logits, weight in zip(history["logits"], history["weight"], strict=True):
        accuracies = split_accuracies(logits, labels, split)
        point = {name: getattr(accuracies, name) for name in ("yy", "sy", "uy", "ss", "uu")}
        for side in ("seen", "absent"):
            classes = torch.tensor(getattr(split, side))
            point[f"{side}_norm"] = float(weight[classes].norm(dim=1).mean())
            of_side = torch.isin(labels, classes)
            point |= {f"{side}_{name}": value for name, value in _competitors(logits[of_side], labels[of_side], split)}
        points.append(point)
    return {"epoch": history["epoch"].double().numpy()} | {
        name: np.array([point[name] for point in points]) for name in (points or [{}])[0]
    }


def lead(logits: Tensor, labels: Tensor, classes: tuple[int, ...]) -> np.ndarray:
    """How far the true logit is above the largest other logit of ``classes``, below zero where it is not.

    Parameters
    ----------
    logits : floating [N, C]
    labels : int64 [N]
    classes : tuple of int
        At least two. Images of other classes are left out.

    Returns
    -------
    float64 [n]
        For each image of these classes, in logits. (The gap between the curves of figure 6b.)
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


def contributions(
    measure: Callable[..., Measure], before: Mapping[str, Any], after: Mapping[str, Any]
) -> dict[str, Measure]:
    """How much each part contributes to ``measure(**after) - measure(**before)``; the contributions add up to it.

    Replacing a part matters more or less depending on which others are replaced already. Its contribution is the
    change that it makes, averaged over all orders in which the parts can be replaced: its Shapley value.

    Parameters
    ----------
    measure : callable
        Takes the parts by name and returns a number or an array. It is called once for each of the 2^n mixtures.
    before, after : mapping
        The same n names, each with the part's old and new value.
    """
    if before.keys() != after.keys():
        raise ValueError(f"parts before {sorted(before)} and after {sorted(after)}: expected the same names")
    names, value = list(before), {}
    for size in range(len(names) + 1):
        for new in combinations(names, size):
            value[frozenset(new)] = measure(**(dict(before) | {name: after[name] for name in new}))
    n = len(names)
    return {
        name: sum(
            math.factorial(len(new)) * math.factorial(n - 1 - len(new)) / math.factorial(n) * (value[new | {name}] - v)
            for new, v in value.items()
            if name not in new
        )
        for name in names
    }


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


def _competitors(logits: Tensor, labels: Tensor, split: ClassSplit) -> list[tuple[str, float]]:
    """Mean true logit and mean largest other logit of each side, on images of one side."""
    means = [("true", float(logits.gather(1, labels[:, None]).mean()))]
    for side in ("seen", "absent"):
        largest = strongest_rival(logits, labels, getattr(split, side))
        means.append((f"other_{side}", float(largest.mean()) if largest.isfinite().all() else float("nan")))
    return means
