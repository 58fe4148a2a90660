"""ftlib.book.figures.plane: that a picture of the toy shows what it was given."""

from __future__ import annotations

import numpy as np
import pytest

from ftlib.benchmarks import ClassSplit
from ftlib.book import figures

SPLIT = ClassSplit([0, 1], [2, 3])
LABELS = np.repeat(np.arange(4), 3)


def test_regions_stand_where_they_are_and_absent_points_are_outlines():
    predicted = np.array([[2, 2, 3], [0, 1, 1]])
    points = np.random.default_rng(0).normal(size=(12, 2))
    ax = figures.regions(predicted, (0, 3, 0, 2), points, LABELS, hollow=SPLIT.absent)
    (image,) = ax.images
    assert image.origin == "lower" and image.get_array().tolist() == predicted.tolist()
    faces = [len(dots.get_facecolor()) for dots in ax.collections if dots.get_offsets().shape == (3, 2)]
    assert faces == [1, 1, 0, 0]
    assert [text.get_text() for text in ax.texts if text.get_text()] == list("ABCD")


def test_a_letter_stands_at_the_middle_of_its_class():
    points = LABELS[:, None] * np.array([1.0, 2.0]) + np.array([[-1, 0], [0, 0], [1, 0]] * 4)
    ax = figures.regions(np.zeros((4, 4), int), (0, 4, 0, 4), points, LABELS)
    assert [text.xy for text in ax.texts] == [pytest.approx((c, 2 * c)) for c in range(4)]


def test_an_arrow_in_feature_space_is_as_long_as_its_class_moved():
    """Features that vary in two directions only: the projection keeps all lengths."""
    rng = np.random.default_rng(1)
    plane = np.linalg.qr(rng.normal(size=(6, 2)))[0].T
    before, moves = rng.normal(size=(12, 2)), np.array([[3.0, 0], [0, 1], [-2, 0], [0.5, 0.5]])
    after = before + moves[LABELS]
    ax = figures.feature_arrows(before @ plane, after @ plane, LABELS, SPLIT)
    arrows = [text for text in ax.texts if text.arrow_patch is not None]
    lengths = [np.linalg.norm(np.subtract(arrow.xy, arrow.xyann)) for arrow in arrows]
    assert lengths == pytest.approx(np.linalg.norm(moves, axis=1))


def test_a_gain_is_bold_where_its_interval_leaves_out_zero():
    gains = np.array([[[1.0, 1.1, 0.9], [-5.0, 5.0, 0.3]], [[-1.0, -1.1, -0.9], [0.0, 0.0, 0.0]]])
    ax = figures.gain_map(gains, ["near", "far"], ["1", "2"])
    assert [(t.get_text(), t.get_weight()) for t in ax.texts] == [
        ("+1.0", "bold"), ("+0.1", "normal"), ("−1.0", "bold"), ("0.0", "normal"),
    ]  # fmt: skip


def test_an_arrow_leads_from_where_a_class_was_to_where_it_is():
    points = np.repeat([[0.0, 0], [1, 0], [0, 1], [1, 1]], 3, axis=0)
    moved_from = np.array([[5.0, 5], [6, 5], [5, 6], [6, 6]])
    ax = figures.regions(np.zeros((4, 4), int), (0, 4, 0, 4), points, LABELS, moved_from=moved_from)
    arrows = [text for text in ax.texts if text.arrow_patch is not None]
    assert [tuple(arrow.xyann) for arrow in arrows] == [tuple(place) for place in moved_from]
    assert [tuple(arrow.xy) for arrow in arrows] == [(0, 0), (1, 0), (0, 1), (1, 1)]
    assert {arrow.arrowprops["arrowstyle"] for arrow in arrows} == {"-|>"}


def test_features_before_are_pale_and_arrows_lead_from_them():
    before = np.random.default_rng(0).normal(size=(12, 3))
    after = before + np.array([0.0, 0.0, 20.0])  # the first principal direction is the way that all went
    ax = figures.feature_arrows(before, after, LABELS, SPLIT)
    pale, full = ([c.get_offsets() for c in ax.collections if c.get_alpha() == alpha] for alpha in (0.25, None))
    for c, arrow in enumerate(text for text in ax.texts if text.arrow_patch is not None):
        assert arrow.xyann == pytest.approx(pale[c].mean(0)) and arrow.xy == pytest.approx(full[c].mean(0))


def test_gains_are_on_a_scale_with_zero_in_its_middle():
    ax = figures.gain_map(np.array([[[4.0, 4.0], [-2.0, -2.0]]]), ["row"], ["a", "b"])
    (image,) = ax.images
    assert image.get_array().tolist() == [[4, -2]] and image.get_clim() == (-6, 6)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["a", "b"]
