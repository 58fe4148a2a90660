"""ftlib.book.figures.repair: where a γ is drawn is where its estimator found it."""

from __future__ import annotations

import numpy as np
import pytest

from ftlib.book import figures
from ftlib.book.estimates import Estimate
from ftlib.calibration import average_logit_gap
from ftlib.core import ClassSplit
from ftlib.margins import Mirrored
from ftlib.metrics import seen_unseen_curve

SPLIT = ClassSplit([0, 1], [2, 3])
RNG = np.random.default_rng(0)


def curve(seed: int):
    rng = np.random.default_rng(seed)
    labels = np.tile(np.arange(4), 25)
    return seen_unseen_curve(
        rng.normal(size=(100, 4)) + np.array([1, 1, 0, 0]) + 1.5 * np.eye(4)[labels], labels, SPLIT
    )


def test_the_gap_that_is_drawn_is_the_average_logit_gap():
    labels = np.tile([0, 1], 200)
    logits = RNG.normal(size=(400, 4)) + np.array([2.0, 2.0, -1.0, -1.0])
    ax = figures.logit_gap(logits, labels, SPLIT)
    (arrow,) = (text for text in ax.texts if getattr(text, "arrow_patch", None))
    assert abs(arrow.xy[0] - arrow.xyann[0]) == pytest.approx(average_logit_gap(logits, labels, SPLIT))
    (name,) = (text for text in ax.texts if text.get_text() == "γ")
    assert name.get_position()[0] == pytest.approx((arrow.xy[0] + arrow.xyann[0]) / 2)


def test_a_mirror_shows_both_sides_the_truth_and_its_gamma():
    seen, absent, truth = (RNG.normal(mean, 1, 500) for mean in (5, -5, -4))
    right = np.ones(500, bool)
    ax = figures.mirror(Mirrored(seen, right, absent, right), truth, 0.5)
    (line,) = ax.lines
    assert line.get_xdata() == [0.5, 0.5] and line.get_color() == figures.COLOURS["mirrored"]
    outline = ax.patches[-1].get_xy()
    assert np.average(outline[:, 0], weights=outline[:, 1]) == pytest.approx(-4, abs=0.3)


def test_a_fold_is_bold_where_enough_absent_images_are_right():
    curves, least, gammas = [curve(0), curve(1)], [0.5, 2.0], [1.0, np.nan]
    ax = figures.folds(curves, least, gammas)
    thin, bold, point, other, never, mean = ax.lines
    inner = slice(1, -1)
    assert np.array_equal(thin.get_xydata(), np.stack([curves[0].gamma[inner], 100 * curves[0].yy[inner]], 1))
    assert np.array_equal(np.isfinite(bold.get_xdata()), curves[0].uy[inner] >= 0.5)
    assert bold.get_linewidth() > thin.get_linewidth() == other.get_linewidth()
    assert not np.isfinite(never.get_xdata()).any()  # no γ of the second fold is allowed: neither bold nor a point
    assert point.get_xydata().tolist() == [[1.0, 100 * curves[0].at(1.0).yy]]
    assert mean.get_xdata() == [1.0, 1.0] and mean.get_linestyle() == "--"


def test_folds_without_any_gamma_have_no_line_at_one():
    ax = figures.folds([curve(0)], [2.0], [np.nan])
    assert len(ax.lines) == 2


def test_a_ladder_has_its_rows_below_the_name_of_their_rung():
    e = Estimate(0.5, 0.4, 0.6, 5)
    ax = figures.ladder({"nothing": {"fine-tuned": e}, "labels": {"fine-tuned + γ*": Estimate(0.7, 0.7, 0.7, 1)}})
    rungs = {text.get_text(): text.get_position()[1] for text in ax.texts}
    rows = dict(zip((label.get_text() for label in ax.get_yticklabels()), ax.get_yticks(), strict=True))
    assert sorted((rungs | rows).items(), key=lambda named: named[1]) == [
        ("nothing", 0), ("fine-tuned", 1), ("labels", 2), ("fine-tuned + γ*", 3),
    ]  # fmt: skip
    marks = [(line.get_xydata().tolist(), line.get_color()) for line in ax.lines if line.get_marker() == "o"]
    assert marks == [([[50, 1]], figures.COLOURS["fine-tuned"]), ([[70, 3]], figures.COLOURS["γ*"])]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]


def test_regret_shows_every_pair_the_mean_and_the_worst():
    ax = figures.regret({"ALG": {"a": 1.0, "b": 4.0}, "mirrored": {"a": 0.5, "b": 0.1}})
    dots, bar, *_ = ax.lines
    assert dots.get_xdata().tolist() == [1, 4] and dots.get_color() == figures.COLOURS["ALG"]
    assert bar.get_xdata().tolist() == [2.5, 2.5]
    assert [(text.get_text(), text.xy[1]) for text in ax.texts] == [("2.5 (4.0)", 0), ("0.3 (0.5)", 1)]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["ALG", "mirrored"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]


def test_reliability_has_confidence_along_and_accuracy_upwards():
    curves = {"as it is": np.array([[0.5, 0.4], [0.9, 0.6]]), "with γ": np.array([[0.7, 0.7], [0.8, 0.8]])}
    ax = figures.reliability(curves)
    diagonal, first, second = ax.lines
    assert diagonal.get_xydata().tolist() == [[0, 0], [100, 100]]
    for line, curve in zip((first, second), curves.values(), strict=True):
        assert np.array_equal(line.get_xydata(), 100 * curve)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["as it is", "with γ"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("confidence (%)", "accuracy (%)")
