"""ftlib.book.figures.verdicts: a claim's mark stands at its mean, in the colour of its verdict."""

from __future__ import annotations

import pytest
from matplotlib.colors import same_color

from ftlib.book import figures
from ftlib.book.claims import check
from ftlib.book.figures.design import VERDICTS


def claim(*effects, **how):
    return check("id", "It holds.", {f"seed {i}": e for i, e in enumerate(effects)}, **how)


ROWS = {
    "first": {"cpu": claim(9.0, 10.0, 11.0), "gpu": claim(-9.0, -10.0, -11.0)},
    "second": {"cpu": claim(-1.0, 1.0), "gpu": claim(5.0)},
}


@pytest.fixture
def marks():
    lines = [line for line in figures.forest(ROWS).lines if len(line.get_xdata()) == 1]
    return [(float(line.get_xdata()[0]), round(float(line.get_ydata()[0])), line) for line in lines]


def test_a_mark_is_at_the_mean_in_the_row_of_its_claim(marks):
    assert [(x, y) for x, y, _ in marks] == [(10, 0), (-10, 0), (0, 1), (5, 1)]


def test_colour_and_filling_tell_the_verdict(marks):
    verdicts = ["replicates", "contradicts", "inconclusive", "reported"]
    for (*_, mark), verdict in zip(marks, verdicts, strict=True):
        assert same_color(mark.get_markeredgecolor(), VERDICTS[verdict])
        assert same_color(mark.get_markerfacecolor(), VERDICTS[verdict] if verdict == "replicates" else "white")


def test_a_shape_is_a_profile_and_the_legend_says_which(marks):
    shapes = [mark.get_marker() for *_, mark in marks]
    assert shapes[0] == shapes[2] != shapes[1] == shapes[3]
    legend = figures.forest(ROWS).get_legend()
    handles = zip(legend.get_texts(), legend.legend_handles, strict=True)
    assert {text.get_text(): handle.get_marker() for text, handle in handles} == {"cpu": shapes[0], "gpu": shapes[1]}


def test_an_interval_is_drawn_where_there_is_one():
    ax = figures.forest(ROWS)
    drawn = [tuple(map(float, line.get_xdata())) for line in ax.lines if line.get_linewidth() == 1.6]
    found = [c for claims in ROWS.values() for c in claims.values() if c.n > 1]
    assert drawn == [(c.low, c.high) for c in found]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["first", "second"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]


def test_one_profile_needs_no_legend():
    assert figures.forest({"first": {"cpu": claim(1.0, 2.0)}}).get_legend() is None
