"""Who computed what, and when."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from .design import COLOURS, NARROW, rows_down


def timeline(bars: Iterable[tuple[str, str, float, float]], ax: Axes | None = None) -> Axes:
    """Bars of (row, kind, begin, end), in seconds; rows from top to bottom as they come.

    Kinds are "pre-training", "run" and "killed"; each that occurs is named above the first row.
    """
    bars = list(bars)
    rows = list(dict.fromkeys(row for row, *_ in bars))
    ax = ax or plt.subplots(figsize=(NARROW, 0.7 + 0.55 * len(rows)))[1]
    kinds: dict[str, dict[str, Any]] = {
        "pre-training": {"color": COLOURS["pre-trained"]},
        "run": {"color": COLOURS["fine-tuned"]},
        "killed": {"color": "white", "edgecolor": COLOURS["absent"], "hatch": "/////"},
    }
    for row, kind, begin, end in bars:
        ax.barh(rows.index(row), end - begin, left=begin, height=0.62, **{"edgecolor": "white", "lw": 1} | kinds[kind])
    place = 0.0
    for kind in [kind for kind in kinds if any(kind == used for _, used, *_ in bars)]:
        colour = kinds[kind].get("edgecolor") or kinds[kind]["color"]
        ax.text(place, 1.02, f"■ {kind}", transform=ax.transAxes, color=colour, fontsize=9)
        place += 0.08 + 0.027 * len(kind)
    rows_down(ax, rows)
    ax.set_xlim(left=0)
    ax.set_xlabel("seconds since the start of the sweep")
    return ax
