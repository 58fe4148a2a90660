"""γ, the number that is added to every absent class's logit: found, used on logits, put into a checkpoint.

`ftlib.estimators` has the ways to find γ; `apply` uses it on logits, `fold_gamma` inside a model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ftlib.checks import check_gamma
from ftlib.estimators import (
    PCV,
    Gamma,
    average_logit_gap,
    competitor_gap,
    competitor_share,
    margin_quantile,
    mirrored,
    mirrored_margins,
    oracle_gamma,
    pseudo_cross_validation,
)

__all__ = [
    "PCV", "Gamma", "apply", "average_logit_gap", "competitor_gap", "competitor_share", "fold_gamma", "margin_quantile",
    "mirrored", "mirrored_margins", "oracle_gamma", "pseudo_cross_validation",
]  # fmt: skip

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
    columns = sorted({int(c) for c in absent})
    outside = [c for c in columns if not 0 <= c < num_classes]
    if outside or not columns:
        raise ValueError(f"absent classes {outside}: expected at least one, each in 0 to {num_classes - 1}")
    return columns
