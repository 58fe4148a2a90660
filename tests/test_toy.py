"""ftlib.book.toy: a geometry worked by hand; a plain loop over one network is the oracle of the batched training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ftlib.book import toy
from ftlib.calibration import average_logit_gap
from ftlib.metrics import ncm_logits, seen_unseen_curve, split_accuracies

WORLD = toy.World(width=4, height=2, noise=0.5, shift=3, direction=0, shared=0.5)


@pytest.fixture(scope="module")
def data() -> toy.Data:
    return toy.make(toy.World(), [3, 1, 4], per_class=20)


@pytest.fixture
def before(data) -> toy.Nets:
    return toy.pretrain(toy.init([3, 1, 4], hidden=8), data, steps=60)


def equal(one: tuple, other: tuple) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def close(one: tuple, other: tuple, atol: float) -> bool:
    return all(torch.allclose(a, b, atol=atol) for a, b in zip(one, other, strict=True))


# --- the world -------------------------------------------------------------------------------------------------------


def test_the_source_has_the_seen_row_above_the_absent_one():
    assert WORLD.centres("source").tolist() == [[-2, 1], [2, 1], [-2, -1], [2, -1]]


@pytest.mark.parametrize(
    ("changed", "target"),
    [
        ({}, [[1, 1], [5, 1], [-0.5, -1], [3.5, -1]]),
        ({"shared": 1}, [[1, 1], [5, 1], [1, -1], [5, -1]]),
        ({"shared": 0}, [[1, 1], [5, 1], [-2, -1], [2, -1]]),
        ({"shared": -1}, [[1, 1], [5, 1], [-5, -1], [-1, -1]]),
        ({"direction": -90, "shared": 1}, [[-2, -2], [2, -2], [-2, -4], [2, -4]]),
        ({"direction": 90, "shared": -1}, [[-2, 4], [2, 4], [-2, -4], [2, -4]]),
    ],
)
def test_the_shift_takes_the_absent_classes_as_far_as_they_share_it(changed, target):
    assert replace(WORLD, **changed).centres("target").numpy() == pytest.approx(np.array(target), abs=1e-6)


def test_the_box_holds_both_domains_with_three_standard_deviations_to_spare():
    assert WORLD.box() == pytest.approx((-3.5, 6.5, -2.5, 2.5))


def test_points_are_their_class_centre_and_noise_of_the_given_size():
    points = toy.make(WORLD, range(40), per_class=50)
    assert points.source.shape == points.target_test.shape == (40, 200, 2)
    for part in ("source", "source_test", "target", "target_test"):
        centres = WORLD.centres(part.removesuffix("_test"))[points.labels]
        noise = getattr(points, part) - centres
        assert noise.mean().abs() < 0.01 and noise.std() == pytest.approx(0.5, rel=0.02)


def test_no_part_repeats_the_points_of_another():
    noise = [part - WORLD.centres("source")[0] for part in toy.make(replace(WORLD, shift=0), [0])[:4]]
    assert not any(torch.allclose(noise[i], noise[j]) for i in range(4) for j in range(i))


def test_a_seed_gives_the_same_points_and_networks_whatever_the_other_seeds():
    alone, among = toy.make(WORLD, [7]), toy.make(WORLD, [2, 7])
    assert equal(alone[:4], [part[1:] for part in among[:4]])
    assert equal(toy.init([7]), [part[1:] for part in toy.init([2, 7])])
    assert not torch.equal(among.source[0], among.source[1])


def test_worlds_have_their_noise_in_common():
    near, far = toy.make(WORLD, [0]), toy.make(replace(WORLD, shared=-1), [0])
    moved, seen = far.target - near.target, near.labels < 2
    assert torch.equal(near.source, far.source) and not moved[:, seen].any()
    assert moved[:, ~seen].numpy() == pytest.approx(np.tile([-4.5, 0], (1, 100, 1)), abs=1e-5)


# --- training --------------------------------------------------------------------------------------------------------


def plain_loop(weights, points, labels, steps, lr):
    """One network, its gradient written by hand, in float64."""
    w, b, v, c = (part.double().numpy().copy() for part in weights)
    velocities = [np.zeros_like(part) for part in (w, b, v, c)]
    x, targets = points.double().numpy(), np.eye(4)[labels.numpy()]
    for _ in range(steps):
        pre = x @ w + b
        features = np.maximum(pre, 0)
        p = np.exp(features @ v + c)
        p /= p.sum(1, keepdims=True)
        error = (p - targets) / len(x)
        back = (error @ v.T) * (pre > 0)
        gradients = x.T @ back, back.sum(0, keepdims=True), features.T @ error, error.sum(0, keepdims=True)
        for part, velocity, gradient in zip((w, b, v, c), velocities, gradients, strict=True):
            velocity *= 0.9
            velocity += gradient
            part -= lr * (gradient + 0.9 * velocity)
    return [torch.from_numpy(part).float() for part in (w, b, v, c)]


@pytest.mark.parametrize("i", range(3))
def test_a_network_of_a_batch_is_trained_as_it_would_be_alone(data, before, i):
    start = [part[i] for part in toy.init([3, 1, 4], hidden=8)]
    schooled = plain_loop(start, data.source[i], data.labels, 60, 0.1)
    assert close(schooled, [part[i] for part in before], atol=1e-3)
    own = data.labels < 2
    alone = plain_loop([part[i] for part in before], data.target[i][own], data.labels[own], 40, 0.05)
    assert close(alone, [part[i] for part in toy.finetune(before, data, steps=40)[40]], atol=1e-3)


def test_training_gives_the_same_bits_twice_and_leaves_its_start_alone(data, before, monkeypatch, tmp_path):
    copy, once = [part.clone() for part in before], toy.finetune(before, data, steps=20)[20]
    monkeypatch.setenv("FTLIB_STORE", str(tmp_path / "another"))
    assert equal(once, toy.finetune(before, data, steps=20)[20])
    assert equal(copy, before)


def test_what_was_trained_is_kept_and_what_differs_is_trained(data, before, monkeypatch):
    once = toy.finetune(before, data, steps=4, at=[2])
    trained, fit = [], toy._fit
    monkeypatch.setattr(toy, "_fit", lambda *given: trained.append(given) or fit(*given))
    again = toy.finetune(before, data, steps=4, at=[2])
    assert list(again) == [0, 2, 4] and all(equal(once[step], again[step]) for step in again) and not trained
    moved = data._replace(target=data.target + 1e-6)
    relabelled = data._replace(labels=data.labels.flip(0))
    for nets, points, how in (
        (before, data, {"lr": 0.06}),
        (before, data, {"at": [3]}),
        (before, moved, {}),
        (before, relabelled, {}),
        (before._replace(bias=before.bias + 1e-6), data, {}),
    ):
        toy.finetune(nets, points, **{"steps": 4, "at": [2]} | how)
    assert len(trained) == 5


def test_fine_tuning_reads_no_point_of_an_absent_class(data, before):
    poisoned = data.target.clone()
    poisoned[:, data.labels >= 2] = torch.nan
    clean = toy.finetune(before, data, steps=20)
    assert equal(clean[20], toy.finetune(before, data._replace(target=poisoned), steps=20)[20])
    assert all(part.isfinite().all() for part in clean[20])


def test_the_loss_is_over_all_four_logits_so_that_one_step_lowers_the_absent_biases(data, before):
    after = toy.finetune(before, data, steps=1)[1]
    assert (after.bias[..., 2:] < before.bias[..., 2:]).all()


def test_the_way_has_the_start_the_end_and_the_stops_between(data, before):
    path = toy.finetune(before, data, steps=20, at=[5])
    assert list(path) == [0, 5, 20]
    assert equal(path[0], before) and equal(path[5], toy.finetune(before, data, steps=5)[5])


# --- many worlds at once ---------------------------------------------------------------------------------------------


def test_stacked_worlds_train_as_each_alone_and_come_apart_in_order(data, before):
    worlds = [toy.make(toy.World(direction=a), [3, 1, 4], per_class=20) for a in (0.0, 90.0)]
    together = toy.finetune(toy.repeat(before, 2), toy.stack(worlds), steps=20)[20]
    measured = toy.unstack(toy.measure(together, toy.stack(worlds)), 2)
    for i, world in enumerate(worlds):
        alone = toy.finetune(before, world, steps=20)[20]
        assert close(alone, [part[3 * i : 3 * i + 3] for part in together], atol=1e-5)
        assert measured[i]["sy"] == pytest.approx(toy.measure(alone, world)["sy"], abs=0.03)


# --- what is measured ------------------------------------------------------------------------------------------------


def test_what_is_measured_is_what_the_pure_functions_say_of_each_network(data, before):
    measured = toy.measure(before, data)
    assert {values.shape for values in measured.values()} == {(3,)}
    for i in range(3):
        one = toy.Nets(*(part[i : i + 1] for part in before))
        (features, logits), (train, train_logits) = one(data.target_test[i : i + 1]), one(data.target[i : i + 1])
        head = split_accuracies(logits[0], data.labels, toy.SPLIT)
        cosines = ncm_logits(train[0], data.labels, features[0], 4)
        curve = seen_unseen_curve(logits[0], data.labels, toy.SPLIT)
        own = data.labels < 2
        gap = average_logit_gap(train_logits[0][own], data.labels[own], toy.SPLIT)
        found = {name: values[i] for name, values in measured.items()}
        assert (found["uy"], found["uu"]) == (head.uy, head.uu)
        assert found["ncm_uy"] == split_accuracies(cosines, data.labels, toy.SPLIT).uy
        assert found["oracle_yy"] == curve.yy.max() and found["ausuc"] == curve.ausuc
        assert found["alg"] == pytest.approx(gap, abs=1e-5)
        assert found["alg_yy"] == split_accuracies(logits[0], data.labels, toy.SPLIT, gap).yy


def test_a_grid_has_its_first_row_at_the_bottom_and_its_cells_by_their_middles():
    """Features x and y, logits x, y, x + y and 0."""
    weight = torch.tensor([[[1.0, 0, 1, 0], [0, 1, 1, 0]]])
    net = toy.Nets(torch.eye(2)[None], torch.zeros(1, 1, 2), weight, torch.zeros(1, 1, 4))
    logits = toy.on_grid(net, (0.0, 3.0, 0.0, 2.0), columns=3)
    assert logits.shape == (1, 2, 3, 4)
    assert logits[0, 0].tolist() == [[0.5, 0.5, 1, 0], [1.5, 0.5, 2, 0], [2.5, 0.5, 3, 0]]
    assert logits[0, 1, 0].tolist() == [0.5, 1.5, 2, 0]


# --- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda d, n: toy.World(noise=-1), "noise is -1, expected a length"),
        (lambda d, n: toy.World(shift=float("nan")), "shift is nan, expected a finite"),
        (lambda d, n: toy.World(shared=1.5), r"shared is 1.5, expected -1 .* to 1"),
        (lambda d, n: toy.World().centres("targets"), "domain 'targets': expected 'source' or 'target'"),
        (lambda d, n: toy.make(toy.World(), []), r"seeds \[\]: expected at least one"),
        (lambda d, n: toy.make(toy.World(), [1, 1]), r"seeds \[1, 1\]: expected at least one, each once"),
        (lambda d, n: toy.make(toy.World(), [1], per_class=1), "per_class is 1"),
        (lambda d, n: toy.init([1], hidden=0), "hidden is 0"),
        (lambda d, n: toy.pretrain(n, d, steps=-1), "steps -1 and lr"),
        (lambda d, n: toy.finetune(n, d, lr=0.0), "lr 0.0: expected"),
        (lambda d, n: toy.finetune(n, d, steps=5, at=[6]), r"after \[6\] steps.*0 to 5"),
        (lambda d, n: toy.pretrain(toy.init([1]), d), "1 networks, but points of 3 repetitions"),
        (lambda d, n: toy.on_grid(n, (1.0, 0.0, 0.0, 1.0)), r"box \(1.0, 0.0, 0.0, 1.0\).*left < right"),
    ],
)
def test_a_mistake_is_named(data, before, wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong(data, before)
