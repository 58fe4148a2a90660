"""The one design: a colour means one thing in every chapter.

Blue is seen, orange is absent, grey is pre-trained, green is fine-tuned, and each way to find γ has its own. The
palette is Okabe and Ito's, with a wine red of Tol's: made for all kinds of colour vision.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties, findfont, get_font

from ftlib.book.estimates import Estimate
from ftlib.book.figures.panels import tell_panels

COLOURS = {
    "seen": "#0072B2",
    "absent": "#D55E00",
    "pre-trained": "#6E6E6E",
    "fine-tuned": "#009E73",
    "AdaBN": "#999933",
    "ALG": "#CC79A7",
    "PCV": "#E69F00",
    "mirrored": "#882255",
    "γ*": "#111111",
    "LOLSGD": "#56B4E9",
}
VERDICTS = {"replicates": "#009E73", "inconclusive": "#6E6E6E", "contradicts": "#D55E00", "reported": "#0072B2"}
MARKERS = "osD^vP"
WIDTH = 7.0  # inches, that of a page's text: of several panels, which a phone stacks
NARROW = 4.2  # of one panel: a phone shows it whole, text of 9 points no smaller than 10 pixels


def use_style() -> None:
    """Set the design for every figure that follows. Call it once, at the top of a chapter."""
    plt.style.use(["ftlib.book.figures.page", {"figure.figsize": (NARROW, 3.0)}])
    tell_panels()


def drawable(names: Sequence[str]) -> list[str]:
    """Names of classes as the typeface can draw them: its number in place of one with a character that it lacks."""
    font = get_font(findfont(FontProperties()))
    return [name if all(map(font.get_char_index, map(ord, name))) else str(c) for c, name in enumerate(names)]


def small_multiples(count: int, columns: int = 3, height: float = 2.2, shared: bool = True) -> list[Axes]:
    """``count`` Axes in rows of ``columns``, which share both axes; what is left of the last row is switched off."""
    columns = min(columns, count)
    rows = -(-count // columns)
    size = WIDTH, height * rows
    axes = plt.subplots(rows, columns, figsize=size, sharex=shared, sharey=shared, squeeze=False)[1]
    for ax in axes.flat[count:]:
        ax.set_axis_off()
    return list(axes.flat[:count])


def colour_of(name: str) -> str:
    """Of the method or estimator that a name ends in, such as "fine-tuned + ALG"; dark grey if that is none."""
    return next((colour for key, colour in COLOURS.items() if name.endswith(key)), "#333333")


def interval(
    ax: Axes, e: Estimate, y: float, colour: str, marker: str = "o", size: float = 6, scale: float = 100
) -> None:
    """A fraction with its 95 % interval, in percent, as a mark on a band; with scale 1, points as they are."""
    if e.n > 1:
        ends = [scale * e.low, scale * e.high]
        ax.plot(ends, [y, y], color=colour, lw=5 * size / 6, alpha=0.3, solid_capstyle="butt")
    ax.plot(scale * e.mean, y, marker, color=colour, ms=size)


def histograms(ax: Axes, seen: np.ndarray, absent: np.ndarray, outline: Sequence[float] | np.ndarray = ()) -> None:
    """Densities of the two sides over common bins, which leave out the outermost 0.5 %; a third as an outline."""
    low, high = np.percentile(np.concatenate([seen, absent, outline]), [0.5, 99.5])
    bins = np.linspace(low, high, 50)
    for side, values in (("seen", seen), ("absent", absent)):
        ax.hist(values, bins, density=True, color=COLOURS[side], alpha=0.55)
    if len(outline):
        ax.hist(outline, bins, density=True, histtype="step", color="#333333", lw=1.2)


def bare(ax: Axes, **how: Any) -> None:
    """Without ticks and grid, for a picture whose places are all that counts; ``how`` goes to ``ax.set``."""
    ax.set(xticks=[], yticks=[], **how)
    ax.grid(visible=False)


def rows_down(ax: Axes, names: Iterable[str]) -> None:
    """A row a name, at 0, 1, 2 … from the top."""
    names = list(names)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)


def label_ends(ax: Axes, x: float, ends: list[tuple[float, str]], colours: Mapping[str, str]) -> None:
    """Names beside the ends of lines, long ones on several lines, pushed apart where they would overlap."""
    low, high = ax.get_ylim()
    line, top = 0.065 * (high - low), -np.inf
    for y, name in sorted(ends):
        text = textwrap.fill(name, 16)
        half = line * (text.count("\n") + 1) / 2
        at = max(y, top + half)
        top = at + half
        ax.annotate(text, (x, at), (6, 0), textcoords="offset points", va="center", color=colours[name], fontsize=9)
