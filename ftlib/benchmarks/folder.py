"""Photographs in folders, ROOT/<domain>/<class>/<image>, as Office-31, Office-Home, PACS and DomainNet are laid out.

Folders are taken as they come: classes may have sub-folders, a domain may hold its classes in a folder of their own
(Office-31's ``images``) or in ``train``, ``val`` and ``test``, which are put together. What takes no part is counted.

A domain is decoded once, in parallel, into one array that is kept in the cache and read from there ever after.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import unicodedata
import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from ftlib import core
from ftlib.core import Domain, ImageSet, find_data, fingerprints, seeded, split_images, whole
from ftlib.store import code_hash, write_atomic

SIZE = 128  # pixels, height and width of an image
SYSTEM = ("__MACOSX", "@eaDir", "lost+found")  # folders that computers make; hidden ones are left out as well
LAYERS = ("train", "training", "val", "valid", "validation", "test", "testing")
POOLED = "layers put together"
LeftOut = dict[str, list[str]]  # why something takes no part: its names below the domain's folder


def load_domain(
    name: str, seed: int = 0, role: str = "source", *, size: int = SIZE, train_fraction: float = 0.7
) -> Domain:
    """The images of ROOT/DOMAIN, shorter side scaled to ``size`` and the centre cut out, split within each class.

    Copies of one image stay on one side of the split, which is the same in either role. A relative ROOT is looked for
    in ``$FTLIB_DATA``, then in the working directory. What is left out is said in one warning; see `report`.

    Raises
    ------
    ValueError
        No such root or domain; a class without images, or without enough different ones to fill both sides.
    """
    try:
        listed = listing(name)
    except FileNotFoundError as error:
        raise ValueError(str(error)) from None
    images, labels, prints, left = decoded(listed, whole("size", size, 1))
    said = tell(listed, left)
    if empty := [c for i, c in enumerate(listed.class_names) if i not in set(labels.tolist())]:
        raise ValueError(f"{listed.folder} has no image of class {', '.join(empty)}; {said or 'left out: nothing'}")
    rng = seeded(seed, "folder", _nfc(name.rpartition("/")[2]), "split")
    sides = split_images(labels, prints, train_fraction, rng, listed.class_names)
    parts = (ImageSet(torch.from_numpy(images[side]), torch.from_numpy(labels[side])) for side in sides)
    return Domain(listed.class_names, *parts)


def split_pair(pair: str) -> tuple[str, str]:
    """The two domains, each with its root: "office31/amazon-dslr" is "office31/amazon" and "office31/dslr"."""
    name = pair.rpartition("/")[2]
    try:
        known = tuple(domains(_root(pair)))
    except FileNotFoundError as error:
        if name.count("-") != 1:
            raise ValueError(str(error)) from None
        known = tuple(_nfc(name).split("-"))  # no need to see the images: a run store may be read where they are not
    parts = core.split_pair(_nfc(name), known)
    prefix = pair.removesuffix(name)
    return prefix + parts[0], prefix + parts[1]


def check_pair(source: str, target: str) -> None:
    """That two domains have the same classes; a ValueError names what either lacks."""
    try:
        sides = {name: set(listing(name).class_names) for name in (source, target)}
    except FileNotFoundError as error:
        raise ValueError(str(error)) from None
    lacks = [
        (a, sorted(sides[b] - sides[a]), b) for a, b in ((source, target), (target, source)) if sides[b] - sides[a]
    ]
    if lacks:
        raise ValueError("; ".join(f"{a} has no class {', '.join(names)}, which {b} has" for a, names, b in lacks))


def identity(listed: Listing) -> str:
    """A digest of the names and contents of a domain's files, whatever folder they lie in and whatever their times."""
    kept = _cache() / f"{listed.key}.json"
    try:
        return json.loads(kept.read_text(encoding="utf-8"))["identity"]
    except OSError:
        pass
    except (ValueError, KeyError) as error:
        warnings.warn(f"{kept} was damaged ({error}): reading {listed.folder} again", stacklevel=3)
    paths = [path for path, *_ in listed.files]
    digests = joblib.Parallel(n_jobs=-1, prefer="threads")(joblib.delayed(_digest)(listed.folder / p) for p in paths)
    content = sorted(zip(map(_nfc, paths), digests, strict=True))
    found = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:20]
    _keep({kept: json.dumps({"identity": found}).encode()})
    return found


def left_out(listed: Listing, size: int = SIZE) -> LeftOut:
    """What takes no part in a domain, names by reason; what its images are is taken from the cache, if it is there."""
    try:
        return listed.left | json.loads(_kept(listed, size).read_text(encoding="utf-8"))["left"]
    except (OSError, ValueError, KeyError):  # not decoded yet
        return decoded(listed, size)[-1]


def listings(name: str) -> tuple[Listing, ...]:
    """The domains of ROOT/NAME: itself, or both of a pair. FileNotFoundError if there is no such root."""
    own_name = _nfc(name.rpartition("/")[2])
    alone = own_name in domains(_root(name)) or "-" not in own_name
    return tuple(listing(part) for part in ((name,) if alone else split_pair(name)))


def domains(root: Path) -> dict[str, Path]:
    """The folders of a root, by their names in composed Unicode (NFC)."""
    folders = (p for p in sorted(root.iterdir()) if p.is_dir() and not _no_part(p.name))
    return {_nfc(p.name): p for p in folders}


# --- what a domain's folder holds, by its names alone -----------------------------------------------------------------


class Listing(NamedTuple):
    folder: Path
    class_names: tuple[str, ...]
    files: list[tuple[str, int, int, int]]  # path below the folder, label, bytes, time of change in ns
    left: LeftOut

    @property
    def key(self) -> str:
        """Changes when a file comes, goes or changes its size or its time."""
        return hashlib.sha256(json.dumps([str(self.folder.resolve()), self.files]).encode()).hexdigest()[:20]


def listing(name: str) -> Listing:
    """The files of ROOT/DOMAIN with their classes; FileNotFoundError if there is no such root or domain."""
    root, own_name = _root(name), _nfc(name.rpartition("/")[2])
    there = domains(root)
    if own_name not in there:
        raise FileNotFoundError(f"no domain {own_name!r} in {root}: there are {', '.join(there) or 'none'}")
    found = listing_of(there[own_name])
    return found._replace(left=found.left | _beside(root))


def listing_of(folder: Path) -> Listing:
    """The files of a folder with their classes; a ValueError if it has no two, or some beside ``train``, ``test``."""
    left = LeftOut()
    found = list(_walk(folder, left, (), frozenset({os.path.realpath(folder)})))
    images = [parts for parts, info in found if _maybe_image(parts[-1]) and not _is_folder(info)]

    depth = 0  # of the class folders below the domain's
    while True:
        tops = {parts[depth] for parts in images if len(parts) > depth + 1}
        flat = {parts[depth] for parts in images if len(parts) == depth + 2}  # those that hold images themselves
        layers = {top for top in tops if top.lower() in LAYERS}
        if not tops or flat or (len(tops) > 1 and layers != tops):
            break
        if layers:
            left[POOLED] = sorted(layers)
        depth += 1
    if len(tops) < 2 or layers == tops or len(layers - flat) > 1:
        seen = ", ".join(sorted(tops)) or "no folders with images"
        raise ValueError(
            f"{folder} holds {seen}: expected classes, <class>/<image> or {{train,val,test}}/<class>/<image>"
        )

    class_names = tuple(sorted({_nfc(top) for top in tops}))
    label_of = {name: label for label, name in enumerate(class_names)}
    files = []
    for parts, info in found:
        label, path = label_of.get(_nfc(parts[depth])) if len(parts) > depth else None, "/".join(parts)
        if _is_folder(info):
            if len(parts) == depth + 1 and label is None:
                left.setdefault("folders without images", []).append(path)
        elif info is None:
            left.setdefault(_link_to_nowhere(folder / path), []).append(path)
        elif path.endswith(".dvc"):
            if not (folder / path.removesuffix(".dvc")).exists():
                left.setdefault("DVC pointers without their file", []).append(path)
        elif label is not None and len(parts) > depth + 1:
            files.append((path, label, info.st_size, info.st_mtime_ns))
        elif _maybe_image(parts[-1]):
            left.setdefault("images outside of a class", []).append(path)
    files.sort(key=lambda file: file[1])
    return Listing(folder, class_names, files, left)


def _walk(
    folder: Path | str, left: LeftOut, above: tuple[str, ...], passed: frozenset[str]
) -> Iterator[tuple[tuple[str, ...], os.stat_result | None]]:
    """Everything below a folder, through links, each with None where its link leads nowhere."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            parts = (*above, entry.name)
            try:
                info = entry.stat()
            except OSError:  # also a link that leads to itself
                if not entry.is_symlink():
                    raise
                info = None
            if _no_part(entry.name):
                if _is_folder(info):
                    left.setdefault("hidden or system folders", []).append("/".join(parts))
            elif not _is_folder(info):
                if info is None or stat.S_ISREG(info.st_mode):
                    yield parts, info
            elif (real := os.path.realpath(entry.path)) not in passed:  # else a link back up
                yield parts, info
                yield from _walk(entry.path, left, parts, passed | {real})


def _beside(root: Path) -> LeftOut:
    """The folders of a root that are no domains: without images at any depth."""
    idle = []
    for folder in (p for p in sorted(root.iterdir()) if p.is_dir()):
        within = _walk(folder, {}, (), frozenset({os.path.realpath(folder)}))
        if _no_part(folder.name) or not any(_maybe_image(p[-1]) and not _is_folder(info) for p, info in within):
            idle.append(f"{root.name}/{folder.name}")
    return {"folders that are no domains": idle} if idle else {}


def _is_folder(info: os.stat_result | None) -> bool:
    return info is not None and stat.S_ISDIR(info.st_mode)


def _no_part(name: str) -> bool:
    return name.startswith(".") or name in SYSTEM


def _maybe_image(name: str) -> bool:
    """By its ending: an image's, none, or that of a pointer to one."""
    ending = os.path.splitext(name)[1].lower()
    return ending in ("", ".dvc") or Image.registered_extensions().get(ending) in Image.OPEN


def _link_to_nowhere(path: Path) -> str:
    target = os.readlink(path)
    tool = "git-annex " if "/annex/objects/" in target else "DVC " if "dvc" in target.lower() else ""
    return f"{tool}links that lead nowhere"


def _nfc(name: str) -> str:
    """One form for names that look the same: a Mac takes letters and their accents apart."""
    return unicodedata.normalize("NFC", name)


def tell(listed: Listing, left: LeftOut) -> str:
    """Warn of what was left out, in one sentence that is also returned."""
    said = "; ".join(f"{why}: {len(names)} ({some(names)})" for why, names in left.items())
    if said:
        warnings.warn(f"{listed.folder}: {said}", stacklevel=5)
    return said


def some(names: list[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _root(name: str) -> Path:
    """The root folder in ROOT/NAME."""
    root, _, own_name = name.rpartition("/")
    if not root or not own_name:
        raise ValueError(f"{name!r} names no domain: expected ROOT/SOURCE-TARGET or ROOT/DOMAIN")
    return unpacked(root, "<domain>/<class>/<image>")


def unpacked(root: str, below: str) -> Path:
    """Where a root lies; a ValueError if it is an archive, or another file."""
    if not (path := find_data(root)).is_dir():
        raise ValueError(f"{path} is a file: expected a folder ROOT/{below}; unpack it first")
    return path


# --- what the files hold ----------------------------------------------------------------------------------------------


def decoded(listed: Listing, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, LeftOut]:
    """All images of a domain, from the cache if it has them.

    Returns
    -------
    images, labels, prints : array
        uint8 [N, 3, size, size], a file's mapped into memory; int64 [N]; a digest [N] of each image.
    left : dict
        What was left out, names by reason: of the listing, and files that are no images.
    """
    kept = _kept(listed, size)
    array = kept.with_suffix(".npy")
    try:
        about = json.loads(kept.read_text(encoding="utf-8"))
        images, labels = np.load(array, mmap_mode="r"), np.array(about["labels"], np.int64)
        prints = fingerprints(images)
        if about["check"] == _check(prints, labels):
            return images, labels, prints, listed.left | about["left"]
        warnings.warn(f"{array} was damaged: decoding {listed.folder} again", stacklevel=2)
    except OSError:
        pass
    except (ValueError, KeyError, EOFError) as error:
        warnings.warn(f"{kept} was damaged ({error}): decoding {listed.folder} again", stacklevel=2)

    work = joblib.Parallel(n_jobs=-1, prefer="threads", return_as="generator")(
        joblib.delayed(_decode)(listed.folder / path, size) for path, *_ in listed.files
    )
    good, left = [], LeftOut()
    results = tqdm(work, f"decoding {listed.folder.name}", len(listed.files), unit="image")
    for (path, label, *_), result in zip(listed.files, results, strict=True):
        if isinstance(result, str):
            left.setdefault(result, []).append(path)
        else:
            good.append((result, label))
    images = np.stack([image for image, _ in good]) if good else np.empty((0, 3, size, size), np.uint8)
    labels = np.array([label for _, label in good], np.int64)
    prints = fingerprints(images)
    about = {"labels": labels.tolist(), "left": left, "check": _check(prints, labels)}
    _keep({array: images, kept: json.dumps(about).encode()})
    return images, labels, prints, listed.left | left


POINTERS = {  # how a file begins that stands for another, or for none
    b"version https://git-lfs": "git-lfs pointers without their file",
    b"/annex/objects/": "git-annex pointers without their file",
    b"<!doctype html": "web pages instead of images",
    b"<html": "web pages instead of images",
}


def _decode(path: Path, size: int) -> np.ndarray | str:
    """uint8 [3, size, size], or what is wrong with the file."""
    try:
        with Image.open(path) as image:
            upright = _to_eight_bits(ImageOps.exif_transpose(image))
            if upright.has_transparency_data:  # what lies under transparent pixels is arbitrary: show them on white
                upright = upright.convert("RGBA")
                upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
            upright = upright.convert("RGB")
        return np.asarray(ImageOps.fit(upright, (size, size), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    except Exception as error:  # whatever a decoder makes of a broken file
        if isinstance(error, OSError) and error.errno:  # no permission, no connection: nothing is wrong with the file
            raise
        with open(path, "rb") as file:
            start = file.read(100).lstrip().lower()
        if pointers := [what for begin, what in POINTERS.items() if start.startswith(begin)]:
            return pointers[0]
        if not start:
            return "empty files"
        if isinstance(error, Image.DecompressionBombError):
            return "images of too many pixels"
        return "files that are not images" if isinstance(error, UnidentifiedImageError) else "damaged images"


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Grey of more bits scaled to 0..255: convert("RGB") would clip it.

    Integers count from 0 to the largest of 8, 16 or 32 bits, the least that hold them; real numbers from 0 to 1. Where
    they exceed that, their own finite minimum and maximum are black and white.
    """
    if image.mode[0] not in "IF":
        return image
    values = np.asarray(image).astype(np.float64)
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    if image.mode == "F":
        tops = [1.0]
    elif image.mode.startswith("I;16"):
        tops = [2**16 - 1]
    else:
        tops = [2**8 - 1, 2**16 - 1, 2**31 - 1]
    fits = [top for top in tops if low >= 0 and high <= top]
    low, high = (0, fits[0]) if fits else (low, high)
    scaled = (np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) / ((high - low) or 1)
    return Image.fromarray((scaled * 255).round().astype(np.uint8))


def _kept(listed: Listing, size: int) -> Path:
    """The file in the cache that is about a domain's decoded images; they lie beside it."""
    return _cache() / f"{listed.key}-{size}-{_code()}.json"


@cache
def _code() -> str:
    """Arrays that other code decoded are not taken from the cache."""
    return code_hash((_decode, _to_eight_bits))[:8]


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check(prints: np.ndarray, labels: np.ndarray) -> str:
    return hashlib.sha256("".join(prints).encode() + labels.tobytes()).hexdigest()


# --- the cache --------------------------------------------------------------------------------------------------------


def _cache() -> Path:
    return Path(os.environ.get("FTLIB_CACHE") or "~/.cache/ftlib/images").expanduser()


def _keep(contents: Mapping[Path, Any]) -> None:
    """Write files whole or not at all, in this order; go on without them if they cannot be written."""
    for path, content in contents.items():
        if isinstance(content, np.ndarray):
            np.save(buffer := io.BytesIO(), content)
            content = buffer.getvalue()
        try:
            write_atomic(path, content)
        except OSError as error:
            why = f"the image cache {path.parent} could not be written ({error})"
            warnings.warn(f"{why}: images are decoded again each time; point FTLIB_CACHE elsewhere", stacklevel=2)
            return
