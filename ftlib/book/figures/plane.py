"""The toy in its plane: what a network makes of every point, how its features move, and where that helps or harms."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_hex, to_rgb

from ftlib.benchmarks import ClassSplit
from ftlib.book.estimates import estimate, number

from .design import COLOURS, NARROW, bare

CLASS_COLOURS = (COLOURS["seen"], "#4FA3D1", COLOURS["absent"], "#EE9A5A")  # A and B are seen, C and D absent
TINTS = tuple(to_hex((0.67 + 0.33 * r, 0.67 + 0.33 * g, 0.67 + 0.33 * b)) for r, g, b in map(to_rgb, CLASS_COLOURS))
INK = "#333333"


def regions(
    predicted: np.ndarray,
    box: tuple[float, float, float, float],
    points: np.ndarray,
    labels: np.ndarray,
    marker: str = "o",
    hollow: Sequence[int] = (),
    moved_from: np.ndarray | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Figure 8 of the paper: the class that wins at each place of the plane, and the points of a domain on top.

    Parameters
    ----------
    predicted : int [rows, columns], the winning class, 0 to 3, of each cell, the bottom row first.
    box : left, right, bottom and top of the cells.
    points, labels : [N, 2] and int [N]; those of the classes ``hollow`` are outlines, as training never saw them.
    marker : "s" for the source's squares, "o" for the target's circles.
    moved_from : [4, 2], centres from which an arrow leads to each class.
    """
    ax = ax or plt.subplots(figsize=(3.5, 3))[1]
    ax.imshow(predicted, extent=box, origin="lower", cmap=ListedColormap(TINTS), vmin=-0.5, vmax=3.5)
    rows, columns = predicted.shape
    x, y = (np.linspace(*ends, 2 * n + 1)[1::2] for ends, n in ((box[:2], columns), (box[2:], rows)))
    for c in np.unique(predicted):
        if (predicted != c).any() and min(rows, columns) > 1:
            ax.contour(x, y, predicted == c, [0.5], colors="white", linewidths=1.2)
    for c, colour in enumerate(CLASS_COLOURS):
        own = points[labels == c]
        faces = {"facecolor": "none", "edgecolor": colour} if c in hollow else {"facecolor": colour, "edgecolor": "w"}
        ax.scatter(*own.T, s=17, marker=marker, lw=0.9 if c in hollow else 0.4, **faces)
        if moved_from is not None:
            arrow = {"arrowstyle": "-|>", "color": INK, "lw": 1.3, "shrinkA": 0, "shrinkB": 9}
            ax.annotate("", own.mean(0), moved_from[c], arrowprops=arrow, zorder=5)
        _letter(ax, c, own.mean(0))
    bare(ax, xlim=box[:2], ylim=box[2:], aspect="equal")
    return ax


def feature_arrows(
    before: np.ndarray, after: np.ndarray, labels: np.ndarray, split: ClassSplit, ax: Axes | None = None
) -> Axes:
    """Figure 6a of the paper, for the toy: features [N, H] of the same points before (pale) and after fine-tuning.

    Drawn on the two directions in which they all vary most; an arrow leads from each class mean to where it went.
    """
    ax = ax or plt.subplots(figsize=(NARROW, 3.2))[1]
    both = np.concatenate([before, after]).astype(float)
    both -= both.mean(0)
    old, new = np.split(both @ np.linalg.svd(both, full_matrices=False)[2][:2].T, 2)
    for c in split.classes:
        own, colour = labels == c, CLASS_COLOURS[c]
        ax.scatter(*old[own].T, s=12, color=colour, alpha=0.25, lw=0)
        ax.scatter(*new[own].T, s=12, color=colour, lw=0)
    for c in split.classes:
        start, end = (points[labels == c].mean(0) for points in (old, new))
        ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": INK, "lw": 2, "shrinkA": 0, "shrinkB": 0})
        _letter(ax, c, start, 12 * (start - end) / max(np.linalg.norm(end - start), 1e-12))
    bare(ax, xlabel="first principal direction of the features", ylabel="second", aspect="equal")
    return ax


def gain_map(gains: np.ndarray, rows: Sequence[str], columns: Sequence[str], ax: Axes | None = None) -> Axes:
    """Mean gains as a table with colours: green gains, brown loses.

    ``gains`` are points of accuracy [rows, columns, R] in each of R repetitions; bold where their 95 % interval leaves
    out zero.
    """
    ax = ax or plt.subplots(figsize=(4.2, 0.36 * len(rows) + 1))[1]
    means = gains.mean(-1)
    reach = float(np.abs(means).max()) or 1.0
    ax.imshow(means, cmap="BrBG", vmin=-1.5 * reach, vmax=1.5 * reach, aspect="auto")
    for y, x in np.ndindex(means.shape):
        cell = estimate(gains[y, x])
        weight = "bold" if cell.low > 0 or cell.high < 0 else "normal"
        ax.text(x, y, number(cell.mean, "+.1f"), ha="center", va="center", fontsize=9, weight=weight, color="#111111")
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(rows)), rows)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.grid(visible=False)
    return ax


def _letter(ax: Axes, c: int, at: np.ndarray, offset: np.ndarray | None = None) -> None:
    """A class's letter in a ring, ``offset`` points away from a place: behind an arrow, so that a short one shows."""
    frame = {"boxstyle": "circle,pad=0.18", "fc": "white", "ec": CLASS_COLOURS[c], "lw": 1.2}
    text = {"weight": "bold", "fontsize": 9, "color": INK, "ha": "center", "va": "center", "zorder": 6}
    x, y = (0, 0) if offset is None else offset
    ax.annotate("ABCD"[c], tuple(at), (x, y), textcoords="offset points", bbox=frame, **text)
