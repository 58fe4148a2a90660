"""Wrong labels: as many as asked for, of seen classes alone, and nothing else."""

from __future__ import annotations

import pytest
import torch

from ftlib import mislabelled as module
from ftlib.core import ClassSplit, Domain, ImageSet
from ftlib.methods import Task
from ftlib.mislabelled import mislabelled

SPLIT = ClassSplit([0, 2, 5], [1, 3, 4])


@pytest.fixture
def seen_by_training(monkeypatch):
    """The task that fine-tuning is given."""
    tasks = []
    monkeypatch.setattr(module, "finetune", lambda task, model, holdout: tasks.append(task) or ({}, None))
    return tasks


def task(seed=0):
    labels = torch.arange(6).repeat_interleave(20)
    images = ImageSet(torch.zeros(120, 3, 4, 4, dtype=torch.uint8), labels)
    return Task(Domain(tuple("abcdef"), images, images), SPLIT, seed=seed)


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_so_many_seen_images_bear_the_label_of_another_seen_class(share, seen_by_training):
    given = task()
    mislabelled(given, None, share=share)  # type: ignore[arg-type]
    before, after = given.domain.train.labels, seen_by_training[0].domain.train.labels
    wrong = before != after
    assert int(wrong.sum()) == round(share * 60)
    assert set(after[wrong].tolist()) == set(before[wrong].tolist()) == set(SPLIT.seen)
    assert torch.equal(seen_by_training[0].domain.test.labels, given.domain.test.labels)


def test_the_seed_decides_which(seen_by_training):
    for seed in (0, 0, 1):
        mislabelled(task(seed), None, share=0.5)  # type: ignore[arg-type]
    first, again, other = (of.domain.train.labels.tolist() for of in seen_by_training)
    assert first == again != other


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_a_share_is_above_0_to_1(share):
    with pytest.raises(ValueError, match="expected a share above 0, to 1"):
        mislabelled(task(), None, share=share)  # type: ignore[arg-type]
