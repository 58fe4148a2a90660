"""Other ways to fine-tune: each a method like those of `ftlib.methods`, as many steps on the same images.

Held to the start by a penalty
    lwf        the absent logits are distilled from the pre-trained model (Li and Hoiem, ECCV 2016)
    l2sp       the weights are drawn to their start (Li et al., ICML 2018)
    ldifs      the features are drawn to their start (Mukhoti et al., TMLR 2024)
Few weights
    bias_only  biases, those of norms included (Ben Zaken et al., ACL 2022)
    norm_only  scale and shift of the norms (Frankle et al., ICLR 2021)
    lora       a low-rank change of every weight matrix and kernel (Hu et al., ICLR 2022)
Another order, another loss
    lp_ft      first the head, then all (Kumar et al., ICLR 2022)
    balanced   balanced softmax (Ren et al., NeurIPS 2020), absent classes counted as if they had images
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ftlib import models, training
from ftlib.core import whole
from ftlib.methods import Result, Task, adapt, finetune, judged, keep_back, only, weights
from ftlib.training import FitLog


def lwf(task: Task, model: nn.Module, *, weight: float = 1.0, temperature: float = 2.0, holdout: float = 0.0) -> Result:
    """The recipe's loss and ``weight`` times the cross-entropy from the pre-trained softmax over U to the model's own.

    Both softmaxes are of logits divided by ``temperature``. They compare absent classes with each other alone.
    """
    if temperature <= 0:
        raise ValueError(f"temperature={temperature}: expected a number above 0")
    absent = torch.tensor(task.split.absent, device=next(model.parameters()).device)
    teacher = _frozen(model)

    def penalty(logits: Tensor, images: Tensor) -> Tensor:
        given, own = (of[:, absent] / temperature for of in (teacher(images), logits))
        return F.cross_entropy(own, given.softmax(1))

    return _penalised(task, model, weight, penalty, holdout)


def l2sp(task: Task, model: nn.Module, *, weight: float = 0.01, holdout: float = 0.0) -> Result:
    """The recipe's loss and weight/2 times the squared distance of all weights from the pre-trained ones.

    The head is drawn to its start, too, since it has one here. The recipe's weight decay stays.
    """
    parameters = list(model.parameters())
    start = [p.detach().clone() for p in parameters]

    def penalty(logits: Tensor, images: Tensor) -> Tensor:
        return sum((p - s).square().sum() for p, s in zip(parameters, start, strict=True)) / 2  # pyright: ignore[reportReturnType]

    return _penalised(task, model, weight, penalty, holdout)


def ldifs(task: Task, model: nn.Module, *, weight: float = 0.1, holdout: float = 0.0) -> Result:
    """The recipe's loss and ``weight`` times the squared distance of an image's features from the pre-trained ones.

    Features are what the head sees; the authors take inner layers as well.
    """
    teacher, seen = _frozen(model), {}
    layers = [models.head_layers(of) for of in (model, teacher)]
    hooks = [
        layer.register_forward_pre_hook(lambda of, given: seen.update({of: given[0].flatten(1)}))
        for layer in (*layers[0], *layers[1])
    ]

    def penalty(logits: Tensor, images: Tensor) -> Tensor:
        teacher(images)
        own, given = (torch.cat([seen[layer] for layer in of], 1) for of in layers)
        return (own - given).square().sum(1).mean()

    try:
        return _penalised(task, model, weight, penalty, holdout)
    finally:
        for hook in hooks:
            hook.remove()


def bias_only(task: Task, model: nn.Module, *, holdout: float = 0.0) -> Result:
    """Train the biases: those of the head, of convolutions and linear layers, and of norms."""
    return only(task, model, (p for name, p in model.named_parameters() if name.endswith("bias")), holdout)


def norm_only(task: Task, model: nn.Module, *, holdout: float = 0.0) -> Result:
    """Train scale and shift of the norms, whatever kind of norm they are."""
    norms = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
    return only(task, model, (p for m in model.modules() if isinstance(m, norms) for p in m.parameters()), holdout)


def lora(task: Task, model: nn.Module, *, rank: int = 4, holdout: float = 0.0) -> Result:
    """Train a change of rank ``rank`` of every weight matrix and kernel, the head's included, and nothing else.

    A kernel [O, I, h, w] is the matrix [O, I·h·w]. In the end the changes are added to the weights: the model is as it
    was built. The history holds the loss alone.
    """
    rank = whole("rank", rank, 1)
    images, held_out = keep_back(task, holdout)
    model.requires_grad_(False)
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    with training.reproducible(task.seed):
        for layer in layers:
            parametrize.register_parametrization(layer, "weight", LowRank(layer.weight, rank))
    log = training.fit(model, images, task.recipe, seed=task.seed)
    for layer in layers:
        parametrize.remove_parametrizations(layer, "weight")
    return judged(task, model) | held_out | {"history/loss": log.losses} | weights(model), log


class LowRank(nn.Module):
    """w + B·A: A [rank, n] starts with orthonormal rows, B [O, rank] at 0, and the rank is at most that of w [O, n]."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        flat = weight.detach().flatten(1)
        rows = torch.empty(min(rank, *flat.shape), flat.shape[1])  # drawn on the CPU: the same on every device
        self.A = nn.Parameter(nn.init.orthogonal_(rows).to(flat))
        self.B = nn.Parameter(flat.new_zeros(len(flat), len(rows)))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.B @ self.A).view_as(weight)


def lp_ft(task: Task, model: nn.Module, *, head: float = 0.5, holdout: float = 0.0) -> Result:
    """Train the head for a share ``head`` of the steps, as a linear probe does, then all for the others.

    Each part has a schedule of its own. The history is that of the second.
    """
    if not 0 <= head < 1:
        raise ValueError(f"head={head}: expected a share of the steps, from 0 to below 1")
    images, held_out = keep_back(task, holdout)
    steps = task.recipe.steps_for(len(images))
    first = replace(task.recipe, steps=round(head * steps), batch_norm="eval", finish=0)
    asked = [(p, p.requires_grad) for p in model.parameters()]
    model.requires_grad_(False)
    models.head(model).requires_grad_(True)
    probe = training.fit(model, images, first, seed=task.seed)
    for p, flag in asked:
        p.requires_grad_(flag)
    rest = replace(task, recipe=replace(task.recipe, steps=steps - probe.losses.numel()))
    arrays, log = adapt(rest, model, images)
    assert log is not None
    log = FitLog.joined([probe, log])
    return arrays | held_out | {"history/loss": log.losses}, log


def balanced(task: Task, model: nn.Module, *, absent_count: float = 1.0, holdout: float = 0.0) -> Result:
    """The softmax over f_c + log n_c, with n_c a class's images and ``absent_count`` for a class that has none.

    Towards 0 the absent logits leave the loss, as in `ftlib.baselines.masked`; at the count of the seen classes, if
    they have all the same, it is the softmax itself.
    """
    if not 0 < absent_count < math.inf:
        raise ValueError(f"absent_count={absent_count}: expected a number of images above 0")
    images, held_out = keep_back(task, holdout)
    counts = images.labels.bincount(minlength=cast(int, model.num_classes)).double()
    prior = counts.where(counts > 0, absent_count).log().float().to(next(model.parameters()).device)

    def loss(logits: Tensor, labels: Tensor, batch: Tensor) -> Tensor:
        return training.loss_of(task.recipe, logits + prior, labels)

    arrays, log = adapt(task, model, images, loss=loss)
    return arrays | held_out, log


def _penalised(
    task: Task, model: nn.Module, weight: float, penalty: Callable[[Tensor, Tensor], Tensor], holdout: float
) -> Result:
    """Fine-tune with ``weight`` times a penalty of logits [B, C] and images added to the recipe's loss."""
    if not 0 <= weight < math.inf:
        raise ValueError(f"weight={weight}: expected a finite number, 0 or more")

    def loss(logits: Tensor, labels: Tensor, images: Tensor) -> Tensor:
        return training.loss_of(task.recipe, logits, labels) + weight * penalty(logits, images)

    return finetune(task, model, holdout=holdout, loss=loss)


def _frozen(model: nn.Module) -> nn.Module:
    """A copy that stays as the model is now, in evaluation mode."""
    return copy.deepcopy(model).eval().requires_grad_(False).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
