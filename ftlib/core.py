"""The ground floor, which everything else stands on: a class split, images, domains, a model's outputs, and seeds."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn


def class_ids(classes: Iterable[int], num_classes: int | None = None, name: str = "classes") -> tuple[int, ...]:
    """Class ids in ascending order, from ids or from a boolean mask [C], which names the classes where it is true.

    Parameters
    ----------
    classes : iterable of int, or bool [C]
    num_classes : int, optional
        C, the number of columns.
    name : str
        What the error message calls them.

    Raises
    ------
    ValueError
        Other types, such as 0.7 or "a", ids mixed with booleans, a mask of another length, repeats, and ids that are
        negative or too large.
    """
    try:
        entries: list[Any] = [e.item() if isinstance(e, Tensor | np.generic) and e.ndim == 0 else e for e in classes]
    except TypeError:
        raise ValueError(f"the {name} are {classes!r}: expected a list of integers, or a mask of booleans") from None
    if entries and all(isinstance(e, bool) for e in entries):
        if len(entries) != (num_classes or len(entries)):
            raise ValueError(f"the {name} are a mask of {len(entries)}, expected one entry for each of {num_classes}")
        return tuple(c for c, named in enumerate(entries) if named)
    if odd := [e for e in entries if isinstance(e, bool) or not isinstance(e, int)]:
        raise ValueError(f"the {name} hold {odd[0]!r}: expected integers, or a mask of booleans alone")
    ids = sorted(entries)
    if outside := [c for c in ids if c < 0 or (num_classes is not None and c >= num_classes)]:
        expected = "of 0 or more, which are columns" if num_classes is None else f"from 0 to {num_classes - 1}"
        raise ValueError(f"{name} {outside}: expected ids {expected}")
    if repeated := sorted({a for a, b in pairwise(ids) if a == b}):
        mask = ", or, if it is a mask, take mask == 1: a mask is of booleans" if ids[-1] <= 1 else ""
        raise ValueError(f"the {name} repeat {repeated}: name every class once{mask}")
    return tuple(ids)


@dataclass(frozen=True, init=False)
class ClassSplit:
    """The fine-tuning classes S (``seen``) and the absent classes U (``absent``); Y is their union.

    Parameters
    ----------
    seen, absent : iterable of int, or bool [C]
        Class ids, that is columns of the head, or a mask of them, as `class_ids` takes them. Kept in ascending order.

    Raises
    ------
    ValueError
        If a side is empty, repeats a class or shares one with the other side, or what `class_ids` refuses.

    Examples
    --------
    >>> ClassSplit(seen=[4, 0], absent=[2])
    ClassSplit(seen=(0, 4), absent=(2,))
    >>> ClassSplit(seen=[True, False, True], absent=[1]).classes  # a mask says for every class whether it is meant
    (0, 1, 2)
    """

    seen: tuple[int, ...]
    absent: tuple[int, ...]

    def __init__(self, seen: Iterable[int], absent: Iterable[int]) -> None:
        for name, side in (("seen", seen), ("absent", absent)):
            if not (classes := class_ids(side, name=f"{name} classes")):
                raise ValueError(f"the {name} classes are empty: a split needs at least one class on each side")
            object.__setattr__(self, name, classes)
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
        for name, part in (("images", self.images), ("labels", self.labels)):
            if not isinstance(part, Tensor):
                kind = type(part).__name__
                raise ValueError(f"{name} are a {kind}, expected a Tensor: torch.as_tensor makes it of numpy's arrays")
        if self.images.dtype != torch.uint8 or self.images.ndim != 4 or self.images.shape[1] != 3:
            raise ValueError(f"images are {self.images.dtype} {list(self.images.shape)}, expected uint8 [N, 3, H, W]")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            kind = f"{self.labels.dtype} {list(self.labels.shape)}"
            raise ValueError(f"labels are {kind}, expected int64 [{len(self.images)}]")

    def __len__(self) -> int:
        return len(self.labels)

    def of(self, classes: Iterable[int]) -> ImageSet:
        """The images of the given classes, in their present order."""
        keep = torch.isin(self.labels, torch.tensor(class_ids(classes), dtype=torch.int64, device=self.labels.device))
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


@dataclass(frozen=True)
class Domain:
    """One domain alone, which is all that pre-training needs: class c is ``class_names[c]``."""

    class_names: tuple[str, ...]
    train: ImageSet
    test: ImageSet


class Outputs(NamedTuple):
    """All that the pure half of ftlib ever sees of a model, on the CPU."""

    features: Tensor  # float32 [N, D]
    logits: Tensor  # float32 [N, C]
    labels: Tensor  # int64 [N]


# --- seeds and splits -------------------------------------------------------------------------------------------------


def whole(name: str, value: int, low: int, high: int | None = None) -> int:
    """The value, if it is an integer from low to high; a ValueError that names it otherwise."""
    odd = not isinstance(value, int | np.integer) or isinstance(value, bool)
    if odd or value < low or (high is not None and value > high):
        raise ValueError(f"{name}={value!r}: expected an integer {f'from {low} to {high}' if high else f'>= {low}'}")
    return int(value)


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
        seen = class_ids(seen, num_classes, "seen classes")
        return ClassSplit(seen, set(range(num_classes)) - set(seen))
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
    if not isinstance(train_fraction, int | float) or not 0 < train_fraction < 1:
        raise ValueError(f"train_fraction={train_fraction!r}: expected a number between 0 and 1, both excluded")
    is_train = np.zeros(len(labels), dtype=bool)
    for label, name in enumerate(class_names):
        members = np.flatnonzero(labels == label)
        _, group, sizes = np.unique(copies[members], return_inverse=True, return_counts=True)
        if len(sizes) < 2:
            has = f"{len(members)} image(s), {len(sizes)} of them different"
            raise ValueError(f"class {name!r} has {has}: expected two that differ, one to train on and one to test on")
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


# --- files that a reader brings ---------------------------------------------------------------------------------------


class NotHere(FileNotFoundError, ValueError):
    """What was named is not here: a value that one may mend, and a file that another machine may have."""


def find_data(name: str | Path) -> Path:
    """A file or folder of the reader's: in ``$FTLIB_DATA``, then in the working directory; "~" is the home folder.

    Raises
    ------
    NotHere
        It is in neither: a FileNotFoundError and a ValueError.
    """
    places = [Path(os.environ["FTLIB_DATA"]).expanduser()] if os.environ.get("FTLIB_DATA") else []
    places.append(Path())
    for place in places:
        if (path := place / Path(name).expanduser()).exists():
            return path
    looked = ", ".join(str(place.resolve()) for place in places)
    raise NotHere(f"no {str(name)!r} in {looked}: set FTLIB_DATA to the folder that holds it")


# --- the last layer of a model ----------------------------------------------------------------------------------------


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, out of DataParallel, DistributedDataParallel, AveragedModel or `torch.compile`."""
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel, torch.optim.swa_utils.AveragedModel)
    while isinstance(model, wrappers) or hasattr(model, "_orig_mod"):
        model = getattr(model, "module" if isinstance(model, wrappers) else "_orig_mod")
    return model


def head_layers(model: nn.Module) -> list[Any]:
    """The modules that give a model its logits: one, or two where it averages two heads.

    Each is the last with a weight [C, D] or [C, D, 1, 1] in what a timm model calls its classifier, or in the whole of
    any other model.

    Raises
    ------
    TypeError
        There is no such layer, or there are more.
    ValueError
        The model is on the device meta.
    """
    model = unwrapped(model)
    classifier: Any = getattr(model, "get_classifier", lambda: model)()
    layers: list[Any] = []
    for part in classifier if isinstance(classifier, tuple | nn.ModuleList) else [classifier]:
        if linear := [layer for layer in part.modules() if _is_linear(layer)]:
            # Two of one shape in a classifier are heads side by side: in a row, the last would be narrower.
            beside = [layer for layer in linear[:-1] if layer.weight.shape == linear[-1].weight.shape]
            layers += [*(beside if classifier is not model else []), linear[-1]]
    if any(layer.weight.is_meta for layer in layers):
        raise ValueError("the model is on the device meta, where weights have no values: load them first")
    if not 1 <= len(layers) <= 2:
        kind = type(classifier).__name__
        raise TypeError(f"the head is {kind}: expected one linear layer or 1×1 Conv2d at its end, or two side by side")
    return layers


def _is_linear(layer: nn.Module) -> bool:
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, Tensor) or isinstance(layer, nn.Embedding):
        return False
    return weight.ndim == 2 or (weight.ndim == 4 and weight.shape[2:] == (1, 1) and getattr(layer, "groups", 1) == 1)
