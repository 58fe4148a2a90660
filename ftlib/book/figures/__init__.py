"""One function a figure: it takes results and an optional Axes, draws in the book's one design, and returns the Axes.

    design     colours, sizes and fonts; grids of small panels; labels beside lines
    images     what the benchmark looks like
    accuracy   what became of it: before and after, the trade-off, margins
    inside     what happened inside of a model, and when
    repair     how an estimator arrives at its γ, and how well it does
    plane      the toy, in its plane
    sweeping   many settings side by side, and the choice of classes
    verdicts   the claims, side by side
    workers    who computed what in a sweep, and when
    panels     where a picture's panels are, for a screen that is too narrow for it

Chapters import all of them from here.
"""

from .accuracy import before_after, gains, margins, seen_unseen
from .design import COLOURS, NARROW, WIDTH, small_multiples, use_style
from .images import concept, contact_sheet
from .inside import dots, movement, sides, trajectories, update_matrix, waterfall
from .plane import feature_arrows, gain_map, regions
from .repair import folds, ladder, logit_gap, mirror, regret, reliability
from .sweeping import class_map, crossing, heat_maps, strips, warning
from .verdicts import forest
from .workers import timeline

__all__ = [
    "COLOURS", "NARROW", "WIDTH",
    "before_after", "class_map", "concept", "contact_sheet", "crossing", "dots", "feature_arrows", "folds", "forest",
    "gain_map", "gains", "heat_maps", "ladder", "logit_gap", "margins", "mirror", "movement", "regions",
    "regret", "reliability", "seen_unseen", "sides", "small_multiples", "strips", "timeline", "trajectories",
    "update_matrix", "use_style", "warning", "waterfall",
]  # fmt: skip
