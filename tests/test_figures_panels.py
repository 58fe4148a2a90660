"""ftlib.book.figures.panels: where a picture's panels are."""

from __future__ import annotations

import base64
import io
import json

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from ftlib.book.figures import small_multiples, use_style
from ftlib.book.figures.panels import panels, png, smallest_text


@pytest.fixture
def style():
    with plt.rc_context():
        use_style()
        yield
    plt.close("all")


def cut(figure):
    """The pieces of each panel as pixels."""
    picture = Image.open(io.BytesIO(base64.b64decode(png(figure))))
    pixels, told = np.asarray(picture.convert("RGB")), json.loads(picture.text["panels"])
    ends = np.array([picture.width, picture.height] * 2)
    boxes = [[[np.rint(piece * ends).astype(int) for piece in line] for line in panel] for panel in told]
    return [[[pixels[y0:y1, x0:x1] for x0, y0, x1, y1 in line] for line in panel] for panel in boxes]


def test_a_panel_holds_its_own_ink_and_no_other_panels(style):
    inks = [(230, 0, 0), (0, 0, 230), (0, 140, 0), (200, 0, 200)]
    axes = small_multiples(4, columns=2)
    for ax, ink in zip(axes, inks, strict=True):
        ax.plot([0, 1], lw=4, color=[part / 255 for part in ink])
    for panel, own in zip(cut(axes[0].figure), inks, strict=True):
        seen = [ink for ink in inks if any((piece == ink).all(-1).any() for line in panel for piece in line)]
        assert seen == [own]


def test_a_panel_without_labels_borrows_those_of_its_row_and_column(style):
    pieces = [[len(line) for line in panel] for panel in cut(small_multiples(4, columns=2)[0].figure)]
    assert pieces == [[1, 1], [2, 1], [1], [2]]


@pytest.mark.parametrize("extra", ["", "a text that belongs to no panel"])
def test_one_panel_alone_or_a_text_across_all_is_not_cut(style, extra):
    figure = small_multiples(1 + bool(extra))[0].figure
    figure.text(0, 0, extra) if extra else None
    assert panels(figure) == "[]"


def test_a_picture_says_how_small_the_text_is_that_it_shows(style):
    ax = small_multiples(1)[0]
    assert smallest_text(ax.figure) == 10  # its ticks
    ax.text(0, 0, "small", fontsize=8.5)
    ax.text(0, 0, " ", fontsize=5)
    ax.text(0, 0, "hidden", fontsize=5, visible=False)
    assert Image.open(io.BytesIO(base64.b64decode(png(ax.figure)))).text["text"] == "8.5"
    assert smallest_text(plt.figure()) == 10  # none at all
