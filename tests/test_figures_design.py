"""ftlib.book.figures.design: what all pictures share."""

from __future__ import annotations

from itertools import combinations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb

from ftlib.book import figures
from ftlib.book.estimates import Estimate
from ftlib.book.figures import design


def test_colours_are_all_different_also_in_verdicts():
    for colours in (design.COLOURS, design.VERDICTS):
        assert len({to_hex(colour) for colour in colours.values()}) == len(colours)


SIMULATED = {  # Machado et al. (2009), on linear RGB
    "normal": np.eye(3),
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
}


def lab(colour: str, vision: str) -> np.ndarray:
    """CIE L*a*b* of a colour as a kind of vision has it."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(SIMULATED[vision] @ linear, 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear
    x, y, z = np.cbrt(np.maximum(xyz / [0.9505, 1, 1.089], 0.008856))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", SIMULATED)
def test_colours_stay_apart_for_every_kind_of_vision(vision):
    seen = {name: lab(colour, vision) for name, colour in design.COLOURS.items()}
    near = {(a, b): np.linalg.norm(seen[a] - seen[b]) for a, b in combinations(seen, 2)}
    assert min(near.values()) > 11, min(near, key=near.get)


@pytest.mark.parametrize(
    ("name", "key"),
    [("fine-tuned", "fine-tuned"), ("fine-tuned + ALG", "ALG"), ("LOLSGD + γ*", "γ*"), ("LOLSGD", "LOLSGD")],
)
def test_a_name_has_the_colour_of_what_it_ends_in(name, key):
    assert design.colour_of(name) == design.COLOURS[key]
    assert design.colour_of("something else") not in design.COLOURS.values()


def test_a_fraction_is_drawn_in_percent_with_its_interval():
    ax = plt.subplots()[1]
    design.interval(ax, Estimate(0.5, 0.4, 0.6, 3), 2, "red")
    design.interval(ax, Estimate(0.25, -np.inf, np.inf, 1), 3, "red")
    assert [line.get_xydata().tolist() for line in ax.lines] == [[[40, 2], [60, 2]], [[50, 2]], [[25, 3]]]


def test_histograms_share_their_bins():
    ax = plt.subplots()[1]
    design.histograms(ax, np.arange(100.0), np.arange(200.0, 300), np.arange(100.0, 200))
    *bars, outline = ax.patches
    edges = [round(bar.get_x(), 6) for bar in bars]
    assert edges[: len(edges) // 2] == edges[len(edges) // 2 :]
    assert bars[0].get_facecolor()[:3] == to_rgb(design.COLOURS["seen"])
    assert bars[-1].get_facecolor()[:3] == to_rgb(design.COLOURS["absent"])
    drawn = outline.get_xy()
    assert 100 <= np.average(drawn[:, 0], weights=drawn[:, 1]) <= 200


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 1, 1), (3, 1, 3), (4, 2, 3), (7, 3, 3)])
def test_small_multiples_share_axes_and_hide_what_is_left(count, rows, columns):
    axes = figures.small_multiples(count)
    assert len(axes) == count
    every = axes[0].figure.axes
    assert len(every) == rows * columns and sum(ax.axison for ax in every) == count
    axes[0].set_xlim(3, 4)
    assert {ax.get_xlim() for ax in axes} == {(3, 4)}


def test_names_at_the_ends_of_lines_do_not_overlap_and_keep_their_order():
    ax = plt.subplots()[1]
    ax.set_ylim(0, 1)
    design.label_ends(ax, 9.0, [(0.50, "b"), (0.49, "a"), (0.9, "c")], {"a": "red", "b": "blue", "c": "black"})
    places = {text.get_text(): text.xy for text in ax.texts}
    assert places["a"] == (9.0, 0.49) and places["c"] == (9.0, 0.9)
    assert places["b"][1] >= places["a"][1] + 0.06
    assert [text.get_color() for text in ax.texts] == ["red", "blue", "black"]


def test_a_long_name_takes_two_lines_and_the_room_of_two():
    ax = plt.subplots()[1]
    long = "largest other absent logit"
    design.label_ends(ax, 9.0, [(0.50, long), (0.51, "lead")], {long: "red", "lead": "blue"})
    first, second = ax.texts
    assert first.get_text().split("\n") == ["largest other", "absent logit"]
    assert second.xy[1] - first.xy[1] == pytest.approx(1.5 * 0.065, abs=1e-9)


def test_the_style_is_set_for_all_that_follows():
    with mpl.rc_context():
        figures.use_style()
        assert plt.subplots()[0].get_figwidth() == figures.NARROW


def test_a_class_whose_name_the_typeface_lacks_is_drawn_as_its_number():
    assert design.drawable(["mug", "café", "чашка", "マグ"]) == ["mug", "café", "чашка", "3"]
