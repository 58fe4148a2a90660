"""ftlib.analysis against a case worked by hand and against loops over samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ftlib.analysis import trajectory
from ftlib.benchmarks.core import ClassSplit


def test_a_case_worked_by_hand():
    """Four classes, 0 and 2 seen; one evaluation; two samples of each side."""
    logits = [
        [5.0, 1.0, 2.0, 0.0],  # of 0, right; other seen 2, other absent 1
        [3.0, 4.0, 1.0, 0.0],  # of 2, taken for 1; other seen 3, other absent 4
        [0.0, 7.0, 2.0, 6.0],  # of 1, right; other seen 2, other absent 6
        [9.0, 8.0, 0.0, 1.0],  # of 3, taken for 0, and among the absent for 1; other seen 9, other absent 8
    ]
    weight = [[3.0, 4.0], [0.0, 1.0], [0.0, 1.0], [0.0, 2.0]]
    history = {"epoch": torch.tensor([0.5]), "logits": torch.tensor([logits]), "weight": torch.tensor([weight])}
    points = trajectory(history, torch.tensor([0, 2, 1, 3]), ClassSplit([0, 2], [1, 3]))
    assert {name: value.tolist() for name, value in points.items()} == {
        "epoch": [0.5],
        "yy": [0.5],
        "sy": [0.5],
        "uy": [0.5],
        "ss": [0.5],  # the second goes to 0 among the seen
        "uu": [0.5],
        "seen_norm": [3.0],  # of 5 and 1
        "absent_norm": [1.5],
        "seen_true": [3.0],
        "seen_other_seen": [2.5],
        "seen_other_absent": [2.5],
        "absent_true": [4.0],
        "absent_other_seen": [5.5],
        "absent_other_absent": [7.0],
    }


@pytest.mark.parametrize("seed", range(20))
def test_against_a_loop(seed):
    rng = np.random.default_rng(seed)
    count, samples, points = int(rng.integers(5, 9)), 40, 3
    order = rng.permutation(count).tolist()
    split = ClassSplit(order[:2], order[2:-1])  # the last column of the order belongs to neither
    labels = rng.choice(split.classes, samples)
    labels[0], labels[1] = split.seen[0], split.absent[0]
    logits = rng.standard_normal((points, samples, count)).astype(np.float32)
    weight = rng.standard_normal((points, count, 6)).astype(np.float32)
    history = {"epoch": torch.arange(3.0), "logits": torch.from_numpy(logits), "weight": torch.from_numpy(weight)}
    measured = trajectory(history, torch.from_numpy(labels), split)
    for e in range(points):
        for side, classes in (("seen", split.seen), ("absent", split.absent)):
            of_side = [i for i in range(samples) if labels[i] in classes]
            norms = [math.hypot(*weight[e, c]) for c in classes]
            assert measured[f"{side}_norm"][e] == pytest.approx(np.mean(norms), rel=1e-5)
            assert measured[f"{side}_true"][e] == pytest.approx(
                np.mean([logits[e, i, labels[i]] for i in of_side]), rel=1e-4, abs=1e-6
            )
            for other, rivals in (("seen", split.seen), ("absent", split.absent)):
                largest = [max(logits[e, i, c] for c in rivals if c != labels[i]) for i in of_side]
                assert measured[f"{side}_other_{other}"][e] == pytest.approx(np.mean(largest), rel=1e-4, abs=1e-6)
            right = [max(split.classes, key=lambda c, i=i: logits[e, i, c]) == labels[i] for i in of_side]
            assert measured["sy" if side == "seen" else "uy"][e] == pytest.approx(np.mean(right))


def test_a_side_of_one_class_has_no_other_of_its_own():
    history = {"epoch": torch.zeros(1), "logits": torch.randn(1, 6, 3), "weight": torch.randn(1, 3, 2)}
    points = trajectory(history, torch.tensor([0, 1, 2, 0, 1, 2]), ClassSplit([0], [1, 2]))
    assert math.isnan(points["seen_other_seen"][0])
    assert math.isfinite(points["seen_other_absent"][0])
    assert math.isfinite(points["absent_other_seen"][0])
