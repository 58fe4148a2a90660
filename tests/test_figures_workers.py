"""ftlib.book.figures.workers: a bar lies where and when something was computed."""

from __future__ import annotations

import pytest

from ftlib.book import figures

BARS = [
    ("worker 1", "pre-training", 0.5, 2.0),
    ("worker 0", "run", 1.0, 1.5),
    ("worker 1", "killed", 2.0, 2.25),
]


@pytest.fixture
def ax():
    return figures.timeline(BARS)


def test_bars_begin_and_end_where_the_work_did(ax):
    spans = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in ax.patches]
    assert spans == [(begin, end) for *_, begin, end in BARS]


def test_a_row_is_a_worker_in_the_order_of_appearance(ax):
    assert [label.get_text() for label in ax.get_yticklabels()] == ["worker 1", "worker 0"]
    assert [round(bar.get_y() + bar.get_height() / 2) for bar in ax.patches] == [0, 1, 0]


def test_the_kinds_that_occur_are_named_in_their_colours(ax):
    named = {text.get_text().removeprefix("■ "): text.get_color() for text in ax.texts}
    assert named == {
        "pre-training": figures.COLOURS["pre-trained"],
        "run": figures.COLOURS["fine-tuned"],
        "killed": figures.COLOURS["absent"],
    }
    assert "killed" not in {text.get_text()[2:] for text in figures.timeline(BARS[:2]).texts}
