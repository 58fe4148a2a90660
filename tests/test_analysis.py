"""ftlib.analysis against cases worked by hand, loops over samples, autograd and scikit-learn."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from ftlib.analysis import (
    alignment,
    approach,
    class_means,
    contributions,
    cosines,
    group_cosines,
    head_parts,
    lead,
    logits_of,
    mean_cosine,
    shift_shares,
    softmax_step,
    trajectory,
)
from ftlib.core import ClassSplit
from ftlib.metrics import split_accuracies

SPLIT = ClassSplit([0, 1, 2, 3], [4, 5, 6, 7])


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


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


# --- the lead ---------------------------------------------------------------------------------------------------------


def test_the_lead_is_taken_over_the_best_other_class_of_the_side_alone():
    logits = torch.tensor([[9.0, 1.0, 2.0, 4.0], [0.0, 7.0, 8.0, 3.0], [5.0, 0.0, 6.0, 9.0]])
    labels = torch.tensor([2, 1, 0])  # the last is seen and left out; column 0 is nobody's rival
    assert lead(logits, labels, (1, 2, 3)).tolist() == [2 - 4, 7 - 8]


def test_the_lead_is_positive_exactly_where_the_side_alone_gets_it_right():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(200, 7, generator=generator), torch.randint(7, (200,), generator=generator)
    split = ClassSplit([0, 3, 4], [1, 2, 5, 6])
    assert (lead(logits, labels, split.absent) > 0).mean() == split_accuracies(logits, labels, split).uu


def test_one_class_has_no_lead():
    with pytest.raises(ValueError, match=r"\(3,\): a lead needs at least two"):
        lead(torch.zeros(1, 4), torch.tensor([3]), (3,))


# --- a classifier taken apart ----------------------------------------------------------------------------------------


def test_parts_of_a_head_worked_by_hand():
    parts = head_parts(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([1.0, 2.0]))
    assert parts["norms"].tolist() == [[5.0], [0.0]]
    assert parts["directions"].tolist() == [[0.6, 0.8], [0.0, 0.0]]
    assert parts["biases"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("biased", [True, False])
def test_parts_put_together_are_the_head(biased):
    head = torch.nn.Linear(6, 5, bias=biased, dtype=torch.float64)
    features = torch.randn(9, 6, dtype=torch.float64)
    logits = logits_of(features, **head_parts(head.weight.detach(), head.bias.detach() if biased else None))
    torch.testing.assert_close(logits, head(features).detach())


def test_contributions_worked_by_hand():
    """Of the product 1·2 -> 3·5: a first adds 4 and then b 9; b first adds 3 and then a 10."""
    found = contributions(lambda a, b: a * b, {"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 5.0})
    assert found == {"a": 7.0, "b": 6.0}


@pytest.mark.parametrize("seed", range(5))
def test_contributions_are_averages_over_all_orders(seed):
    rng, names = np.random.default_rng(seed), ["a", "b", "c", "d"]
    table = rng.standard_normal((2, 2, 2, 2))
    found = contributions(lambda a, b, c, d: table[a, b, c, d], dict.fromkeys(names, 0), dict.fromkeys(names, 1))
    steps = {name: [] for name in names}
    for order in permutations(range(4)):
        now = [0, 0, 0, 0]
        for i in order:
            before = table[tuple(now)]
            now[i] = 1
            steps[names[i]].append(table[tuple(now)] - before)
    assert found == pytest.approx({name: np.mean(values) for name, values in steps.items()})
    assert sum(found.values()) == pytest.approx(table[1, 1, 1, 1] - table[0, 0, 0, 0])


def test_a_part_that_the_measure_ignores_contributes_nothing():
    found = contributions(lambda a, b: a**2, {"a": 1.0, "b": 0.0}, {"a": 3.0, "b": 9.0})
    assert found == {"a": 8.0, "b": 0.0}


def test_parts_of_other_names_are_refused():
    with pytest.raises(ValueError, match=r"before \['a'\] and after \['b'\]"):
        contributions(float, {"a": 1}, {"b": 2})


@pytest.mark.parametrize(
    ("change", "shares"),
    [
        ([[3.0, 3.0], [3.0, 3.0]], {"constant": 1, "image": 0, "class": 0, "rest": 0}),
        ([[1.0, 1.0], [-1.0, -1.0]], {"constant": 0, "image": 1, "class": 0, "rest": 0}),
        ([[1.0, -1.0], [1.0, -1.0]], {"constant": 0, "image": 0, "class": 1, "rest": 0}),
        ([[1.0, -1.0], [-1.0, 1.0]], {"constant": 0, "image": 0, "class": 0, "rest": 1}),
        ([[2.0, 0.0], [0.0, 2.0]], {"constant": 0.5, "image": 0, "class": 0, "rest": 0.5}),
        ([[4.0, 2.0], [0.0, -2.0]], {"constant": 1 / 6, "image": 4 / 6, "class": 1 / 6, "rest": 0}),
    ],
)
def test_shares_of_a_shift_worked_by_hand(change, shares):
    assert shift_shares(torch.tensor(change)) == pytest.approx(shares)


def test_shares_of_any_shift_add_up_to_one():
    generator = torch.Generator().manual_seed(1)
    assert sum(shift_shares(torch.randn(11, 5, generator=generator) + 0.3).values()) == pytest.approx(1)


def test_a_shift_of_zero_has_no_shares():
    with pytest.raises(ValueError, match="nothing to take apart"):
        shift_shares(torch.zeros(3, 2))


# --- weight rows -----------------------------------------------------------------------------------------------------


def test_cosines_worked_by_hand():
    rows = torch.tensor([[2.0, 0.0], [1.0, 1.0], [-3.0, 0.0], [0.0, 0.0]])
    half = math.sqrt(0.5)
    expected = torch.tensor([[1, half, -1, 0], [half, 1, -half, 0], [-1, -half, 1, 0], [0, 0, 0, 0]]).double()
    torch.testing.assert_close(cosines(rows), expected)


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
    """What chapter 9 derives: on features that are not negative, absent rows leave together, along the first step."""
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
    assert mean_cosine(change[absent], predicted[absent]) > 0.95
    assert mean_cosine(change[absent], -features.mean(0)) > 0.9
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
