"""ftlib.analysis against cases worked by hand, autograd, loops and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch.nn.functional import cross_entropy

from ftlib import movement
from ftlib.analysis import alignment, approach, class_means, group_cosines, principal_plane, separability, softmax_step
from ftlib.core import ClassSplit

SPLIT = ClassSplit([0, 1, 2, 3], [4, 5, 6, 7])


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- weight rows -----------------------------------------------------------------------------------------------------


def test_cosines_worked_by_hand():
    rows = torch.tensor([[2.0, 0.0], [1.0, 1.0], [-3.0, 0.0], [0.0, 0.0]])
    half = math.sqrt(0.5)
    expected = torch.tensor([[1, half, -1, 0], [half, 1, -half, 0], [-1, -half, 1, 0], [0, 0, 0, 0]]).double()
    torch.testing.assert_close(movement.cosines(rows), expected)


def test_mean_cosines_of_groups_against_a_loop():
    rows, split = draws(9, 4), ClassSplit([5, 0, 8], [2, 7, 1, 3])

    def mean(a, b):
        pairs = [rows[i] @ rows[j] / rows[i].norm() / rows[j].norm() for i in a for j in b if i != j]
        return float(sum(pairs) / len(pairs))

    assert group_cosines(rows, split) == pytest.approx(
        {
            "seen": mean(split.seen, split.seen),
            "absent": mean(split.absent, split.absent),
            "between": mean(split.seen, split.absent),
        }
    )


def test_a_group_of_one_has_no_cosine_within():
    means = group_cosines(draws(3, 2), ClassSplit([0], [1, 2]))
    assert math.isnan(means["seen"]) and math.isfinite(means["absent"])


def test_a_softmax_step_is_minus_the_gradient():
    features, head = draws(12, 5), torch.nn.Linear(5, 7, dtype=torch.float64)
    labels = torch.arange(12) % 4
    logits = head(features)
    cross_entropy(logits, labels).backward()
    torch.testing.assert_close(softmax_step(features, logits.detach(), labels), -head.weight.grad)


def test_a_softmax_step_worked_by_hand():
    """Two classes as likely as each other; both images are of the first."""
    step = softmax_step(torch.tensor([[2.0, 0.0], [0.0, 4.0]]), torch.zeros(2, 2), torch.tensor([0, 0]))
    assert step.tolist() == [[0.5, 1.0], [-0.5, -1.0]]  # the absent row leaves half of the mean feature


def test_a_label_outside_the_head_is_refused():
    with pytest.raises(ValueError, match=r"labels \[2\] are not among the columns 0 to 1"):
        softmax_step(torch.ones(1, 3), torch.zeros(1, 2), torch.tensor([2]))


def test_training_moves_absent_rows_along_the_predicted_step():
    """What chapter 6 derives: on features that are not negative, absent rows leave together, along the first step."""
    features, labels = draws(200, 30).abs(), torch.arange(200) % 4
    head = torch.nn.Linear(30, 8, dtype=torch.float64)
    start = head.weight.detach().clone()
    predicted = softmax_step(features, head(features).detach(), labels)
    optimizer = torch.optim.SGD(head.parameters(), 0.05)
    for _ in range(50):
        optimizer.zero_grad()
        cross_entropy(head(features), labels).backward()
        optimizer.step()
    change, absent = head.weight.detach() - start, list(SPLIT.absent)
    assert movement.mean_cosine(change[absent], predicted[absent]) > 0.95
    assert movement.mean_cosine(change[absent], -features.mean(0)) > 0.9
    within = group_cosines(change, SPLIT)
    assert within["absent"] > 0.9 > within["between"]


# --- class means -----------------------------------------------------------------------------------------------------


def test_class_means_worked_by_hand():
    means = class_means(torch.tensor([[1.0, 2.0], [5.0, 5.0], [3.0, 4.0]]), torch.tensor([2, 0, 2]), 3)
    assert means[[0, 2]].tolist() == [[5.0, 5.0], [2.0, 3.0]]
    assert means[1].isnan().all()


def test_alignment_finds_who_moves_with_whom():
    """Absent classes 2 and 3 look like the seen 0 and 1 and copy their moves, beside one that all make."""
    before = torch.tensor([[1.0, 0, 0, 0], [-1.0, 0, 0, 0], [2.0, 0, 0, 0], [-2.0, 0, 0, 0]])
    common, own = torch.tensor([0, 3.0, 0, 0]), torch.tensor([0, 0, 4.0, 0])
    after = before + common + torch.stack([own, -own, own, -own])
    found = alignment(before, after, ClassSplit([0, 1], [2, 3]))
    assert found.nearest == pytest.approx(1)
    assert found.others == pytest.approx(-1)
    # shifts (0, 3, 4, 0) and (0, 3, -4, 0): with one's like 25/25, with the other (9 - 16)/25
    assert found.seen == pytest.approx((1 - 7 / 25) / 2)


def test_moves_that_know_nothing_of_one_another_are_not_aligned():
    before, after = draws(40, 500), draws(40, 500, seed=1)
    after += before  # the shift is the second draw alone
    found = alignment(before, after, ClassSplit(range(20), range(20, 40)))
    assert all(abs(cosine) < 0.05 for cosine in found)


def test_alignment_with_one_seen_class_is_refused():
    with pytest.raises(ValueError, match="class 3 is the only seen class"):
        alignment(draws(5, 2), draws(5, 2), ClassSplit([3], [0, 1]))


def test_an_approach_worked_by_hand():
    """The first class goes half of its way, the second the whole of a way that its neighbour should go."""
    before, goal = torch.zeros(2, 2), torch.tensor([[4.0, 0.0], [0.0, 4.0]])
    found = approach(before, torch.tensor([[2.0, 0.0], [4.0, 0.0]]), goal)
    assert found.own == pytest.approx((1 + 0) / 2)
    assert found.other == pytest.approx((0 + 1) / 2)
    assert found.gone == pytest.approx((0.5 + 1 - math.sqrt(2)) / 2)


def test_noise_in_the_means_before_looks_as_much_like_the_way_to_any_goal():
    before = draws(60, 400)
    found = approach(before, torch.zeros_like(before), draws(60, 400, seed=1))
    assert found.own > 0.5
    assert found.own == pytest.approx(found.other, abs=0.02)


def test_a_plane_is_found_whole():
    """Points of a plane in five dimensions keep their distances, and no variance is lost."""
    axes, _ = torch.linalg.qr(draws(5, 2))
    flat = draws(20, 2, seed=1) * torch.tensor([3.0, 1.0])
    points = flat @ axes.T + draws(5, seed=2)
    plane = principal_plane(points)
    assert plane.share == pytest.approx(1)
    np.testing.assert_allclose(np.linalg.norm(plane.project(points), axis=1), (flat - flat.mean(0)).norm(dim=1))


def test_the_share_of_a_plane_worked_by_hand():
    points = torch.diag(torch.tensor([3.0, 2.0, 1.0]))
    points = torch.cat([points, -points])  # variances 9 : 4 : 1
    plane = principal_plane(points)
    assert plane.share == pytest.approx(13 / 14)
    np.testing.assert_allclose(plane.project(points[:2]), [[3, 0], [0, 2]], atol=1e-12)


# --- separability ----------------------------------------------------------------------------------------------------


def images(centres: torch.Tensor, count: int, noise: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.arange(len(centres)).repeat_interleave(count)
    return centres[labels] + noise * draws(len(labels), centres.shape[1], seed=seed), labels


def test_classes_that_can_be_told_apart_are_learnt_by_heart_in_any_two_groups():
    """One axis a class and nothing in common within a side: told of all classes the probe is right, else it guesses."""
    found = separability(
        images(torch.eye(8).double(), 30, 0.05, 0), images(torch.eye(8).double(), 30, 0.05, 1), SPLIT, ridge=1e-4
    )
    assert found.known > 0.99 and found.known_halving > 0.99
    assert found.unknown == pytest.approx(0.5, abs=0.1) and found.unknown_halving == pytest.approx(0.5, abs=0.1)


def test_a_direction_of_the_sides_works_for_classes_that_the_probe_was_not_told_of():
    centres = torch.cat([torch.eye(8), torch.tensor([[3.0]] * 4 + [[-3.0]] * 4)], 1).double()
    found = separability(images(centres, 30, 0.1, 0), images(centres, 30, 0.1, 1), SPLIT)
    assert found.unknown > 0.99
    assert found.unknown_halving < 0.7


def test_features_that_say_nothing_are_a_coin_toss():
    nothing = torch.zeros(8, 5).double()
    found = separability(images(nothing, 200, 1.0, 0), images(nothing, 200, 1.0, 1), SPLIT)
    assert all(abs(accuracy - 0.5) < 0.06 for accuracy in found)


def test_the_probe_is_a_ridge_regression_cut_halfway_between_the_sides():
    split = ClassSplit([2, 0], [1, 3, 4])
    centres = draws(5, 6)
    (x, y), (x_test, y_test) = images(centres, 12, 1.0, 1), images(centres, 9, 1.0, 2)
    found = separability((x, y), (x_test, y_test), split, dealings=3, ridge=0.3)
    seen, seen_test = (np.isin(labels, split.seen) for labels in (y, y_test))
    trace = float((x - x.mean(0)).square().sum())
    model = Ridge(alpha=0.3 * trace / 6).fit(x.numpy(), seen * 2.0 - 1)
    scores = model.predict(x.numpy())
    answers = model.predict(x_test.numpy()) > (scores[seen].mean() + scores[~seen].mean()) / 2
    assert found.known == pytest.approx((answers[seen_test].mean() + (~answers[~seen_test]).mean()) / 2)


def test_a_crowded_side_is_no_better_answer():
    """With ten times the images on one side, features that say nothing are still a coin toss."""
    labels = torch.cat([torch.arange(4).repeat(100), torch.arange(4, 8).repeat(10)])
    train, test = ((draws(len(labels), 3, seed=seed), labels) for seed in (1, 2))
    found = separability(train, test, SPLIT)
    assert found.known == pytest.approx(0.5, abs=0.15)


def test_the_same_seed_deals_the_same_groups():
    data = images(draws(8, 6), 5, 1.0, 1), images(draws(8, 6), 5, 1.0, 2)
    assert separability(*data, SPLIT, seed=3) == separability(*data, SPLIT, seed=3)
    assert separability(*data, SPLIT, seed=3) != separability(*data, SPLIT, seed=4)


def test_a_side_of_one_class_cannot_be_asked_about_unknown_classes():
    data = images(draws(3, 4), 5, 1.0, 1)
    with pytest.raises(ValueError, match="1 seen and 2 absent classes: expected two of each"):
        separability(data, data, ClassSplit([0], [1, 2]))


def test_a_label_outside_the_split_is_refused():
    data = images(draws(9, 4), 5, 1.0, 1)
    with pytest.raises(ValueError, match=r"labels \[8\] are not among the split's classes"):
        separability(data, data, SPLIT)
