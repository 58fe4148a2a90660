"""ftlib.training: what a Recipe takes, the course of a training, and that a seed decides everything."""

from __future__ import annotations

import hashlib
import math
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fakes import assembled
from sklearn.linear_model import LogisticRegression

from ftlib import batches, models, training
from ftlib.core import ImageSet
from ftlib.training import FitLog, Recipe, fit, predict

SMALL = Recipe(epochs=2, batch_size=16, lr=0.05, backbone_lr=1.0)
VIT = {"img_size": 32, "patch_size": 4, "proj_drop_rate": 0.2}


def trained(data: ImageSet, recipe: Recipe = SMALL, seed: int = 0, **arguments) -> torch.nn.Module:
    model = models.build("test_byobnet", 4)
    fit(model, data, recipe, seed=seed, **arguments)
    return model


def logits(model: torch.nn.Module, data: ImageSet) -> torch.Tensor:
    return predict(model, data).logits


# ---------------------------------------------------------------------------------------- Recipe


def test_an_integer_is_taken_for_a_rate():
    assert Recipe(lr=1) == Recipe(lr=1.0)
    assert type(Recipe(lr=1).lr) is float


def test_a_recipe_from_a_profile_knows_its_names():
    assert Recipe.of({"epochs": 3}) == Recipe(epochs=3)
    with pytest.raises(ValueError, match=r"a recipe has no epoch: it has epochs, "):
        Recipe.of({"epoch": 3})


# --------------------------------------------------------------------------------- what a GPU does, tried on a CPU


def test_images_that_are_sent_by_the_batch_give_the_same_bits(blobs, monkeypatch, tmp_path):
    """From an array that is mapped into memory, through steps, evaluations and the finish of the head."""
    np.save(tmp_path / "images.npy", blobs.images.numpy())
    mapped = ImageSet(torch.from_numpy(np.load(tmp_path / "images.npy", mmap_mode="c")), blobs.labels)
    recipe, sent, send = replace(SMALL, size=28, flip=True, finish=5), [], batches._sent
    resident = trained(blobs, recipe).state_dict()
    monkeypatch.setattr(batches, "_fits", lambda *_: False)
    monkeypatch.setattr(batches, "_sent", lambda of, index, *how: sent.append(len(index)) or send(of, index, *how))
    streamed = trained(mapped, recipe).state_dict()
    assert sent == [16] * 12
    assert all(torch.equal(value, resident[name]) for name, value in streamed.items())


def test_a_training_in_bf16_is_no_less_accurate_and_keeps_weights_and_predictions_in_float32(blobs, monkeypatch):
    recipe, kinds, accuracy = replace(SMALL, epochs=8), set(), []

    def loss(answers, labels, images):
        kinds.add(answers.dtype)
        return F.cross_entropy(answers, labels)

    for bf16 in (False, True):
        monkeypatch.setattr(training, "_in_bf16", lambda device, bf16=bf16: bf16)
        model = trained(blobs, recipe, loss=loss)
        assert {p.dtype for p in model.parameters()} == {logits(model, blobs).dtype} == {torch.float32}
        accuracy.append(float((logits(model, blobs).argmax(1) == blobs.labels).double().mean()))
    assert kinds == {torch.float32, torch.bfloat16}
    assert accuracy[1] >= accuracy[0] - 0.02 > 0.5


def test_only_a_gpu_that_can_trains_in_bf16(monkeypatch):
    """Older ones imitate it, slowly."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert not training._in_bf16(torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert training._in_bf16(torch.device("cuda", 0)) and not training._in_bf16(torch.device("cpu"))


def test_a_training_is_compiled_if_it_is_asked_for_and_has_the_steps_to_pay_for_it(blobs, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda model: compiled.append(model) or model)
    monkeypatch.setattr(training, "PAYS", 3)
    for steps, compile, times in ((2, True, 0), (3, False, 0), (3, True, 1)):
        trained(blobs, replace(SMALL, steps=steps, compile=compile))
        assert len(compiled) == times


# ---------------------------------------------------------------------------------------- what a seed decides


@pytest.mark.parametrize(("backbone", "options"), [("test_byobnet", {}), ("test_vit", VIT)])
def test_the_same_seed_gives_the_same_bits(blobs, backbone, options):
    first, again = (models.build(backbone, 4, options=options) for _ in range(2))
    logs = [fit(model, blobs, SMALL, seed=5) for model in (first, again)]
    assert torch.equal(logs[0].losses, logs[1].losses)
    assert torch.equal(logits(first, blobs), logits(again, blobs))


def digest() -> str:
    """Of the logits after a training that needs nothing from outside."""
    torch.set_num_threads(1)
    images = torch.randint(0, 256, (64, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    data = ImageSet(images, torch.arange(64) % 4)
    return hashlib.sha256(logits(trained(data), data).numpy().tobytes()).hexdigest()


def test_the_same_seed_gives_the_same_bits_in_another_process():
    program = f"import runpy; print(runpy.run_path({__file__!r})['digest']())"
    here = Path(__file__).parent
    assert subprocess.check_output([sys.executable, "-c", program], text=True, cwd=here).strip() == digest()


def test_another_seed_gives_other_logits(blobs):
    assert not torch.equal(logits(trained(blobs, seed=0), blobs), logits(trained(blobs, seed=1), blobs))


def test_training_leaves_random_state_and_settings_alone(blobs):
    torch.manual_seed(7)
    before = torch.random.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    fill = torch.utils.deterministic.fill_uninitialized_memory
    trained(blobs)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory is fill


def test_settings_come_back_after_an_error():
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with pytest.raises(KeyError), training.reproducible(0):
            raise KeyError
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_the_random_state_before_training_does_not_matter(blobs):
    """Not even to dropout, which draws from it."""
    found = []
    for state in (1, 2):
        model = models.build("test_vit", 4, options=VIT)
        torch.manual_seed(state)
        fit(model, blobs, Recipe(epochs=1, batch_size=16, backbone_lr=1.0), seed=0)
        found.append(logits(model, blobs))
    assert torch.equal(*found)


# ---------------------------------------------------------------------------------------- the course of a training


def test_evaluate_is_called_at_the_promised_epochs_in_evaluation_mode(blobs):
    model, calls = models.build("test_byobnet", 4), []
    recipe = Recipe(epochs=4, batch_size=16, evaluations=2)
    fit(model, blobs, recipe, seed=0, evaluate=lambda epoch: calls.append((epoch, model.training)))
    assert calls == [(0.0, False), (2.0, False), (4.0, False)]
    assert not model.training


def test_evaluate_is_called_at_every_step_if_there_are_fewer_steps_than_evaluations(blobs):
    calls = []
    trained(blobs, Recipe(epochs=1, batch_size=48, evaluations=5), evaluate=calls.append)
    assert calls == [0.0, 0.5, 1.0]


def test_no_evaluations_call_nothing(blobs):
    trained(blobs, Recipe(epochs=1, batch_size=48, evaluations=0), evaluate=pytest.fail)


def test_evaluations_do_not_change_what_is_learnt(blobs):
    looked = models.build("test_byobnet", 4)
    fit(looked, blobs, SMALL, seed=0, evaluate=lambda _: predict(looked, blobs))
    assert torch.equal(logits(looked, blobs), logits(trained(blobs), blobs))


def test_training_learns(blobs):
    model = models.build("test_byobnet", 4)
    log = fit(model, blobs, Recipe(epochs=15, batch_size=16, lr=0.1, backbone_lr=1.0), seed=0)
    assert log.losses.shape == (15 * 6,)
    assert log.losses[-6:].mean() < 0.5 * log.losses[:6].mean()
    assert (logits(model, blobs).argmax(1) == blobs.labels).float().mean() > 0.9
    assert log.seconds > 0
    assert log.images_per_second == pytest.approx(15 * 96 / log.seconds)


@pytest.mark.parametrize("name", ["sgd", "adam", "adabelief", "adadelta", "adagrad", "rmsprop"])
def test_every_optimizer_moves_head_and_backbone(blobs, name):
    before, after = models.build("test_byobnet", 4), models.build("test_byobnet", 4)
    fit(after, blobs, Recipe(epochs=1, batch_size=16, optimizer=name, lr=1e-3), seed=0)
    for group, moved in zip(*(models.parameter_groups(m, 1.0, 1.0) for m in (before, after)), strict=True):
        assert any(not torch.equal(p, q) for p, q in zip(group["params"], moved["params"], strict=True))


def test_a_backbone_rate_of_zero_freezes_the_backbones_parameters(blobs):
    model, fresh = trained(blobs, Recipe(epochs=1, batch_size=16, backbone_lr=0.0)), models.build("test_byobnet", 4)
    (head, backbone), (fresh_head, fresh_backbone) = (models.parameter_groups(m, 1.0, 1.0) for m in (model, fresh))
    assert all(torch.equal(p, q) for p, q in zip(backbone["params"], fresh_backbone["params"], strict=True))
    assert not torch.equal(head["params"][0], fresh_head["params"][0])


def test_one_step_of_sgd_is_the_textbooks(blobs):
    """Nesterov's first step: (1 + momentum) · lr · (gradient + weight decay · weight), the backbone at its own rate.

    A single step has the rate of the schedule's middle, half of the peak.
    """
    recipe = Recipe(epochs=1, batch_size=96, lr=0.1, backbone_lr=0.5, momentum=0.8, weight_decay=0.01)
    model, trained_model = models.build("test_byobnet", 4), trained(blobs, recipe, seed=3)
    images, labels = assembled(blobs, recipe, seed=3)[0]
    model.train().to(memory_format=torch.channels_last)
    F.cross_entropy(model(images), labels).backward()
    for group, after in zip(*(models.parameter_groups(m, 0.1, 0.5) for m in (model, trained_model)), strict=True):
        for p, q in zip(group["params"], after["params"], strict=True):
            expected = p - 1.8 * 0.5 * group["lr"] * (p.grad + 0.01 * p)
            torch.testing.assert_close(q, expected, rtol=1e-3, atol=1e-5)


def test_the_rate_rises_linearly_and_falls_as_half_a_cosine():
    rates = [training._schedule(step / 100, warmup=0.2) for step in range(101)]
    assert rates[0] == 0
    assert rates[10] == pytest.approx(0.5)
    assert rates[20] == 1
    assert rates[60] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0)
    assert all(a < b for a, b in pairwise(rates[:21]))
    assert all(a > b for a, b in pairwise(rates[20:]))


# ---------------------------------------------------------------------------------------- steps in place of epochs


@pytest.mark.parametrize("images", [96, 40, 10])
def test_as_many_steps_are_taken_on_few_images_as_on_many(blobs, images):
    data = ImageSet(blobs.images[:images], blobs.labels[:images])
    log = fit(models.build("test_byobnet", 4), data, Recipe(epochs=1, steps=7, batch_size=16), seed=0)
    assert log.losses.shape == (7,)
    assert (log.losses > 0).all()  # none of the seven was left out
    assert log.images_per_second == pytest.approx(7 * min(16, images) / log.seconds)


def test_steps_of_whole_epochs_are_these_epochs(blobs):
    epochs, steps = trained(blobs, SMALL), trained(blobs, replace(SMALL, epochs=1, steps=SMALL.epochs * 6))
    assert torch.equal(logits(epochs, blobs), logits(steps, blobs))


def test_the_rate_falls_over_the_steps_that_are_taken(blobs, rates):
    trained(blobs, replace(SMALL, epochs=9, steps=4))
    assert rates == pytest.approx([0.05 * 0.5 * (1 + math.cos(math.pi * (step + 0.5) / 4)) for step in range(4)])


def test_the_first_step_of_a_warm_up_has_a_rate(blobs, rates):
    """That of its middle, as every step: 1/6, 3/6 and 5/6 of the peak."""
    trained(blobs, Recipe(steps=12, batch_size=16, lr=0.06, warmup=0.25))
    assert rates[:3] == pytest.approx([0.01, 0.03, 0.05])
    assert max(rates) == rates[3] < 0.06


def test_evaluations_of_steps_are_told_the_epochs(blobs):
    calls = []
    trained(blobs, Recipe(steps=9, batch_size=16, evaluations=3), evaluate=calls.append)
    assert calls == [0.0, 0.5, 1.0, 1.5]


# ---------------------------------------------------------------------------------------- batch norm


def statistics(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.named_buffers() if "running" in name}


@pytest.mark.parametrize(("mode", "moves"), [("train", True), ("eval", False)])
def test_running_statistics_move_in_train_and_not_in_eval(blobs, mode, moves):
    fresh = statistics(models.build("test_byobnet", 4))
    after = statistics(trained(blobs, replace(SMALL, batch_norm=mode)))
    assert len(fresh) > 0
    assert [not torch.equal(fresh[name], after[name]) for name in fresh] == [moves] * len(fresh)


def test_running_statistics_stay_after_an_evaluation_too(blobs):
    model = models.build("test_byobnet", 4)
    fresh = statistics(model)
    recipe = replace(SMALL, epochs=1, batch_norm="eval", evaluations=3)
    fit(model, blobs, recipe, seed=0, evaluate=lambda _: predict(model, blobs))
    after = statistics(model)
    assert all(torch.equal(fresh[name], after[name]) for name in fresh)


def test_every_parameter_still_trains_on_frozen_statistics(blobs):
    """Adam's steps are of one size, however small the gradient behind a branch that starts at zero."""
    fresh = models.build("test_byobnet", 4)
    model = trained(blobs, replace(SMALL, batch_norm="eval", optimizer="adam", lr=1e-3, weight_decay=0.0))
    still = [n for (n, p), q in zip(fresh.named_parameters(), model.parameters(), strict=True) if torch.equal(p, q)]
    assert still == []


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_batch_norm_takes_the_statistics_that_the_recipe_names(blobs, mode):
    """The first loss is that of the model in this mode."""
    recipe = Recipe(epochs=1, batch_size=96, batch_norm=mode)
    log = fit(models.build("test_byobnet", 4), blobs, recipe, seed=3)
    images, labels = assembled(blobs, recipe, seed=3)[0]
    model = models.build("test_byobnet", 4).train(mode == "train").to(memory_format=torch.channels_last)
    torch.testing.assert_close(log.losses[0], F.cross_entropy(model(images), labels).detach())


def batch_norms(model: torch.nn.Module) -> list[torch.nn.BatchNorm2d]:
    return [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]


@pytest.mark.parametrize(("images", "parts"), [(96, 6), (40, 2), (10, 1)])
def test_reset_statistics_are_the_plain_average_over_batches(blobs, images, parts):
    """Brute force: what each batch norm is given, when all of them go by the batch and nothing else is in training."""
    data, recipe = ImageSet(blobs.images[:images], blobs.labels[:images]), Recipe(batch_size=16, size=24)
    model, plain = trained(blobs), trained(blobs).eval()
    training.reset_statistics(model, data, recipe, seed=3)
    given: list[list[torch.Tensor]] = [[] for _ in batch_norms(plain)]
    for norm, into in zip(batch_norms(plain), given, strict=True):
        norm.train().register_forward_pre_hook(lambda _, x, into=into: into.append(x[0].transpose(0, 1).flatten(1)))
    order = torch.randperm(images, generator=torch.Generator().manual_seed(3))
    scale, shift = models.normalisation(plain, torch.device("cpu"))
    with torch.no_grad():
        for index in order.chunk(parts):
            plain(data.images[index][:, :, 4:28, 4:28] * scale + shift)
    for norm, inputs in zip(batch_norms(model), given, strict=True):
        assert len(inputs) == parts
        torch.testing.assert_close(norm.running_mean, sum(x.mean(1) for x in inputs) / parts, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(norm.running_var, sum(x.var(1) for x in inputs) / parts, rtol=1e-3, atol=1e-4)


def test_reset_statistics_changes_no_weight_and_leaves_momentum_and_mode_as_they_were(blobs):
    model = trained(blobs)
    weights, momenta = [p.clone() for p in model.parameters()], [norm.momentum for norm in batch_norms(model)]
    training.reset_statistics(model, blobs, SMALL, seed=0)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), weights, strict=True))
    assert [norm.momentum for norm in batch_norms(model)] == momenta
    assert not any(module.training for module in model.modules())


def test_a_network_without_batch_norm_has_no_statistics_to_reset(blobs):
    model = models.build("test_vit", 4, options=VIT)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    training.reset_statistics(model, blobs, SMALL, seed=0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# ---------------------------------------------------------------------------------------- another loss, and its course


@pytest.fixture
def rates(monkeypatch) -> list[float]:
    """The head's rate at every step that any optimizer takes."""
    found, make = [], training.make_optimizer

    def spied(model, recipe):
        optimizer = make(model, recipe)
        optimizer.register_step_pre_hook(lambda o, *_: found.append(o.param_groups[0]["lr"]))
        return optimizer

    monkeypatch.setattr(training, "make_optimizer", spied)
    return found


def test_a_loss_is_given_logits_labels_and_normalised_images(blobs):
    recipe, calls = Recipe(epochs=1, batch_size=48, size=20), []

    def loss(*arguments):
        calls.append(arguments)
        return F.cross_entropy(*arguments[:2])

    trained(blobs, recipe, loss=loss)
    assert len(calls) == 2
    for (answers, labels, images), expected in zip(calls, assembled(blobs, recipe), strict=True):
        assert (answers.shape, images.shape) == ((48, 4), (48, 3, 20, 20))
        assert torch.equal(images, expected[0])
        assert torch.equal(labels, expected[1])


def test_a_loss_is_what_is_minimised_and_logged(blobs):
    """Cross-entropy to the next label is the training of the next label."""
    shifted = ImageSet(blobs.images, (blobs.labels + 1) % 4)
    expected, model = models.build("test_byobnet", 4), models.build("test_byobnet", 4)
    log = fit(expected, shifted, SMALL, seed=0)
    found = fit(model, blobs, SMALL, seed=0, loss=lambda f, y, _: F.cross_entropy(f, (y + 1) % 4))
    assert torch.equal(found.losses, log.losses)
    assert torch.equal(logits(model, blobs), logits(expected, blobs))


ANSWERS, LABELS = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_default_loss_is_cross_entropy_over_all_logits(smoothing):
    """Brute force, over logits of which one column belongs to no image."""
    each = []
    for row, y in zip(ANSWERS.tolist(), LABELS.tolist(), strict=True):
        surprise = [math.log(sum(map(math.exp, row))) - value for value in row]
        each.append((1 - smoothing) * surprise[y] + smoothing * sum(surprise) / 4)
    loss = training.loss_of(Recipe(label_smoothing=smoothing), ANSWERS, LABELS)
    assert float(loss) == pytest.approx(sum(each) / 6, rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_sigmoid_loss_is_a_binary_one_for_each_class_summed_over_classes(smoothing):
    each = []
    for row, y in zip(ANSWERS.tolist(), LABELS.tolist(), strict=True):
        for c, value in enumerate(row):
            on, p = (1 - smoothing) * (c == y) + smoothing / 4, 1 / (1 + math.exp(-value))
            each.append(-on * math.log(p) - (1 - on) * math.log(1 - p))
    loss = training.loss_of(Recipe(loss="sigmoid", label_smoothing=smoothing), ANSWERS, LABELS)
    assert float(loss) == pytest.approx(sum(each) / 6, rel=1e-6)


def test_a_sigmoid_head_learns_and_is_finished_by_its_own_loss(blobs):
    """At the minimum of another loss than its own the gradient would not vanish."""
    recipe = replace(SMALL, loss="sigmoid", finish=200, weight_decay=1e-2)
    model = trained(blobs, recipe)
    out = training.predict(model, blobs)
    head = models.head(model)
    value = training.loss_of(recipe, head(out.features), out.labels)
    value = value + 0.5 * recipe.weight_decay * sum(p.square().sum() for p in head.parameters())
    slopes = torch.autograd.grad(value, list(head.parameters()))
    assert max(float(slope.abs().max()) for slope in slopes) < 1e-3
    assert float((out.logits.argmax(1) == out.labels).float().mean()) > 0.5


def test_after_step_is_called_once_a_step_when_the_step_is_done(blobs):
    model = models.build("test_byobnet", 4)
    seen = [models.head(model).weight.detach().clone()]
    fit(model, blobs, SMALL, seed=0, after_step=lambda: seen.append(models.head(model).weight.detach().clone()))
    assert len(seen) - 1 == 2 * 6
    moved = [not torch.equal(before, after) for before, after in pairwise(seen)]
    assert moved == [True] * 12
    assert torch.equal(seen[-1], models.head(model).weight)


@pytest.mark.parametrize("warmup", [0.0, 0.3])
def test_two_halves_of_a_span_have_the_rates_of_the_whole(blobs, rates, warmup):
    recipe = Recipe(steps=8, batch_size=16, warmup=warmup)
    trained(blobs, recipe)
    for span in ((0.0, 0.5), (0.5, 1.0)):
        trained(blobs, replace(recipe, steps=4), span=span)
    assert len(set(rates)) >= 8
    assert rates[8:] == pytest.approx(rates[:8], abs=1e-12)


def test_what_requires_no_gradient_does_not_move(blobs):
    """Not even by weight decay."""
    fresh, model = models.build("test_byobnet", 4), models.build("test_byobnet", 4)
    frozen = [name for i, (name, _) in enumerate(model.named_parameters()) if i % 2]
    for name in frozen:
        model.get_parameter(name).requires_grad_(False)
    fit(model, blobs, replace(SMALL, weight_decay=0.1), seed=0)
    still = [n for (n, p), q in zip(fresh.named_parameters(), model.parameters(), strict=True) if torch.equal(p, q)]
    assert still == frozen


# ---------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(("label", "span"), [(4, "0 to 4"), (-1, "-1 to 3")])
def test_labels_outside_the_head_are_named(blobs, label, span):
    labels = blobs.labels.clone()
    labels[5] = label
    with pytest.raises(ValueError, match=rf"labels run from {span}, but the head has columns 0 to 3"):
        trained(ImageSet(blobs.images, labels))


def test_an_empty_set_is_an_error(blobs):
    with pytest.raises(ValueError, match="no images to train on"):
        trained(blobs.of([]))


def test_a_crop_larger_than_the_images_is_an_error(blobs):
    with pytest.raises(ValueError, match=r"size 33 is too large for images of 32×32"):
        trained(blobs, Recipe(size=33))
    with pytest.raises(ValueError, match=r"size 33 is too large for images of 32×32"):
        predict(models.build("test_byobnet", 4), blobs, size=33)


def test_an_unknown_optimizer_is_named(blobs):
    with pytest.raises(ValueError, match="gradient-descent"):
        trained(blobs, Recipe(optimizer="gradient-descent"))


def test_an_infinite_loss_is_reported_at_its_first_step(blobs):
    """The second batch is the first that the exploded weights see."""
    with pytest.raises(FloatingPointError, match=r"the loss is (nan|inf) at step 1 \(lr 9\.\d+e\+29, seed 6\)"):
        trained(blobs, Recipe(epochs=2, batch_size=16, lr=1e30), seed=6)


def test_a_loss_that_turns_nan_late_is_reported_at_its_step(blobs, monkeypatch):
    steps = iter(range(100))
    true = F.cross_entropy
    monkeypatch.setattr(F, "cross_entropy", lambda *a, **k: true(*a, **k) * (math.nan if next(steps) == 7 else 1.0))
    with pytest.raises(FloatingPointError, match=r"the loss is nan at step 7 \(lr .*, seed 0\)"):
        trained(blobs, Recipe(epochs=2, batch_size=16, evaluations=0))


@pytest.mark.parametrize("steps", [1, 3])
def test_weights_that_the_last_step_explodes_are_reported(blobs, steps):
    """Every loss is finite: it is taken before its step."""
    model, made = models.build("test_byobnet", 4), iter(range(100))

    def after_step():
        if next(made) == steps - 1:
            with torch.no_grad():
                models.head(model).weight[0, 0] = math.inf

    with pytest.raises(
        FloatingPointError, match=rf"weights are not finite after the last step, {steps - 1} \(lr .*seed 6"
    ):
        fit(model, blobs, replace(SMALL, steps=steps), seed=6, after_step=after_step)


# ---------------------------------------------------------------------------------------- a finished head

FINISHED = replace(SMALL, finish=200, weight_decay=1e-3)


def objective(model: torch.nn.Module, data: ImageSet) -> tuple[float, float]:
    """Mean cross-entropy of the images as they are, and what L-BFGS minimises."""
    head = models.head(model)
    decayed = [head.scale] if isinstance(head, models.CosineHead) else list(head.parameters())
    with torch.no_grad():
        entropy = float(F.cross_entropy(logits(model, data), data.labels))
        return entropy, entropy + 1e-3 / 2 * sum(float(p.square().sum()) for p in decayed)


@pytest.mark.parametrize("head", ["linear", "cosine"])
def test_a_finished_head_is_at_the_minimum_on_the_same_features(blobs, head):
    before, after = (models.build("test_byobnet", 4, head=head) for _ in range(2))
    fit(before, blobs, replace(FINISHED, finish=0), seed=0)
    fit(after, blobs, FINISHED, seed=0)
    assert torch.equal(predict(before, blobs).features, predict(after, blobs).features)
    (entropy, value), (finished_entropy, finished) = objective(before, blobs), objective(after, blobs)
    assert finished_entropy < entropy - 0.05
    assert finished < value
    generator = torch.Generator().manual_seed(0)
    for parameter in models.head(after).parameters():  # whichever way one goes, it rises
        for _ in range(10):
            step, there = 0.05 * torch.randn(parameter.shape, generator=generator), parameter.detach().clone()
            for way in (there + step, there - step):
                parameter.data = way
                assert objective(after, blobs)[1] > finished - 1e-5
            parameter.data = there


def test_finishing_leaves_a_cosine_heads_rows_as_long_as_they_were(blobs):
    """Their length is nothing to the logits, and all to the rate at which a later training turns them."""
    lengths = []
    for finish in (0, 200):
        model = models.build("test_byobnet", 4, head="cosine")
        fit(model, blobs, replace(FINISHED, finish=finish, weight_decay=0.1), seed=0)
        lengths.append(models.head(model).weight.detach().norm(dim=1))
    assert (lengths[1] / lengths[0] > 0.9).all()


def test_a_finish_is_logistic_regression(blobs):
    """scikit-learn's, whose C weighs the sum of losses and whose intercept is not held back: here no decay at all."""
    model = models.build("test_byobnet", 4)
    fit(model, blobs, replace(FINISHED, weight_decay=0.01), seed=0)
    features = predict(model, blobs).features
    with_one = torch.cat([features, torch.ones(96, 1)], 1)  # the bias as one more weight: it decays as they do
    theirs = LogisticRegression(C=1 / (96 * 0.01), fit_intercept=False, tol=1e-8, max_iter=5000)
    theirs.fit(with_one.numpy(), blobs.labels.numpy())
    expected = theirs.predict_proba(with_one.numpy())
    np.testing.assert_allclose(logits(model, blobs).softmax(1).numpy(), expected, atol=2e-3)


def test_finishing_moves_the_head_alone_and_to_the_same_bits(blobs):
    plain, first, again = (trained(blobs, recipe) for recipe in (replace(FINISHED, finish=0), FINISHED, FINISHED))
    moved = {n for n, v in plain.state_dict().items() if not torch.equal(v, first.state_dict()[n])}
    assert moved == {"head.fc.weight", "head.fc.bias"}
    assert all(torch.equal(v, again.state_dict()[n]) for n, v in first.state_dict().items())


def test_more_iterations_bring_the_head_nearer_to_the_minimum(blobs):
    values = [objective(trained(blobs, replace(FINISHED, finish=n)), blobs)[1] for n in (0, 1, 4, 16, 200)]
    assert all(a > b for a, b in pairwise(values))


def test_the_last_evaluation_sees_the_finished_head(blobs):
    model, seen = models.build("test_byobnet", 4), []
    fit(model, blobs, FINISHED, seed=0, evaluate=lambda _: seen.append(logits(model, blobs)))
    assert torch.equal(seen[-1], logits(model, blobs))


def test_a_frozen_head_is_not_finished(blobs):
    model, fresh = models.build("test_byobnet", 4), models.build("test_byobnet", 4)
    models.head(model).requires_grad_(False)
    fit(model, blobs, FINISHED, seed=0)
    assert torch.equal(models.head(model).weight, models.head(fresh).weight)


def test_a_head_is_not_finished_by_another_loss_than_that_of_the_steps(blobs):
    with pytest.raises(ValueError, match=r"Recipe\.finish is 200, but this method has a loss of its own.*expected 0"):
        trained(blobs, FINISHED, loss=lambda f, y, _: F.cross_entropy(f, y))


# ---------------------------------------------------------------------------------------- predict


def test_predict_is_a_plain_loop(blobs):
    model = models.build("test_byobnet", 4).eval()
    scale, shift = models.normalisation(model, torch.device("cpu"))
    features, answers, labels = predict(model, blobs, batch_size=40)
    with torch.no_grad():
        for i in (0, 39, 40, 95):
            image = (blobs.images[i] * scale + shift)[None]
            torch.testing.assert_close(answers[i], model(image)[0], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(
                features[i], model.forward_head(model.forward_features(image), pre_logits=True)[0], rtol=1e-4, atol=1e-5
            )
    assert torch.equal(labels, blobs.labels)
    assert (features.dtype, answers.dtype, answers.shape) == (torch.float32, torch.float32, (96, 4))


def test_predict_takes_the_centre(blobs):
    model = models.build("test_byobnet", 4)
    centre = ImageSet(blobs.images[:, :, 6:26, 6:26].clone(), blobs.labels)
    assert torch.equal(predict(model, blobs, size=20).logits, predict(model, centre).logits)


def test_predict_takes_the_centre_of_images_that_are_not_square(blobs):
    model = models.build("test_byobnet", 4)
    wide = ImageSet(blobs.images[:, :, 4:24].clone(), blobs.labels)
    centre = ImageSet(blobs.images[:, :, 4:24, 6:26].clone(), blobs.labels)
    assert torch.equal(predict(model, wide).logits, predict(model, centre).logits)


@pytest.mark.parametrize("mode", [True, False])
def test_predict_restores_the_mode_and_changes_no_weights(blobs, mode):
    model = models.build("test_byobnet", 4).train(mode)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    predict(model, blobs)
    assert model.training is mode
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# --------------------------------------------------------------------------------------- no steps


def test_no_steps_change_nothing_and_are_looked_at_once(blobs):
    model, looks = models.build("test_byobnet", 4), []
    before = {name: value.clone() for name, value in model.state_dict().items()}
    log = fit(model, blobs, replace(SMALL, steps=0), seed=0, evaluate=looks.append)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert looks == [0.0] and len(log.losses) == 0 and log.images_per_second == 0


def test_joined_logs_are_those_of_one_training():
    logs = [FitLog(torch.tensor([3.0, 2.0]), 1.0, 10.0), FitLog(torch.tensor([1.0]), 3.0, 2.0)]
    losses, *rest = FitLog.joined(logs)
    assert losses.tolist() == [3, 2, 1] and rest == [4.0, 4.0]
    nothing = FitLog(torch.zeros(0), 0.0, 0.0)
    assert FitLog.joined([nothing, nothing])[1:] == (0.0, 0.0)


@pytest.mark.slow
def test_a_compiled_model_learns_what_the_plain_one_learns(blobs, monkeypatch):
    compiler = torch.compile  # by a backend that needs no compiler of C++
    monkeypatch.setattr(torch, "compile", lambda model: compiler(model, backend="eager"))
    monkeypatch.setattr(training, "PAYS", 0)
    learnt = []
    for compiled in (False, True):
        model = models.build("test_resnet", 4, seed=1)
        training.fit(model, blobs, Recipe(steps=3, batch_size=16, lr=0.05, evaluations=1, compile=compiled), seed=0)
        learnt.append(model.state_dict())
    assert all(torch.equal(value, learnt[1][name]) for name, value in learnt[0].items())
