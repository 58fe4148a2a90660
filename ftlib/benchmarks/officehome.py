"""Office-Home (Venkateswara et al., CVPR 2017) as the paper uses it: 65 objects in four domains, 30 classes seen.

    officehome/<domain>/<class>/*.jpg                         Art, Clipart, Product, Real_World (or "Real World")
    officehome/image_list/<domain>_{training,testing}.txt     the authors' lists: <domain>/<class>/<image> <class id>

below ``$FTLIB_DATA``. The order of the classes, the lists and the seen classes of each source are those of the authors'
code, github.com/OSU-MLB/Fine-Tuning-Is-Fine-If-Calibrated (py/data/dataset.py, py/HT_HARDCODED.py), MIT licence.
"""

from __future__ import annotations

from collections.abc import Sequence

from ftlib import core
from ftlib.core import ClassSplit, Domain, split_classes

from . import decoding, published

GET = (
    "Office-Home, 1.1 GB, for research alone, is asked for at hemanthdv.org/officeHomeDataset.html; image_list is in "
    "the repository OSU-MLB/Fine-Tuning-Is-Fine-If-Calibrated, below asset/OfficeHome"
)
IMAGES = {"Art": 2427, "Clipart": 4365, "Product": 4439, "Real_World": 4357}
NAMES = (
    "Drill Exit_Sign Bottle Glasses Computer File_Cabinet Shelf Toys Sink Laptop Kettle Folder Keyboard Flipflops "
    "Pencil Bed Hammer ToothBrush Couch Bike Postit_Notes Mug Webcam Desk_Lamp Telephone Helmet Mouse Pen Monitor Mop "
    "Sneakers Notebook Backpack Alarm_Clock Push_Pin Paper_Clip Batteries Radio Fan Ruler Pan Screwdriver Trash_Can "
    "Printer Speaker Eraser Bucket Chair Calendar Calculator Flowers Lamp_Shade Spoon Candles Clipboards Scissors TV "
    "Curtains Fork Soda Table Knives Oven Refrigerator Marker"
)
CLASSES = tuple(NAMES.split())
SEEN = {  # by source
    "Art": "2 58 46 21 19 34 7 56 39 30 22 61 33 20 59 53 51 6 16 27 24 44 28 1 37 41 12 36 40 63",
    "Real_World": "14 50 42 38 64 48 13 63 15 24 55 19 60 3 16 41 62 46 2 49 4 11 25 51 32 30 31 6 18 59",
}


def load_domain(
    name: str, seed: int = 0, role: str = "source", *, size: int = decoding.SIZE, subset: bool = False
) -> Domain:
    """A domain's images, shorter side scaled to ``size`` and the centre cut out, split by the authors' lists.

    Raises
    ------
    ValueError
        Unknown domain; the folder or a list is not here; a list that is not the authors', or names images that are not
        here; without ``subset``, another number of images than was published.
    """
    return published.domain(find(name), size, subset)


def split_pair(pair: str) -> tuple[str, str]:
    """The source and the target in a pair's name."""
    return core.split_pair(pair, tuple(IMAGES))


def split(target: object, seed: int, seen: int | Sequence[int] | None, source: str) -> ClassSplit:
    """The seen classes of the authors, or other ones that are asked for; of sources that they lack, 30 drawn."""
    if seen is None:
        seen = [int(own) for own in SEEN[source].split()] if source in SEEN else 30
    return split_classes(len(CLASSES), seed, seen)


def find(name: str) -> published.Found:
    """A domain's images and lists; NotHere if they are not here."""
    if name not in IMAGES:
        raise ValueError(f"unknown Office-Home domain {name!r}: there are {', '.join(IMAGES)}")
    try:
        root = published.place(f"officehome/{name.replace('_', ' ')}", GET)  # as the archive has it
    except FileNotFoundError:
        root = published.place(f"officehome/{name}", GET)
    lists = [published.place(f"officehome/image_list/{name}_{side}.txt", GET) for side in ("training", "testing")]
    sides = []
    for path in lists:
        sides.append(rows := [])
        for number, image, label in published.read_list(path):
            *_, own, file = ["", *image.split("/")]
            if CLASSES[label : label + 1] != (own,):
                where = f"{path.name}, line {number}"
                raise ValueError(f"{where}: {image} has id {label}, not in the authors' order. {GET}")
            rows.append((f"{own}/{file}", label))
    found = published.gather(root, CLASSES, sides, GET)
    return found._replace(lists=lists, published=IMAGES[name])
