"""The three steps that every finding rests on: pre-train on the source, look at the target, fine-tune on what it shows.

A method takes an Experiment and the model that it starts from, on its device, and returns arrays by name:
``test/*`` and ``train/*`` (the target's Outputs), ``split/*``, ``history/*`` and ``model/*`` (trained weights).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ftlib import benchmarks, models, training
from ftlib.benchmarks import ClassSplit, ImageSet
from ftlib.training import FitLog

if TYPE_CHECKING:
    from ftlib.experiments import Experiment

Result = tuple[dict[str, Tensor], FitLog | None]


def pretrain(experiment: Experiment, device: str) -> Result:
    """Train on all classes of the source domain, from ``checkpoint``, the hub, or scratch."""
    domain = benchmarks.load_domain(experiment.benchmark, experiment.seed, **experiment.data)
    model = models.build(
        experiment.backbone,
        len(domain.class_names),
        options=experiment.model,
        checkpoint=experiment.checkpoint,
        pretrained=experiment.pretrained,
        seed=experiment.seed,
    ).to(device)
    log = training.fit(model, domain.train, experiment.recipe, seed=experiment.seed)
    return outputs(model, experiment, test=domain.test) | weights(model), log


def pretrained(experiment: Experiment, model: nn.Module) -> Result:
    """The pre-trained classifier as it is, on the target domain."""
    target, split = benchmarks.load_target(experiment.benchmark, experiment.seed, **experiment.data)
    return outputs(model, experiment, split, train=target.train, test=target.test), None


def finetune(experiment: Experiment, model: nn.Module) -> Result:
    """Fine-tune all of the classifier on the target's images of seen classes, with cross-entropy over all logits."""
    target, split = benchmarks.load_target(experiment.benchmark, experiment.seed, **experiment.data)
    snapshots: list[dict[str, Tensor]] = []

    def evaluate(epoch: float) -> None:
        head, logits = models.head(model), training.predict(model, target.test, experiment.recipe.size).logits
        now = {"epoch": torch.tensor(epoch), "logits": logits, "weight": head.weight, "bias": head.bias}
        snapshots.append({name: value.detach().cpu().clone() for name, value in now.items() if value is not None})

    log = training.fit(model, target.train.of(split.seen), experiment.recipe, seed=experiment.seed, evaluate=evaluate)
    history = {f"history/{name}": torch.stack([s[name] for s in snapshots]) for name in (snapshots or [{}])[0]}
    arrays = outputs(model, experiment, split, train=target.train, test=target.test)
    return arrays | history | {"history/loss": log.losses} | weights(model), log


def outputs(
    model: nn.Module, experiment: Experiment, split: ClassSplit | None = None, **parts: ImageSet
) -> dict[str, Tensor]:
    """``PART/features``, ``PART/logits`` and ``PART/labels`` of each part, and the split beside them."""
    arrays = {f"split/{side}": torch.tensor(getattr(split, side)) for side in ("seen", "absent") if split}
    for part, images in parts.items():
        predicted = training.predict(model, images, experiment.recipe.size)
        arrays |= {f"{part}/{name}": array for name, array in predicted._asdict().items()}
    return arrays


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {f"model/{name}": value for name, value in model.state_dict().items()}
