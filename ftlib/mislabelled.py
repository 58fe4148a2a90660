"""Fine-tuning with wrong labels: how much of what it brings depends on right ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from ftlib.core import ImageSet, seeded
from ftlib.methods import Result, Task, finetune


def mislabelled(task: Task, model: nn.Module, *, share: float, holdout: float = 0.0) -> Result:
    """`ftlib.methods.finetune` where a ``share`` of the seen training images bear the label of another seen class.

    Which images and which label is drawn at random. The outputs on the training images hold the wrong labels, too, as
    anyone would have them; test images keep theirs. ValueError if the share is not between 0 and 1, or S is one class.
    """
    train, seen = task.domain.train, np.array(task.split.seen)
    if not 0 < share <= 1 or len(seen) < 2:
        raise ValueError(f"share={share}, {len(seen)} seen classes: expected a share above 0, to 1, of two or more")
    rng, labels = seeded(task.seed, "mislabelled"), train.labels.numpy().copy()
    mine = np.flatnonzero(np.isin(labels, seen))
    wrong = rng.permutation(mine)[: round(share * len(mine))]
    further = rng.integers(1, len(seen), len(wrong))  # 1 to |S| − 1 places on: never the class itself
    labels[wrong] = seen[(np.searchsorted(seen, labels[wrong]) + further) % len(seen)]
    domain = replace(task.domain, train=ImageSet(train.images, torch.from_numpy(labels)))
    return finetune(replace(task, domain=domain), model, holdout=holdout)
