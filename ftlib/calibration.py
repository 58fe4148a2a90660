"""Choosing γ, the number that is added to every absent class's logit, and putting it into a checkpoint.

Estimators take arrays and return γ in logits; `apply` uses it on logits, `fold_gamma` inside a model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ftlib.benchmarks.core import ClassSplit
from ftlib.checks import Array, check_gamma, check_labels, check_no_nan, check_outputs
from ftlib.metrics import seen_unseen_curve

AnyArray = TypeVar("AnyArray", Tensor, np.ndarray)


def average_logit_gap(logits: Array, labels: Array, split: ClassSplit) -> float:
    """ALG: γ = mean over samples of (mean logit over S without the true class) − (mean logit over U).

    Parameters
    ----------
    logits : floating array [N, C]
        Of the fine-tuned model on its fine-tuning training images.
    labels : integer array [N], each a class of S.
    split : ClassSplit

    Returns
    -------
    float
        γ in logits.

    Raises
    ------
    ValueError
        A label that is not a seen class, fewer than two seen classes, NaN or infinite logits, or input that
        `ftlib.metrics.split_accuracies` refuses.
    """
    if len(split.seen) < 2:
        raise ValueError(f"class {split.seen[0]} is the only seen class: ALG needs others to compare it with")
    logits, labels = check_outputs(logits, labels, split)
    check_labels(
        labels,
        logits,
        split.seen,
        "the seen classes: ALG takes fine-tuning training outputs only, since absent-class data would leak",
    )
    check_no_nan(logits, "logits")
    seen, absent = (torch.tensor(side, device=logits.device) for side in (split.seen, split.absent))
    mean = logits.mean(0, dtype=torch.float64)
    true = logits.gather(1, labels[:, None]).mean(dtype=torch.float64)
    gamma = float((mean[seen].sum() - true) / (len(seen) - 1) - mean[absent].mean())
    if not math.isfinite(gamma):
        raise ValueError(f"the average logit gap is {gamma}: the logits of Y must be finite")
    return gamma


def oracle_gamma(logits: Array, labels: Array, split: ClassSplit) -> float:
    """γ*: the best overall accuracy along the exact curve of the test outputs, all classes.

    The reference that estimators are judged against; it needs test labels and cannot be deployed. Arguments,
    errors and ties as for `ftlib.metrics.seen_unseen_curve` and its ``best_gamma``.
    """
    return seen_unseen_curve(logits, labels, split).best_gamma()


def apply(logits: AnyArray, gamma: float, absent: Iterable[int]) -> AnyArray:
    """logits + γ·1[c ∈ absent] as a new array [..., C] of the same type and precision.

    Raises
    ------
    ValueError
        γ is NaN, or an absent class is outside the logits.
    """
    gamma, absent = check_gamma(gamma), _columns(absent, logits.shape[-1])
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
        γ is not finite, an absent class is outside the head, or there is no head that can carry a bias.
    """
    if not math.isfinite(gamma := float(gamma)):
        raise ValueError(f"γ is {gamma}: only a finite γ can be folded into a checkpoint")
    head = model.get_classifier() if hasattr(model, "get_classifier") else model
    weight, bias = getattr(head, "weight", None), getattr(head, "bias", None)
    if not isinstance(weight, Tensor) or (bias is None and not isinstance(head, nn.Linear | nn.Conv2d)):
        raise ValueError(f"the head is {type(head).__name__}, which has no bias: expected Linear or 1×1 Conv2d")
    if weight.ndim < 2 or weight[0, 0].numel() != 1:
        raise ValueError(f"the head's weight is {list(weight.shape)}, expected [classes, features] or 1×1 Conv2d")
    columns = _columns(absent, len(weight))
    if bias is None:
        head.bias = nn.Parameter(weight.new_zeros(len(weight)), requires_grad=weight.requires_grad)
    with torch.no_grad():
        head.bias[columns] += gamma
    return model


def _columns(absent: Iterable[int], num_classes: int) -> list[int]:
    columns = sorted({int(c) for c in absent})
    outside = [c for c in columns if not 0 <= c < num_classes]
    if outside or not columns:
        raise ValueError(f"absent classes {outside}: expected at least one, each in 0 to {num_classes - 1}")
    return columns
