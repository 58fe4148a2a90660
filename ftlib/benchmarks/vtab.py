"""Eight sets of VTAB (Zhai et al., 2019) in the layout of VTAB-1k: 1,000 images to train on, the test set as published.

    vtab-1k/<set>/images/...                          below $FTLIB_DATA
    vtab-1k/<set>/{train800val200,test}.txt           <path below the set's folder> <class id>
    vtab-1k/<set>/classnames.txt                      a name a line, in the order of the ids; without it, the ids

as the paper's authors distribute it (github.com/OSU-MLB/MLB-VTAB). There is no source domain: the classifier is CLIP,
and its head are its own embeddings of the names (`ftlib.clip`). Y are the classes that both lists show.
"""

from __future__ import annotations

from ftlib.core import Domain

from . import decoding, published

split = published.split  # Y are the classes that both lists show
GET = "vtab-1k.tar.gz, each of its sets under its own licence, is linked from github.com/OSU-MLB/MLB-VTAB"
TRAIN = 1000
SETS = {  # classes, test images
    "caltech101": (102, 6084),
    "cifar": (100, 10000),
    "dtd": (47, 1880),
    "eurosat": (10, 5400),
    "oxford_flowers102": (102, 6149),
    "oxford_iiit_pet": (37, 3669),
    "resisc45": (45, 6300),
    "sun397": (397, 21750),
}


def load_domain(
    name: str, seed: int = 0, role: str = "target", *, size: int = decoding.SIZE, subset: bool = False
) -> Domain:
    """A set's images, shorter side scaled to ``size`` and the centre cut out, split by the published lists.

    Raises
    ------
    ValueError
        Unknown set; the folder or a list is not here; a list with a class that the set has not, or with images that
        are not here; without ``subset``, another number of images than was published.
    """
    return published.domain(find(name), size, subset)


def class_names(name: str) -> tuple[str, ...]:
    """The names of a set's classes in the order of their ids, if classnames.txt is there; else the ids."""
    if name not in SETS:
        raise ValueError(f"unknown set {name!r} of VTAB: there are {', '.join(SETS)}")
    file, number = published.place(f"vtab-1k/{name}", GET) / "classnames.txt", SETS[name][0]
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else map(str, range(number))
    names = tuple(line.strip() for line in lines if line.strip())
    if len(names) != number:
        raise ValueError(f"{file} has {len(names)} names: expected one for each of {number} classes")
    return names


def find(name: str) -> published.Found:
    """A set's images and lists; NotHere if they are not here."""
    names = class_names(name)
    lists = [published.place(f"vtab-1k/{name}/{side}.txt", GET) for side in ("train800val200", "test")]
    sides = [[row[1:] for row in published.read_list(path)] for path in lists]
    if (odd := max(label for rows in sides for _, label in rows)) >= len(names):
        raise ValueError(f"vtab-1k/{name} lists class {odd}: expected ids from 0 to {len(names) - 1}. {GET}")
    found = published.gather(published.place(f"vtab-1k/{name}", GET), names, sides, GET)
    return found._replace(lists=lists, published=TRAIN + SETS[name][1])
