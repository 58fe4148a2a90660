"""What a benchmark looks like, in its own images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from ftlib.benchmarks import Benchmark, ImageSet

from .design import COLOURS, NARROW


def concept(benchmark: Benchmark, ax: Axes | None = None) -> Axes:
    """Figure 1 of the paper, in the benchmark's own images: what each stage sees of four classes of each side.

    The first stage is left out where the head is given and there are no images of a source.
    """
    ax = _canvas(ax)
    split = benchmark.split
    seen, absent = split.seen[:4], split.absent[:4]
    classes = [*seen, *absent]
    offsets = [i + (0.6 if i >= len(seen) else 0.0) for i in range(len(classes))]
    stages = [
        ("pre-train:\nsource domain", benchmark.source, set(classes)),
        ("fine-tune:\ntarget domain", benchmark.target, set(split.seen)),
        ("deploy:\ntarget domain", benchmark.target_test, set(classes)),
    ]
    stages = [stage for stage in stages if len(stage[1])]
    for row, (text, images, shown) in enumerate(stages):
        ax.text(-0.25, row + 0.45, text, ha="right", va="center", fontsize=9)
        for x, c in zip(offsets, classes, strict=True):
            if c in shown:
                _thumbnail(ax, images, c, x, row, "seen" if c in split.seen else "absent")
            else:
                ax.add_patch(Rectangle((x, row), 0.9, 0.9, fill=False, ls=":", ec=COLOURS["absent"]))
    for side, x in (("seen", offsets[0]), ("absent", offsets[len(seen)])):
        text = f"{side}, {'S' if side == 'seen' else 'U'} ({len(getattr(split, side))})"
        ax.text(x, -0.2, text, color=COLOURS[side], ha="left", va="bottom", weight="bold")
    ax.set(xlim=(-1.9, offsets[-1] + 1), ylim=(len(stages), -0.6))
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


def _canvas(ax: Axes | None) -> Axes:
    ax = ax or plt.subplots(figsize=(NARROW, 1.7))[1]
    ax.set_axis_off()
    ax.set_aspect("equal")
    return ax


def _thumbnail(ax: Axes, images: ImageSet, label: int, x: float, y: float, side: str | None = None) -> None:
    image = images.images[(images.labels == label).nonzero()[0, 0]].permute(1, 2, 0).cpu().numpy()
    ax.imshow(image, extent=(x, x + 0.9, y + 0.9, y), interpolation="antialiased")
    if side:
        ax.add_patch(Rectangle((x, y), 0.9, 0.9, fill=False, lw=2, ec=COLOURS[side]))
