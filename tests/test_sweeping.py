"""Figures of many settings: the map of classes writes names in any script, or numbers."""

from __future__ import annotations

import warnings

import matplotlib.pyplot as plt
import numpy as np
import pytest

from ftlib.book.figures import sweeping
from ftlib.core import ClassSplit


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
    ax = sweeping.class_map(np.eye(3)[:, :2], ClassSplit([0, 1], [2]), names)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a missing character is drawn as a box, with a warning
        ax.figure.canvas.draw()
    assert [text.get_text() for text in ax.texts] == written
    plt.close(ax.figure)
