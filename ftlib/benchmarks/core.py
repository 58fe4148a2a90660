"""The ground floor: a class split, a set of images, and the benchmark that holds them together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor


@dataclass(frozen=True, init=False)
class ClassSplit:
    """The fine-tuning classes S (``seen``) and the absent classes U (``absent``); Y is their union.

    Parameters
    ----------
    seen, absent : iterable of int
        Class ids, that is columns of the head. Kept in ascending order.

    Raises
    ------
    ValueError
        If a side is empty, repeats a class or shares one with the other side, or if an id is negative.
    """

    seen: tuple[int, ...]
    absent: tuple[int, ...]

    def __init__(self, seen: Iterable[int], absent: Iterable[int]) -> None:
        for name, side in (("seen", seen), ("absent", absent)):
            classes = sorted(int(c) for c in side)
            if not classes:
                raise ValueError(f"the {name} classes are empty: a split needs at least one class on each side")
            repeated = sorted({a for a, b in pairwise(classes) if a == b})
            if repeated:
                raise ValueError(f"the {name} classes repeat {repeated}: name every class once")
            if classes[0] < 0:
                raise ValueError(f"class {classes[0]} among the {name} classes: class ids are columns, 0 or more")
            object.__setattr__(self, name, tuple(classes))
        both = sorted(set(self.seen) & set(self.absent))
        if both:
            raise ValueError(f"classes {both} are both seen and absent: every class belongs to one side")

    @property
    def classes(self) -> tuple[int, ...]:
        """Y, all classes of the split in ascending order."""
        return tuple(sorted(self.seen + self.absent))


@dataclass(frozen=True)
class ImageSet:
    """Images and their labels as plain tensors, ready to be moved to a device whole.

    Parameters
    ----------
    images : Tensor
        uint8 [N, 3, H, W].
    labels : Tensor
        int64 [N], class ids.
    """

    images: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4 or self.images.shape[1] != 3:
            raise ValueError(f"images are {self.images.dtype} {list(self.images.shape)}, expected uint8 [N, 3, H, W]")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                f"labels are {self.labels.dtype} {list(self.labels.shape)}, expected int64 [{len(self.images)}]"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def of(self, classes: Iterable[int]) -> ImageSet:
        """The images of the given classes, in their present order."""
        keep = torch.isin(self.labels, torch.tensor(sorted(classes), dtype=torch.int64, device=self.labels.device))
        return ImageSet(self.images[keep], self.labels[keep])

    def to(self, device: torch.device | str) -> ImageSet:
        return ImageSet(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Benchmark:
    """A source domain with all classes Y and a target domain of which fine-tuning sees only S.

    Class c is ``class_names[c]`` in both domains and column c of every head. ``target`` holds training images
    of all classes: fine-tuning takes ``target.of(split.seen)``; the absent rest serves diagnostics and oracles.
    """

    name: str
    class_names: tuple[str, ...]
    split: ClassSplit
    source: ImageSet
    source_test: ImageSet
    target: ImageSet
    target_test: ImageSet
