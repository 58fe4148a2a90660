"""One function a figure: it takes results and an optional Axes, draws in the book's one design, and returns the Axes.

A colour means one thing in every chapter: blue is seen, orange is absent, grey is pre-trained, green is fine-tuned,
and each way to find γ has its own. The palette is Okabe and Ito's, made for all kinds of colour vision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from ftlib.benchmarks import Benchmark, ImageSet
from ftlib.claims import Claim, Estimate, estimate
from ftlib.metrics import Curve

COLOURS = {
    "seen": "#0072B2",
    "absent": "#D55E00",
    "pre-trained": "#7F7F7F",
    "fine-tuned": "#009E73",
    "ALG": "#CC79A7",
    "PCV": "#E69F00",
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


def concept(benchmark: Benchmark, per_side: int = 6, ax: Axes | None = None) -> Axes:
    """Figure 1 of the paper, in the benchmark's own images: what each stage sees of each class."""
    ax = _canvas(ax)
    split = benchmark.split
    classes = [*split.seen[:per_side], *split.absent[:per_side]]
    offsets = [i + (0.6 if i >= len(split.seen[:per_side]) else 0.0) for i in range(len(classes))]
    stages = [
        ("pre-train:\nall classes,\nsource domain", benchmark.source, set(classes)),
        ("fine-tune:\nS alone,\ntarget domain", benchmark.target, set(split.seen)),
        ("deploy:\nall classes,\ntarget domain", benchmark.target_test, set(classes)),
    ]
    for row, (text, images, shown) in enumerate(stages):
        ax.text(-0.25, row + 0.45, text, ha="right", va="center", fontsize=9)
        for x, c in zip(offsets, classes, strict=True):
            if c in shown:
                _thumbnail(ax, images, c, x, row, "seen" if c in split.seen else "absent")
            else:
                frame = Rectangle((x, row), 0.9, 0.9, fill=False, ls=":", ec=COLOURS["absent"])
                ax.add_patch(frame)
                ax.text(x + 0.45, row + 0.45, "absent", ha="center", va="center", fontsize=6.5, color=COLOURS["absent"])
    for side, x in (("seen", offsets[0]), ("absent", offsets[len(split.seen[:per_side])])):
        name = "fine-tuning classes S" if side == "seen" else "absent classes U"
        text = f"{name} ({len(getattr(split, side))})"
        ax.text(x, -0.2, text, color=COLOURS[side], ha="left", va="bottom", weight="bold")
    ax.set(xlim=(-1.9, offsets[-1] + 1), ylim=(3, -0.6))
    return ax


def contact_sheet(domains: Mapping[str, ImageSet], classes: Sequence[int], ax: Axes | None = None) -> Axes:
    """A row a domain, a column a class: the same classes as each domain shows them."""
    ax = _canvas(ax)
    for row, (name, images) in enumerate(domains.items()):
        ax.text(-0.2, row + 0.45, name, ha="right", va="center", fontsize=9)
        for x, c in enumerate(classes):
            _thumbnail(ax, images, c, x, row)
    ax.set(xlim=(-1.4, len(classes)), ylim=(len(domains), -0.1))
    return ax


def before_after(rows: Mapping[str, tuple[Estimate, Estimate]], ax: Axes | None = None) -> Axes:
    """An arrow a row from pre-trained to fine-tuned accuracy (fractions), each end with its 95 % interval."""
    ax = ax or plt.subplots(figsize=(WIDTH, 0.55 * len(rows) + 0.9))[1]
    for y, (before, after) in enumerate(rows.values()):
        ax.annotate(
            "", (100 * after.mean, y), (100 * before.mean, y), arrowprops={"arrowstyle": "->", "color": "#999999"}
        )
        for name, e in (("pre-trained", before), ("fine-tuned", after)):
            ax.plot([100 * e.low, 100 * e.high], [y, y], color=COLOURS[name], lw=5, alpha=0.3, solid_capstyle="butt")
            ax.plot(100 * e.mean, y, "o", color=COLOURS[name], ms=7)
            if y == 0:
                ax.text(100 * e.mean, y - 0.32, name, color=COLOURS[name], ha="center", va="bottom", fontsize=9)
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
    _label_ends(ax, epoch[-1], ends, colours)
    ax.set_xlabel("epochs of fine-tuning")
    return ax


def seen_unseen(
    curves: Mapping[str, Sequence[Curve]],
    marks: Mapping[str, tuple[float, float]] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Figure 2 of the paper: the exact Acc_{U/Y}-Acc_{S/Y} curves, first repetition bold, the others thin.

    ``marks`` puts named points (Acc_{S/Y}, Acc_{U/Y}) on the plane; without it every curve carries its own at γ = 0.
    """
    ax = ax or plt.subplots(figsize=(4.6, 4.4))[1]
    for name, repetitions in curves.items():
        for i, curve in enumerate(repetitions):
            style = {"lw": 2.2} if i == 0 else {"lw": 0.7, "alpha": 0.45}
            ax.plot(100 * curve.sy, 100 * curve.uy, color=COLOURS[name], **style)
        if marks is None:
            at = repetitions[0].at(0.0)
            ax.plot(100 * at.sy, 100 * at.uy, "o", ms=8, color=COLOURS[name], mec="white")
    for name, (sy, uy) in (marks or {}).items():
        star = "*" if name.endswith("γ*") else "o"
        ax.plot(100 * sy, 100 * uy, star, ms=13 if star == "*" else 8, color=_mark_colour(name), mec="white", zorder=5)
        ax.annotate(name, (100 * sy, 100 * uy), (-9, -3), textcoords="offset points", ha="right", va="top", fontsize=9)
    ax.set(xlim=(-2, 102), ylim=(-2, 102), aspect="equal")
    ax.set(xlabel="seen accuracy $Acc_{S/Y}$ (%)", ylabel="absent accuracy $Acc_{U/Y}$ (%)")
    return ax


def margins(
    seen: np.ndarray, absent: np.ndarray, gammas: Mapping[str, float] | None = None, ax: Axes | None = None
) -> Axes:
    """How far the best seen logit is above the best absent one, on seen and on absent images; each γ as a line.

    An image right of a line is called seen, left of it absent.
    """
    ax = ax or plt.subplots()[1]
    bins = np.linspace(*np.percentile(np.concatenate([seen, absent]), [0.2, 99.8]), 60)
    for side, values in (("seen", seen), ("absent", absent)):
        ax.hist(values, bins, density=True, color=COLOURS[side], alpha=0.55)
    top = ax.get_ylim()[1]
    for i, (name, gamma) in enumerate((gammas or {"γ = 0": 0.0}).items()):
        ax.axvline(gamma, color=COLOURS.get(name, "#333333"), lw=1.4, ls="-" if name == "γ*" else "--")
        ax.text(gamma, top * (1.02 + 0.09 * (i % 2)), name, ha="center", va="bottom", fontsize=9)
    ax.set(xlabel="best seen logit − best absent logit", yticks=[], ylabel="images")
    ax.grid(axis="y", visible=False)
    return ax


def small_multiples(count: int, columns: int = 3, height: float = 2.2) -> list[Axes]:
    """``count`` Axes in rows of ``columns``, sharing both axes; what is left of the last row is switched off."""
    columns = min(columns, count)
    rows = -(-count // columns)
    axes = plt.subplots(rows, columns, figsize=(WIDTH, height * rows), sharex=True, sharey=True, squeeze=False)[1]
    for ax in axes.flat[count:]:
        ax.set_axis_off()
    return list(axes.flat[:count])


def forest(rows: Mapping[str, Mapping[str, Claim]], ax: Axes | None = None) -> Axes:
    """A row a claim, a mark a profile: each mean effect with its 95 % interval, coloured by verdict.

    Parameters
    ----------
    rows : mapping from a claim's name to a mapping from profile to Claim
        All in one unit. A filled mark replicates, a hollow one does not: colour is never the only sign.
    """
    profiles = list(dict.fromkeys(profile for claims in rows.values() for profile in claims))
    ax = ax or plt.subplots(figsize=(WIDTH, (0.16 + 0.17 * len(profiles)) * len(rows) + 0.9))[1]
    offsets = np.linspace(-0.27, 0.27, len(profiles)) if len(profiles) > 1 else [0.0]
    for y, claims in enumerate(rows.values()):
        for profile, claim in claims.items():
            at, colour = y + offsets[profiles.index(profile)], VERDICTS[claim.verdict]
            if np.isfinite([claim.low, claim.high]).all():
                ax.plot([claim.low, claim.high], [at, at], color=colour, lw=1.6, solid_capstyle="butt")
            fill = colour if claim.verdict == "replicates" else "white"
            ax.plot(claim.mean, at, MARKERS[profiles.index(profile) % len(MARKERS)], ms=5.5, mfc=fill, mec=colour)
    for i, profile in enumerate(profiles):
        ax.plot([], [], MARKERS[i % len(MARKERS)], ms=5.5, mfc="#333333", mec="#333333", label=profile)
    if len(profiles) > 1:
        ax.legend(ncols=len(profiles), loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, handletextpad=0.1)
    ax.axvline(0, color="#333333", lw=0.8)
    ax.set_yticks(range(len(rows)), rows)
    ax.set(ylim=(len(rows) - 0.5, -0.5), xlabel="effect (points of accuracy); right of zero, the finding holds")
    ax.grid(axis="y", visible=False)
    return ax


def _canvas(ax: Axes | None) -> Axes:
    ax = ax or plt.subplots(figsize=(WIDTH, 2.4))[1]
    ax.set_axis_off()
    ax.set_aspect("equal")
    return ax


def _thumbnail(ax: Axes, images: ImageSet, label: int, x: float, y: float, side: str | None = None) -> None:
    image = images.images[(images.labels == label).nonzero()[0, 0]].permute(1, 2, 0).cpu().numpy()
    ax.imshow(image, extent=(x, x + 0.9, y + 0.9, y), interpolation="antialiased")
    if side:
        ax.add_patch(Rectangle((x, y), 0.9, 0.9, fill=False, lw=2, ec=COLOURS[side]))


def _label_ends(ax: Axes, x: float, ends: list[tuple[float, str]], colours: Mapping[str, str]) -> None:
    """Names beside the ends of lines, pushed apart where they would overlap."""
    low, high = ax.get_ylim()
    gap, last = 0.065 * (high - low), -np.inf
    for y, name in sorted(ends):
        last = max(y, last + gap)
        ax.annotate(name, (x, last), (6, 0), textcoords="offset points", va="center", color=colours[name], fontsize=9)


def _mark_colour(name: str) -> str:
    return next((colour for key, colour in COLOURS.items() if name.endswith(key)), "#333333")
