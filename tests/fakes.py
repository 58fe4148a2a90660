"""A run made by hand, and tables over runs, for the tests of what chapter 14 measures."""

from __future__ import annotations

from itertools import product

import pandas as pd
import torch
from torch import nn

from ftlib.core import ClassSplit, Outputs

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


def identity() -> nn.Linear:
    head = nn.Linear(4, 4, bias=False)
    nn.init.eye_(head.weight)
    return head


def runs(columns, seeds=(0, 1), setups=("a", "b")):
    keys = list(product(setups, ["p"], seeds))
    index = pd.MultiIndex.from_tuples(keys, names=["setup", "pair", "seed"])
    return pd.DataFrame(columns, index)
