"""Where a picture's panels are and how small its text is, for screens that are too narrow for the picture as it is.

A page can stack the panels, and need not make a picture wider than its text takes.
"""

from __future__ import annotations

import json
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from IPython.core.getipython import get_ipython
from IPython.core.pylabtools import print_figure
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

PAD = 2 / 72  # inches around what is cut out


def tell_panels() -> None:
    """Let every figure that a notebook shows say in its PNG where its panels are."""
    shell: Any = get_ipython()
    if shell:
        plt.switch_backend(mpl.get_backend())  # it sets the way that figures are shown, once
        shell.display_formatter.formatters["image/png"].for_type(Figure, png)


def png(figure: Figure) -> Any:
    """The figure as a notebook keeps it, in base 64, with what `panels` and `smallest_text` say."""
    told = {"panels": panels(figure), "text": f"{smallest_text(figure):g}"}
    return print_figure(figure, "png", base64=True, metadata=told)


def smallest_text(figure: Figure) -> float:
    """In points, of all that a figure writes; 10, the style's own, if it writes nothing."""
    figure.draw_without_rendering()  # ticks have their labels from here on
    shown = (text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip())
    return min((float(text.get_fontsize()) for text in shown), default=10.0)


def panels(figure: Figure) -> str:
    """JSON: for each panel its pieces, a list a line; a piece is its left, top, right and bottom, as fractions.

    A panel that leaves its labels to the first of its row or to the last row is put together with a copy of these.
    "[]" if there is one panel alone, or if something belongs to none of them.
    """
    places: Any = {ax: ax.get_subplotspec() for ax in figure.axes if ax.axison}
    grid = [ax for ax, place in places.items() if place]
    if len(grid) < 2 or len({places[ax].get_gridspec() for ax in grid}) > 1 or figure.texts or figure.legends:
        return "[]"
    figure.draw_without_rendering()
    whole = figure.get_tightbbox()
    pad = mpl.rcParams["savefig.pad_inches"]
    left, bottom, width, height = whole.x0 - pad, whole.y0 - pad, whole.width + 2 * pad, whole.height + 2 * pad

    def piece(x0: float, x1: float, y0: float, y1: float) -> list[float]:
        """From inches, whose origin is below, to fractions from the top."""
        ends = (x0 - left) / width, 1 - (y1 - bottom) / height, (x1 - left) / width, 1 - (y0 - bottom) / height
        return [round(end, 4) for end in ends]

    found = []
    for ax in places:
        (inner, outer), strip = boxes(ax), 0.0
        beside, below = lenders(ax, {ax: places[ax] for ax in grid})
        x0, y0 = outer.x0 - PAD, outer.y0 - PAD
        x1, y1 = outer.x1 + PAD, outer.y1 + PAD
        y0 = inner.y0 - PAD if below else y0
        pieces = []
        if beside:
            x0 = inner.x0 - PAD
            labels = boxes(beside)
            strip = labels[0].x0 - labels[1].x0
            pieces = [piece(labels[1].x0 - PAD, labels[0].x0 - PAD, y0, y1)] if strip > PAD else []
        lines = [[*pieces, piece(x0, x1, y0, y1)]]
        if below and boxes(below)[0].y0 - boxes(below)[1].y0 > PAD:
            labels = boxes(below)
            start = labels[0].x0 - (inner.x0 - x0) - strip
            lines.append([piece(start, start + strip + x1 - x0, labels[1].y0 - PAD, labels[0].y0 - PAD)])
        found.append(lines)
    return json.dumps(found)


def lenders(ax: Axes, grid: dict[Axes, Any]) -> tuple[Axes | None, Axes | None]:
    """The Axes of the first column that have the labels of ax's y and x axis, None where it has them itself."""
    if ax not in grid:
        return None, None
    rows = {other: place.rowspan.start for other, place in grid.items() if place.colspan.start == 0}
    beside = next((other for other, row in rows.items() if row == grid[ax].rowspan.start), ax)
    below = max(rows, key=lambda other: rows[other], default=ax)
    return (
        None if beside is ax or ax.yaxis.get_tick_params()["labelleft"] else beside,
        None if below is ax or ax.xaxis.get_tick_params()["labelbottom"] else below,
    )


def boxes(ax: Axes) -> tuple[Bbox, Bbox]:
    """In inches: of the frame, and of all that belongs to a panel."""
    scale = ax.figure.dpi_scale_trans.inverted()
    whole: Any = ax.get_tightbbox()
    return ax.get_window_extent().transformed(scale), whole.transformed(scale)
