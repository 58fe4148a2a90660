"""iWildCam2020-WILDS (Beery et al., 2020; Koh et al., ICML 2021), version 2.0: one camera trap against the rest.

    iwildcam_v2.0/metadata.csv                below $FTLIB_DATA, as WILDS unpacks it
    iwildcam_v2.0/train/<filename>            the images of all splits

The source is the same for every target: WILDS's split ``train``, tested on its ``id_test``. A target is a location of
the splits ``val`` and ``test``, by its location_remapped or its rank: ``top-3`` has the third most classes. Photographs
of one sequence stay on one side. Y are the classes with two sequences there that the source has too.
"""

from __future__ import annotations

import csv
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ftlib.core import Domain, seeded, split_images

from . import decoding, published

GET = (
    "iWildCam2020-WILDS v2.0, 12 GB, under the Community Data License Agreement, Permissive, 1.0, is at "
    "wilds.stanford.edu: unpack it to iwildcam_v2.0"
)
CLASSES, IMAGES = 182, 203_029
split = published.split  # of the classes a location shows few


class Row(NamedTuple):
    file: str
    label: int
    sequence: str
    split: str
    location: str


def load_domain(
    name: str,
    seed: int = 0,
    role: str = "source",
    *,
    size: int = decoding.SIZE,
    per_class: int | None = None,
    train_fraction: float = 0.7,
    subset: bool = False,
) -> Domain:
    """``train``, the source, or a location; shorter side scaled to ``size`` and the centre cut out.

    Of the source at most ``per_class`` images of each class are taken for either side, drawn by the seed. A location's
    sequences are split within each class by the seed.

    Raises
    ------
    ValueError
        Unknown location, or one of the source's; the folder is not here, or lacks images; without ``subset``, another
        number of images in the table than was published.
    """
    return published.domain(find(name, seed, per_class, train_fraction, subset), size, subset)


def split_pair(pair: str) -> tuple[str, str]:
    """The source, which is the same for all, and the location."""
    if pair == "train":
        raise ValueError("'iwildcam/train' is the source of all targets: expected iwildcam/LOCATION")
    return "train", pair


def find(
    name: str, seed: int = 0, per_class: int | None = None, train_fraction: float = 0.7, subset: bool = True
) -> published.Found:
    """The images of the source or of a location; NotHere if they are not here."""
    table, rng = published.place("iwildcam_v2.0/metadata.csv", GET), seeded(seed, "iwildcam", name, "split")
    rows = _read(table, table.stat().st_mtime_ns)
    if len(rows) != IMAGES and not subset:
        raise ValueError(f"{table} has {len(rows):,} images of {IMAGES:,} that were published. {GET}")
    if name == "train":
        sides = [[row for row in rows if row.split == split] for split in ("train", "id_test")]
        kept = [published.at_most(np.array([row.label for row in side]), per_class, rng) for side in sides]
        sides = [[side[i] for i in places] for side, places in zip(sides, kept, strict=True)]
    else:
        here, known = _target(name, rows), {row.label for row in rows if row.split == "train"}
        labels = [label for label, _ in {(row.label, row.sequence) for row in here}]  # one for each sequence
        classes = sorted(label for label in known if labels.count(label) > 1)
        few = [row for row in here if row.label not in classes]
        here = [row for row in here if row.label in classes]
        where, copies = [classes.index(row.label) for row in here], [row.sequence for row in here]
        places = split_images(np.array(where), np.array(copies), train_fraction, rng, [*map(str, classes)])
        sides = [[here[i] for i in places[0]] + few, [here[i] for i in places[1]]]  # few are on one side: left out
    images = table.parent / "train"
    found = published.gather(images, [*map(str, range(CLASSES))], [[row[:2] for row in of] for of in sides], GET)
    return found._replace(lists=[table])


def _target(name: str, rows: list[Row]) -> list[Row]:
    """The images of a location."""
    by: dict[str, list[Row]] = {}
    for row in rows:
        if row.split in ("val", "test"):
            by.setdefault(row.location, []).append(row)
    ranked = sorted(by, key=lambda location: (-len({row.label for row in by[location]}), location))
    name = dict(zip((f"top-{rank}" for rank in range(1, len(by) + 1)), ranked, strict=True)).get(name, name)
    if name not in by:
        expected = f"a location_remapped of val or test, such as {', '.join(ranked[:3])}, or top-1 to top-{len(by)}"
        raise ValueError(f"iWildCam has no target {name!r}: expected {expected}")
    return by[name]


@lru_cache(maxsize=1)
def _read(table: Path, changed: int) -> list[Row]:
    with open(table, encoding="utf-8", newline="") as file:
        try:
            return [
                Row(of["filename"], int(of["y"]), of["sequence_remapped"], of["split"], of["location_remapped"])
                for of in csv.DictReader(file)
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{table} is not WILDS's ({type(error).__name__}: {error}). {GET}") from None
