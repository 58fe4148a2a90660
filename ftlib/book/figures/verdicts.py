"""The claims side by side."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from ftlib.book.claims import Claim

from .design import MARKERS, NARROW, VERDICTS, rows_down


def forest(rows: Mapping[str, Mapping[str, Claim]], ax: Axes | None = None) -> Axes:
    """A row a claim, a mark a profile: each mean effect with its 95 % interval, coloured by verdict.

    All claims are in one unit. A filled mark replicates, a hollow one does not: colour is never the only sign.
    """
    profiles = list(dict.fromkeys(profile for claims in rows.values() for profile in claims))
    ax = ax or plt.subplots(figsize=(NARROW, (0.16 + 0.17 * len(profiles)) * len(rows) + 0.9))[1]
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
        ax.legend(ncols=2, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.2, handletextpad=0.1)
    ax.axvline(0, color="#333333", lw=0.8)
    rows_down(ax, rows)
    ax.set_xlabel("effect (points); right of zero it holds")
    return ax
