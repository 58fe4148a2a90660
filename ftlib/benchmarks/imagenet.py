"""ImageNet's classes in a folder of images, ROOT/<wnid>/*.jpg: Tiny-ImageNet's train, ImageNet-R, ImageNet-Sketch.

There is no source domain: the classifier comes with a head for ImageNet's 1,000 classes, in their usual order. A label
is a column of that head; Y are the classes that ROOT holds, and the other columns belong to neither side of the split.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from ftlib.core import Domain, ImageSet, find_data, seeded, split_images, whole

from . import decoding, folder, published

split = published.split  # Y are the classes that ROOT holds
LISTS = ("train_list", "test_list")  # options that name files of their own


def load_domain(
    name: str,
    seed: int = 0,
    role: str = "target",
    *,
    size: int = decoding.SIZE,
    train_fraction: float = 0.8,
    per_class: int | None = None,
    train_list: str = "",
    test_list: str = "",
) -> Domain:
    """The images of ROOT, shorter side scaled to ``size`` and the centre cut out, split within each class by the seed.

    Parameters
    ----------
    per_class : int, optional
        At most so many images of each class, drawn by the seed. Default: all.
    train_list, test_list : str
        Published lists in place of a split of ours: text files with ``PATH COLUMN`` in each line, found as ROOT is. Of
        a path counts what lies below ROOT, as <wnid>/<image>. They are taken as they are, whatever the seed.

    Raises
    ------
    ValueError
        No such root or list; a folder that is none of ImageNet's classes; a class without enough different images for
        both sides; a list whose lines are odd, or that names images which ROOT has not.
    """
    found = listing(name)
    images, labels, prints, left = decoding.decoded(found, whole("size", size, 1))
    said = decoding.tell(found, left)
    if train_list or test_list:
        sides = _published(found, left, train_list, test_list)
    else:
        rng = seeded(seed, "imagenet", found.folder.name, "split")
        kept = published.at_most(labels, per_class, rng)
        try:
            sides = split_images(labels[kept], prints[kept], train_fraction, rng, found.class_names)
        except ValueError as error:
            raise ValueError(f"{found.folder}: {error}; {said or 'left out: nothing'}") from None
        sides = tuple(kept[side] for side in sides)
    columns = np.array([_columns()[wnid] for wnid in found.class_names])
    parts = (ImageSet(torch.from_numpy(images[side]), torch.from_numpy(columns[labels[side]])) for side in sides)
    return Domain(tuple(_columns()), *parts)


def listings(name: str) -> tuple[decoding.Listing, ...]:
    """The files of ROOT, as `listing` has them."""
    return (listing(name),)


def listing(name: str) -> decoding.Listing:
    """The files of ROOT; NotHere if it is not here, ValueError if a folder is none of ImageNet's classes."""
    if not name:
        raise ValueError("'imagenet:' names no folder: expected imagenet:ROOT, with the images in ROOT/<wnid>/")
    found = folder.listing_of(folder.unpacked(name, "<wnid>/<image>"))
    if unknown := [wnid for wnid in found.class_names if wnid not in _columns()]:
        why = "none of ImageNet's 1,000 classes: expected folders named by wnid, such as n01440764"
        raise ValueError(f"{found.folder} holds {decoding.some(unknown)}, {why}")
    return found


def list_file(name: str) -> Path:
    """Where a published list lies, in ``$FTLIB_DATA`` or the working directory."""
    path = find_data(name) if isinstance(name, str) and name else None
    if path is None or not path.is_file():
        raise ValueError(f"{name!r} is no list of images: name a text file with PATH COLUMN in each line")
    return path


@cache
def _columns() -> dict[str, int]:
    """wnid to column, in the order of the columns."""
    from timm.data import ImageNetInfo  # pyright: ignore[reportPrivateImportUsage]  only this family needs timm

    return {wnid: column for column, wnid in enumerate(ImageNetInfo().label_names())}


def _published(found: decoding.Listing, left: decoding.LeftOut, *names: str) -> tuple[np.ndarray, ...]:
    """Positions, among the images that could be decoded, of those that each list names."""
    bad = {path for paths in left.values() for path in paths}
    files = [(path, label) for path, label, *_ in found.files if path not in bad]
    position = {path: i for i, (path, _) in enumerate(files)}
    sides = []
    for name in names:
        side, missing = [], []
        for number, path, column in published.read_list(list_file(name)):
            parts = PurePosixPath(path).parts
            tails = ("/".join(parts[i:]) for i in range(len(parts)))
            if (at := next((position[tail] for tail in tails if tail in position), None)) is None:
                missing.append(path)
            elif (own := _columns()[wnid := found.class_names[files[at][1]]]) != column:
                why = f"column {column} for {wnid}, which is column {own} of ImageNet"
                raise ValueError(f"{name}, line {number}: {why}")
            else:
                side.append(at)
        if missing:
            lacks = f"{found.folder} lacks: {decoding.some(missing)}"
            raise ValueError(f"{name} names {len(missing)} image(s) that {lacks}")
        if not side:
            raise ValueError(f"{name} names no image: expected every image once")
        sides.append(np.sort(np.array(side)))
    every, times = np.unique(np.concatenate(sides), return_counts=True)
    if twice := [files[at][0] for at in every[times > 1]]:
        raise ValueError(f"{decoding.some(twice)} is twice in {names[0]} and {names[1]}: expected every image once")
    shown = [{files[at][1] for at in side} for side in sides]
    if alone := shown[0] ^ shown[1]:
        lone = decoding.some([found.class_names[label] for label in sorted(alone)])
        raise ValueError(f"only one of {names[0]} and {names[1]} has images of {lone}: every class needs both")
    return tuple(sides)
