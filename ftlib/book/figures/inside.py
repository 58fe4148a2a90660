"""What happened inside of a model, and when."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from ftlib.benchmarks import ClassSplit
from ftlib.book.estimates import Estimate, estimate, number

from .design import COLOURS, NARROW, bare, interval, label_ends, rows_down


def trajectories(
    epoch: np.ndarray,
    lines: Mapping[str, np.ndarray],
    colours: Mapping[str, str],
    ax: Axes | None = None,
) -> Axes:
    """Means over repetitions [R, E] against epochs [E], with the 95 % interval as a band, labelled at their ends."""
    ax = ax or plt.subplots()[1]
    ends = []
    for name, values in lines.items():
        bands = [estimate(column) for column in np.asarray(values).T]
        mean, low, high = (np.array([getattr(b, part) for b in bands]) for part in ("mean", "low", "high"))
        ax.plot(epoch, mean, "o-", ms=3, color=colours[name])
        ax.fill_between(epoch, low, high, color=colours[name], alpha=0.18, lw=0)
        ends.append((mean[-1], name))
    label_ends(ax, epoch[-1], ends, colours)
    ax.set_xlabel("epochs of fine-tuning")
    return ax


def update_matrix(similar: np.ndarray, split: ClassSplit, ax: Axes | None = None) -> Axes:
    """Figure 5 of the paper: cosines [C, C] between the head's weight changes, seen classes first, then absent ones.

    The mean of each block is written into it, pairs of a class with itself left out.
    """
    ax = ax or plt.subplots(figsize=(NARROW, 3.5))[1]
    order, n = [*split.seen, *split.absent], len(split.seen)
    blocks = {"seen": slice(0, n), "absent": slice(n, len(order))}
    ordered = np.asarray(similar)[np.ix_(order, order)]
    picture = ax.imshow(ordered, cmap="PuOr_r", vmin=-1, vmax=1, interpolation="nearest")
    ax.figure.colorbar(picture, ax=ax, shrink=0.8, label="cosine of weight changes")
    others = np.where(np.eye(len(order), dtype=bool), np.nan, ordered)
    frame = {"boxstyle": "round", "fc": "white", "ec": "none", "alpha": 0.85}
    for row, rows in blocks.items():
        y = (rows.start + rows.stop - 1) / 2
        ax.text(-1.5, y, row, color=COLOURS[row], ha="right", va="center", rotation=90)
        ax.text(y, -1.5, row, color=COLOURS[row], ha="center", va="bottom")
        for columns in blocks.values():
            if np.isfinite(block := others[rows, columns]).any():
                text, x = number(float(np.nanmean(block)), "+.2f"), (columns.start + columns.stop - 1) / 2
                ax.text(x, y, text, ha="center", va="center", fontsize=11, bbox=frame)
    for line in (ax.axhline, ax.axvline):
        line(n - 0.5, color="#333333", lw=1)
    bare(ax)
    return ax


def waterfall(start: Estimate, parts: Mapping[str, Estimate], end: Estimate, ax: Axes | None = None) -> Axes:
    """From a margin before to the one after, a step for each part's contribution, each with its 95 % interval.

    A step to the right, towards the seen classes, has a pale tone of their colour, one to the left of the absent ones'.
    """
    ax = ax or plt.subplots(figsize=(NARROW, 0.42 * (len(parts) + 2) + 0.7))[1]
    rows = [("pre-trained", start, 0.0), *((name, e, None) for name, e in parts.items()), ("fine-tuned", end, 0.0)]
    level = 0.0
    for y, (name, e, base) in enumerate(rows):
        base = level if base is None else base
        colour = COLOURS.get(name, "#EBC9A8" if e.mean < 0 else "#A9CBE3")  # pale absent, pale seen
        ax.barh(y, e.mean, left=base, height=0.62, color=colour)
        if np.isfinite([e.low, e.high]).all():
            ax.plot([base + e.low, base + e.high], [y, y], color="#333333", lw=1.2)
        level = base + e.mean
        if y + 1 < len(rows):
            ax.plot([level, level], [y - 0.31, y + 1.31], color="#999999", lw=0.8, ls=":")
    ax.axvline(0, color="#333333", lw=0.8)
    rows_down(ax, [f"{name}\n{e:+.2f}" for name, e, _ in rows])
    return ax


def movement(before: np.ndarray, after: np.ndarray, side: str, goal: np.ndarray, ax: Axes | None = None) -> Axes:
    """Figure 6a of the paper: an arrow for each class mean [K, 2] of one side, and a cross where it might have led."""
    ax = ax or plt.subplots(figsize=(4, 4))[1]
    for start, end in zip(before, after, strict=True):
        arrow = {"arrowstyle": "-|>", "color": COLOURS[side], "lw": 1, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 8}
        ax.annotate("", end, start, arrowprops=arrow)
    ax.plot(*before.T, "o", ms=3, color=COLOURS["pre-trained"])
    ax.plot(*after.T, ".", ms=1, color=COLOURS[side])
    ax.plot(*goal.T, "x", ms=4, color="#333333", mew=0.9)
    bare(ax, aspect="equal")
    return ax


def sides(points: np.ndarray, is_seen: np.ndarray, ax: Axes | None = None) -> Axes:
    """Figure 11 of the paper: images as points [N, 2] of a projection such as t-SNE, coloured by their class's side."""
    ax = ax or plt.subplots(figsize=(4, 4))[1]
    for side, rows in (("seen", is_seen), ("absent", ~is_seen)):
        ax.plot(*points[rows].T, ".", ms=3.5, color=COLOURS[side], alpha=0.7, mec="none")
    for x, side in ((0.0, "seen"), (0.18, "absent")):
        ax.text(x, 1.01, side, color=COLOURS[side], transform=ax.transAxes, ha="left", va="bottom", fontsize=9)
    bare(ax)
    return ax


def dots(rows: Mapping[str, Mapping[str, Estimate]], colours: Mapping[str, str], ax: Axes | None = None) -> Axes:
    """Accuracies (fractions) with 95 % intervals, one or more a row, named above the first row."""
    ax = ax or plt.subplots()[1]
    for y, row in enumerate(rows.values()):
        apart = np.linspace(-0.14, 0.14, len(row)) if len(row) > 1 else [0.0]
        for at, (name, e) in zip(y + np.array(apart), row.items(), strict=True):
            interval(ax, e, at, colours[name])
    for i, name in enumerate(next(iter(rows.values()))):
        ax.text(0.0, 1.02 + 0.07 * i, name, color=colours[name], transform=ax.transAxes, va="bottom", fontsize=9)
    rows_down(ax, rows)
    ax.set_xlabel("accuracy (%)")
    return ax
