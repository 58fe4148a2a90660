"""The steps that every finding rests on: pre-train on the source, look at the target, fine-tune on what it shows.

A method takes a Task and the model that it starts from, on its device, and returns arrays by name: ``test/*`` and
``train/*`` (the domain's Outputs), ``split/*``, ``history/*`` and ``model/*`` (trained weights). It knows nothing of
benchmarks, experiments or the store: it works on anybody's images.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ftlib import models, training
from ftlib.core import ClassSplit, Domain, ImageSet, fingerprints, seeded, split_images
from ftlib.training import FitLog, Recipe

Result = tuple[dict[str, Tensor], FitLog | None]


@dataclass(frozen=True)
class Task:
    """What a method is asked to do."""

    domain: Domain  # training and test images of all classes
    split: ClassSplit  # the classes that may be learnt from, and the absent ones; `pretrain` learns all
    recipe: Recipe = field(default_factory=Recipe)
    seed: int = 0  # of all that the method draws

    @property
    def seen(self) -> ImageSet:
        """The training images of the seen classes."""
        return self.domain.train.of(self.split.seen)


def pretrain(task: Task, model: nn.Module) -> Result:
    """Train on all classes of a domain."""
    log = training.fit(model, task.domain.train, task.recipe, seed=task.seed)
    return outputs(model, task.recipe, test=task.domain.test) | weights(model), log


def pretrained(task: Task, model: nn.Module) -> Result:
    """The classifier as it is, on the domain."""
    return judged(task, model), None


def adabn(task: Task, model: nn.Module) -> Result:
    """The classifier with batch-norm statistics of the seen images and every weight as it was (Li et al., 2018).

    The control for fine-tuning, which moves the statistics too: what is beyond this line the weights have learnt.
    """
    training.reset_statistics(model, task.seen, task.recipe, seed=task.seed)
    return judged(task, model) | weights(model), None


def finetune(task: Task, model: nn.Module, *, holdout: float = 0.0, **how: Any) -> Result:
    """Fine-tune all of the classifier on images of seen classes, with cross-entropy over all logits.

    A share ``holdout`` of each seen class's images is kept out of training, for choices and estimators that want such.
    ``how`` goes to `ftlib.training.fit`: other methods are this one with a loss of their own.
    """
    images, held_out = keep_back(task, holdout)
    arrays, log = adapt(task, model, images, **how)
    return arrays | held_out, log


def only(task: Task, model: nn.Module, parameters: Iterable[nn.Parameter], holdout: float) -> Result:
    """Fine-tune these parameters alone; batch norm's statistics move as the recipe says."""
    if not (chosen := list(parameters)):
        raise ValueError(f"{type(model).__name__} has no such weights to train: expected at least one")
    model.requires_grad_(False)
    for p in chosen:
        p.requires_grad_(True)
    return finetune(task, model, holdout=holdout)


def adapt(task: Task, model: nn.Module, images: ImageSet, **how: Any) -> Result:
    """Train on the given images and keep outputs, weights and a history; ``how`` goes to `training.fit`."""
    snapshots: list[dict[str, Tensor]] = []

    def evaluate(epoch: float) -> None:
        head, logits = models.head(model), training.predict(model, task.domain.test, task.recipe.size).logits
        now = {"epoch": torch.tensor(epoch), "logits": logits, "weight": head.weight, "bias": head.bias}
        snapshots.append({name: value.detach().cpu().clone() for name, value in now.items() if value is not None})

    log = training.fit(model, images, task.recipe, seed=task.seed, evaluate=evaluate, **how)
    history = {f"history/{name}": torch.stack([s[name] for s in snapshots]) for name in (snapshots or [{}])[0]}
    return judged(task, model) | history | {"history/loss": log.losses} | weights(model), log


def keep_back(task: Task, share: float) -> tuple[ImageSet, dict[str, Tensor]]:
    """The seen images less a share of each class, and where that share lies, as a Run keeps it; nothing for 0."""
    train = task.domain.train
    index = torch.isin(train.labels, torch.tensor(task.split.seen)).nonzero()[:, 0]
    kept, held_out = hold_out(train, index, share, task.seed)
    return ImageSet(train.images[kept], train.labels[kept]), {"split/held_out": held_out} if share else {}


def hold_out(images: ImageSet, index: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Two parts of ``index``, what is kept and a share of each class that is not; copies of an image stay together."""
    if share == 0:
        return index, index[:0]
    if not 0 < share < 1:
        raise ValueError(f"holdout={share}: expected a share of each class's images, from 0 to below 1")
    classes, labels = images.labels[index].unique(return_inverse=True)
    copies = fingerprints(images.images[index].numpy())
    names = [f"class {c}" for c in classes.tolist()]
    parts = split_images(labels.numpy(), copies, 1 - share, seeded(seed, "hold out"), names)
    return index[torch.from_numpy(parts[0])], index[torch.from_numpy(parts[1])]


def judged(task: Task, model: nn.Module) -> dict[str, Tensor]:
    """The split, and the model's outputs on the domain's training and test images."""
    split = {f"split/{side}": torch.tensor(getattr(task.split, side)) for side in ("seen", "absent")}
    return split | outputs(model, task.recipe, train=task.domain.train, test=task.domain.test)


def outputs(model: nn.Module, recipe: Recipe, **parts: ImageSet) -> dict[str, Tensor]:
    """``PART/features``, ``PART/logits`` and ``PART/labels`` of each part."""
    arrays = {}
    for part, images in parts.items():
        predicted = training.predict(model, images, recipe.size)
        arrays |= {f"{part}/{name}": array for name, array in predicted._asdict().items()}
    return arrays


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {f"model/{name}": value for name, value in model.state_dict().items()}
