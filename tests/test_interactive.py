"""ftlib.book.interactive: what a slider's stops change, and that a page needs no network for it."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from ftlib.book import interactive
from ftlib.book.figures import COLOURS
from ftlib.book.figures.plane import TINTS
from ftlib.core import ClassSplit
from ftlib.metrics import seen_unseen_curve, split_accuracies

BOX = (0.0, 3.0, 0.0, 2.0)
FRAMES = {"0": (np.array([[0, 1, 1], [2, 2, 3]]), "at first"), "9": (np.array([[0, 0, 1], [2, 3, 3]]), "later")}
POINTS, LABELS = np.array([[0.0, 0.0], [2.0, 1.0], [1.0, 2.0], [3.0, 2.0], [2.0, 3.0]]), np.array([0, 1, 2, 3, 0])

# the γ slider -----------------------------------------------------------------------------------------------------

RNG = np.random.default_rng(0)
SPLIT, Y = ClassSplit([0, 1], [2, 3]), np.tile(np.arange(4), 50)
LOGITS = RNG.normal(size=(200, 4)) + [2, 2, 0, 0] + 2 * np.eye(4)[Y]
CURVE = seen_unseen_curve(LOGITS, Y, SPLIT)


@pytest.fixture
def slider():
    return interactive.gamma_slider(CURVE, {"γ = 0": 0.0, "γ*": CURVE.best_gamma()})


def test_a_stop_puts_the_point_where_the_model_is_with_that_gamma(slider):
    stops = slider.layout.sliders[0].steps
    assert len(stops) > 80
    for stop in stops:
        readout = stop.args[1]["title.text"]
        gamma = float(readout.split("γ = ")[1].split()[0].replace("−", "-"))
        told = [float(number.rstrip("%")) / 100 for number in re.findall(r"[\d.]+%", readout)]
        near = [split_accuracies(LOGITS, Y, SPLIT, gamma + off) for off in (-0.006, 0, 0.006)]  # γ is told to 0.01
        assert any(np.allclose(told, [a.sy, a.uy, a.yy], atol=6e-4) for a in near), readout
        (x,), (y,) = stop.args[0]["x"][0], stop.args[0]["y"][0]
        assert (x, y) == pytest.approx(told[:2], abs=6e-4) and stop.args[2] == (2,)


def test_to_the_right_gamma_grows_and_the_absent_classes_gain(slider):
    stops = slider.layout.sliders[0].steps
    seen, absent = ([stop.args[0][axis][0][0] for stop in stops] for axis in "xy")
    assert seen == sorted(seen, reverse=True) and absent == sorted(absent)
    assert seen[0] - seen[-1] > 0.2 and absent[-1] - absent[0] > 0.2
    gammas = [float(stop.label.replace("−", "-")) for stop in stops]
    assert gammas == sorted(gammas) and gammas[0] < 0 < CURVE.best_gamma() < gammas[-1]


def test_the_slider_starts_at_the_model_itself(slider):
    at = CURVE.at(0.0)
    assert "γ = 0.00" in slider.layout.title.text
    control = slider.layout.sliders[0]
    assert control.steps[control.active].args[1]["title.text"] == slider.layout.title.text
    assert (slider.data[2].x, slider.data[2].y) == ((at.sy,), (at.uy,))


def test_the_curve_and_its_marks_lie_on_the_exact_curve(slider):
    line, marks, _ = slider.data
    exact = {(round(x, 4), round(y, 4)) for x, y in zip(CURVE.sy, CURVE.uy, strict=True)}
    assert set(zip(line.x, line.y, strict=True)) <= exact and (line.x[0], line.x[-1]) == (CURVE.sy[0], CURVE.sy[-1])
    best = CURVE.at(CURVE.best_gamma())
    assert list(zip(marks.text, marks.x, marks.y, strict=True))[1] == ("γ*", best.sy, best.uy)
    assert (slider.layout.xaxis.title.text, slider.layout.yaxis.title.text) == ("seen accuracy", "absent accuracy")


def test_the_readout_has_the_colours_of_the_sides(slider):
    text = slider.layout.title.text
    assert f"color:{COLOURS['seen']}'>seen" in text and f"color:{COLOURS['absent']}'>absent" in text


# the toy's slider -------------------------------------------------------------------------------------------------


def test_a_stop_changes_the_regions_and_the_readout_and_nothing_else():
    figure = interactive.region_slider(FRAMES, BOX, POINTS, LABELS)
    (slider,) = figure.layout.sliders
    assert [stop.label for stop in slider.steps] == ["0", "9"]
    assert slider.steps[1].args == ({"z": [[[0, 0, 1], [2, 3, 3]]]}, {"title.text": "later"}, (0,))


@pytest.mark.parametrize(("start", "readout"), [(0, "at first"), (1, "later")])
def test_the_first_stop_is_shown_as_it_will_be_found_again(start, readout):
    figure = interactive.region_slider(FRAMES, BOX, POINTS, LABELS, start=start)
    shown = figure.layout.sliders[0].steps[start].args
    assert figure.layout.sliders[0].active == start
    assert (figure.layout.title.text, [list(map(list, figure.data[0].z))]) == (readout, shown[0]["z"])


def test_cells_lie_at_their_middles_and_points_with_their_class():
    figure = interactive.region_slider(FRAMES, BOX, POINTS, LABELS, hollow=[2])
    plane, *classes = figure.data
    assert (list(plane.x), list(plane.y)) == ([0.5, 1.5, 2.5], [0.5, 1.5])
    assert [list(trace.x) for trace in classes] == [[0.0, 2.0], [2.0], [1.0], [3.0]]
    assert [trace.marker.symbol for trace in classes] == ["circle", "circle", "circle-open", "circle"]
    assert (figure.layout.annotations[0].x, figure.layout.annotations[0].y) == (1.0, 1.5)  # the mean of class 0


def test_each_class_has_its_own_colour():
    """A class lies between two edges of the colour scale that have its tint."""
    plane = interactive.region_slider(FRAMES, BOX, POINTS, LABELS).data[0]
    for c in range(4):
        at = (c - plane.zmin) / (plane.zmax - plane.zmin)
        below = [tint for edge, tint in plane.colorscale if edge < at][-1]
        above = next(tint for edge, tint in plane.colorscale if edge > at)
        assert below == above == TINTS[c]


def test_a_page_asks_no_network():
    html = interactive.offline(interactive.region_slider(FRAMES, BOX, POINTS, LABELS), "some-name").data
    assert "http" not in html.replace("http://www.w3.org", "") and '<div id="some-name"' in html
    assert json.dumps([[0, 0, 1], [2, 3, 3]], separators=(",", ":")) in html.replace(" ", "")


@pytest.mark.parametrize(("frames", "start"), [({}, 0), (FRAMES, 2), (FRAMES, -1)])
def test_a_start_that_is_none_of_the_frames_is_an_error(frames, start):
    with pytest.raises(ValueError, match=f"start {start} of {len(frames)} frames"):
        interactive.region_slider(frames, BOX, POINTS, LABELS, start=start)


def test_the_slider_of_a_page_is_a_range_with_a_label_and_a_readout_that_is_read_aloud():
    figure = interactive.region_slider(FRAMES, BOX, POINTS, LABELS, start=1)
    html = interactive.offline(figure, "toy", "steps of fine-tuning").data
    assert (
        '<label style="display:block">steps of fine-tuning <input type="range" id="toy-stop" min="0" max="1" value="1"'
        in html
    )
    assert '<output id="toy-told" for="toy-stop" aria-live="polite"' in html and ">later</output>" in html


def test_the_figure_that_a_page_shows_keeps_its_own_slider_for_a_notebook(slider):
    interactive.offline(slider, "gamma")
    assert len(slider.layout.sliders[0].steps) > 80 and "γ = 0.00" in slider.layout.title.text


def test_a_page_has_the_range_input_and_not_plotlys_slider_beside_it(slider):
    page = interactive.offline(slider, "one").data
    assert page.count('type="range"') == 1
    assert '"sliders":[{' not in page
    assert len(slider.layout.sliders) == 1  # the figure itself keeps it, for a live notebook
