"""`fit` beside what one would write without it, and beside its limit: a training step whose batch is already there.

plain    a DataLoader with one worker, torchvision's crops and flips of PIL images, float32, NCHW
timm     timm's loader with its prefetcher, and autocast to bf16
ours     `fit`
bare     model, optimizer, layout and precision of `fit`, and always the same batch

Each runs in turn, and every round gives one ratio, so that whatever else the machine does reaches all of them. Images
are arrays for all: what decoding files would cost the first two in every epoch is left out.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from itertools import repeat
from statistics import median
from unittest.mock import patch

import ftlib  # noqa: F401  isort: skip  (first of all that imports torchvision)

import numpy as np
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from ftlib import batches, models, training
from ftlib.core import ImageSet
from ftlib.training import Recipe

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda", 0) if CUDA else torch.device("cpu")
# Backbone, pixels, images a step, steps a round.
CASES = [("test_byobnet", 32, 64, 30), ("test_resnet", 32, 64, 15), ("tf_efficientnet_lite0", 96, 16, 4)]
if CUDA:
    CASES = [("test_byobnet", 32, 64, 300), ("test_resnet", 32, 64, 300), ("resnet50", 224, 64, 50)]
ROUNDS = 5
WORKERS = min(os.cpu_count() or 1, 8) if CUDA else 1  # of timm's loader: on a CPU they take the model's cores


def bench() -> list[tuple[str, float, str]]:
    usual = torch.get_num_threads()
    rows = []
    try:
        for threads in [usual] if CUDA else sorted({1, usual}):
            torch.set_num_threads(threads)
            where = "" if CUDA else f", {threads} thread{'s' * (threads > 1)}"
            for backbone, size, batch_size, steps in CASES:
                recipe = Recipe(steps=steps, batch_size=batch_size, size=size, padding=4, flip=True, evaluations=0)
                rows += _compare(backbone, recipe, f"{backbone}, {size} px{where}")
    finally:
        torch.set_num_threads(usual)
    if not CUDA:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        rows.append(("memory", peak / 2**20, "MiB at most, of this process, with all of the above"))
    return rows


def _compare(backbone: str, recipe: Recipe, what: str) -> list[tuple[str, float, str]]:
    generator = torch.Generator().manual_seed(0)
    shape = (8 * recipe.batch_size, 3, recipe.size, recipe.size)
    data = ImageSet(torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator), torch.arange(shape[0]) % 10)
    placed, steps = batches.placed(data, DEVICE), recipe.steps
    model, plain_model = (models.build(backbone, 10).to(DEVICE) for _ in range(2))
    training.fit(model, placed, recipe, seed=0)  # which lays the weights out channels_last, for all but the plain loop
    own_kind, amp, why = training._in_bf16(DEVICE), *_pays_bf16(model, placed, recipe)

    def fit() -> float:
        return training.fit(model, placed, recipe, seed=0).seconds / steps

    def assembly() -> float:
        own = _ours(model, placed, recipe)
        return _seconds(lambda: next(own), steps)

    def streamed() -> float:
        with patch.object(batches, "_fits", lambda *_: False):
            return training.fit(model, data, recipe, seed=0).seconds / steps

    contestants = {
        "bare": lambda: _seconds(_step(model, recipe, repeat(next(_ours(model, placed, recipe))), own_kind), steps),
        "ours": fit,
        "batches": assembly,
        "timm": lambda: _seconds(_step(model, recipe, _timm(data, recipe, model), amp), steps),
        "plain": lambda: _seconds(_step(plain_model, recipe, _plain(data, recipe, model), False), steps),
    } | ({"streamed": streamed} if CUDA else {})
    rounds = [{name: run() for name, run in contestants.items()} for _ in range(1 + ROUNDS)][1:]  # the first warms up

    def ratio(slow: str, fast: str = "ours") -> float:
        return median(times[slow] / times[fast] for times in rounds)

    speed = {name: recipe.batch_size / median(times[name] for times in rounds) for name in contestants}
    rows = [(f"{what}: {name}", speed[name], "images/s") for name in ("plain", "timm", "ours", "bare")]
    rows[1] = (*rows[1][:2], f"images/s{why}")
    rows += [
        (f"{what}: ours to bare", ratio("bare"), f"target ≥ {0.9 if CUDA else 0.95}"),
        (f"{what}: ours to plain", ratio("plain"), f"target ≥ {5 if CUDA else 1.2}"),
        (f"{what}: ours to timm", ratio("timm"), ""),
        (f"{what}: batches", ratio("batches"), "of the time of our step"),
    ]
    if CUDA:
        rows.append((f"{what}: streamed to ours", ratio("ours", "streamed"), "images sent from the host"))
        torch.cuda.reset_peak_memory_stats()
        fit()
        rows.append((f"{what}: memory", torch.cuda.max_memory_allocated() / 2**20, "MiB at most, by ours"))
    return rows


def _step(model: torch.nn.Module, recipe: Recipe, batches: Iterator, bf16: bool) -> Callable[[], None]:
    optimizer = training.make_optimizer(model, recipe)
    model.train()

    def step() -> None:
        images, labels = next(batches)
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=bf16):
            loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _seconds(step: Callable[[], object], steps: int) -> float:
    """A step, on average over ``steps`` of them."""
    start = time.perf_counter()
    for _ in range(steps):
        step()
    if CUDA:
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / steps


def _pays_bf16(model: torch.nn.Module, data: ImageSet, recipe: Recipe) -> tuple[bool, str]:
    """Whether timm's loop is to use bf16 here, and the words for it: a CPU may but imitate bf16, slowly."""
    if CUDA:
        return True, ", bf16"
    batch = next(_ours(model, data, recipe))
    plain, bf16 = (_seconds(_step(model, recipe, repeat(batch), kind), 1) for kind in (False, True))
    return (True, ", bf16") if bf16 < 2 * plain else (False, f", float32: bf16 takes {bf16 / plain:.0f} times as long")


# --- where batches come from ------------------------------------------------------------------------------------------


def _ours(model: torch.nn.Module, data: ImageSet, recipe: Recipe) -> Iterator:
    return batches.random_crops(model, data, recipe.batch_size, recipe.size, recipe.padding, recipe.flip, seed=0)


class Photographs(Dataset):
    """As many as one round takes, the images over and over."""

    def __init__(self, data: ImageSet, count: int, transform: Callable | None = None) -> None:
        self.images = np.ascontiguousarray(data.images.permute(0, 2, 3, 1).numpy())
        self.labels, self.count, self.transform = data.labels.tolist(), count, transform

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> tuple:
        image = Image.fromarray(self.images[i % len(self.images)])
        return (self.transform(image) if self.transform else image), self.labels[i % len(self.images)]


def _plain(data: ImageSet, recipe: Recipe, model: torch.nn.Module) -> Iterator:
    config = model.pretrained_cfg
    transform = transforms.Compose([
        transforms.RandomCrop(recipe.size, recipe.padding, padding_mode="edge"),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(config["mean"], config["std"]),
    ])  # fmt: skip
    photographs = Photographs(data, _count(recipe, 1), transform)
    loader = DataLoader(photographs, recipe.batch_size, shuffle=True, num_workers=1, pin_memory=CUDA)
    return _started(((images.to(DEVICE), labels.to(DEVICE)) for images, labels in loader), 1)


def _timm(data: ImageSet, recipe: Recipe, model: torch.nn.Module) -> Iterator:
    config = model.pretrained_cfg
    loader = timm.data.create_loader(
        Photographs(data, _count(recipe, WORKERS)), (3, recipe.size, recipe.size), recipe.batch_size, is_training=True,
        color_jitter=0.0, mean=config["mean"], std=config["std"], num_workers=WORKERS, pin_memory=CUDA, device=DEVICE,
        persistent_workers=False,
    )  # fmt: skip
    return _started(((images.contiguous(memory_format=torch.channels_last), y) for images, y in loader), WORKERS)


def _count(recipe: Recipe, workers: int) -> int:
    return recipe.batch_size * (recipe.steps + 2 * workers + 2)


def _started(batches: Iterator, workers: int) -> Iterator:
    """Without what workers have made ready before they are asked: two batches each, and one on its way."""
    for _ in range(2 * workers + 1):
        next(batches)
    return batches


if __name__ == "__main__":
    for what, value, unit in bench():
        print(f"{what:<60} {value:10.3f}  {unit}")
