"""What doors to published sets share: where a set lies, lists of its images, how many there must be, which are seen.

Lists are taken as their authors publish them: text with ``PATH CLASS`` in each line. A set that is not whole is
refused, unless the option ``subset`` says that a part of it is meant.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ftlib.core import ClassSplit, Domain, ImageSet, NotHere, class_ids, find_data, split_classes, whole

from . import decoding

FEW = "classes that one side lacks"  # why an image takes no part


class Found(NamedTuple):
    """A domain's images, whether each is one to train on, the files that say so, and how many images there were."""

    listing: decoding.Listing
    train: Sequence[bool]
    lists: Sequence[Path]
    published: int
    get: str


def place(name: str, get: str) -> Path:
    """Where a file or folder of a set lies; NotHere says where it was looked for, and how to get it."""
    try:
        return find_data(name)
    except NotHere as error:
        raise NotHere(f"{error}. {get}") from None


def read_list(path: Path) -> list[tuple[int, str, int]]:
    """(number of the line, image, class) of each line that is not empty; a ValueError names one that is odd."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{path.name} is no text: expected PATH COLUMN in each line") from None
    parts = [(number, *line.strip().rpartition(" ")) for number, line in enumerate(lines, 1) if line.strip()]
    for number, image, _, label in parts:
        if not image or not label.isdecimal():
            raise ValueError(f"{path.name}, line {number}: {lines[number - 1]!r}, expected PATH COLUMN")
    return [(number, image.strip(), int(label)) for number, image, _, label in parts]


def gather(root: Path, class_names: Sequence[str], sides: Sequence[Iterable[tuple[str, int]]], get: str) -> Found:
    """The images (path below ``root``, class) to train on and those to test on; those of `FEW` take no part.

    Raises
    ------
    ValueError
        An image is there twice, or on both sides; some are not there.
    """
    rows = [(path, label, side == 0) for side, own in enumerate(sides) for path, label in own]
    shown = [{label for _, label, train in rows if train is side} for side in (True, False)]
    files, missing = [], []
    for path, label, _ in rows:
        try:
            about = (root / path).stat()
            files.append((path, label, about.st_size, about.st_mtime_ns))
        except FileNotFoundError:
            missing.append(path)
    if missing:
        raise ValueError(f"{root} lacks {len(missing)} image(s) of its lists: {decoding.some(missing)}. {get}")
    if len({path for path, *_ in files}) < len(files):
        raise ValueError(f"{root}: its lists name an image twice, or for both sides; expected every image once. {get}")
    both = [label in shown[0] & shown[1] for _, label, _ in rows]
    few = [file[0] for file, kept in zip(files, both, strict=True) if not kept]
    files = [file for file, kept in zip(files, both, strict=True) if kept]
    train = [row[2] for row, kept in zip(rows, both, strict=True) if kept]
    return Found(decoding.Listing(root, tuple(class_names), files, {FEW: few} if few else {}), train, (), 0, get)


def domain(found: Found, size: int, subset: bool) -> Domain:
    """The images that were found, decoded once and kept; a ValueError if there are not as many as published."""
    listing, is_train, _, published, get = found
    number = len(listing.files) + len(listing.left.get(FEW, ()))
    if published not in (0, number) and not subset:
        has = f"{number:,} images of {published:,} that were published"
        raise ValueError(f"{listing.folder} has {has}: fetch it again, or say subset=True of a part of it. {get}")
    images, labels, _, left = decoding.decoded(listing, whole("size", size, 1))
    decoding.tell(listing, left)
    bad = {path for paths in left.values() for path in paths}
    train = np.array([side for (path, *_), side in zip(listing.files, is_train, strict=True) if path not in bad])
    parts = (ImageSet(torch.from_numpy(images[side]), torch.from_numpy(labels[side])) for side in (train, ~train))
    return Domain(listing.class_names, *parts)


def split(target: Domain, seed: int, seen: int | Sequence[int] | None, source: str) -> ClassSplit:
    """Seen and absent classes among those that the target's images show, as `ftlib.core.split_classes` draws them."""
    shown = sorted({*target.train.labels.tolist(), *target.test.labels.tolist()})
    if not isinstance(seen, Sequence):
        drawn = split_classes(len(shown), seed, seen)
        return ClassSplit([shown[i] for i in drawn.seen], [shown[i] for i in drawn.absent])
    seen = class_ids(seen, len(target.class_names), "seen classes")
    if others := sorted(set(seen) - set(shown)):
        raise ValueError(f"seen classes {others}: there are images of {len(shown)} other columns, not of these")
    return ClassSplit(seen, set(shown) - set(seen))


def at_most(labels: np.ndarray, per_class: int | None, rng: np.random.Generator) -> np.ndarray:
    """Ascending positions [.] of at most ``per_class`` images of each class."""
    if per_class is None:
        return np.arange(len(labels))
    whole("per_class", per_class, 2)
    members = (rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels))
    return np.sort(np.concatenate([of[:per_class] for of in members]))
