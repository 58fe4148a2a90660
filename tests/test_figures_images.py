"""ftlib.book.figures.images: a picture of the benchmark shows the images of the class and domain that it names."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from ftlib.book import figures
from ftlib.core import ClassSplit, ImageSet


def plain(level: int, classes: int = 4) -> ImageSet:
    """An image a class whose grey is 10·level + class."""
    grey = torch.arange(classes, dtype=torch.uint8)[:, None, None, None] + 10 * level
    return ImageSet(grey.expand(classes, 3, 8, 8).contiguous(), torch.arange(classes))


def shown(ax) -> dict[tuple[int, int], int]:
    """Row and column, by the order of their places, to the grey that is shown there."""
    places = {(image.get_extent()[3], image.get_extent()[0]): int(image.get_array()[0, 0, 0]) for image in ax.images}
    columns = sorted({x for _, x in places})
    return {(int(y), columns.index(x)): grey for (y, x), grey in places.items()}


@pytest.fixture
def benchmark():
    split = ClassSplit([0, 2], [1, 3])
    return SimpleNamespace(split=split, source=plain(1), target=plain(2).of([0, 2]), target_test=plain(3))


def test_each_stage_shows_its_domain_and_fine_tuning_has_no_absent_class(benchmark):
    ax = figures.concept(benchmark)
    assert shown(ax) == {
        (0, 0): 10, (0, 1): 12, (0, 2): 11, (0, 3): 13,
        (1, 0): 20, (1, 1): 22,
        (2, 0): 30, (2, 1): 32, (2, 2): 31, (2, 3): 33,
    }  # fmt: skip
    assert [to_hex(frame.get_edgecolor()) for frame in ax.patches if frame.get_linestyle() == ":"] == [
        figures.COLOURS["absent"].lower()
    ] * 2
    assert ax.get_ylim()[0] > ax.get_ylim()[1]


def test_a_head_that_is_given_has_no_stage_of_pre_training(benchmark):
    benchmark.source = ImageSet(benchmark.source.images[:0], benchmark.source.labels[:0])
    ax = figures.concept(benchmark)
    assert {grey // 10 for grey in shown(ax).values()} == {2, 3} and ax.get_ylim()[0] == 2


def test_frames_and_titles_tell_the_sides(benchmark):
    ax = figures.concept(benchmark)
    titles = {t.get_text(): t.get_color() for t in ax.texts if t.get_text().endswith("(2)")}
    assert titles == {
        "seen, S (2)": figures.COLOURS["seen"],
        "absent, U (2)": figures.COLOURS["absent"],
    }
    by_column = {}
    for frame in ax.patches:
        by_column.setdefault(frame.get_x(), set()).add(to_hex(frame.get_edgecolor()))
    seen, absent = ({figures.COLOURS[side].lower()} for side in ("seen", "absent"))
    assert [by_column[x] for x in sorted(by_column)] == [seen, seen, absent, absent]


def test_a_contact_sheet_has_a_row_a_domain_and_a_column_a_class():
    ax = figures.contact_sheet({"print": plain(1), "neon": plain(5)}, [3, 1])
    assert shown(ax) == {(0, 0): 13, (0, 1): 11, (1, 0): 53, (1, 1): 51}
    assert [(text.get_text(), int(text.get_position()[1])) for text in ax.texts] == [("print", 0), ("neon", 1)]
    assert np.ptp(ax.get_ylim()) > 2
