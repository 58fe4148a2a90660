"""What happened inside of a model, and when."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from ftlib.estimates import estimate

from .design import label_ends


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
