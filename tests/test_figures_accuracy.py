"""ftlib.book.figures.accuracy: what is drawn lies where the numbers are, in the colour of its kind."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import same_color, to_rgba

from ftlib.book import figures
from ftlib.book.estimates import Estimate
from ftlib.core import ClassSplit
from ftlib.metrics import seen_unseen_curve

ROWS = {
    "first": (Estimate(0.5, 0.4, 0.6, 5), Estimate(0.2, 0.1, 0.3, 5)),
    "second": (Estimate(0.3, 0.3, 0.3, 5), Estimate(0.9, 0.85, 0.95, 5)),
}
SPLIT = ClassSplit([0, 1], [2, 3])


def curve(seed: int = 0):
    rng = np.random.default_rng(seed)
    labels = np.tile(np.arange(4), 25)
    return seen_unseen_curve(rng.normal(size=(100, 4)) + 1.5 * np.eye(4)[labels], labels, SPLIT)


def dots(ax, colour: str, marker: str = "o") -> list[tuple[float, float]]:
    """Places of the single marks of a colour."""
    marks = [line for line in ax.lines if line.get_marker() == marker and same_color(line.get_color(), colour)]
    return [(float(mark.get_xdata()[0]), float(mark.get_ydata()[0])) for mark in marks]


def mean_of_bars(ax, side: str) -> float:
    """The mean of the values whose histogram has a side's colour."""
    bars = [b for b in ax.patches if same_color(b.get_facecolor()[:3], figures.COLOURS[side])]
    return float(np.average([b.get_x() + b.get_width() / 2 for b in bars], weights=[b.get_height() for b in bars]))


# before and after -------------------------------------------------------------------------------------------------


def test_an_arrow_leads_from_pre_trained_to_fine_tuned():
    arrows = [text for text in figures.before_after(ROWS).texts if getattr(text, "arrow_patch", None)]
    assert [(arrow.xyann, arrow.xy) for arrow in arrows] == [((50, 0), (20, 0)), ((30, 1), (90, 1))]  # from, to
    assert {arrow.arrowprops["arrowstyle"] for arrow in arrows} == {"->"}  # its head at the second of the two


def test_each_end_has_its_colour_name_and_interval():
    ax = figures.before_after(ROWS)
    assert dots(ax, figures.COLOURS["pre-trained"]) == [(50, 0), (30, 1)]
    assert dots(ax, figures.COLOURS["fine-tuned"]) == [(20, 0), (90, 1)]
    bands = [tuple(map(float, line.get_xdata())) for line in ax.lines if line.get_alpha() == 0.3]
    assert bands == [(40, 60), (10, 30), (30, 30), (85, 95)]
    names = {text.get_text(): (text.get_position()[0], text.get_color()) for text in ax.texts if text.get_text()}
    assert names == {name: (x, figures.COLOURS[name]) for name, x in (("pre-trained", 50), ("fine-tuned", 20))}


def test_a_third_estimate_is_adabns_and_has_no_arrow():
    ax = figures.before_after({"one": (*ROWS["first"], Estimate(0.7, 0.6, 0.8, 5))})
    assert dots(ax, figures.COLOURS["AdaBN"], "D") == [(70, 0)]
    assert len([text for text in ax.texts if getattr(text, "arrow_patch", None)]) == 1
    assert [text.get_text() for text in ax.texts if text.get_text()] == ["pre-trained", "fine-tuned", "AdaBN"]


def test_the_first_row_is_at_the_top():
    ax = figures.before_after(ROWS)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["first", "second"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]


# gains ------------------------------------------------------------------------------------------------------------


def test_a_bar_is_as_high_as_the_gain_and_has_the_colour_of_its_side():
    groups = {
        "head": {"seen": Estimate(0.1, 0.05, 0.15, 5), "absent": Estimate(-0.2, -0.3, -0.1, 5)},
        "NCM": {"seen": Estimate(0.2, 0.1, 0.3, 5), "absent": Estimate(0.3, 0.2, 0.4, 5)},
    }
    ax = figures.gains(groups)
    bars = [(bar.get_height(), bar.get_facecolor()) for bar in ax.patches]
    seen, absent = (to_rgba(figures.COLOURS[side]) for side in ("seen", "absent"))
    assert bars == [(pytest.approx(h), c) for h, c in ((10, seen), (-20, absent), (20, seen), (30, absent))]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["head", "NCM"]
    assert [round(bar.get_x() + bar.get_width() / 2) for bar in ax.patches] == [0, 0, 1, 1]
    whiskers = [np.sort(path[:, 1]) for drawn in ax.collections for path in drawn.get_segments()]
    assert np.allclose(whiskers, [(5, 15), (-30, -10), (10, 30), (20, 40)])
    assert [(text.get_text(), to_rgba(text.get_color())) for text in ax.texts] == [("seen", seen), ("absent", absent)]


# the trade-off ----------------------------------------------------------------------------------------------------


def test_a_curve_runs_from_seen_to_absent_and_carries_its_own_point():
    first, second = curve(0), curve(1)
    ax = figures.seen_unseen({"fine-tuned": [first, second]})
    assert np.array_equal(ax.lines[0].get_xydata(), 100 * np.stack([first.sy, first.uy], 1))
    assert np.array_equal(ax.lines[1].get_xydata(), 100 * np.stack([second.sy, second.uy], 1))
    assert ax.lines[0].get_linewidth() > ax.lines[1].get_linewidth()
    at = first.at(0.0)
    assert dots(ax, figures.COLOURS["fine-tuned"]) == [(100 * at.sy, 100 * at.uy)]
    assert "S/Y" in ax.get_xlabel() and "U/Y" in ax.get_ylabel()


def test_named_points_replace_the_curves_own():
    marks = {"fine-tuned": (0.8, 0.2), "fine-tuned + γ*": (0.7, 0.6), "pre-trained": (0.5, 0.4)}
    ax = figures.seen_unseen({"fine-tuned": [curve()]}, marks)
    assert dots(ax, figures.COLOURS["fine-tuned"]) == [(80, 20)]
    assert dots(ax, figures.COLOURS["pre-trained"]) == [(50, 40)]
    assert dots(ax, figures.COLOURS["γ*"], "*") == [(70, 60)]
    assert {text.get_text(): text.xy for text in ax.texts} == {k: (100 * x, 100 * y) for k, (x, y) in marks.items()}


# margins ----------------------------------------------------------------------------------------------------------


def test_the_name_of_a_point_with_another_to_its_left_is_above_it():
    marks = {"AdaBN": (0.74, 0.84), "fine-tuned + γ*": (0.98, 0.82), "pre-trained": (0.5, 0.5)}
    ax = figures.seen_unseen({"fine-tuned": [curve()]}, marks)
    assert [text.get_va() for text in ax.texts] == ["top", "bottom", "top"]


def test_margins_of_a_side_lie_where_they_are_in_its_colour():
    rng = np.random.default_rng(0)
    seen, absent = rng.normal(4, 1, 2000), rng.normal(-3, 1, 2000)
    ax = figures.margins(seen, absent, {"γ = 0": 0.0, "γ*": 2.0})
    assert (mean_of_bars(ax, "seen"), mean_of_bars(ax, "absent")) == (
        pytest.approx(4, abs=0.1),
        pytest.approx(-3, abs=0.1),
    )
    assert [float(line.get_xdata()[0]) for line in ax.lines] == [0, 2]
    assert [(text.get_text(), text.get_position()[0]) for text in ax.texts] == [("γ = 0", 0), ("γ*", 2)]
    assert [line.get_linestyle() for line in ax.lines] == ["--", "-"]
