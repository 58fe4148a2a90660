"""ftlib.methods: a task and a model in, arrays out, on anybody's images."""

from __future__ import annotations

import copy

import pytest
import torch

from ftlib import models, training
from ftlib.core import ClassSplit, Domain, ImageSet
from ftlib.methods import Task, adabn, finetune, pretrain, pretrained
from ftlib.training import Recipe, predict

RECIPE = Recipe(epochs=3, batch_size=16, lr=0.05, backbone_lr=1.0, evaluations=1)


@pytest.fixture
def task(blobs) -> Task:
    """Tensors that no benchmark has a name for."""
    domain = Domain(("a", "b", "c", "d"), blobs, ImageSet(blobs.images[::3], blobs.labels[::3]))
    return Task(domain, ClassSplit([0, 2], [1, 3]), RECIPE, seed=4)


def state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_the_way_from_nothing_to_a_fine_tuned_classifier_needs_tensors_alone(task):
    model = models.build("test_byobnet", 4)
    arrays, log = pretrain(task, model)
    assert arrays["test/logits"].shape == (32, 4)
    before, nothing = pretrained(task, model)
    assert torch.equal(before["test/logits"], arrays["test/logits"]) and nothing is None
    after, log = finetune(task, model)
    assert log and len(log.losses) == 3 * 48 // 16  # of 96 images half are of seen classes
    assert after["split/seen"].tolist() == [0, 2] and after["split/absent"].tolist() == [1, 3]
    assert torch.equal(after["history/logits"][-1], after["test/logits"])
    assert torch.equal(after["test/logits"], predict(model, task.domain.test).logits)


def test_what_a_task_calls_seen_are_the_training_images_of_seen_classes(task):
    assert torch.equal(task.seen.labels, task.domain.train.labels[task.domain.train.labels % 2 == 0])


def test_adabn_changes_statistics_and_no_weight(task):
    model = models.build("test_byobnet", 4)
    training.fit(model, task.domain.train, RECIPE, seed=0)
    before, expected = state(model), copy.deepcopy(model)
    arrays, log = adabn(task, model)
    training.reset_statistics(expected, task.seen, RECIPE, seed=task.seed)
    assert log is None
    assert {n for n, v in before.items() if not torch.equal(arrays[f"model/{n}"], v)} == {
        n for n, _ in model.named_buffers()
    }
    assert torch.equal(arrays["test/logits"], predict(expected, task.domain.test).logits)
    assert arrays["train/logits"].shape == (96, 4)


def test_adabn_sees_no_image_of_an_absent_class(task):
    dark = task.domain.train.images.clone()
    dark[task.domain.train.labels % 2 == 1] = 0
    other = Task(Domain("abcd", ImageSet(dark, task.domain.train.labels), task.domain.test), task.split, RECIPE, 4)
    found = [adabn(t, models.build("test_byobnet", 4))[0] for t in (task, other)]
    assert torch.equal(found[0]["test/logits"], found[1]["test/logits"])
