"""ftlib.book.figures.inside: lines, blocks, steps and arrows show what happened inside of a model."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import to_rgba

from ftlib.book import figures
from ftlib.book.estimates import Estimate, estimate
from ftlib.core import ClassSplit


def numbers(ax) -> list[tuple[float, float, str]]:
    """Place and text of what is written as a number."""
    return [(*text.get_position(), text.get_text()) for text in ax.texts if "." in text.get_text()]


# over time --------------------------------------------------------------------------------------------------------


def test_a_trajectory_is_the_mean_over_repetitions_with_its_interval_as_a_band():
    values = np.array([[1.0, 2.0, 4.0], [3.0, 2.0, 8.0]])
    ax = figures.trajectories(np.array([0, 1, 5]), {"seen": values}, {"seen": "red"})
    assert ax.lines[0].get_xydata().tolist() == [[0, 2], [1, 2], [5, 6]]
    (band,) = ax.collections
    e = estimate(values[:, 2])
    ends = band.get_paths()[0].vertices
    assert {e.low, e.high} <= set(ends[ends[:, 0] == 5][:, 1])
    assert [(text.get_text(), text.get_color(), text.xy) for text in ax.texts] == [("seen", "red", (5, 6))]


# the head's changes -----------------------------------------------------------------------------------------------


def test_an_update_matrix_has_seen_classes_first():
    similar = np.arange(16.0).reshape(4, 4) / 16
    ax = figures.update_matrix(similar, ClassSplit([3, 1], [0, 2]))
    order = [*ClassSplit([3, 1], [0, 2]).seen, 0, 2]
    assert np.array_equal(ax.images[0].get_array(), similar[np.ix_(order, order)])
    assert ax.images[0].get_clim() == (-1, 1)


def test_the_mean_of_a_block_stands_in_it_without_the_diagonal():
    similar = np.full((5, 5), -0.25)
    similar[:2, :2], similar[2:, 2:] = 0.5, 0.125
    np.fill_diagonal(similar, 1.0)
    ax = figures.update_matrix(similar, ClassSplit([0, 1], [2, 3, 4]))
    assert sorted(numbers(ax)) == [(0.5, 0.5, "+0.50"), (0.5, 3, "−0.25"), (3, 0.5, "−0.25"), (3, 3, "+0.12")]
    sides = sorted((*t.get_position(), t.get_text(), t.get_color()) for t in ax.texts if t.get_text().isalpha())
    seen, absent = (figures.COLOURS[side] for side in ("seen", "absent"))
    assert sides == [
        (-1.5, 0.5, "seen", seen), (-1.5, 3, "absent", absent), (0.5, -1.5, "seen", seen), (3, -1.5, "absent", absent),
    ]  # fmt: skip


def test_a_side_of_one_class_has_no_mean_of_its_own():
    ax = figures.update_matrix(np.eye(3), ClassSplit([0], [1, 2]))
    assert len(numbers(ax)) == 3


# from before to after ---------------------------------------------------------------------------------------------


def test_each_step_of_a_waterfall_begins_where_the_one_before_ended():
    start, end = Estimate(-2.0, -2.5, -1.5, 5), Estimate(1.0, 0.5, 1.5, 5)
    parts = {"head": Estimate(4.0, 3.0, 5.0, 5), "features": Estimate(-1.0, -1.5, -0.5, 5)}
    ax = figures.waterfall(start, parts, end)
    bars = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in ax.patches]
    assert bars == [(0, -2), (-2, 2), (2, 1), (0, 1)]
    intervals = [tuple(map(float, line.get_xdata())) for line in ax.lines if line.get_linewidth() == 1.2]
    assert intervals == [(-2.5, -1.5), (1, 3), (0.5, 1.5), (0.5, 1.5)]
    assert [label.get_text().split("\n") for label in ax.get_yticklabels()] == [
        ["pre-trained", "−2.00 ± 0.50"], ["head", "+4.00 ± 1.00"],
        ["features", "−1.00 ± 0.50"], ["fine-tuned", "+1.00 ± 0.50"],
    ]  # fmt: skip
    assert ax.get_ylim()[0] > ax.get_ylim()[1]


def test_steps_towards_a_side_have_a_pale_tone_of_its_colour():
    zero = Estimate(0.0, 0.0, 0.0, 2)
    ax = figures.waterfall(zero, {"up": Estimate(1.0, 1, 1, 2), "down": Estimate(-1.0, -1, -1, 2)}, zero)
    up, down = (bar.get_facecolor() for bar in ax.patches[1:3])
    for step, side, other in ((up, "seen", "absent"), (down, "absent", "seen")):
        own, far = (np.array(to_rgba(figures.COLOURS[of])) for of in (side, other))
        assert np.linalg.norm(step - own) < np.linalg.norm(step - far)


# features ---------------------------------------------------------------------------------------------------------


def test_a_class_mean_moves_from_before_to_after_beside_its_goal():
    before, after, goal = np.array([[0.0, 0], [1, 1]]), np.array([[2.0, 0], [1, 3]]), np.array([[3.0, 0], [1, 4]])
    ax = figures.movement(before, after, "absent", goal)
    assert [(tuple(a.xyann), tuple(a.xy)) for a in ax.texts] == [((0, 0), (2, 0)), ((1, 1), (1, 3))]
    styles = {(arrow.arrowprops["arrowstyle"], arrow.arrowprops["color"]) for arrow in ax.texts}
    assert styles == {("-|>", figures.COLOURS["absent"])}
    drawn = {line.get_marker(): line.get_xydata().tolist() for line in ax.lines}
    assert drawn == {"o": before.tolist(), ".": after.tolist(), "x": goal.tolist()}


def test_images_have_the_colour_of_their_side():
    points, is_seen = np.array([[0.0, 1], [2, 3], [4, 5]]), np.array([True, False, True])
    ax = figures.sides(points, is_seen)
    drawn = {line.get_color(): line.get_xydata().tolist() for line in ax.lines}
    assert drawn == {figures.COLOURS["seen"]: [[0, 1], [4, 5]], figures.COLOURS["absent"]: [[2, 3]]}
    names = {text.get_text(): text.get_color() for text in ax.texts}
    assert names == {side: figures.COLOURS[side] for side in ("seen", "absent")}


def test_dots_of_a_row_are_in_percent_and_named_once():
    row = {"a": Estimate(0.5, 0.4, 0.6, 3), "b": Estimate(0.25, 0.2, 0.3, 3)}
    ax = figures.dots({"one": row, "two": row}, {"a": "red", "b": "blue"})
    marks = [(*line.get_xydata()[0].round(), line.get_color()) for line in ax.lines if line.get_marker() == "o"]
    assert marks == [(50, 0, "red"), (25, 0, "blue"), (50, 1, "red"), (25, 1, "blue")]
    assert [(text.get_text(), text.get_color()) for text in ax.texts] == [("a", "red"), ("b", "blue")]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["one", "two"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]
