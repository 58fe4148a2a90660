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
