"""What the families of benchmarks share: a domain, seeded randomness, and the two splits, of classes and of images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .core import ClassSplit, ImageSet


@dataclass(frozen=True)
class Domain:
    """One domain alone, which is all that pre-training needs: class c is ``class_names[c]``."""

    class_names: tuple[str, ...]
    train: ImageSet
    test: ImageSet


def whole(name: str, value: int, low: int, high: int | None = None) -> int:
    """The value, if it is an integer from low to high; a ValueError that names it otherwise."""
    if not isinstance(value, int) or isinstance(value, bool) or value < low or (high is not None and value > high):
        raise ValueError(f"{name}={value!r}: expected an integer {f'from {low} to {high}' if high else f'>= {low}'}")
    return value


def seeded(seed: int, *purpose: str) -> np.random.Generator:
    """A generator of its own for every seed and purpose: the same bits in every process and on every machine."""
    return np.random.default_rng([whole("seed", seed, 0), *"/".join(purpose).encode()])


def split_classes(num_classes: int, seed: int = 0, seen: int | Sequence[int] | None = None) -> ClassSplit:
    """Draw the fine-tuning classes: the first ``seen`` of one order of the classes, half of them when None.

    A sequence of class ids is taken as it is.

    The order depends on the number of classes and the seed alone, so that all domains and methods share it, and a
    larger ``seen`` adds classes to those of a smaller one.

    Raises
    ------
    ValueError
        If ``seen`` leaves a side empty, or names a class that is not there.
    """
    if isinstance(seen, Sequence):
        absent = [c for c in range(num_classes) if c not in set(seen)]
        if outside := sorted(set(seen) - set(range(num_classes))):
            raise ValueError(f"seen classes {outside}: expected ids from 0 to {num_classes - 1}")
        return ClassSplit(seen, absent)
    seen = num_classes // 2 if seen is None else whole("seen", seen, 1, num_classes - 1)
    order = seeded(seed, "classes").permutation(num_classes)
    return ClassSplit(order[:seen], order[seen:])


def fingerprints(images: Iterable[np.ndarray]) -> np.ndarray:
    """A digest [N] of each image, by which `split_images` knows its copies."""
    return np.array([hashlib.sha256(image.tobytes()).hexdigest() for image in images])


def split_images(
    labels: np.ndarray, copies: np.ndarray, train_fraction: float, rng: np.random.Generator, class_names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Split every class into training and test images, as near to ``train_fraction`` as its copies allow.

    Parameters
    ----------
    labels : array
        int [N], class ids.
    copies : array
        [N]; images of one class with equal entries are copies of each other and stay on one side.
    train_fraction : float
        Share of training images in each class, strictly between 0 and 1.
    rng : Generator
        Draws the order in which the images of a class are dealt out.
    class_names : sequence of str
        Names for the error message.

    Returns
    -------
    train, test : array
        int [.], ascending positions; together they are 0..N-1.

    Raises
    ------
    ValueError
        If the fraction is out of range, or if a class cannot fill both sides.
    """
    if not 0 < train_fraction < 1:
        raise ValueError(f"train_fraction={train_fraction!r}: expected a number between 0 and 1, both excluded")
    is_train = np.zeros(len(labels), dtype=bool)
    for label, name in enumerate(class_names):
        members = np.flatnonzero(labels == label)
        _, group, sizes = np.unique(copies[members], return_inverse=True, return_counts=True)
        if len(sizes) < 2:
            raise ValueError(
                f"class {name!r} has {len(members)} image(s), {len(sizes)} of them different: "
                "it needs two that differ, one to train on and one to test on"
            )
        order = rng.permutation(len(sizes))
        dealt = np.cumsum(sizes[order])[:-1]  # images dealt so far; the last group always remains for testing
        cut = np.abs(dealt - train_fraction * len(members)).argmin() + 1
        is_train[members] = np.isin(group, order[:cut])
    return np.flatnonzero(is_train), np.flatnonzero(~is_train)


def split_pair(pair: str, domains: Sequence[str]) -> tuple[str, str]:
    """The source and the target in "SOURCE-TARGET", where a domain's name may itself hold hyphens.

    Raises
    ------
    ValueError
        If no hyphen, or more than one, parts the name into two of the domains, or if both are the same.
    """
    halves = [(pair[:i], pair[i + 1 :]) for i, letter in enumerate(pair) if letter == "-"]
    found = [(source, target) for source, target in halves if source in domains and target in domains]
    if len(found) != 1 or found[0][0] == found[0][1]:
        why = "is ambiguous" if len(found) > 1 else "names one domain twice" if found else "is not a pair of domains"
        raise ValueError(f"{pair!r} {why}: expected SOURCE-TARGET of {', '.join(domains)}")
    return found[0]
