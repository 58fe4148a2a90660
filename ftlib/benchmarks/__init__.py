"""Where images come from: `load` gives a pair of domains as device-ready tensors, by a name.

    load("glyphs/print-neon")             characters in four domains, drawn on the spot
    load("digits/mnist-scan")             handwritten digits: MNIST's and scikit-learn's
    load("folder:ROOT/SOURCE-TARGET")     ROOT/<domain>/<class>/*.jpg, as Office-31 and its kin are laid out
    load("imagenet:ROOT")                 ROOT/<wnid>/*.jpg, for a classifier that brings ImageNet's own head
    load("officehome/Art-Product")        Office-Home, by the paper's lists and seen classes
    load("vtab/dtd")                      a set of VTAB, for a classifier whose head are CLIP's embeddings of the names
    load("iwildcam/top-1")                a camera trap of iWildCam against all others

A family is a module with ``load_domain(name, seed, role, **options)`` and ``split_pair(pair)``. Every family takes the
options of a pair for a single domain too, so that a source can be pre-trained on without its target. Those of `GIVEN`
have no pairs: the head is given, and there is a target alone. Files are told by ``listings``, or by ``find``; seen
classes are drawn by ``split(target, seed, seen, source)``, where it is not `ftlib.core.split_classes` over all.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from ftlib.core import Benchmark, ClassSplit, Domain, ImageSet, split_classes

from . import decoding, digits, drawing, folder, glyphs, imagenet, iwildcam, officehome, published, vtab
from .imagenet import LISTS, list_file

__all__ = [
    "LISTS", "Benchmark", "ClassSplit", "Domain", "ImageSet",
    "domain_names", "has_source", "identity", "left_out", "list_file", "load", "load_domain", "load_target",
    "modules_of", "source_of",
]  # fmt: skip

FAMILIES: dict[str, ModuleType] = {
    "glyphs/": glyphs, "digits/": digits, "folder:": folder, "imagenet:": imagenet,
    "officehome/": officehome, "vtab/": vtab, "iwildcam/": iwildcam,
}  # fmt: skip
GIVEN = {"imagenet:": "ImageNet", "vtab/": "CLIP"}  # what the classifier has learnt, where there is no source
# Options that leave the source domain as it is.
OF_TARGET = ("seen", "tail", "target_per_class", "stay", "other", "stay_of", "drift", "since")
_drawn: dict[tuple[Any, ...], Domain] = {}  # the last one: many runs of a sweep ask for the same images in a row


def load(
    name: str, seed: int = 0, seen: int | Sequence[int] | None = None, tail: float = 1.0, **options: Any
) -> Benchmark:
    """A source domain with all classes and a target domain of which fine-tuning sees some.

    Parameters
    ----------
    name : str
        ``glyphs/SOURCE-TARGET``, ``digits/SOURCE-TARGET``, ``folder:ROOT/SOURCE-TARGET``, ``officehome/SOURCE-TARGET``,
        ``iwildcam/LOCATION``; or ``imagenet:ROOT``, ``vtab/SET``, of which ``source`` and ``source_test`` are empty.
    seed : int
        Of the images that are drawn, their split into training and test, and the choice of the seen classes, which
        is the same for all pairs of as many classes.
    seen : int or sequence of int, optional
        Number of seen classes, or their ids. Default: half of them, rounded down; of Office-Home the paper's.
    tail : float
        How many times fewer training images of the target the last seen class keeps than the first. In between the
        number falls geometrically; two are left at least, and absent classes keep theirs.
    options
        Of the family's ``load_domain``.

    Raises
    ------
    ValueError
        Unknown family, domain or option, or a number out of range; the message names it and says what there is.
    """
    target, split = load_target(name, seed, seen, tail, **options)
    if not has_source(name):
        none = ImageSet(target.train.images[:0], target.train.labels[:0])
        return Benchmark(name, target.class_names, split, none, none, target.train, target.test)
    source_name, source_options = source_of(name, options)
    source = load_domain(source_name, seed, **source_options)
    return Benchmark(name, source.class_names, split, source.train, source.test, target.train, target.test)


def load_domain(name: str, seed: int = 0, **options: Any) -> Domain:
    """One domain alone, in the role of a source: ``glyphs/print``, ``digits/scan`` or ``folder:ROOT/DOMAIN``."""
    family, rest = _family(name)
    return _load(family, rest, seed, "source", options)


def load_target(
    name: str, seed: int = 0, seen: int | Sequence[int] | None = None, tail: float = 1.0, **options: Any
) -> tuple[Domain, ClassSplit]:
    """The target of a pair and its class split, without the cost of the source."""
    family, rest = _family(name)
    if isinstance(tail, bool) or not isinstance(tail, int | float) or not tail >= 1:
        raise ValueError(f"tail={tail!r}: expected 1 or more, how many times fewer images the last seen class keeps")
    source_name, target_name = family.split_pair(rest) if has_source(name) else ("", rest)
    if hasattr(family, "check_pair"):
        family.check_pair(source_name, target_name)
    if any(options.get(name) for name in ("stay", "other", "drift")):
        options["pair"] = source_name, seen
    target = _load(family, target_name, seed, "target", options)
    if hasattr(family, "split"):
        split = family.split(target, seed, seen, source_name)
    else:
        split = split_classes(len(target.class_names), seed, seen)
    return (replace(target, train=_long_tail(target.train, split.seen, tail)) if tail > 1 else target), split


def source_of(name: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name of a pair's source domain and the options that bear on it: the same for all targets of a source.

    Where there is no source, the target stands in, on which a model with its own head is left as it is.
    """
    family, rest = _family(name)
    own = family.split_pair(rest)[0] if has_source(name) else rest
    return name.removesuffix(rest) + own, {k: v for k, v in options.items() if k not in OF_TARGET}


def has_source(name: str) -> bool:
    """Whether there are images to pre-train on; else the classifier comes with a head of its own."""
    return not name.startswith(tuple(GIVEN))


def domain_names(name: str) -> tuple[str, str]:
    """The two domains of a pair, without family and folder: ("print", "neon"); ("ImageNet", …) if it has no source."""
    family, rest = _family(name)
    for prefix, learnt in GIVEN.items():
        if name.startswith(prefix):
            return learnt, rest.rstrip("/").rpartition("/")[2]
    source, target = (part.rsplit("/", 1)[-1] for part in family.split_pair(rest))
    return source, target


def identity(name: str) -> str:
    """What a pair's or a domain's images are, beyond its name: "" where they are drawn, else a digest of their files.

    Raises
    ------
    FileNotFoundError
        The images are not here.
    """
    listed, lists = _files(name)
    texts = [hashlib.sha256(path.read_bytes()).hexdigest()[:20] for path in lists]
    return "+".join([*map(decoding.identity, listed), *texts])


def left_out(names: str | Iterable[str], data: Mapping[str, Any] | None = None) -> dict[str, int]:
    """How many files and folders of one pair or domain, or of several, take no part, by reason, each domain once.

    Empty where images are drawn, and where those of a run store are not here.
    """
    counts: dict[str, int] = {}
    with suppress(FileNotFoundError):
        names = [names] if isinstance(names, str) else names
        for listed in {listed.key: listed for name in names for listed in _files(name)[0]}.values():
            for why, which in decoding.left_out(listed, (data or {}).get("size", decoding.SIZE)).items():
                counts[why] = counts.get(why, 0) + len(which)
    counts.pop(folder.POOLED, None)
    return dict(sorted(counts.items()))


def modules_of(name: str) -> tuple[ModuleType, ...]:
    """The modules, beside this one, that a benchmark's images depend on."""
    family, _ = _family(name)
    if family is vtab:
        from ftlib import clip  # the classifier that such images are for; takes seconds to import, as timm does

        return family, published, decoding, clip
    beside = {
        glyphs: (drawing,), digits: (), folder: (decoding,), imagenet: (published, folder, decoding),
    }  # fmt: skip
    return (family, *beside.get(family, (published, decoding)))


def _files(name: str) -> tuple[list[decoding.Listing], list[Path]]:
    """The files of a domain, or of both in a pair, and the lists that say what they are; nothing where all is drawn."""
    family, rest = _family(name)
    if hasattr(family, "find"):
        parts: tuple[str, ...] = (rest,)
        if has_source(name):
            with suppress(ValueError):  # it is one domain alone
                parts = family.split_pair(rest)
        found = [family.find(part) for part in parts]
        return [of.listing for of in found], [path for of in found for path in of.lists]
    return ([*family.listings(rest)] if hasattr(family, "listings") else []), []


def _long_tail(images: ImageSet, classes: Sequence[int], tail: float) -> ImageSet:
    keep = torch.ones(len(images), dtype=torch.bool)
    for rank, c in enumerate(classes):
        own = (images.labels == c).nonzero()[:, 0]
        keep[own[max(round(len(own) * tail ** (-rank / max(len(classes) - 1, 1))), 2) :]] = False
    return ImageSet(images.images[keep], images.labels[keep])


def _family(name: str) -> tuple[ModuleType, str]:
    for prefix, family in FAMILIES.items():
        if isinstance(name, str) and name.startswith(prefix):
            return family, name.removeprefix(prefix)
    known = (
        "glyphs/…, digits/…, officehome/…, folder:ROOT/… with SOURCE-TARGET, imagenet:ROOT, vtab/SET, iwildcam/LOCATION"
    )
    raise ValueError(f"unknown benchmark {name!r}: expected {known}")


def _load(family: ModuleType, name: str, seed: int, role: str, options: Mapping[str, Any]) -> Domain:
    known = [p.name for p in inspect.signature(family.load_domain).parameters.values() if p.kind is p.KEYWORD_ONLY]
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(f"unknown option {', '.join(unknown)}: this benchmark takes seen, tail, {', '.join(known)}")
    if family not in (glyphs, digits):  # its files may have changed since
        return family.load_domain(name, seed, role, **options)
    asked = (family, name, seed, role, repr(sorted(options.items())))
    domain = _drawn.get(asked)
    if domain is None:
        domain = family.load_domain(name, seed, role, **options)
        _drawn.clear()
        _drawn[asked] = domain
    return deepcopy(domain)  # its own, to write into
