"""What else one could have done with the same pre-trained model: each a method like those of `ftlib.methods`.

oracle         train on target images of all classes: what the absent classes' images would have been worth
masked         the loss over the seen logits alone, the absent rows of the head left untouched
frozen_head    train the backbone, keep the pre-trained head
linear_probe   train the head, keep the pre-trained backbone
wise           interpolate between the pre-trained and the fine-tuned weights
lolsgd         leave-out local SGD: average models that each saw some of the classes
fold           one pseudo-split of the seen classes, for pseudo cross-validation (PCV)
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftlib import models, training
from ftlib.batches import placed
from ftlib.core import ClassSplit, ImageSet, seeded, whole
from ftlib.methods import Result, Task, adapt, finetune, hold_out, judged, keep_back, only, outputs, weights
from ftlib.training import FitLog


def oracle(task: Task, model: nn.Module) -> Result:
    """Train on the target's images of all classes, absent ones included: a reference, not a method.

    It takes as many steps as fine-tuning does, so it sees each class less often.
    """
    same_budget = replace(task.recipe, steps=task.recipe.steps_for(len(task.seen)))
    return adapt(replace(task, recipe=same_budget), model, task.domain.train)


def masked(task: Task, model: nn.Module, *, holdout: float = 0.0) -> Result:
    """The loss over the logits of S only; the head's absent rows stay as they were, weight decay included."""
    device = next(model.parameters()).device
    seen, absent = (torch.tensor(side, device=device) for side in (task.split.seen, task.split.absent))
    classes = cast(int, model.num_classes)
    place = torch.zeros(classes, dtype=torch.int64, device=device)
    place[seen] = torch.arange(len(seen), device=device)
    rows = [p for p in models.head(model).parameters() if len(p.shape) and len(p) == classes]
    start = [p.detach()[absent].clone() for p in rows]

    def loss(logits: Tensor, labels: Tensor, images: Tensor) -> Tensor:
        return training.loss_of(task.recipe, logits[:, seen], place[labels])

    @torch.no_grad()
    def restore() -> None:
        for parameter, values in zip(rows, start, strict=True):
            parameter[absent] = values

    return finetune(task, model, holdout=holdout, loss=loss, after_step=restore)


def frozen_head(task: Task, model: nn.Module, *, holdout: float = 0.0) -> Result:
    """Train the backbone below the pre-trained head."""
    models.head(model).requires_grad_(False)
    return finetune(task, model, holdout=holdout)


def linear_probe(task: Task, model: nn.Module, *, holdout: float = 0.0) -> Result:
    """Train the head on the pre-trained backbone, its batch norm in evaluation mode."""
    frozen = replace(task, recipe=replace(task.recipe, batch_norm="eval"))
    return only(frozen, model, models.head(model).parameters(), holdout)


def wise(task: Task, before: nn.Module, after: nn.Module, *, alpha: float = 0.5) -> Result:
    """(1 − alpha) · pre-trained + alpha · fine-tuned weights and batch-norm statistics (Wortsman et al., CVPR 2022)."""
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha={alpha}: expected a share of the fine-tuned weights, from 0 to 1")
    own, other = before.state_dict(), after.state_dict()
    mixed = {k: torch.lerp(v, other[k], alpha) if v.is_floating_point() else other[k] for k, v in own.items()}
    before.load_state_dict(mixed)
    return judged(task, before) | weights(before), None


def lolsgd(
    task: Task,
    model: nn.Module,
    *,
    copies: int = 4,
    classes: float = 0.5,
    local_steps: int = 8,
    distill: float = 0.0,
    budget: str = "total",
    holdout: float = 0.0,
) -> Result:
    """Leave-out local SGD (our re-implementation of Tu et al., NeurIPS 2023, who published no code).

    Parameters
    ----------
    copies : int
        Models that start from the same weights in every round; their parameters and buffers are averaged.
    classes : float
        Share of the seen classes, drawn anew for each copy and round, that a copy trains on.
    local_steps : int
        Steps of each copy in a round. Its optimizer starts anew: no momentum is carried from round to round.
    distill : float
        Weight of the cross-entropy from the pre-trained model's softmax over the absent logits to the model's own.
    budget : "total" or "sequential"
        What is as many as the steps of fine-tuning, to the nearest number of whole rounds, at least one: the steps of
        all copies together, or those of each copy, which follow one another; that costs ``copies`` times as much.
    holdout : float
        As for `ftlib.methods.finetune`.
    """
    images, held_out = keep_back(task, holdout)
    device = next(model.parameters()).device
    images = placed(images, device)
    split, recipe, rng = task.split, task.recipe, seeded(task.seed, "lolsgd")
    per_copy = max(1, round(classes * len(split.seen)))
    if not 0 < classes <= 1 or distill < 0:
        raise ValueError(f"classes={classes}, distill={distill}: expected a share in (0, 1] and a weight of 0 or more")
    if budget not in ("total", "sequential"):
        raise ValueError(f"budget={budget!r}: expected 'total' or 'sequential'")
    together = whole("copies", copies, 1) if budget == "total" else 1
    round_steps = together * whole("local_steps", local_steps, 1)
    rounds = max(1, round(recipe.steps_for(len(images)) / round_steps))
    local = replace(recipe, steps=local_steps, evaluations=0)
    absent = torch.tensor(split.absent, device=device)
    teacher = copy.deepcopy(model).eval().requires_grad_(False)

    def loss(logits: Tensor, labels: Tensor, batch: Tensor) -> Tensor:
        value = training.loss_of(recipe, logits, labels)
        if not distill:
            return value
        return value + distill * F.cross_entropy(logits[:, absent], teacher(batch)[:, absent].softmax(1))

    logs = []
    for r in range(rounds):
        start, mean = copy.deepcopy(model.state_dict()), {}
        for _ in range(copies):
            model.load_state_dict(start)
            subset = images.of(rng.choice(split.seen, per_copy, replace=False).tolist())
            span, seed = (r / rounds, (r + 1) / rounds), int(rng.integers(2**31))
            logs.append(training.fit(model, subset, local, seed=seed, loss=loss, span=span))
            for name, value in model.state_dict().items():
                share = value / copies if value.is_floating_point() else value
                mean[name] = mean[name] + share if name in mean and value.is_floating_point() else share.clone()
        model.load_state_dict(mean)
    log = FitLog.joined(logs)
    return judged(task, model) | {"history/loss": log.losses} | held_out | weights(model), log


def fold(task: Task, model: nn.Module, *, fold: int, holdout: float = 0.2) -> Result:
    """One fold of PCV: fine-tune on half of S, with the other half as if absent. No image of U is read.

    Keeps ``train/*``, outputs on the target's training images of S, of which ``split/held_out`` took no part in
    training, and ``before/*``, the pre-trained model's outputs on the latter.
    """
    pseudo = pseudo_split(task.split, task.seed, fold)
    images = task.seen
    kept, held_out = hold_out(images, torch.arange(len(images)), holdout, task.seed)
    held_images, kept_images = (ImageSet(images.images[i], images.labels[i]) for i in (held_out, kept))
    before = outputs(model, task.recipe, before=held_images)
    log = training.fit(model, kept_images.of(pseudo.seen), task.recipe, seed=task.seed)
    split = {"split/seen": torch.tensor(pseudo.seen), "split/absent": torch.tensor(pseudo.absent)}
    arrays = before | split | outputs(model, task.recipe, train=images)
    return arrays | {"split/held_out": held_out, "history/loss": log.losses}, log


def pseudo_split(split: ClassSplit, seed: int, fold: int) -> ClassSplit:
    """The fold-th random division of the seen classes into halves, the larger one pseudo-seen.

    Raises
    ------
    ValueError
        Fewer than four seen classes: each half needs two, since a class that is alone on its side has no rival.
    """
    if len(split.seen) < 4:
        raise ValueError(f"{len(split.seen)} seen classes {list(split.seen)}: PCV halves them and needs at least 4")
    order = seeded(seed, "pseudo-split", str(whole("fold", fold, 0))).permutation(np.array(split.seen))
    half = len(order) // 2
    return ClassSplit(order[half:], order[:half])
