"""What several test files make by hand: a run, tables over runs, the batches of a training, a page."""

from __future__ import annotations

from itertools import islice, product

import pandas as pd
import torch
from torch import nn

from ftlib import models
from ftlib.batches import random_crops
from ftlib.core import ClassSplit, ImageSet, Outputs
from ftlib.training import Recipe

SPLIT = ClassSplit([0, 1], [2, 3])


class FakeRun:
    """What the measures read of a Run."""

    def __init__(self, seed: int, images: int = 80, strength: float = 2.0) -> None:
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(images) % 4
        features = torch.randn(images, 4, generator=generator) + strength * nn.functional.one_hot(labels, 4)
        self.test = self.train = Outputs(features, features @ torch.eye(4), labels)
        self.split = SPLIT
        seen = labels < 2
        self.seen_train = Outputs(*(part[seen] for part in self.train))


class SphinxEnv:
    """What the book's directives ask Sphinx for: the page that they stand on."""

    docname = "book/03-what-breaks"

    def note_dependency(self, path: str) -> None:
        pass


def identity() -> nn.Linear:
    head = nn.Linear(4, 4, bias=False)
    nn.init.eye_(head.weight)
    return head


def runs(columns, seeds=(0, 1), setups=("a", "b")):
    keys = list(product(setups, ["p"], seeds))
    index = pd.MultiIndex.from_tuples(keys, names=["setup", "pair", "seed"])
    return pd.DataFrame(columns, index)


def assembled(data: ImageSet, recipe: Recipe, seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The batches of a whole training."""
    batch_size = min(recipe.batch_size, len(data))
    model = models.build("test_byobnet", 4)
    crops = random_crops(model, data, batch_size, recipe.size, recipe.padding, recipe.flip, seed)
    return list(islice(crops, recipe.epochs * (len(data) // batch_size)))
