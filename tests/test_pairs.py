"""ftlib/book/pairs.py: curves averaged along rays, and what a chapter records of every pair."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest

from ftlib.book import pairs
from ftlib.core import ClassSplit
from ftlib.metrics import seen_unseen_curve

SPLIT = ClassSplit(range(3), range(3, 6))


def curve(seed: int, n: int = 400):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 6
    logits = rng.normal(size=(n, 6)) + 2 * np.eye(6)[labels]
    return seen_unseen_curve(logits, labels, SPLIT)


def test_a_curve_meets_the_axes_where_one_side_is_alone():
    one = curve(0)
    sy, uy = pairs.on_plane(pairs.along_rays([one]))
    assert (sy[0], uy[-1]) == pytest.approx((one.sy[0], one.uy[-1]), abs=1e-4)
    assert (uy[0], sy[-1]) == pytest.approx((0, 0), abs=1e-9)


def test_points_on_rays_lie_on_the_curve():
    one = curve(1)
    sy, uy = pairs.on_plane(pairs.along_rays([one]))
    knots = np.stack([one.sy, one.uy], 1)
    for x, y in zip(sy, uy, strict=True):  # distance to the nearest point of a fine walk along the lines
        walk = np.concatenate([np.linspace(a, b, 50) for a, b in pairwise(knots)])
        assert np.hypot(*(walk - (x, y)).T).min() < 1e-3


def test_the_mean_of_two_curves_lies_between_them_on_every_ray():
    one, two, mean = (np.array(pairs.along_rays(of)) for of in ([curve(2)], [curve(3)], [curve(2), curve(3)]))
    assert mean == pytest.approx((one + two) / 2, abs=1e-4)


def test_a_curve_that_never_finds_a_side_ends_at_the_origin():
    labels = np.array([0, 1, 3, 4])
    logits = np.eye(6)[[0, 1, 4, 3]]  # no absent image is right
    sy, uy = pairs.on_plane(pairs.along_rays([seen_unseen_curve(logits, labels, SPLIT)]))
    assert sy[0] == 1 and np.allclose(uy, 0) and json.dumps(sy.tolist())


def chapter(id: str, values: dict[str, float]) -> dict:
    """A record with one claim whose effects are {"pair, seed n": effect}."""
    parts: dict[str, dict[str, float]] = {}
    for label, value in values.items():
        parts.setdefault(label.rpartition(", ")[2], {})[label] = value
    effects = [{"of": of, "effect": np.mean([*p.values()]), "parts": p} for of, p in parts.items()]
    return {"claims": [{"id": id, "effects": effects}], "provenance": {"benchmarks": ["glyphs/a-b"]}, "values": {}}


def test_a_pair_s_effects_are_those_of_its_seeds_and_a_loss_is_a_negative_change():
    values = {"a-b, seed 0": 10.0, "a-b, seed 1": 20.0, "c-d, seed 0": 4.0, "c-d, seed 1": 4.0}
    world = {"03": chapter("absent-drop", values), "04": chapter("ncm-absent-gain", values)}
    found = pairs.head_and_features(world)
    assert {pair: (of[pairs.HEAD].mean, of[pairs.FEATURES].mean) for pair, of in found.items()} == {
        "a-b": pytest.approx((-0.15, 0.15)),
        "c-d": pytest.approx((-0.04, 0.04)),
    }


def test_a_world_with_one_pair_has_its_effects_without_parts():
    record = chapter("absent-drop", {})
    record["claims"][0]["effects"] = [{"of": "photos, seed 0", "effect": 1.0}, {"of": "photos, seed 1", "effect": 3.0}]
    assert pairs.effects_of({"03": record}, "absent-drop")["photos"].tolist() == [1, 3]


def test_shares_are_of_what_the_best_gamma_adds():
    yy = {"fine-tuned": 0.5, "fine-tuned + γ*": 0.7, "fine-tuned + ALG": 0.55, "fine-tuned + recommended": 0.65}
    accuracies = {name: dict.fromkeys(pairs.ACCURACIES, [yy.get(name, 0.1)] * 2) for name in pairs.STATES}
    assert pairs.shares_of_star({"a-b": {"accuracies": accuracies}}) == pytest.approx((20, 0.25, 0.75))


def test_a_world_is_drawn_if_its_curves_are_of_drawn_images():
    record = chapter("ausuc-gain", {})
    assert pairs.is_drawn({pairs.CURVES: record})
    record["provenance"]["benchmarks"].append("folder:office31/a-b")
    assert not pairs.is_drawn({pairs.CURVES: record}) and not pairs.is_drawn({})
