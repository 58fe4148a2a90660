"""What became of the accuracy: before and after, the whole trade-off, and the margins behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from ftlib.book.estimates import Estimate
from ftlib.metrics import Curve

from .design import COLOURS, NARROW, colour_of, histograms, interval


def before_after(rows: Mapping[str, Sequence[Estimate]], ax: Axes | None = None) -> Axes:
    """An arrow a row from pre-trained to fine-tuned accuracy (fractions), each end with its 95 % interval.

    A third estimate of a row is AdaBN's.
    """
    ax = ax or plt.subplots(figsize=(NARROW, 0.55 * len(rows) + 0.9))[1]
    for y, (before, after, *control) in enumerate(rows.values()):
        arrow = {"arrowstyle": "->", "color": "#999999"}
        ax.annotate("", (100 * after.mean, y), (100 * before.mean, y), arrowprops=arrow)
        for name, e in zip(("pre-trained", "fine-tuned", "AdaBN"), (before, after, *control), strict=False):
            interval(ax, e, y, COLOURS[name], "D" if name == "AdaBN" else "o", size=7)
            if y == 0:
                va, off = ("top", 0.28) if name == "AdaBN" else ("bottom", -0.32)
                left = (name == "pre-trained") == (before.mean <= after.mean)  # the two may lie close together
                ha = "center" if name == "AdaBN" else "right" if left else "left"
                ax.text(100 * e.mean, y + off, name, color=COLOURS[name], ha=ha, va=va, fontsize=9)
    ax.set_yticks(range(len(rows)), rows)
    ax.set(ylim=(len(rows) - 0.5, -0.75), xlabel="accuracy (%)")
    ax.grid(axis="y", visible=False)
    return ax


def gains(groups: Mapping[str, Mapping[str, Estimate]], ax: Axes | None = None) -> Axes:
    """Figure 3 of the paper: change of accuracy (fractions) over pre-trained, two bars a group, for S and for U."""
    ax = ax or plt.subplots()[1]
    for x, sides in enumerate(groups.values()):
        for offset, (side, e) in zip((-0.19, 0.19), sides.items(), strict=True):
            error = [[100 * (e.mean - e.low)], [100 * (e.high - e.mean)]]
            ax.bar(x + offset, 100 * e.mean, 0.34, color=COLOURS[side], yerr=error, capsize=3, ecolor="#333333")
            if x == 0:
                at = 100 * (max(e.high, 0) if np.isfinite(e.high) else max(e.mean, 0))
                ax.text(x + offset, at + 1, side, color=COLOURS[side], ha="center", va="bottom", fontsize=9)
    ax.axhline(0, color="#333333", lw=0.8)
    ax.set_xticks(range(len(groups)), groups)
    ax.set_ylabel("gain over pre-trained\n(points of accuracy)")
    ax.grid(axis="x", visible=False)
    return ax


def seen_unseen(
    curves: Mapping[str, Sequence[Curve]],
    marks: Mapping[str, tuple[float, float]] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Figure 2 of the paper: the exact Acc_{U/Y}-Acc_{S/Y} curves, first repetition bold, the others thin.

    ``marks`` puts named points (Acc_{S/Y}, Acc_{U/Y}) on the plane; without it every curve carries its own at γ = 0.
    """
    ax = ax or plt.subplots(figsize=(NARROW, 4.1))[1]
    for name, repetitions in curves.items():
        for i, curve in enumerate(repetitions):
            width, alpha = (2.2, 1.0) if i == 0 else (0.7, 0.45)
            ax.plot(100 * curve.sy, 100 * curve.uy, color=COLOURS[name], lw=width, alpha=alpha)
        if marks is None:
            at = repetitions[0].at(0.0)
            ax.plot(100 * at.sy, 100 * at.uy, "o", ms=8, color=COLOURS[name], mec="white")
    for name, (sy, uy) in (marks or {}).items():
        star = "*" if name.endswith("γ*") else "o"
        ax.plot(100 * sy, 100 * uy, star, ms=13 if star == "*" else 8, color=colour_of(name), mec="white", zorder=5)
        wide = 0.025 * len(name)  # of the axis; where another point lies to the left, its name is below
        crowded = any(0 < sy - x < wide and abs(uy - y) < 0.08 for x, y in (marks or {}).values())
        dy, va = (-3, "top") if uy > 0.08 and not crowded else (4, "bottom")  # not on the axis
        ground = {"fc": "white", "ec": "none", "alpha": 0.75, "pad": 0.5}  # a curve may pass behind
        offset = {"xytext": (-9, dy), "textcoords": "offset points", "ha": "right", "va": va}
        ax.annotate(name, (100 * sy, 100 * uy), fontsize=9, bbox=ground, **offset)
    ax.set(xlim=(-2, 102), ylim=(-2, 102), aspect="equal")
    ax.set(xlabel="seen accuracy $Acc_{S/Y}$ (%)", ylabel="absent accuracy $Acc_{U/Y}$ (%)")
    return ax


def margins(seen: np.ndarray, absent: np.ndarray, gammas: Mapping[str, float], ax: Axes | None = None) -> Axes:
    """How far the best seen logit is above the best absent one, on seen and on absent images; each γ as a line.

    An image right of a line is called seen, left of it absent.
    """
    ax = ax or plt.subplots()[1]
    histograms(ax, seen, absent)
    top = ax.get_ylim()[1]
    for i, (name, gamma) in enumerate(gammas.items()):
        ax.axvline(gamma, color=COLOURS.get(name, "#333333"), lw=1.4, ls="-" if name == "γ*" else "--")
        level = i % 2 if len(gammas) < 4 else i  # many lines, perhaps close together: a step for each name
        ax.text(gamma, top * (1.02 + 0.09 * level), name, ha="center", va="bottom", fontsize=9)
    ax.set(xlabel="best seen logit − best absent logit", yticks=[], ylabel="images")
    ax.grid(axis="y", visible=False)
    return ax
