"""ftlib.book.figures.sweeping: a cell, a dot and a letter stand for the setting or class that they name."""

from __future__ import annotations

import warnings

import matplotlib.pyplot as plt
import numpy as np
import pytest

from ftlib.book import figures
from ftlib.book.estimates import Estimate
from ftlib.core import ClassSplit

nan = np.nan
VALUES = {
    "sgd": np.array([[[0.5, 0.7], [0.9, nan]], [[nan, nan], [0.2, 0.4]]]),
    "adam": np.array([[[0.1, 0.1], [0.1, 0.3]]]),
}
RATES, DECAYS = {"sgd": [0.1, 0.01], "adam": [1e-3]}, {"sgd": [0.0, 5e-4], "adam": [0.0, 1e-4]}


@pytest.fixture
def axes():
    return figures.heat_maps(VALUES, RATES, DECAYS)


def test_a_cell_says_the_mean_of_what_finished_and_how_many_failed(axes):
    texts = [{text.get_position(): text.get_text() for text in ax.texts} for ax in axes]
    assert texts[0] == {(0, 0): "0.60", (1, 0): "0.90\n1 failed", (0, 1): "failed", (1, 1): "0.30"}
    assert texts[1] == {(0, 0): "0.10", (1, 0): "0.20"}
    assert np.allclose(axes[0].images[0].get_array().filled(nan), [[0.6, 0.9], [nan, 0.3]], equal_nan=True)


def test_all_panels_have_one_colour_scale(axes):
    assert [ax.images[0].get_clim() for ax in axes] == [(0.1, 0.9), (0.1, 0.9)]
    bar = axes[0].figure.axes[-1]
    assert bar.get_ylabel() == "AUSUC" and bar.get_ylim() == (0.1, 0.9)


def test_the_frame_is_around_the_best_cell_with_a_failure_counted_as_nothing(axes):
    frames = [next(p for p in ax.patches if not p.get_fill()) for ax in axes]
    assert [(f.get_x() + f.get_width() / 2, f.get_y() + f.get_height() / 2) for f in frames] == [(0, 0), (1, 0)]


def test_rates_go_downwards_and_decays_to_the_right(axes):
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["0.1", "0.01"]
    assert [label.get_text() for label in axes[1].get_xticklabels()] == ["0", "0.0001"]
    assert [(ax.get_title(), ax.get_ylabel()) for ax in axes] == [("sgd", "learning rate"), ("adam", "")]


def test_a_number_can_be_read_on_its_cell(axes):
    """White on dark cells, dark on bright ones."""
    colours = {text.get_text(): text.get_color() for ax in axes for text in ax.texts}
    assert (colours["0.10"], colours["0.90\n1 failed"]) == ("white", "#111111")


def test_nothing_to_draw_is_an_error():
    with pytest.raises(ValueError, match="every training diverged"):
        figures.heat_maps({"sgd": np.full((1, 1, 2), nan)}, RATES, DECAYS)


def test_a_strip_has_a_dot_a_setting_and_the_marked_one_is_large():
    rows = {"sgd": np.array([0.5, nan, 0.7]), "adam": np.array([0.2, 0.3, 0.1])}
    (ax,) = figures.strips({"Y/Y": rows}, {"sgd": 2, "adam": 1}, {"Y/Y": 0.25})
    dots = [line.get_xdata().tolist() for line in ax.lines if line.get_marker() == "o"]
    assert np.allclose(dots, [[50, nan, 70], [20, 30, 10]], equal_nan=True)
    marked = [tuple(map(float, line.get_xydata()[0])) for line in ax.lines if line.get_marker() == "D"]
    assert marked == [(pytest.approx(70), 0), (pytest.approx(30), 1)]
    (reference,) = (line for line in ax.lines if line.get_linestyle() == "--")
    assert reference.get_xdata() == [25, 25] and reference.get_color() == figures.COLOURS["pre-trained"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["sgd", "adam"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]


def test_a_class_with_a_short_name_is_written_bold_if_seen():
    points = np.array([[0.0, 1], [2, 3], [4, 5]])
    ax = figures.class_map(points, ClassSplit([0, 2], [1]), ["a", "b", "γ"])
    written = {t.get_text(): (t.get_position(), t.get_weight(), t.get_color()) for t in ax.texts}
    seen, absent = (figures.COLOURS[side] for side in ("seen", "absent"))
    assert written == {"a": ((0, 1), "bold", seen), "γ": ((4, 5), "bold", seen), "b": ((2, 3), "normal", absent)}


def test_a_class_with_a_long_name_is_a_dot_if_seen_and_a_cross_if_absent():
    points = np.array([[0.0, 1], [2, 3], [4, 5]])
    ax = figures.class_map(points, ClassSplit([0, 2], [1]), ["bike", "mug", "pen"])
    drawn = {line.get_marker(): line.get_xydata().tolist() for line in ax.lines}
    assert drawn == {"o": [[0, 1], [4, 5]], "x": [[2, 3]]}
    assert not ax.texts and all(line.get_markersize() > 0 for line in ax.lines)


@pytest.mark.parametrize(
    ("names", "written"),
    [
        (["a", "é", "ω"], ["a", "é", "ω"]),
        (["$", "_$", "猫"], ["$", "_$", "2"]),
        (["犬", "鳥", "猫"], ["0", "1", "2"]),
        (["cup", "fork", "pan"], []),
    ],
)
def test_a_name_that_the_typeface_cannot_draw_is_a_number(names, written):
    ax = figures.class_map(np.eye(3)[:, :2], ClassSplit([0, 1], [2]), names)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a missing character is drawn as a box, with a warning
        ax.figure.canvas.draw()
    assert [text.get_text() for text in ax.texts] == written


def test_a_gain_lies_on_its_side_of_zero_with_its_reference_s_colour():
    rows = {"worst": {"pre-trained": Estimate(-3, -4, -2, 5)}, "best": {"pre-trained": Estimate(6, 5, 7, 5)}}
    axes = figures.crossing({"a": rows, "b": rows})
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["worst", "best"]
    assert [label.get_text() for label in axes[1].get_yticklabels()] == ["", ""]
    marks = [line for line in axes[1].lines if line.get_marker() == "o"]
    assert [(float(line.get_xdata()[0]), round(float(line.get_ydata()[0]))) for line in marks] == [(-3, 0), (6, 1)]
    assert {line.get_color() for line in marks} == {figures.COLOURS["pre-trained"]}
    assert any(list(line.get_xdata()) == [0, 0] for line in axes[1].lines)
    assert "over pre-trained" in [text.get_text() for text in axes[1].texts]


@pytest.mark.parametrize(("below", "shaded"), [(True, (0.0, 2.5)), (False, (2.5, 4.0))])
def test_a_warning_shades_the_side_on_which_it_warns(below, shaded):
    ax = plt.subplots()[1]
    ax.set_xlim(0, 4)
    figures.warning(np.array([1.0, 2, 3]), np.array([-5.0, 5, 0]), np.array([False, False, True]), 2.5, below, ax)
    drawn = [(line.get_marker(), line.get_xdata().tolist()) for line in ax.lines[:3]]
    assert drawn == [("o", [2.0]), ("o", [1.0]), ("x", [3.0])]
    (patch,) = ax.patches
    ends = ax.transData.inverted().transform(patch.get_extents())[:, 0]
    assert ends.tolist() == pytest.approx(shaded)
