"""How an estimator arrives at its γ, and how well it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from ftlib.benchmarks import ClassSplit
from ftlib.book.estimates import Estimate
from ftlib.margins import Mirrored
from ftlib.metrics import Curve

from .design import COLOURS, NARROW, colour_of, histograms, interval, rows_down


def logit_gap(logits: np.ndarray, labels: np.ndarray, split: ClassSplit, ax: Axes | None = None) -> Axes:
    """Figure 9 of the paper: an image's mean logit over S without its own class, and over U; γ is what lies between.

    The logits [N, C] and labels [N] are of images that fine-tuning saw.
    """
    ax = ax or plt.subplots()[1]
    logits, labels = np.asarray(logits, float), np.asarray(labels)
    seen, absent = logits[:, list(split.seen)], logits[:, list(split.absent)].mean(1)
    own = logits[np.arange(len(labels)), labels]
    levels = {"seen": (seen.sum(1) - own) / (seen.shape[1] - 1), "absent": absent}
    histograms(ax, **levels)
    top = ax.get_ylim()[1] * 1.04
    low, high = sorted(values.mean() for values in levels.values())
    ax.annotate("", (high, top), (low, top), arrowprops={"arrowstyle": "<->", "color": COLOURS["ALG"], "lw": 1.6})
    ax.text((low + high) / 2, top * 1.02, "γ", color=COLOURS["ALG"], ha="center", va="bottom")
    ax.set(title="ALG: the gap between means", xlabel="mean logit of an image", yticks=[], ylim=(0, top * 1.14))
    ax.grid(axis="y", visible=False)
    return ax


def mirror(margins: Mirrored, truth: np.ndarray, gamma: float, ax: Axes | None = None) -> Axes:
    """Margins of the seen images, of their mirror images, and, as an outline, those that absent images really have."""
    ax = ax or plt.subplots()[1]
    histograms(ax, margins.seen, margins.absent, truth)
    top = ax.get_ylim()[1]
    ax.axvline(gamma, color=COLOURS["mirrored"], lw=1.6)
    ax.text(gamma, top * 1.02, " γ", color=COLOURS["mirrored"], ha="left", va="bottom")
    ax.set(title="Mirrored: the best trade-off", xlabel="best seen − best absent logit")
    ax.set(yticks=[], ylim=(0, top * 1.12))
    ax.grid(axis="y", visible=False)
    return ax


def folds(curves: Sequence[Curve], least: Sequence[float], gammas: Sequence[float], ax: Axes | None = None) -> Axes:
    """Figure 10 of the paper: each fold's accuracy against γ, bold where the pseudo-absent accuracy is high enough."""
    ax = ax or plt.subplots()[1]
    for curve, uy, gamma in zip(curves, least, gammas, strict=True):
        inner = slice(1, -1)
        x, y, allowed = curve.gamma[inner], 100 * curve.yy[inner], curve.uy[inner] >= uy
        ax.plot(x, y, color=COLOURS["PCV"], lw=0.8, alpha=0.6)
        ax.plot(np.where(allowed, x, np.nan), y, color=COLOURS["PCV"], lw=2)
        if np.isfinite(gamma):
            ax.plot(gamma, 100 * curve.at(gamma).yy, "o", color=COLOURS["PCV"], mec="white", ms=7)
    if np.isfinite(gammas).any():
        ax.axvline(float(np.nanmean(gammas)), color=COLOURS["PCV"], lw=1.6, ls="--")
    reach = max(1.0, np.nanmax(np.abs(gammas))) if np.isfinite(gammas).any() else 5.0
    ax.set(title="PCV: the best of each fold", xlabel="γ", ylabel="held-out accuracy (%)")
    ax.set_xlim(-0.5 * reach, 2.2 * reach)
    return ax


def ladder(rungs: Mapping[str, Mapping[str, Estimate]], ax: Axes | None = None) -> Axes:
    """Accuracy over all classes of every method, grouped by what it needs; the rung's name above its rows."""
    count = sum(len(rows) + 1 for rows in rungs.values())
    ax = ax or plt.subplots(figsize=(NARROW, 0.24 * count + 0.7))[1]
    y, ticks, names = 0, [], []
    for rung, rows in rungs.items():
        text = ax.annotate(
            rung, (0.01, y), xycoords=("figure fraction", "data"), weight="bold", va="center", fontsize=9
        )
        text.set_in_layout(False)  # it begins above the names, and may be longer than they are
        y += 1
        for name, e in rows.items():
            interval(ax, e, y, colour_of(name))
            ticks.append(y)
            names.append(name)
            y += 1
    ax.set_yticks(ticks, names)
    ax.set(ylim=(y - 0.5, -0.7), xlabel="accuracy over all classes (%)")
    ax.grid(axis="y", visible=False)
    return ax


def regret(values: Mapping[str, Mapping[str, float]], ax: Axes | None = None) -> Axes:
    """A row an estimator: its regret on every pair as a dot, the mean as a bar; mean and worst as numbers."""
    ax = ax or plt.subplots(figsize=(NARROW, 0.3 * len(values) + 0.9))[1]
    reach = max(max(points.values()) for points in values.values())
    for y, (name, points) in enumerate(values.items()):
        x = np.array(list(points.values()))
        colour = COLOURS.get(name, "#555555")
        ax.plot(x, y + np.linspace(-0.22, 0.22, len(x)), "o", ms=3, color=colour, alpha=0.55)
        ax.plot([x.mean()] * 2, [y - 0.36, y + 0.36], color=colour, lw=3)
        text = f"{x.mean():.1f} ({x.max():.1f})"
        ax.annotate(text, (reach, y), (8, 0), textcoords="offset points", va="center", fontsize=9)
    rows_down(ax, values)
    ax.set(xlim=(-0.02 * reach, 1.02 * reach), xlabel="regret (points); mean (worst)")
    return ax


def reliability(curves: Mapping[str, np.ndarray], ax: Axes | None = None) -> Axes:
    """Accuracy against confidence (`ftlib.reliability.reliability_curve`): on the diagonal the two agree."""
    ax = ax or plt.subplots(figsize=(NARROW, 3.8))[1]
    ax.plot([0, 100], [0, 100], color="#999999", lw=1, ls=":")
    styles = ("o-", COLOURS["fine-tuned"]), ("s--", COLOURS["mirrored"]), ("^-.", "#999999"), ("D:", "#111111")
    for (style, colour), (name, rows) in zip(styles, curves.items(), strict=False):
        ax.plot(100 * rows[:, 0], 100 * rows[:, 1], style, color=colour, ms=4, label=name)
    ax.set(xlim=(0, 101), ylim=(0, 101), xlabel="confidence (%)", ylabel="accuracy (%)")
    ax.legend(loc="upper left", fontsize=9)
    return ax
