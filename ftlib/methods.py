"""The three steps that every finding rests on: pre-train on the source, look at the target, fine-tune on what it shows.

A method takes an Experiment and the model that it starts from, on its device, and returns arrays by name:
``test/*`` and ``train/*`` (the target's Outputs), ``split/*``, ``history/*`` and ``model/*`` (trained weights).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ftlib import benchmarks, models, training
from ftlib.benchmarks import ClassSplit, Domain, ImageSet
from ftlib.benchmarks.domain import fingerprints, seeded, split_images
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
        head=experiment.head,
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


def finetune(experiment: Experiment, model: nn.Module, *, holdout: float = 0.0) -> Result:
    """Fine-tune all of the classifier on the target's images of seen classes, with cross-entropy over all logits.

    A share ``holdout`` of each seen class's images is kept out of training, for estimators that want such images.
    """
    target, split = benchmarks.load_target(experiment.benchmark, experiment.seed, **experiment.data)
    index = torch.isin(target.train.labels, torch.tensor(split.seen)).nonzero()[:, 0]
    kept, held_out = hold_out(target.train, index, holdout, experiment.seed)
    images = ImageSet(target.train.images[kept], target.train.labels[kept])
    arrays, log = adapt(experiment, model, target, split, images)
    return arrays | ({"split/held_out": held_out} if holdout else {}), log


def adapt(
    experiment: Experiment, model: nn.Module, target: Domain, split: ClassSplit, images: ImageSet, **how: Any
) -> Result:
    """Train on the given images and keep outputs, weights and a history; ``how`` goes to `training.fit`."""
    snapshots: list[dict[str, Tensor]] = []

    def evaluate(epoch: float) -> None:
        head, logits = models.head(model), training.predict(model, target.test, experiment.recipe.size).logits
        now = {"epoch": torch.tensor(epoch), "logits": logits, "weight": head.weight, "bias": head.bias}
        snapshots.append({name: value.detach().cpu().clone() for name, value in now.items() if value is not None})

    log = training.fit(model, images, experiment.recipe, seed=experiment.seed, evaluate=evaluate, **how)
    history = {f"history/{name}": torch.stack([s[name] for s in snapshots]) for name in (snapshots or [{}])[0]}
    arrays = outputs(model, experiment, split, train=target.train, test=target.test)
    return arrays | history | {"history/loss": log.losses} | weights(model), log


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
