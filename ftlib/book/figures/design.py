"""The one design: a colour means one thing in every chapter.

Blue is seen, orange is absent, grey is pre-trained, green is fine-tuned, and each way to find γ has its own. The
palette is Okabe and Ito's, with a wine red of Tol's: made for all kinds of colour vision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties, findfont, get_font

COLOURS = {
    "seen": "#0072B2",
    "absent": "#D55E00",
    "pre-trained": "#7F7F7F",
    "fine-tuned": "#009E73",
    "AdaBN": "#999933",
    "ALG": "#CC79A7",
    "PCV": "#E69F00",
    "mirrored": "#882255",
    "γ*": "#111111",
    "LOLSGD": "#56B4E9",
}
VERDICTS = {"replicates": "#009E73", "inconclusive": "#7F7F7F", "contradicts": "#D55E00", "reported": "#0072B2"}
MARKERS = "osD^vP"
WIDTH = 7.0  # inches, that of a page's text


def use_style() -> None:
    """Set the design for every figure that follows. Call it once, at the top of a chapter."""
    mpl.rcParams.update(
        {
            "figure.dpi": 150,
            "figure.figsize": (WIDTH, 3.4),
            "figure.constrained_layout.use": True,
            "font.size": 10,
            "axes.titlesize": 10.5,
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": "#555555",
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#E6E6E6",
            "grid.linewidth": 0.8,
            "xtick.color": "#333333",
            "ytick.color": "#333333",
            "lines.linewidth": 1.8,
            "legend.frameon": False,
        }
    )


def drawable(names: Sequence[str]) -> list[str]:
    """Names of classes as the typeface can draw them: its number in place of one with a character that it lacks."""
    font = get_font(findfont(FontProperties()))
    return [name if all(map(font.get_char_index, map(ord, name))) else str(c) for c, name in enumerate(names)]


def small_multiples(count: int, columns: int = 3, height: float = 2.2) -> list[Axes]:
    """``count`` Axes in rows of ``columns``, sharing both axes; what is left of the last row is switched off."""
    columns = min(columns, count)
    rows = -(-count // columns)
    axes = plt.subplots(rows, columns, figsize=(WIDTH, height * rows), sharex=True, sharey=True, squeeze=False)[1]
    for ax in axes.flat[count:]:
        ax.set_axis_off()
    return list(axes.flat[:count])


def label_ends(ax: Axes, x: float, ends: list[tuple[float, str]], colours: Mapping[str, str]) -> None:
    """Names beside the ends of lines, pushed apart where they would overlap."""
    low, high = ax.get_ylim()
    gap, last = 0.065 * (high - low), -np.inf
    for y, name in sorted(ends):
        last = max(y, last + gap)
        ax.annotate(name, (x, last), (6, 0), textcoords="offset points", va="center", color=colours[name], fontsize=9)
