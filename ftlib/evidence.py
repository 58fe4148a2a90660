"""What images of seen classes say of γ, one by one: margins, mirror images, and how far it moves when resampled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from ftlib.core import ClassSplit, seeded
from ftlib.margins import Mirrored, drawn_rivals, mirrored_margins, rivals

DRAWS = 100  # of images and of classes, for the interval


class Accuracy(NamedTuple):
    """Acc_{S/Y} of the images given, and the most that Acc_{U/Y} may be: that of mirror images, nan without old head.

    What it is only images of absent classes can tell. Mirror images are of classes that were trained on, so that real
    ones reach less; by how much, the book's chapter on one's own checkpoint measures.
    """

    seen: float
    absent_at_most: float

    def overall(self, split: ClassSplit, share: float | None = None) -> float:
        """The most that Acc_{Y/Y} may be if a ``share`` of all images is absent; |U| / |Y| if not given."""
        share = len(split.absent) / len(split.classes) if share is None else share
        return (1 - share) * self.seen + share * self.absent_at_most


class Evidence(NamedTuple):
    """All [N]: those of `Mirrored`, the gap whose mean is `competitor_gap`, and the label.

    Without the old head nothing is known of absent images: absent is nan, absent_hit False.
    """

    seen: np.ndarray
    seen_hit: np.ndarray
    absent: np.ndarray
    absent_hit: np.ndarray
    gap: np.ndarray
    label: np.ndarray

    @property
    def mirrored(self) -> Mirrored:
        return Mirrored(*self[:4])

    @property
    def known(self) -> bool:
        return not np.isnan(self.absent).any()

    @classmethod
    def of(cls, logits: Tensor, labels: Tensor, split: ClassSplit, old: Tensor | None) -> Evidence:
        in_s, in_u = (side.logits @ side.chance for side in drawn_rivals(logits, labels, split))
        if old is None:
            true, seen, absent = rivals(logits, labels, split)
            unknown = np.full(len(true), np.nan), np.zeros(len(true), bool)
            margins = Mirrored(np.maximum(true, seen) - absent, true > seen, *unknown)
        else:
            margins = mirrored_margins(logits, labels, split, old)
        return cls(*margins, (in_s - in_u).cpu().numpy(), labels.cpu().numpy())

    def accuracy(self, gamma: float) -> Accuracy:
        absent = float(np.mean(self.absent_hit & (gamma > self.absent))) if self.known else np.nan
        return Accuracy(float(np.mean(self.seen_hit & (gamma <= self.seen))), absent)

    def take(self, rows: np.ndarray) -> Evidence:
        return Evidence(*(part[rows] for part in self))


def resampled(gammas: Callable[[Evidence], Sequence[float]], images: Evidence) -> dict[str, np.ndarray]:
    """The ends of the middle 95 % of each γ [2, K], over images drawn with replacement, and over whole classes."""
    n, rng = len(images.label), seeded(0, "bootstrap")
    order = images.label.argsort(kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(images.label[order])) + 1)

    def classes() -> Evidence:
        drawn = [groups[i] for i in rng.integers(len(groups), size=len(groups))]
        label = np.repeat(np.arange(len(drawn)), [len(g) for g in drawn])  # a class that is drawn twice is two
        return images.take(np.concatenate(drawn))._replace(label=label)

    draws = {"images": lambda: images.take(rng.integers(n, size=n)), "classes": classes}
    ends = 0.025, 0.975
    return {name: np.quantile([gammas(draw()) for _ in range(DRAWS)], ends, axis=0) for name, draw in draws.items()}
