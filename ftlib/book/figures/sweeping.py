"""Many settings side by side: on one colour scale, as a dot each, and the choice of classes as a map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle

from ftlib.benchmarks import ClassSplit
from ftlib.book.choices import best_cell
from ftlib.book.estimates import Estimate

from .design import COLOURS, bare, colour_of, drawable, interval, rows_down, small_multiples

FAILED = "#DDDDDD"


def heat_maps(
    values: Mapping[str, np.ndarray],
    rates: Mapping[str, Sequence[float]],
    decays: Mapping[str, Sequence[float]],
) -> list[Axes]:
    """Figure 4 of the paper: AUSUC over learning rates and weight decays, a panel an optimizer, one colour scale.

    ``values`` are, under each optimizer, R repetitions of each setting, [L, W, R], nan where training diverged. A cell
    shows the mean over those that did not, and how many did; the frame is around the cell that is best, a diverged
    repetition counted as 0. ValueError if every training diverged.
    """
    if not any(np.isfinite(grid).any() for grid in values.values()):
        raise ValueError("every training diverged: there is nothing to draw")
    axes = small_multiples(len(values), height=0.29 * max(map(len, values.values())) + 0.75, shared=False)
    means = {name: np.ma.masked_invalid(grid).mean(-1).filled(np.nan) for name, grid in values.items()}
    shown = np.concatenate([grid.ravel() for grid in means.values()])
    scale = Normalize(np.nanmin(shown), np.nanmax(shown))
    for place, (ax, name) in enumerate(zip(axes, values, strict=True)):
        ax.imshow(means[name], cmap="cividis", norm=scale, aspect="auto")
        for y, x in np.ndindex(means[name].shape):
            _cell(ax, x, y, values[name][y, x], dark=scale(means[name][y, x]) < 0.5)
        y, x = best_cell(values[name])
        ax.add_patch(Rectangle((x - 0.48, y - 0.48), 0.96, 0.96, fill=False, ec=COLOURS["absent"], lw=2))
        ax.set_xticks(range(len(decays[name])), [f"{decay:g}" for decay in decays[name]], fontsize=8)
        ax.set_yticks(range(len(rates[name])), [f"{rate:g}" for rate in rates[name]], fontsize=8)
        ax.set_title(name)
        ax.tick_params(length=0)
        ax.grid(visible=False)
        if place % 3 == 0:
            ax.set_ylabel("learning rate", fontsize=9)
        if place + 3 >= len(values):
            ax.set_xlabel("weight decay", fontsize=9)
    plt.colorbar(ScalarMappable(scale, "cividis"), ax=axes, shrink=0.8, aspect=30, label="AUSUC")
    return axes


def strips(
    panels: Mapping[str, Mapping[str, np.ndarray]], marked: Mapping[str, int], references: Mapping[str, float]
) -> list[Axes]:
    """Every setting as a dot, a row an optimizer, a panel a measure (fractions): how much is at stake in the choice.

    ``panels`` have for each measure and optimizer its settings, nan where training diverged: no dot. The place that is
    ``marked`` among an optimizer's is drawn full and large, such as that of the best AUSUC; a measure's reference is a
    dashed line, such as the pre-trained model's value.
    """
    names = list(marked)
    axes = small_multiples(len(panels), height=0.24 * len(names) + 0.75)
    for ax, (title, rows) in zip(axes, panels.items(), strict=True):
        if title in references:
            ax.axvline(100 * references[title], color=COLOURS["pre-trained"], lw=1.2, ls="--")
        for y, name in enumerate(names):
            settings = 100 * np.asarray(rows[name], float)
            shown = settings[np.isfinite(settings)]
            if len(shown):
                ax.plot([shown.min(), shown.max()], [y, y], color=COLOURS["fine-tuned"], lw=1, alpha=0.5)
            ax.plot(settings, np.full(len(settings), y), "o", ms=4, color=COLOURS["fine-tuned"], alpha=0.45, mec="none")
            ax.plot(settings[marked[name]], y, "D", ms=5.5, color=COLOURS["fine-tuned"], mec="white", mew=0.8)
        rows_down(ax, names)
        ax.set_title(title)
    for ax in axes[-3:]:
        ax.set_xlabel("%")
    return axes


def crossing(panels: Mapping[str, Mapping[str, Mapping[str, Estimate]]]) -> list[Axes]:
    """Gains (points, with 95 % intervals) of every setup, a row, over each reference, a mark: left of zero is lost.

    ``panels`` have for each measure the setups in one order, from the top, and under each the references by name.
    """
    rows = list(next(iter(panels.values())))
    axes = small_multiples(len(panels), height=0.19 * len(rows) + 0.9, shared=False)
    for ax, (title, setups) in zip(axes, panels.items(), strict=True):
        for y, references in enumerate(setups.values()):
            for at, (name, e) in zip(y + np.linspace(-0.15, 0.15, len(references)), references.items(), strict=True):
                interval(ax, e, at, colour_of(name), size=3.5, scale=1)
        rows_down(ax, rows if ax is axes[0] else [""] * len(rows))
        ax.axvspan(min(ax.get_xlim()[0], -1), 0, color="#000000", alpha=0.05, lw=0)
        ax.axvline(0, color="#111111", lw=1.4)
        ax.set_title(title, fontsize=9.5)
        ax.set_xlabel("gain (points)", fontsize=9)
        ax.tick_params(labelsize=8)
    for i, name in enumerate(next(iter(next(iter(panels.values())).values()))):
        where = {"transform": axes[-1].transAxes, "fontsize": 8}  # the corner that rows from worst to best leave free
        axes[-1].text(0.03, 0.09 - 0.05 * i, f"over {name}", color=colour_of(name), **where)
    return axes


def warning(sign: np.ndarray, gain: np.ndarray, apart: np.ndarray, threshold: float, below: bool, ax: Axes) -> Axes:
    """A dot a run, its gain (points) over its sign: full if it gained, hollow if it lost, a cross where ``apart``.

    The side of the threshold on which a rule warns is shaded. All are [N].
    """
    for which, marker, fill, colour in (
        (~apart & (gain >= 0), "o", "full", COLOURS["fine-tuned"]),
        (~apart & (gain < 0), "o", "none", COLOURS["absent"]),
        (apart, "x", "full", "#777777"),
    ):
        ax.plot(sign[which], gain[which], marker, fillstyle=fill, ms=4, mew=1, color=colour, alpha=0.7)
    low, high = ax.get_xlim()
    ax.axvspan(*((low, threshold) if below else (threshold, high)), color=COLOURS["absent"], alpha=0.1, lw=0)
    ax.axhline(0, color="#111111", lw=1.2)
    ax.set_xlim(low, high)
    return ax


def class_map(points: np.ndarray, split: ClassSplit, names: Sequence[str], ax: Axes | None = None) -> Axes:
    """Figure 7 of the paper: class means in a plane [C, 2], such as that of t-SNE, with the split marked.

    Classes with names of one or two characters are drawn as these, or as their number where the typeface lacks one,
    bold for S; others as dots for S and crosses for U.
    """
    ax = ax or plt.subplots(figsize=(4, 4))[1]
    names = drawable(names)
    written = max(map(len, names)) <= 2
    for side, marker in (("seen", "o"), ("absent", "x")):
        own: list[int] = list(getattr(split, side))
        ax.plot(*points[own].T, marker, ms=0 if written else 5, color=COLOURS[side], mew=1.5)
        for c in own if written else ():
            weight = "bold" if side == "seen" else "normal"
            x, y = points[c]
            how = {"color": COLOURS[side], "weight": weight, "fontsize": 9, "parse_math": False}
            ax.text(x, y, names[c], ha="center", va="center", **how)
    ax.margins(0.08)
    bare(ax)
    return ax


def _cell(ax: Axes, x: int, y: int, repetitions: np.ndarray, dark: bool) -> None:
    failed = int(np.isnan(repetitions).sum())
    if failed == len(repetitions):
        ax.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fc=FAILED, ec="white", hatch="//", lw=0))
        ax.text(x, y, "failed", ha="center", va="center", fontsize=8, color="#333333")
        return
    text = f"{np.nanmean(repetitions):.2f}" + (f"\n{failed} failed" if failed else "")
    size = 8.5 if not failed else 6.5
    ax.text(x, y, text, ha="center", va="center", fontsize=size, color="white" if dark else "#111111")
