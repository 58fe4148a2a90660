"""The finding in a plane: four classes, a network of one hidden layer, and a domain shift that one can draw.

    world ─> make ─> Data ─> pretrain ─> finetune ─> {step: Nets} ─> measure
    where    squares, circles           on two classes alone         the same pure functions as for images

The classes stand in two rows: A and B, which fine-tuning sees, above C and D, which are absent from it. Squares are the
source domain, circles the target, and a shift takes one to the other. There is a network a seed, with its own points
and initial weights, and all of them are trained as one batch, a leading axis R on every array; the run store keeps
them. (Figure 8 of Mai et al., 2024, whose own setting is not public: geometry and sizes are this project's.)
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ftlib.calibration import average_logit_gap
from ftlib.core import ClassSplit
from ftlib.metrics import ncm_logits, seen_unseen_curve, split_accuracies
from ftlib.store import Store

MOMENTUM = 0.9
SPLIT = ClassSplit(seen=[0, 1], absent=[2, 3])


@dataclass(frozen=True)
class World:
    """Where the classes are and where the domain shift takes them; lengths are in units of the plane.

    The smaller the height, the more the absent classes resemble the seen ones. ``direction`` is 0 from A towards B, 90
    away from the absent classes, -90 onto them. With ``shared`` at 1 the absent classes move as the seen ones do, at 0
    they stay where they were, at -1 they move as far the opposite way. ValueError for a value that is out of range.
    """

    width: float = 2.8  # from A to B and from C to D
    height: float = 2.8  # from the seen row down to the absent one
    noise: float = 0.5  # standard deviation of a class's points around its centre, along each axis
    shift: float = 2.0  # how far the seen classes move from source to target
    direction: float = 0.0  # of the shift, in degrees
    shared: float = 1.0  # the part of the shift that the absent classes go along with, in [-1, 1]

    def __post_init__(self) -> None:
        for field in fields(self):
            if not math.isfinite(value := getattr(self, field.name)):
                raise ValueError(f"{field.name} is {value}, expected a finite number")
        for name in ("width", "height", "noise", "shift"):
            if (value := getattr(self, name)) < 0:
                raise ValueError(f"{name} is {value}, expected a length of 0 or more")
        if not -1 <= self.shared <= 1:
            raise ValueError(f"shared is {self.shared}, expected -1 (the opposite way) to 1 (alike)")

    def centres(self, domain: str) -> Tensor:
        """Of the four classes in the "source" or the "target" domain: float32 [4, 2]."""
        if domain not in ("source", "target"):
            raise ValueError(f"domain {domain!r}: expected 'source' or 'target'")
        x, y = self.width / 2, self.height / 2
        centres = torch.tensor([[-x, y], [x, y], [-x, -y], [x, -y]])
        if domain == "target":
            angle = math.radians(self.direction)
            shift = self.shift * torch.tensor([math.cos(angle), math.sin(angle)])
            centres += torch.tensor([1.0, 1.0, self.shared, self.shared])[:, None] * shift
        return centres

    def box(self) -> tuple[float, float, float, float]:
        """left, right, bottom, top: around the centres of both domains, with three standard deviations to spare."""
        centres = torch.cat([self.centres("source"), self.centres("target")])
        (left, bottom), (right, top) = centres.amin(0).tolist(), centres.amax(0).tolist()
        margin = 3 * self.noise
        return left - margin, right + margin, bottom - margin, top + margin


class Data(NamedTuple):
    """Points of R repetitions, float32 [R, N, 2], all of them with the same labels, int64 [N]."""

    source: Tensor
    source_test: Tensor
    target: Tensor
    target_test: Tensor
    labels: Tensor


class Nets(NamedTuple):
    """R networks side by side: 2 → H → 4, features = ReLU(x·W + b)."""

    hidden_weight: Tensor  # [R, 2, H]
    hidden_bias: Tensor  # [R, 1, H]
    weight: Tensor  # [R, H, 4]
    bias: Tensor  # [R, 1, 4]

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Features [R, N, H] and logits [R, N, 4] of points [R, N, 2], or [1, N, 2] for the same points to all."""
        features = (points @ self.hidden_weight + self.hidden_bias).relu()
        return features, features @ self.weight + self.bias


def make(world: World, seeds: Iterable[int], per_class: int = 50) -> Data:
    """A repetition a seed. The noise depends on the seed alone, so worlds differ in what was changed and no more."""
    seeds = _check_seeds(seeds)
    if per_class < 2:
        raise ValueError(f"per_class is {per_class}: a class needs at least two points in each part")
    noise = torch.stack(
        [torch.randn(4, 4, per_class, 2, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    )
    centres = [world.centres(domain)[:, None] for domain in ("source", "source", "target", "target")]
    parts = [(centre + world.noise * noise[:, i]).flatten(1, 2) for i, centre in enumerate(centres)]
    return Data._make([*parts, torch.arange(4).repeat_interleave(per_class)])


def stack(datas: Sequence[Data]) -> Data:
    """Several worlds' data as one batch, the first world's repetitions first: they train together, in less time."""
    parts = [torch.cat(part) for part in zip(*(data[:-1] for data in datas), strict=True)]
    return Data._make([*parts, datas[0].labels])


def repeat(nets: Nets, times: int) -> Nets:
    """The same networks for each of several worlds, as `stack` orders them."""
    return Nets(*(part.repeat(times, 1, 1) for part in nets))


def unstack(measured: Mapping[str, np.ndarray], worlds: int) -> list[dict[str, np.ndarray]]:
    """What `measure` says of a stack, taken apart again: a dict of [R] for each world."""
    return [{k: v.reshape(worlds, -1)[i] for k, v in measured.items()} for i in range(worlds)]


def init(seeds: Iterable[int], hidden: int = 16) -> Nets:
    """Networks with normal weights, of standard deviation √(2 / inputs), and small biases, each from its seed."""
    if hidden < 1:
        raise ValueError(f"hidden is {hidden}: a network needs at least one hidden unit")
    parts = []
    for seed in _check_seeds(seeds):
        g = torch.Generator().manual_seed(seed + 2**32)  # other numbers than the points' noise
        shapes = ((2, hidden), 1.0), ((1, hidden), 0.5), ((hidden, 4), math.sqrt(2 / hidden)), ((1, 4), 0.0)
        parts.append([scale * torch.randn(shape, generator=g) for shape, scale in shapes])
    return Nets(*(torch.stack(part) for part in zip(*parts, strict=True)))


def pretrain(nets: Nets, data: Data, steps: int = 400, lr: float = 0.1) -> Nets:
    """The networks, trained on the source points of all four classes."""
    return _trained(nets, data.source, data.labels, steps, lr, (steps,))[steps]


def finetune(nets: Nets, data: Data, steps: int = 400, lr: float = 0.05, at: Collection[int] = ()) -> dict[int, Nets]:
    """The networks after each number of steps in ``at``, after none and after all, trained on A and B alone.

    The cross-entropy is over all four logits, as everywhere in this book; no point of C or D is read.
    """
    seen = _seen(data)
    return _trained(nets, data.target[:, seen], data.labels[seen], steps, lr, {0, steps, *at})


def measure(nets: Nets, data: Data) -> dict[str, np.ndarray]:
    """What the book measures on images, on the target's test points: float64 [R] under each name.

    ``yy``, ``sy``, ``uy``, ``ss``, ``uu`` are accuracies of the head; ``ncm_sy``, ``ncm_uy``, ``ncm_uu`` those of the
    features; ``ausuc``; γ* is ``oracle``, and with it ``oracle_yy``, ``oracle_sy``, ``oracle_uy``; ALG is ``alg``, from
    the training points of A and B, and with it ``alg_yy``. Accuracies are fractions.
    """
    labels, seen, rows = data.labels, _seen(data), []
    for train_features, train_logits, features, logits in zip(*nets(data.target), *nets(data.target_test), strict=True):
        head = split_accuracies(logits, labels, SPLIT)
        ncm = split_accuracies(ncm_logits(train_features, labels, features, 4), labels, SPLIT)
        curve = seen_unseen_curve(logits, labels, SPLIT)
        oracle, alg = curve.best_gamma(), average_logit_gap(train_logits[seen], labels[seen], SPLIT)
        row = {name: getattr(head, name) for name in ("yy", "sy", "uy", "ss", "uu")}
        row |= {f"ncm_{name}": getattr(ncm, name) for name in ("sy", "uy", "uu")}
        row |= {"ausuc": curve.ausuc, "oracle": oracle, "alg": alg, "alg_yy": curve.at(alg).yy}
        rows.append(row | {f"oracle_{name}": value for name, value in curve.at(oracle)._asdict().items()})
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def on_grid(nets: Nets, box: tuple[float, float, float, float], columns: int = 161) -> np.ndarray:
    """Logits [R, rows, columns, 4] at the middles of square cells that fill the box (left, right, bottom, top)."""
    left, right, bottom, top = box
    if not (left < right and bottom < top and columns > 0):
        raise ValueError(f"box {box} with {columns} columns: expected left < right, bottom < top, a column or more")
    size = (right - left) / columns
    rows = max(1, round((top - bottom) / size))
    y, x = torch.meshgrid(
        bottom + (top - bottom) * (torch.arange(rows) + 0.5) / rows, left + size * (torch.arange(columns) + 0.5),
        indexing="ij",
    )  # fmt: skip
    return nets(torch.stack([x, y], -1).reshape(1, -1, 2))[1].unflatten(1, (rows, columns)).numpy()


def _trained(nets: Nets, points: Tensor, labels: Tensor, steps: int, lr: float, at: Collection[int]) -> dict[int, Nets]:
    """What `_fit` gives, from the run store if it is there."""
    inputs = hashlib.sha256(b"".join(part.numpy().tobytes() for part in (*nets, points, labels))).hexdigest()
    asked = {"method": "toy", "steps": steps, "lr": lr, "at": sorted(at), "inputs": inputs}

    def compute() -> dict[str, Tensor]:
        fitted = _fit(nets, points, labels, steps, lr, at)
        return {f"{step}/{name}": part for step, of in fitted.items() for name, part in of._asdict().items()}

    arrays = Store().keep(asked, [sys.modules[__name__]], compute)
    return {step: Nets(*(arrays[f"{step}/{name}"] for name in Nets._fields)) for step in asked["at"]}


def _fit(nets: Nets, points: Tensor, labels: Tensor, steps: int, lr: float, at: Collection[int]) -> dict[int, Nets]:
    """Whole-batch Nesterov SGD. The losses are summed over the networks, so each has the gradient it has alone."""
    if steps < 0 or not lr > 0:
        raise ValueError(f"steps {steps} and lr {lr}: expected 0 steps or more and a positive learning rate")
    if late := [step for step in at if not 0 <= step <= steps]:
        raise ValueError(f"networks after {late} steps were asked for, but training takes 0 to {steps}")
    if len(points) != len(nets.weight):
        raise ValueError(f"{len(nets.weight)} networks, but points of {len(points)} repetitions: use the same seeds")
    weights = [part.clone().requires_grad_() for part in nets]
    optimizer = torch.optim.SGD(weights, lr, momentum=MOMENTUM, nesterov=True)
    targets, kept = labels.repeat(len(points)), {}
    for step in range(steps + 1):
        if step in at:
            kept[step] = Nets(*(part.detach().clone() for part in weights))
        if step < steps:
            logits = Nets(*weights)(points)[1]
            optimizer.zero_grad()
            (cross_entropy(logits.flatten(0, 1), targets, reduction="sum") / len(labels)).backward()
            optimizer.step()
    return kept


def _seen(data: Data) -> Tensor:
    return torch.isin(data.labels, torch.tensor(SPLIT.seen))


def _check_seeds(seeds: Iterable[int]) -> list[int]:
    seeds = [int(seed) for seed in seeds]
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds {seeds}: expected at least one, each once")
    return seeds
