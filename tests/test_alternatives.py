"""ftlib.alternatives: what each trains, and that its loss is the one it says, by a plain loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftlib import alternatives, baselines, benchmarks, methods, models
from ftlib.methods import Task
from ftlib.training import Recipe, _schedule

DATA = {"classes": 8, "source_per_class": 8, "target_per_class": 8, "test_per_class": 2}
TARGET, SPLIT = benchmarks.load_target("glyphs/print-neon", 0, **DATA)
SEEN, ABSENT = list(SPLIT.seen), list(SPLIT.absent)
IMAGES = TARGET.train.of(SEEN)
HOT = Recipe(steps=4, batch_size=8, lr=0.05, backbone_lr=0.5, weight_decay=0.01, evaluations=1)
WHOLE = Recipe(steps=2, batch_size=64, lr=0.02, backbone_lr=0.5, weight_decay=0.0, padding=0, evaluations=0)
VIT = {"img_size": 32, "patch_size": 8}
PENALTIES = (alternatives.lwf, alternatives.l2sp, alternatives.ldifs)


def start(backbone: str = "test_byobnet", **options: Any) -> nn.Module:
    return models.build(backbone, 8, options=options).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def trained(method: Any, recipe: Recipe = HOT, model: nn.Module | None = None, **options: Any) -> nn.Module:
    """The model that a method leaves, checked against what it says that it left."""
    model = model or start()
    arrays = method(Task(TARGET, SPLIT, recipe), model, **options)[0]
    kept = {name.removeprefix("model/"): value for name, value in arrays.items() if name.startswith("model/")}
    assert same(kept, model.state_dict())
    return model


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def assert_close(one: nn.Module, other: nn.Module) -> None:
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=1e-3, atol=2e-5)


def normalised() -> Tensor:
    scale, shift = models.normalisation(start(), torch.device("cpu"))
    return (IMAGES.images * scale + shift).contiguous(memory_format=torch.channels_last)


def by_hand(loss: Callable[[nn.Module, nn.Module, Tensor], Tensor]) -> nn.Module:
    """Nesterov steps of WHOLE on all images at once, of a loss of (model, model before, images)."""
    model, before, images = start(), start().eval(), normalised()
    of_head = set(models.head(model).parameters())
    velocity = {p: torch.zeros_like(p) for p in model.parameters()}
    model.train()
    for step in range(2):
        model.zero_grad()
        loss(model, before, images).backward()
        with torch.no_grad():
            for p, v in velocity.items():
                assert p.grad is not None
                v.mul_(0.9).add_(p.grad)
                rate = WHOLE.lr * _schedule((step + 0.5) / 2, 0.0) * (1.0 if p in of_head else WHOLE.backbone_lr)
                p -= rate * (p.grad + 0.9 * v)
    return model.eval()


def cross_entropy(model: nn.Module, before: nn.Module, images: Tensor) -> Tensor:
    return F.cross_entropy(model(images), IMAGES.labels)


def features(model: nn.Module, images: Tensor) -> Tensor:
    return model.forward_head(model.forward_features(images), pre_logits=True)  # pyright: ignore[reportCallIssue]


# ---------------------------------------------------------------------------------------- penalties


@pytest.mark.parametrize("method", PENALTIES)
def test_a_penalty_of_no_weight_is_fine_tuning_to_the_bit(method):
    assert same(trained(method, weight=0.0).state_dict(), trained(methods.finetune).state_dict())


@pytest.mark.parametrize("method", PENALTIES)
def test_the_head_has_no_hook_left(method):
    assert not any(layer._forward_pre_hooks for layer in models.head_layers(trained(method)))


def test_two_steps_of_l2sp_are_those_of_a_plain_loop():
    def loss(model: nn.Module, before: nn.Module, images: Tensor) -> Tensor:
        parts = zip(model.parameters(), before.parameters(), strict=True)
        return cross_entropy(model, before, images) + 3 / 2 * sum(((a - b.detach()) ** 2).sum() for a, b in parts)

    assert_close(trained(alternatives.l2sp, WHOLE, weight=3.0), by_hand(loss))


def test_two_steps_of_ldifs_are_those_of_a_plain_loop():
    def loss(model: nn.Module, before: nn.Module, images: Tensor) -> Tensor:
        own, given = features(model, images), features(before, images).detach()
        return F.cross_entropy(models.head(model)(own), IMAGES.labels) + 0.3 * ((own - given) ** 2).sum() / len(images)

    # A weight of 2 throws the features so far that a rounded sum can switch a ReLU: by some processors, not by others.
    assert_close(trained(alternatives.ldifs, WHOLE, weight=0.3), by_hand(loss))


def test_two_steps_of_lwf_are_those_of_a_plain_loop():
    def loss(model: nn.Module, before: nn.Module, images: Tensor) -> Tensor:
        logits, given = model(images), before(images).detach()[:, ABSENT]
        old, new = ((x / 3).exp() / (x / 3).exp().sum(1, keepdim=True) for x in (given, logits[:, ABSENT]))
        return F.cross_entropy(logits, IMAGES.labels) - 5 * (old * new.log()).sum() / len(images)

    assert_close(trained(alternatives.lwf, WHOLE, weight=5.0, temperature=3.0), by_hand(loss))


@pytest.mark.parametrize("weight", [0.3, 3.0])
def test_l2sp_stays_nearer_to_the_start_than_fine_tuning(weight):
    def distance(model: nn.Module) -> float:
        parts = zip(model.parameters(), start().parameters(), strict=True)
        return sum(float((a - b).detach().square().sum()) for a, b in parts)

    assert distance(trained(alternatives.l2sp, weight=weight)) < distance(trained(methods.finetune))


# ---------------------------------------------------------------------------------------- few weights


def moved(before: nn.Module, after: nn.Module) -> set[str]:
    return {name for name, p in before.named_parameters() if (p != after.get_parameter(name)).any()}


@pytest.mark.parametrize(("backbone", "options"), [("test_byobnet", {}), ("test_vit", VIT), ("test_convnext", {})])
def test_only_biases_move_in_bias_only(backbone, options):
    before, after = start(backbone, **options), trained(alternatives.bias_only, model=start(backbone, **options))
    names = moved(before, after)
    assert len(names) > 3
    assert all(name.endswith("bias") for name in names)


@pytest.mark.parametrize(("backbone", "options"), [("test_byobnet", {}), ("test_vit", VIT), ("test_convnext", {})])
def test_only_norms_move_in_norm_only(backbone, options):
    before, after = start(backbone, **options), trained(alternatives.norm_only, model=start(backbone, **options))
    places = {name.rpartition(".")[0] for name in moved(before, after)}
    assert places
    assert all("norm" in type(after.get_submodule(place)).__name__.lower() for place in places)


@pytest.mark.parametrize(("backbone", "options"), [("test_byobnet", {}), ("test_vit", VIT)])
def test_a_lora_changes_matrices_by_its_rank_and_nothing_else(backbone, options):
    before, after = start(backbone, **options), trained(alternatives.lora, model=start(backbone, **options), rank=2)
    names = moved(before, after)
    assert before.state_dict().keys() == after.state_dict().keys()
    assert models.name_of(after, models.head_layers(after)[0]) + ".weight" in names
    for name in names:
        change = (after.get_parameter(name) - before.get_parameter(name)).detach().flatten(1).double()
        values = torch.linalg.svdvals(change)
        assert values[0] > 1e-5
        assert (values[2:] < 1e-5 * after.get_parameter(name).norm()).all()


def test_the_first_step_of_a_lora_of_full_rank_is_that_of_fine_tuning():
    """Where the rows of A span the whole space: ΔB·A is the gradient times AᵀA = 1."""
    one = replace(WHOLE, steps=1)
    found, expected = trained(alternatives.lora, one, rank=999), trained(methods.finetune, one)
    square = [m for m in found.modules() if isinstance(m, nn.Conv2d) and len(m.weight) >= m.weight[0].numel()]
    assert square
    for layer in square:
        other = expected.get_parameter(models.name_of(found, layer) + ".weight")
        torch.testing.assert_close(layer.weight, other, rtol=1e-4, atol=1e-6)


def test_a_lora_of_one_seed_is_the_same_every_time():
    assert same(trained(alternatives.lora).state_dict(), trained(alternatives.lora).state_dict())


# ---------------------------------------------------------------------------------------- order and loss


def test_lp_ft_is_a_linear_probe_and_then_fine_tuning():
    half = replace(HOT, steps=2)
    expected = trained(methods.finetune, half, trained(baselines.linear_probe, half).requires_grad_(True))
    assert same(trained(alternatives.lp_ft).state_dict(), expected.state_dict())


def test_lp_ft_takes_as_many_steps_as_fine_tuning():
    arrays, log = alternatives.lp_ft(Task(TARGET, SPLIT, replace(HOT, steps=5)), start())
    assert log is not None
    assert len(arrays["history/loss"]) == len(log.losses) == 5


def test_lp_ft_without_a_probe_is_fine_tuning_to_the_bit():
    assert same(trained(alternatives.lp_ft, head=0.0).state_dict(), trained(methods.finetune).state_dict())


def test_a_balanced_softmax_whose_classes_count_alike_is_fine_tuning():
    assert_close(trained(alternatives.balanced, WHOLE, absent_count=8), trained(methods.finetune, WHOLE))


def test_a_balanced_softmax_that_counts_no_absent_image_is_the_masked_loss():
    assert_close(trained(alternatives.balanced, WHOLE, absent_count=1e-30), trained(baselines.masked, WHOLE))


def test_a_balanced_softmax_is_that_of_counts_by_hand():
    def loss(model: nn.Module, before: nn.Module, images: Tensor) -> Tensor:
        n = torch.tensor([8.0 if c in SEEN else 0.5 for c in range(8)])
        terms = n * model(images).exp()
        return -(terms[torch.arange(len(images)), IMAGES.labels] / terms.sum(1)).log().mean()

    assert_close(trained(alternatives.balanced, WHOLE, absent_count=0.5), by_hand(loss))
