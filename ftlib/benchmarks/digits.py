"""Handwritten digits, real strokes, in two domains that share no original: as scanned, and as seen in the street."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ftlib import core
from ftlib.core import Domain, ImageSet, seeded, split_images

from . import drawing

CLASS_NAMES = tuple("0123456789")


def split_pair(pair: str) -> tuple[str, str]:
    """The source and the target in a pair's name."""
    return core.split_pair(pair, tuple(STYLES))


def load_domain(name: str, seed: int = 0, role: str = "source", *, train_fraction: float = 0.7) -> Domain:
    """Dress one domain's originals, about 90 a digit, as images [3, 32, 32], and split them within each class.

    Every other original of scikit-learn's 1,797 belongs to ``scan`` and the rest to ``street``, whatever the seed; the
    seed draws how they look and the split.

    Raises
    ------
    ValueError
        If the domain is unknown or the fraction is not strictly between 0 and 1.
    """
    style = STYLES[_known(name)]
    originals, labels = _originals()
    mine = slice(list(STYLES).index(name), None, len(STYLES))
    originals, labels = originals[mine], labels[mine]
    _, copies = np.unique(originals.reshape(len(originals), -1), axis=0, return_inverse=True)
    sides = split_images(labels, copies, train_fraction, seeded(seed, "digits", name, "split"), CLASS_NAMES)

    generator = drawing.torch_generator(seed, "digits", name, "images")
    distances = drawing.view(_distance_fields(originals), style, generator)
    images = drawing.to_uint8(style.paint(distances, generator))
    return Domain(CLASS_NAMES, *(ImageSet(images[side], torch.from_numpy(labels[side])) for side in sides))


def paint_scan(d: Tensor, generator: Generator) -> Tensor:
    """Grey pencil on nearly white paper."""
    paper, pencil = drawing.uniform(d, 0.85, 1.0, generator), drawing.uniform(d, 0.05, 0.35, generator)
    grain = 0.02 * torch.randn(d.shape, generator=generator)
    return (torch.lerp(paper, pencil, drawing.cover(d, 2.0)) + grain).expand(-1, 3, -1, -1)


STYLES = {
    "scan": drawing.Style(scale=(0.75, 0.85), turn=0.05, slant=0.05, tilt=0.0, paint=paint_scan),
    "street": drawing.Style(scale=(0.65, 0.85), turn=0.18, slant=0.25, tilt=0.30, paint=drawing.paint_photo),
}


def _known(name: str) -> str:
    if name not in STYLES:
        raise ValueError(f"unknown digits domain {name!r}: there are {', '.join(STYLES)}")
    return name


@lru_cache(maxsize=1)
def _originals() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits  # takes a second to import, and only this family needs it

    digits = load_digits()
    return digits.images.astype(np.float32), digits.target.astype(np.int64)  # [1797, 8, 8] from 0 to 16, [1797]


def _distance_fields(originals: np.ndarray) -> Tensor:
    """Roughly the signed distance to each stroke's edge, in field pixels [N, 48, 48].

    An original pixel counts the dark ones among 4 x 4 finer pixels, so that around an edge its value grows in step with
    the distance, by 16 in one original pixel.
    """
    inner = round(drawing.FIELD * drawing.FILL)
    ink = torch.from_numpy(originals)[:, None] / 16 - 0.5  # 0 on the edge, in original pixels
    ink = F.interpolate(ink, (inner, inner), mode="bicubic")[:, 0] * (inner / originals.shape[-1])
    margin = drawing.FIELD - inner
    around = (margin // 2, margin - margin // 2) * 2
    return F.pad(ink, around, value=-0.5 * inner / originals.shape[-1])
