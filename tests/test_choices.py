"""ftlib.book.choices against cases worked by hand and against loops."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from ftlib.book.choices import (
    best_cell,
    best_elsewhere,
    choose_seen,
    in_every,
    measure,
    nearness,
    places,
    robustness,
    sizes_of,
    slope,
    thinned,
    tsne,
)
from ftlib.calibration import average_logit_gap, competitor_gap, mirrored
from ftlib.core import ClassSplit, Outputs
from ftlib.metrics import ncm_logits, seen_unseen_curve, split_accuracies

# --- one run ---------------------------------------------------------------------------------------------------------

SPLIT = ClassSplit([0, 2, 4], [1, 3, 5])


def outputs(seed: int, count: int = 120) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 6
    features = torch.eye(6)[labels] + 0.6 * torch.randn(count, 6, generator=generator)
    return Outputs(features, features + torch.tensor([1.0, 0, 1, 0, 1, 0]), labels)


@pytest.fixture(scope="module")
def toy():
    train = outputs(0)
    seen = torch.isin(train.labels, torch.tensor(SPLIT.seen))
    seen_train = Outputs(*(part[seen] for part in train))
    return SimpleNamespace(train=train, test=outputs(1), seen_train=seen_train, split=SPLIT)


def test_a_run_is_measured_with_each_estimate_of_gamma(toy):
    old_head = toy.seen_train.features
    got = measure(toy, old_head)
    logits, labels = toy.seen_train.logits, toy.seen_train.labels
    gammas = {
        "yy": 0.0,
        "alg_yy": average_logit_gap(logits, labels, SPLIT),
        "rival_yy": competitor_gap(logits, labels, SPLIT),
        "mirrored_yy": mirrored(logits, labels, SPLIT, old_head),
        "oracle_yy": got["gamma"],
    }
    for name, gamma in gammas.items():
        assert got[name] == split_accuracies(toy.test.logits, toy.test.labels, SPLIT, gamma).yy, name


def test_gamma_star_is_the_best_of_the_curve_and_its_area_is_there(toy):
    curve, got = seen_unseen_curve(toy.test.logits, toy.test.labels, SPLIT), measure(toy)
    assert got["oracle_yy"] == curve.yy.max()
    assert got["ausuc"] == curve.ausuc


def test_ncm_takes_class_means_of_all_training_images(toy):
    ncm = ncm_logits(toy.train.features, toy.train.labels, toy.test.features, 6)
    accuracies = split_accuracies(ncm, toy.test.labels, SPLIT)
    got = measure(toy)
    assert (got["ncm_sy"], got["ncm_uy"]) == (accuracies.sy, accuracies.uy)


def test_another_split_takes_the_place_of_the_runs_own(toy):
    other = ClassSplit([0, 1], [2, 3, 4, 5])
    assert measure(toy, split=other)["ausuc"] == seen_unseen_curve(toy.test.logits, toy.test.labels, other).ausuc


def test_without_the_old_head_there_is_no_estimate(toy):
    assert not {"alg_yy", "rival_yy", "mirrored_yy"} & set(measure(toy))


# --- hyper-parameters ------------------------------------------------------------------------------------------------


def test_robustness_worked_by_hand():
    found = robustness(np.array([[0.70, 0.69], [0.68, 0.40]]))
    assert found.best == 0.70
    assert found.spread == pytest.approx(0.30)
    assert found.near == 0.75  # 0.68 is within 0.02, its edge included
    assert found.failed == 0


def test_a_diverged_setting_counts_as_zero():
    found = robustness(np.array([0.6, np.nan, 0.59, np.nan]))
    assert found.spread == 0.6
    assert found.near == 0.5
    assert found.failed == 2


@pytest.mark.parametrize("values", [[], [0.5, -0.1]])
def test_robustness_refuses_what_is_no_grid_of_values(values):
    with pytest.raises(ValueError, match="expected a grid of values from 0 upwards"):
        robustness(np.array(values))


def test_the_best_cell_is_best_on_average_not_once():
    grid = np.array([[[0.5, 0.5], [0.9, 0.0]], [[0.2, 0.2], [0.6, 0.5]]])
    assert best_cell(grid) == (1, 1)


def test_a_cell_that_diverged_once_loses_what_it_would_have_had():
    assert best_cell(np.array([[0.9, np.nan], [0.5, 0.5]])) == (1,)


def test_the_best_of_many_is_chosen_by_the_other_seeds():
    """Seed 0 finds b best by luck; the others say a, and seed 0 counts for what they are told."""
    keys = [(pair, seed) for pair in ("p", "q") for seed in (0, 1, 2)]
    table = pd.DataFrame(
        {"a": [1.0, 5, 3, 2, 5, 3], "b": [9.0, 1, 1, 9, 1, 1], "c": 99.0}, pd.MultiIndex.from_tuples(keys)
    )
    table.index.names = ["pair", "seed"]
    assert best_elsewhere(table, ["a", "b"]).tolist() == [1.0, 1, 1, 2, 1, 1]
    assert best_elsewhere(table, ["a", "b"], -table).tolist() == [-1.0, -1, -1, -2, -1, -1]
    alone = table[table.index.get_level_values("seed") == 0]
    assert best_elsewhere(alone, ["a", "b"]).tolist() == alone["a"].tolist()  # no other seed says which is best


def test_what_holds_in_every_pair_is_asked_of_the_one_that_is_least_in_other_seeds():
    values = {("a", 0): 1.0, ("a", 1): 5.0, ("a", 2): 5.0, ("b", 0): 3.0, ("b", 1): 4.0, ("b", 2): 2.0}
    column = pd.Series(values).rename_axis(["pair", "seed"])
    # Without seed 0: a 5, b 3. Without 1: a 3, b 2.5. Without 2: a 3, b 3.5.
    assert in_every(column).to_dict() == {("least", 0): 3.0, ("least", 1): 4.0, ("least", 2): 5.0}


# --- classes ---------------------------------------------------------------------------------------------------------


def ring(count: int) -> torch.Tensor:
    """Class means evenly spread on a circle: class c at the angle 2πc/count."""
    angle = 2 * math.pi * torch.arange(count) / count
    return torch.stack([angle.cos(), angle.sin()], 1)


def test_nearest_takes_one_arc_of_a_circle():
    assert choose_seen(ring(9), 5, "nearest", start=4) == [2, 3, 4, 5, 6]


def test_farthest_spreads_over_a_circle():
    assert choose_seen(ring(8), 4, "farthest", start=1) == [1, 3, 5, 7]


def test_similarity_leaves_out_what_all_classes_share():
    assert choose_seen(ring(9) + 100, 5, "nearest", start=4) == [2, 3, 4, 5, 6]


@pytest.mark.parametrize("how", ["nearest", "farthest"])
def test_choices_agree_with_a_loop(how):
    means = torch.randn(12, 5, generator=torch.Generator().manual_seed(3))
    rows = (means.double() - means.double().mean(0)).numpy()
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    similar = rows @ rows.T
    chosen = [7]
    while len(chosen) < 6:
        rest = [c for c in range(12) if c not in chosen]
        if how == "nearest":
            chosen.append(max(rest, key=lambda c: similar[7, c]))
        else:
            chosen.append(min(rest, key=lambda c: max(similar[c, other] for other in chosen)))
    assert choose_seen(means, 6, how, start=7) == sorted(chosen)


def test_a_spread_choice_leaves_no_absent_class_alone():
    means = ring(12)
    near, far = (choose_seen(means, 6, how, start=0) for how in ("nearest", "farthest"))
    apart, covered = (nearness(means, ClassSplit(s, set(range(12)) - set(s))) for s in (near, far))
    assert covered > apart


def test_nearness_worked_by_hand():
    """On a circle of four, class 1 is at a right angle to 0, and class 2 opposite of it."""
    assert nearness(ring(4), ClassSplit([0], [1, 2, 3])) == pytest.approx((0 - 1 + 0) / 3)


def test_a_split_of_columns_is_one_of_the_rows_of_their_means():
    assert places(ClassSplit([30, 7], [900]), [7, 30, 900]) == ClassSplit([0, 1], [2])
    with pytest.raises(ValueError, match=r"classes \[8\] of the split: expected some of \[7, 30, 900\]"):
        places(ClassSplit([30, 8], [900]), [7, 30, 900])


def test_tsne_gives_a_place_for_every_class_and_the_same_one_again():
    means = torch.randn(10, 6, generator=torch.Generator().manual_seed(0))
    first = tsne(means)
    assert first.shape == (10, 2)
    assert np.array_equal(first, tsne(means))


def test_the_slope_is_the_change_with_each_doubling():
    assert slope([2, 4, 8, 16], [1.0, 1.5, 2.0, 2.5]) == pytest.approx(0.5)


# --- other mixes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("classes", "expected"), [(6, [1, 2, 3, 5]), (68, [2, 20, 34, 66]), (2, [1])])
def test_shares_of_the_classes_leave_both_sides_one_and_name_each_number_once(classes, expected):
    assert sizes_of([0.03, 0.3, 0.5, 0.97], classes) == expected


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_thinned_outputs_have_the_share_of_absent_images_and_all_seen_ones(share):
    whole = outputs(0, 1200)
    few = thinned(whole, SPLIT, share)
    absent = torch.isin(few.labels, torch.tensor(SPLIT.absent))
    assert int((~absent).sum()) == 600
    assert float(absent.double().mean()) == pytest.approx(share, abs=0.01)
    assert set(few.labels.tolist()) == set(SPLIT.classes)
