"""ftlib.book.interactive: what a slider's stops change, and that a page needs no network for it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ftlib.book import interactive
from ftlib.book.figures.plane import TINTS

BOX = (0.0, 3.0, 0.0, 2.0)
FRAMES = {"0": (np.array([[0, 1, 1], [2, 2, 3]]), "at first"), "9": (np.array([[0, 0, 1], [2, 3, 3]]), "later")}
POINTS, LABELS = np.array([[0.0, 0.0], [2.0, 1.0], [1.0, 2.0], [3.0, 2.0], [2.0, 3.0]]), np.array([0, 1, 2, 3, 0])


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
