"""Photographs in folders, ROOT/<domain>/<class>/<image>, as Office-31, Office-Home, PACS and DomainNet are laid out.

Folders are taken as they come: classes may have sub-folders, a domain may hold its classes in a folder of their own
(Office-31's ``images``) or in ``train``, ``val`` and ``test``, which are put together. What takes no part is counted.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image

from ftlib import core
from ftlib.core import Domain, ImageSet, NotHere, find_data, seeded, split_images, whole

from .decoding import SIZE, LeftOut, Listing, decoded, nfc, tell

SYSTEM = ("__MACOSX", "@eaDir", "lost+found")  # folders that computers make; hidden ones are left out as well
LAYERS = ("train", "training", "val", "valid", "validation", "test", "testing")
POOLED = "layers put together"


def load_domain(
    name: str, seed: int = 0, role: str = "source", *, size: int = SIZE, train_fraction: float = 0.7
) -> Domain:
    """The images of ROOT/DOMAIN, shorter side scaled to ``size`` and the centre cut out, split within each class.

    Copies of one image stay on one side of the split, which is the same in either role. A relative ROOT is looked for
    in ``$FTLIB_DATA``, then in the working directory. What is left out is said in one warning.

    Raises
    ------
    ValueError
        No such root or domain; a class without images, or without enough different ones to fill both sides.
    """
    listed = listing(name)
    images, labels, prints, left = decoded(listed, whole("size", size, 1))
    said = tell(listed, left)
    if empty := [c for i, c in enumerate(listed.class_names) if i not in set(labels.tolist())]:
        raise ValueError(f"{listed.folder} has no image of class {', '.join(empty)}; {said or 'left out: nothing'}")
    rng = seeded(seed, "folder", nfc(name.rpartition("/")[2]), "split")
    sides = split_images(labels, prints, train_fraction, rng, listed.class_names)
    parts = (ImageSet(torch.from_numpy(images[side]), torch.from_numpy(labels[side])) for side in sides)
    return Domain(listed.class_names, *parts)


def split_pair(pair: str) -> tuple[str, str]:
    """The two domains, each with its root: "office31/amazon-dslr" is "office31/amazon" and "office31/dslr"."""
    name = pair.rpartition("/")[2]
    try:
        known = tuple(domains(_root(pair)))
    except NotHere:
        if name.count("-") != 1:
            raise
        known = tuple(nfc(name).split("-"))  # no need to see the images: a run store may be read where they are not
    parts = core.split_pair(nfc(name), known)
    prefix = pair.removesuffix(name)
    return prefix + parts[0], prefix + parts[1]


def check_pair(source: str, target: str) -> None:
    """That two domains have the same classes; a ValueError names what either lacks."""
    sides = {name: set(listing(name).class_names) for name in (source, target)}
    ways = (source, target), (target, source)
    if lacks := [(a, sorted(sides[b] - sides[a]), b) for a, b in ways if sides[b] - sides[a]]:
        raise ValueError("; ".join(f"{a} has no class {', '.join(names)}, which {b} has" for a, names, b in lacks))


def listings(name: str) -> tuple[Listing, ...]:
    """The domains of ROOT/NAME: itself, or both of a pair. NotHere if there is no such root."""
    own_name = nfc(name.rpartition("/")[2])
    alone = own_name in domains(_root(name)) or "-" not in own_name
    return tuple(listing(part) for part in ((name,) if alone else split_pair(name)))


def domains(root: Path) -> dict[str, Path]:
    """The folders of a root, by their names in composed Unicode (NFC)."""
    folders = (p for p in sorted(root.iterdir()) if p.is_dir() and not _no_part(p.name))
    return {nfc(p.name): p for p in folders}


# --- what a domain's folder holds, by its names alone -----------------------------------------------------------------


def listing(name: str) -> Listing:
    """The files of ROOT/DOMAIN with their classes; NotHere if there is no such root or domain."""
    root, own_name = _root(name), nfc(name.rpartition("/")[2])
    there = domains(root)
    if own_name not in there:
        raise NotHere(f"no domain {own_name!r} in {root}: there are {', '.join(there) or 'none'}")
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
        expected = "classes, <class>/<image> or {train,val,test}/<class>/<image>"
        raise ValueError(f"{folder} holds {seen}: expected {expected}")

    class_names = tuple(sorted({nfc(top) for top in tops}))
    label_of = {name: label for label, name in enumerate(class_names)}
    files = []
    for parts, info in found:
        label, path = label_of.get(nfc(parts[depth])) if len(parts) > depth else None, "/".join(parts)
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
