"""ftlib.book.repairs by hand and against loops."""

from __future__ import annotations

import math
import warnings
from itertools import combinations

import numpy as np
import pytest
import torch

from ftlib.book.repairs import adjust_for_prior, align_norms, best_scale, folds_for, match_rivals, rescale
from ftlib.calibration import apply, oracle_gamma, prior_gamma
from ftlib.core import ClassSplit
from ftlib.metrics import split_accuracies

SPLIT = ClassSplit([0, 1], [2, 3])
rng = np.random.default_rng(0)


def test_aligned_rows_have_the_mean_norm_of_the_seen_ones_and_keep_their_direction():
    weight, features = rng.normal(size=(4, 7)), np.eye(7)
    weight[2:] *= 0.3
    aligned = align_norms(features, weight, None, SPLIT).T
    norms = np.linalg.norm(aligned, axis=1)
    assert norms[2:].mean() == pytest.approx(norms[:2].mean())
    np.testing.assert_allclose(aligned[:2], weight[:2])
    np.testing.assert_allclose(aligned[2:] / norms[2:, None], weight[2:] / np.linalg.norm(weight[2:], axis=1)[:, None])


def test_aligning_leaves_the_bias_as_it_is():
    weight, bias = torch.ones(4, 3), torch.tensor([1.0, 2, 3, 4])
    assert align_norms(torch.zeros(1, 3), weight, bias, SPLIT).tolist() == [[1, 2, 3, 4]]


def test_with_equally_many_images_a_class_the_prior_is_one_gamma():
    logits, labels = rng.normal(size=(50, 4)), np.repeat([0, 1], 9)
    adjusted = adjust_for_prior(logits, labels, SPLIT)
    shifted = apply(logits, prior_gamma(labels, SPLIT), SPLIT.absent)
    np.testing.assert_allclose(adjusted - adjusted[:, :1], shifted - shifted[:, :1])
    assert prior_gamma(labels, SPLIT) == math.log(10)


def test_the_prior_by_hand():
    adjusted = adjust_for_prior(np.zeros((1, 4)), np.array([0, 0, 0, 1]), SPLIT)
    np.testing.assert_allclose(adjusted[0], [-math.log(n / 8) for n in (4, 2, 1, 1)])


@pytest.mark.parametrize("split", [ClassSplit([0, 1, 2], [3, 4]), ClassSplit([0, 1, 2, 3], [4]), SPLIT])
def test_matched_rivals_have_equal_mean_and_spread_over_all_draws_of_equally_many(split):
    logits, labels = rng.normal(size=(30, 5)), rng.choice(split.seen, 30)
    logits[:, list(split.absent)] *= 0.2
    logits[:, list(split.absent)] -= 5
    scale, gamma = match_rivals(logits, labels, split)
    k = min(len(split.seen) - 1, len(split.absent))
    seen, absent = [], []
    for row, y in zip(logits, labels, strict=True):
        seen.append([max(draw) for draw in combinations([row[c] for c in split.seen if c != y], k)])
        absent.append([scale * max(draw) + gamma for draw in combinations([row[c] for c in split.absent], k)])
    assert np.mean(absent) == pytest.approx(np.mean(seen)) and np.std(absent) == pytest.approx(np.std(seen))


def test_a_spread_of_zero_cannot_be_matched():
    with pytest.raises(ValueError, match="the same on all images"):
        match_rivals(np.zeros((4, 4)), np.array([0, 1, 0, 1]), SPLIT)


def test_the_best_scale_is_at_least_as_good_as_gamma_alone_and_is_what_it_says():
    logits, labels = rng.normal(size=(200, 4)), rng.integers(0, 4, 200)
    with warnings.catch_warnings(action="ignore"):
        best = best_scale(logits, labels, SPLIT, [0.5, 1.0, 2.0])
    found = split_accuracies(rescale(logits, best.scale, SPLIT), labels, SPLIT, best.gamma).yy
    alone = split_accuracies(logits, labels, SPLIT, oracle_gamma(logits, labels, SPLIT)).yy
    tried = [
        split_accuracies(rescale(logits, s, SPLIT), labels, SPLIT, g).yy
        for s in (0.5, 1.0, 2.0)
        for g in np.linspace(-6, 6, 601)
    ]
    assert found >= max(alone, *tried)
    with pytest.raises(ValueError, match="no scales"):
        best_scale(logits, labels, SPLIT, [])


def test_a_best_scale_at_the_end_of_those_tried_says_so_and_one_inside_does_not():
    labels = np.arange(200) % 4
    logits = rng.normal(size=(200, 4)) + 4 * np.eye(4)[labels]
    logits[:, 2:] *= 0.1
    with pytest.warns(UserWarning, match="the best scale, 2, is at the end of those tried"):
        best_scale(logits, labels, SPLIT, [0.5, 1, 2])
    with warnings.catch_warnings(action="error"):
        best_scale(logits, labels, SPLIT, [0.1, 1, 10, 1000])
        assert best_scale(np.zeros((4, 4)), np.arange(4), SPLIT, [0.5, 1, 2]).scale == 1  # all are equally good


@pytest.mark.parametrize(("seen", "asked", "left"), [(2, 3, 0), (3, 3, 0), (4, 3, 3), (3, 0, 0)])
def test_pcv_is_left_out_with_a_word_where_fewer_than_four_classes_are_seen(seen, asked, left, capsys):
    assert folds_for(ClassSplit(range(seen), [9]), asked) == left
    word = f"PCV is left out: it halves the seen classes and needs four, here are {seen}.\n"
    assert capsys.readouterr().out == (word if left < asked else "")


def test_rescaling_leaves_its_input_and_the_seen_logits_alone():
    logits = np.ones((2, 4))
    assert rescale(logits, 3.0, SPLIT).tolist() == [[1, 1, 3, 3]] * 2 and logits.tolist() == [[1] * 4] * 2
