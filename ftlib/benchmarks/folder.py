"""Photographs in folders, ROOT/<domain>/<class>/<image>, as Office-31, Office-Home, PACS and DomainNet are laid out.

A domain is decoded once, in parallel, into one array that is kept in the cache and read from there ever after.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
import warnings
from pathlib import Path

import joblib
import numpy as np
import torch
from PIL import Image, ImageOps
from tqdm import tqdm

from ftlib import core
from ftlib.core import Domain, ImageSet, fingerprints, seeded, split_images, whole


def load_domain(
    name: str, seed: int = 0, role: str = "source", *, size: int = 128, train_fraction: float = 0.7
) -> Domain:
    """The images of ROOT/DOMAIN, shorter side scaled to ``size`` and the centre cut out, split within each class.

    Copies of one image stay on one side of the split, which is the same in either role. A relative ROOT is looked for
    in ``$FTLIB_DATA``, then in the working directory.

    Raises
    ------
    ValueError
        No such root or domain; a class without images, or without enough different ones to fill both sides.
    """
    root, own_name = _root(name)
    if own_name not in domains(root):
        raise ValueError(f"no domain {own_name!r} in {root}: there are {', '.join(domains(root)) or 'none'}")
    class_names = _class_names(root)
    if missing := [c for c in class_names if not (root / own_name / c).is_dir()]:
        raise ValueError(f"domain {own_name!r} of {root} has no class {', '.join(missing)}, which other domains have")
    images, labels = decoded(root / own_name, class_names, whole("size", size, 1))
    if empty := [c for i, c in enumerate(class_names) if i not in set(labels.tolist())]:
        raise ValueError(f"domain {own_name!r} of {root} has no image of class {', '.join(empty)}")
    rng = seeded(seed, "folder", own_name, "split")
    sides = split_images(labels, fingerprints(images), train_fraction, rng, class_names)
    return Domain(class_names, *(ImageSet(torch.from_numpy(images[s]), torch.from_numpy(labels[s])) for s in sides))


def split_pair(pair: str) -> tuple[str, str]:
    """The two domains, each with its root: "office31/amazon-dslr" is "office31/amazon" and "office31/dslr"."""
    name = pair.rpartition("/")[2]
    try:
        known = domains(_root(pair)[0])
    except ValueError:
        if name.count("-") != 1:
            raise
        known = tuple(name.split("-"))  # no need to see the images: a run store may be read where they are not
    parts = core.split_pair(name, known)
    prefix = pair.removesuffix(name)
    return prefix + parts[0], prefix + parts[1]


def domains(root: Path) -> tuple[str, ...]:
    """The folders of a root."""
    return tuple(sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")))


def decoded(folder: Path, class_names: tuple[str, ...], size: int) -> tuple[np.ndarray, np.ndarray]:
    """All images of a domain, uint8 [N, 3, size, size], and their labels, int64 [N], from the cache if it has them.

    Files that are not images are named in a warning and left out; hidden ones are not looked at.
    """
    files = [
        (path, label)
        for label, name in enumerate(class_names)
        for path in sorted((folder / name).iterdir())
        if path.is_file() and not path.name.startswith(".")
    ]
    listing = [(str(p.relative_to(folder)), p.stat().st_size, p.stat().st_mtime_ns) for p, _ in files]
    key = hashlib.sha256(json.dumps([str(folder), size, listing]).encode()).hexdigest()[:20]
    cached = Path(os.environ.get("FTLIB_CACHE") or "~/.cache/ftlib/images").expanduser() / f"{key}.npz"
    if cached.exists():
        try:
            with np.load(cached) as arrays:
                return arrays["images"], arrays["labels"]
        except Exception as error:  # np.load raises half a dozen kinds for a damaged file
            warnings.warn(f"{cached} was damaged ({error}): decoding {folder} again", stacklevel=2)
    work = joblib.Parallel(n_jobs=-1, prefer="threads", return_as="generator")(
        joblib.delayed(_decode)(path, size) for path, _ in files
    )
    results = list(tqdm(work, f"decoding {folder.name}", len(files), unit="image"))
    outcomes = list(zip(files, results, strict=True))
    if bad := [f"{path} ({result})" for (path, _), result in outcomes if isinstance(result, str)]:
        more = f" and {len(bad) - 10} more" if len(bad) > 10 else ""
        warnings.warn(f"{len(bad)} files are not images and were skipped: {'; '.join(bad[:10])}{more}", stacklevel=2)
    good = [(result, label) for (_, label), result in outcomes if not isinstance(result, str)]
    images = np.stack([image for image, _ in good]) if good else np.empty((0, 3, size, size), np.uint8)
    labels = np.array([label for _, label in good], np.int64)
    cached.parent.mkdir(parents=True, exist_ok=True)
    beside = cached.with_name(f".{key}.{uuid.uuid4().hex[:8]}.npz")  # a killed process leaves no half-written cache
    try:
        np.savez(beside, images=images, labels=labels)
        os.replace(beside, cached)
    except OSError as error:
        warnings.warn(f"{cached} could not be written ({error}): {folder} will be decoded again", stacklevel=2)
    finally:
        beside.unlink(missing_ok=True)
    return images, labels


def _decode(path: Path, size: int) -> np.ndarray | str:
    """uint8 [3, size, size], or what is wrong with the file."""
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.has_transparency_data:  # what lies under transparent pixels is arbitrary: show them on white
                upright = upright.convert("RGBA")
                upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
            upright = upright.convert("RGB")
        return np.asarray(ImageOps.fit(upright, (size, size), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    except Exception as error:  # whatever a decoder makes of a broken file
        return f"{type(error).__name__}: {error}"


def _class_names(root: Path) -> tuple[str, ...]:
    """Every class that some domain has."""
    folders = (p for name in domains(root) for p in (root / name).iterdir())
    return tuple(sorted({p.name for p in folders if p.is_dir() and not p.name.startswith(".")}))


def _root(name: str) -> tuple[Path, str]:
    """The root folder in ROOT/NAME, and NAME."""
    root, _, own_name = name.rpartition("/")
    places = [Path(os.environ[key]).expanduser() for key in ("FTLIB_DATA",) if os.environ.get(key)] + [Path()]
    for place in places:
        if root and (place / root).is_dir():
            return place / root, own_name
    looked = ", ".join(str(place.resolve()) for place in places)
    raise ValueError(
        f"no folder {root!r} in {looked}: expected ROOT/<domain>/<class>/<image>; set FTLIB_DATA to where it is"
    )
