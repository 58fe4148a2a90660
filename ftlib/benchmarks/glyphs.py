"""Characters in four domains, print, neon, chalk and photo: a benchmark that needs no download.

Every character of ten typefaces is kept once, as its distance field; the domains' brushes paint random views of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.ft2font import FT2Font
from torch import Generator, Tensor

from ftlib import core
from ftlib.core import Domain, ImageSet

from .drawing import (
    FIELD,
    SIZE,
    Style,
    distance_field,
    paint_chalk,
    paint_neon,
    paint_photo,
    paint_print,
    to_uint8,
    torch_generator,
    view,
)

# No I, O, l, o (1 and 0 stand for them), no lower case that is its upper case made small, no Greek twin of a Latin
# letter. The first n of them are what ``classes=n`` keeps.
CHARACTERS = "0123456789ABCDEFGHJKLMNPQRSTUVWXYZabdefghikmnrtΓΔΘΛΞΣΦΨΩαβγδεζλμξπσω"
FACES = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique", "STIXGeneral",
    "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic", "STIXGeneralBol",
)  # fmt: skip
BATCH = 256  # images drawn at once: small enough for the cache of a core; part of what a seed means


def load_domain(
    name: str,
    seed: int = 0,
    role: str = "source",
    *,
    classes: int | None = None,
    source_per_class: int = 120,
    target_per_class: int = 60,
    test_per_class: int = 20,
    stay: float = 0.0,
    other: float = 0.0,
    stay_of: str = "all",
    drift: float = 0.0,
    since: float = 0.0,
    pair: tuple[str, int | Sequence[int] | None] | None = None,
) -> Domain:
    """Draw one domain: training images [3, 32, 32] as its role asks and, independently of them, test images.

    A target's shift may depend on the class: a share ``stay`` of the classes keeps the source's style there, a share
    ``other`` is drawn in a third domain's. The seed draws them from all classes, or from those that ``stay_of`` names,
    "seen" or "absent"; the images of the rest are the same with and without.

    Or a target is a stream: an image of time u is drawn in the third domain's style with probability ``drift`` · u.
    Times are drawn from 1/2 to 1 for test images, from ``since`` to ``since`` + 1/2 for training images. With more
    drift, or later, more images are of that style; all others are the same as without.

    Such shifts need to know the ``pair``, the name of the source and ``seen``, which `ftlib.benchmarks.load_target`
    fills in.

    Raises
    ------
    ValueError
        If the domain is unknown, or if a number is out of range.
    """
    if name not in STYLES:
        raise ValueError(f"unknown glyph domain {name!r}: there are {', '.join(STYLES)}")
    classes = len(CHARACTERS) if classes is None else classes
    if not isinstance(classes, int) or not 2 <= classes <= len(CHARACTERS):
        raise ValueError(f"classes={classes!r}: expected 2 to {len(CHARACTERS)}")
    numbers = {"train": source_per_class if role == "source" else target_per_class, "test": test_per_class}
    for side, per_class in numbers.items():
        if not isinstance(per_class, int) or per_class < 1:
            raise ValueError(f"{per_class!r} {side} images per class: expected an integer of at least 1")
    odd = _odd_classes(name, seed, classes, stay, other, stay_of, pair) if role == "target" else {}
    late = _late_style(name, drift, since, stay + other, pair) if role == "target" else None
    sides = []
    for side, per_class in numbers.items():
        labels = torch.arange(classes).repeat_interleave(per_class)
        drawn = render(name, labels, torch_generator(seed, "glyphs", name, side))
        for style, chosen in odd.items():
            mine = torch.isin(labels, chosen)
            images = render(style, labels[mine], torch_generator(seed, "glyphs", name, side, style)).images
            drawn.images[mine] = images
        if late:
            start = 0.5 if side == "test" else since
            moved = _moved(len(labels), drift, start, torch_generator(seed, "glyphs", name, side, "time"))
            images = render(late, labels, torch_generator(seed, "glyphs", name, side, late)).images
            drawn.images[moved] = images[moved]
        sides.append(drawn)
    return Domain(tuple(CHARACTERS[:classes]), *sides)


def split_pair(pair: str) -> tuple[str, str]:
    """The source and the target in a pair's name."""
    return core.split_pair(pair, tuple(STYLES))


def _odd_classes(
    name: str,
    seed: int,
    classes: int,
    stay: float,
    other: float,
    stay_of: str,
    pair: tuple[str, int | Sequence[int] | None] | None,
) -> dict[str, Tensor]:
    """The classes [.] of a target that are drawn in another domain's style, by that domain's name."""
    are_numbers = isinstance(stay, int | float) and isinstance(other, int | float)
    if not (are_numbers and 0 <= stay <= 1 and 0 <= other <= 1 and stay + other <= 1):
        raise ValueError(f"stay={stay!r}, other={other!r}: expected shares of the classes, together at most 1")
    if stay_of not in ("all", "seen", "absent"):
        raise ValueError(f"stay_of={stay_of!r}: expected all, seen or absent")
    if not stay + other:
        return {}
    if pair is None:
        raise ValueError(f"stay={stay!r}, other={other!r}: these need a pair of domains, SOURCE-TARGET")
    source, seen = pair
    third = _third(source, name)
    pool = range(classes) if stay_of == "all" else getattr(core.split_classes(classes, seed, seen), stay_of)
    order = torch.from_numpy(core.seeded(seed, "glyphs", "odd").permutation(pool))
    first, last = round(stay * len(order)), round((stay + other) * len(order))
    chosen = {source: order[:first], third: order[first:last]}
    return {style: own for style, own in chosen.items() if len(own)}


def _third(source: str, target: str) -> str:
    return next(style for style in STYLES if style not in (source, target))


def _late_style(
    name: str, drift: float, since: float, odd: float, pair: tuple[str, int | Sequence[int] | None] | None
) -> str | None:
    """The style that a stream drifts to; None for a target that stands still."""
    for option, value, most in (("drift", drift, 1.0), ("since", since, 0.5)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
            raise ValueError(f"{option}={value!r}: expected a number from 0 to {most:g}")
    if not drift:
        return None
    if odd:
        raise ValueError(f"drift={drift!r} beside stay or other: expected one or the other")
    if pair is None:
        raise ValueError(f"drift={drift!r}: it needs a pair of domains, SOURCE-TARGET")
    return _third(pair[0], name)


def _moved(count: int, drift: float, start: float, generator: Generator) -> Tensor:
    """bool [N], which images of a stream have the third style; ``start`` is that of half a unit of time."""
    times, thresholds = torch.rand(2, count, generator=generator)
    return thresholds < drift * (start + times / 2)


def render(domain: str, labels: Tensor, generator: Generator) -> ImageSet:
    """Draw one image for every label, each with its own typeface, view and colours.

    Parameters
    ----------
    domain : str
        A key of ``STYLES``.
    labels : Tensor
        int64 [N], positions in ``CHARACTERS``.
    generator : Generator
        On the CPU; decides everything that is random.

    Returns
    -------
    ImageSet
        uint8 [N, 3, 32, 32] and the labels.
    """
    fields, style = distance_fields(), STYLES[domain]
    images = torch.empty(len(labels), 3, SIZE, SIZE, dtype=torch.uint8)
    for chosen, out in zip(labels.split(BATCH), images.split(BATCH), strict=True):
        faces = torch.randint(len(FACES), (len(chosen),), generator=generator)
        out.copy_(to_uint8(style.paint(view(fields[faces, chosen], style, generator), generator)))
    return ImageSet(images, labels)


STYLES = {
    "print": Style(scale=(0.6, 0.85), turn=0.10, slant=0.08, tilt=0.0, paint=paint_print),
    "neon": Style(scale=(0.6, 0.85), turn=0.10, slant=0.08, tilt=0.05, paint=paint_neon),
    "chalk": Style(scale=(0.6, 0.85), turn=0.18, slant=0.20, tilt=0.05, paint=paint_chalk),
    "photo": Style(scale=(0.5, 0.75), turn=0.18, slant=0.15, tilt=0.30, paint=paint_photo),
}


@lru_cache(maxsize=1)
def distance_fields() -> Tensor:
    """Signed distances to the outline, positive inside, in field pixels: float32 [faces, characters, 48, 48]."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    fonts = [FT2Font(str(folder / f"{face}.ttf")) for face in FACES]
    for font in fonts:
        font.set_size(72, 72)  # 72 points at 72 dots an inch: strokes of 5 to 15 pixels, fine enough to shrink from
    fields = [_distance_field(font, character) for font, character in product(fonts, CHARACTERS)]
    return torch.cat(fields).view(len(FACES), len(CHARACTERS), FIELD, FIELD)


def _distance_field(font: FT2Font, character: str) -> Tensor:
    font.set_text(character)
    font.draw_glyphs_to_bitmap(antialiased=True)
    return distance_field(np.asarray(font.get_image()) > 127)
