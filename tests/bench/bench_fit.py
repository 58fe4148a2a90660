"""How much of a bare training step's speed `fit` keeps, although it draws, crops and normalises its batches as well.

Both run in turn, about a second each, and every round gives one ratio, so that whatever else the machine does reaches
both. The bare step has one batch in place; model, optimizer, layout and precision are those of `fit`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F

from ftlib import models, training
from ftlib.benchmarks import ImageSet, load_domain
from ftlib.training import Recipe

BACKBONES = ("test_byobnet", "test_resnet")
RECIPE = Recipe(epochs=3, batch_size=64, evaluations=0)
ROUNDS = 5


def bench() -> list[tuple[str, float, str]]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    data = load_domain("glyphs/print", source_per_class=30, test_per_class=1).train.to(device)
    usual = torch.get_num_threads()
    rows = []
    try:
        for threads in sorted({1, usual}) if device == "cpu" else [usual]:
            torch.set_num_threads(threads)
            where = f"{threads} thread{'s' * (threads > 1)}" if device == "cpu" else torch.cuda.get_device_name()
            for backbone in BACKBONES:
                rows += _compare(backbone, data, f"fit, {backbone}, {where}")
    finally:
        torch.set_num_threads(usual)
    return rows


def _compare(backbone: str, data: ImageSet, what: str) -> list[tuple[str, float, str]]:
    model = models.build(backbone, int(data.labels.max()) + 1).to(data.images.device)
    steps = RECIPE.epochs * (len(data) // RECIPE.batch_size)
    rounds = []
    for _ in range(1 + ROUNDS):
        rounds.append((
            training.fit(model, data, RECIPE, seed=0).seconds / steps,
            _seconds(_bare_step(model, data), steps),
            _seconds(_assembly(model, data), steps),
        ))  # fmt: skip
    fit, bare, assembly = zip(*rounds[1:], strict=True)  # the first one warmed up
    return [
        (what, median(b / f for b, f in zip(bare, fit, strict=True)), "of the bare step's images/s; target ≥ 0.95"),
        (f"{what}, speed", RECIPE.batch_size / median(fit), "images/s"),
        (f"{what}, batches", median(a / f for a, f in zip(assembly, fit, strict=True)), "of the time of a step"),
    ]


def _bare_step(model: torch.nn.Module, data: ImageSet) -> Callable[[], None]:
    optimizer = training.make_optimizer(model, RECIPE)
    images, labels = next(training._batches(data, RECIPE, RECIPE.batch_size, model, seed=0))
    model.train()

    def step() -> None:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=images.is_cuda):
            loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _assembly(model: torch.nn.Module, data: ImageSet) -> Callable[[], object]:
    batches = training._batches(data, RECIPE, RECIPE.batch_size, model, seed=0)
    return lambda: next(batches)


def _seconds(step: Callable[[], object], steps: int) -> float:
    """A step, on average over ``steps`` of them."""
    start = time.perf_counter()
    for _ in range(steps):
        step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / steps


if __name__ == "__main__":
    for what, value, unit in bench():
        print(f"{what:<40} {value:10.3f}  {unit}")
