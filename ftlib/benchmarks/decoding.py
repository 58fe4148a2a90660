"""The files of a domain, decoded once, in parallel, into one array that is kept in the cache and read from there.

Files are not trusted: one that is no image is counted by what is wrong with it, and takes no part.
"""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
import warnings
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import joblib
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from ftlib.core import fingerprints
from ftlib.store import code_hash, write_atomic

SIZE = 128  # pixels, height and width of an image
LeftOut = dict[str, list[str]]  # why something takes no part: its names below the domain's folder


class Listing(NamedTuple):
    folder: Path
    class_names: tuple[str, ...]
    files: list[tuple[str, int, int, int]]  # path below the folder, label, bytes, time of change in ns
    left: LeftOut

    @property
    def key(self) -> str:
        """Changes when a file comes, goes or changes its size or its time."""
        return hashlib.sha256(json.dumps([str(self.folder.resolve()), self.files]).encode()).hexdigest()[:20]


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
    images, labels, left = np.empty((len(listed.files), 3, size, size), np.uint8), [], LeftOut()
    results = tqdm(work, f"decoding {listed.folder.name}", len(listed.files), unit="image")
    result: Any
    for (path, label, *_), result in zip(listed.files, results, strict=True):
        if isinstance(result, str):
            left.setdefault(result, []).append(path)
        else:
            images[len(labels)] = result
            labels.append(label)
    images, labels = images[: len(labels)], np.array(labels, np.int64)
    prints = fingerprints(images)
    about = {"labels": labels.tolist(), "left": left, "check": _check(prints, labels)}
    if _keep({array: partial(np.save, arr=images), kept: json.dumps(about).encode()}):
        images = np.load(array, mmap_mode="r")  # what is mapped takes no memory that others need
    return images, labels, prints, listed.left | left


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
    content = sorted(zip(map(nfc, paths), digests, strict=True))
    found = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:20]
    _keep({kept: json.dumps({"identity": found}).encode()})
    return found


def left_out(listed: Listing, size: int = SIZE) -> LeftOut:
    """What takes no part in a domain, names by reason; what its images are is taken from the cache, if it is there."""
    try:
        return listed.left | json.loads(_kept(listed, size).read_text(encoding="utf-8"))["left"]
    except (OSError, ValueError, KeyError):  # not decoded yet
        return decoded(listed, size)[-1]


def tell(listed: Listing, left: LeftOut) -> str:
    """Warn of what was left out, in one sentence that is also returned."""
    said = "; ".join(f"{why}: {len(names)} ({some(names)})" for why, names in left.items())
    if said:
        warnings.warn(f"{listed.folder}: {said}", stacklevel=5)
    return said


def nfc(name: str) -> str:
    """One form for names that look the same: a Mac takes letters and their accents apart."""
    return unicodedata.normalize("NFC", name)


def some(names: list[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


# --- one file ---------------------------------------------------------------------------------------------------------

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


# --- the cache --------------------------------------------------------------------------------------------------------


def _cache() -> Path:
    return Path(os.environ.get("FTLIB_CACHE") or "~/.cache/ftlib/images").expanduser()


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


def _keep(contents: Mapping[Path, bytes | Callable[[BinaryIO], object]]) -> bool:
    """Write files whole or not at all, in this order; say so and go on without them if they cannot be written."""
    for path, write in contents.items():
        try:
            write_atomic(path, write)
        except OSError as error:
            why = f"the image cache {path.parent} could not be written ({error})"
            warnings.warn(f"{why}: images are decoded again each time; point FTLIB_CACHE elsewhere", stacklevel=3)
            return False
    return True
