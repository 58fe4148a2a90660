"""One function a figure: it takes results and an optional Axes, draws in the book's one design, and returns the Axes.

    design     colours, sizes and fonts; grids of small panels; labels beside lines
    images     what the benchmark looks like
    accuracy   what became of it: before and after, the trade-off, margins
    inside     what happened inside of a model, and when
    verdicts   the claims, side by side
"""

from ftlib.estimates import estimate

from .accuracy import before_after, gains, margins, seen_unseen
from .design import COLOURS, VERDICTS, WIDTH, label_ends, small_multiples, use_style
from .images import concept, contact_sheet
from .inside import trajectories
from .verdicts import forest

__all__ = [
    "COLOURS", "VERDICTS", "WIDTH",
    "before_after", "concept", "contact_sheet", "estimate", "forest", "gains", "label_ends", "margins", "seen_unseen",
    "small_multiples", "trajectories", "use_style",
]  # fmt: skip
