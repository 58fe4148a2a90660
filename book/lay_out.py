"""Lays the published archives of a world out as the folders that the chapters read: one command a set.

    python book/lay_out.py chars74k EnglishFnt.tgz EnglishImg.tgz V0.3.zip --to ~/data/chars74k
    python book/lay_out.py tinyimagenet tiny-imagenet-200.zip --to ~/data/tinyimagenet
    python book/lay_out.py office31 domain_adaptation_images.tar.gz --to ~/data/office31

Zip and tar archives, under any name; nothing is downloaded. A file goes where its own name says, built anew from the
parts that a pattern has matched: no path of an archive is ever followed. The folder appears whole or not at all.
"""

import argparse
import io
import os
import re
import string
import sys
import tarfile
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image, UnidentifiedImageError

CHARACTERS = string.digits + string.ascii_uppercase
READABLE = [c for c in CHARACTERS if c not in "IO"]  # as a shape, I is 1 and O is 0


@dataclass(frozen=True)
class Set:
    """Where a set comes from, and ``place``: the name of an archive's file to its name in the set, None if unused."""

    source: str
    licence: str
    place: Callable[[str], str | None]
    folders: tuple[str, ...]  # each has to have images in the end; those of classes may be patterns
    size: int | None = None  # pixels a side; None: the file is copied as it is


def place_character(name: str) -> str | None:
    """Chars74K's fonts and street photographs, and CHoiCe's handwriting."""
    if found := re.search(r"Fnt/Sample0(\d\d)/img0\d\d-(\d{5})\.png$", name):
        c, number = int(found[1]) - 1, int(found[2])
        return f"font/{CHARACTERS[c]}/img0{found[1]}-{found[2]}.jpg" if keep(c) and number % 8 == 0 else None
    if found := re.search(r"Img/(Good|Bad)Ima?g/Bmp/Sample0(\d\d)/img0\d\d-(\d{5})\.png$", name):
        c, bad = int(found[2]) - 1, "b" if found[1] == "Bad" else ""
        return f"scene/{CHARACTERS[c]}/{bad}img0{found[2]}-{found[3]}.jpg" if keep(c) else None
    # CHoiCe numbers 0-9, a-z, A-Z from 0 to 61.
    if found := re.search(r"(?:^|/)data/(\d+)/[0-9A-Za-z] ?\((\d+)\)\.png$", name):
        c = int(found[1]) if int(found[1]) < 10 else int(found[1]) - 26
        return f"hand/{CHARACTERS[c]}/{found[2]}.jpg" if int(found[1]) not in range(10, 36) and keep(c) else None
    return None


def keep(c: int) -> bool:
    return 0 <= c < len(CHARACTERS) and CHARACTERS[c] in READABLE


def place_tiny(name: str) -> str | None:
    """Tiny-ImageNet's training images 0-149 of each class."""
    found = re.search(r"train/(n\d{8})/images/\1_(\d+)\.JPEG$", name)
    return f"{found[1]}/{found[1]}_{found[2]}.JPEG" if found and int(found[2]) < 150 else None


def place_office(name: str) -> str | None:
    found = re.search(r"(?:^|/)(amazon|dslr|webcam)/images/(\w+)/(frame_\d+\.jpg)$", name)
    return f"{found[1]}/{found[2]}/{found[3]}" if found else None


SETS = {
    "chars74k": Set(
        source="Chars74K (de Campos et al., 2009): EnglishFnt.tgz and EnglishImg.tgz, teodecampos.github.io/chars74k; "
        "CHoiCe: V0.3.zip, github.com/skyatmoon/CHoiCe-Dataset",
        licence="Chars74K: acknowledge the source and cite the paper; CHoiCe: none is stated",
        place=place_character,
        folders=tuple(f"{domain}/{c}" for domain in ("font", "scene", "hand") for c in READABLE),
        size=48,
    ),
    "tinyimagenet": Set(
        source="Tiny-ImageNet: tiny-imagenet-200.zip, cs231n.stanford.edu/tiny-imagenet-200.zip",
        licence="ImageNet's terms: research and teaching, not commerce",
        place=place_tiny,
        folders=(),
    ),
    "office31": Set(
        source="Office-31 (Saenko et al., 2010): domain_adaptation_images.tar.gz, from the authors' page",
        licence="none is stated; cite the paper",
        place=place_office,
        folders=("amazon", "dslr", "webcam"),
    ),
}


def files(archive: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Name and reader of each plain file of a zip or tar; links and devices are passed over.

    Raises
    ------
    ValueError
        If it is neither, or is damaged.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                for entry in opened.infolist():
                    if not entry.is_dir():
                        yield entry.filename, lambda entry=entry: opened.read(entry)
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as opened:
                for entry in opened:
                    if entry.isfile():
                        yield entry.name, lambda entry=entry: opened.extractfile(entry).read()  # type: ignore
        else:
            raise ValueError(f"{archive} is no zip or tar archive: give the file as it was published")
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"{archive} is damaged ({error}): fetch it again") from error


def lay_out(name: str, archives: list[Path], to: Path) -> Counter[str]:
    """Write the set below ``to`` and count the images of each folder.

    Raises
    ------
    ValueError
        If ``to`` is there already, an archive or an image cannot be read, or a folder of the set stays empty.
    """
    wanted = SETS[name]
    if to.exists():
        raise ValueError(f"{to} is there already: move it away, or give another folder with --to")
    to.parent.mkdir(parents=True, exist_ok=True)
    counts: Counter[str] = Counter()
    # Beside its place, so that the last step is a rename on one disk.
    with tempfile.TemporaryDirectory(prefix=f".{to.name}-", dir=to.parent) as folder:
        whole = Path(folder, "whole")
        whole.mkdir()
        for archive in archives:
            used = 0
            for member, read in files(archive):
                place = wanted.place(member)
                if place is None or member.rsplit("/", 1)[-1].startswith("._"):  # macOS's shadow of a file
                    continue
                target = whole / place
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(shrink(read(), wanted.size, f"{member} in {archive}") if wanted.size else read())
                used += 1
                counts[place.rsplit("/", 1)[0]] += 1
            if not used:
                raise ValueError(f"{archive} has no image of {name}, which is laid out from {wanted.source}")
        missing = [f for f in wanted.folders if not any(c == f or c.startswith(f"{f}/") for c in counts)]
        if missing:
            raise ValueError(f"no image for {', '.join(missing[:5])}: {name} is laid out from {wanted.source}")
        os.rename(whole, to)
    return counts


def shrink(data: bytes, size: int, told: str) -> bytes:
    """An image as a JPEG of ``size`` pixels a side, whatever its own sides are."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            small = image.convert("RGB").resize((size, size), Image.Resampling.LANCZOS)
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{told} cannot be read as an image: fetch the archive again") from error
    written = io.BytesIO()
    small.save(written, "JPEG", quality=90)
    return written.getvalue()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=SETS)
    parser.add_argument("archives", nargs="+", type=Path, help="as they were published")
    parser.add_argument("--to", type=Path, required=True, help="the folder that is made, such as $FTLIB_DATA/office31")
    given = parser.parse_args(arguments)
    told = SETS[given.set]
    try:
        for archive in given.archives:
            if not archive.is_file():
                raise ValueError(f"{archive} is no file: it is published as {told.source}")
        counts = lay_out(given.set, given.archives, given.to)
    except ValueError as error:
        print(f"lay_out: {error}", file=sys.stderr)
        return 1
    print(f"source:  {told.source}\nlicence: {told.licence}")
    size = sum(path.stat().st_size for path in given.to.rglob("*.*"))
    print(f"size:    {sum(counts.values())} images, {size / 1e6:.0f} MB, in {given.to}")
    domains: dict[str, list[int]] = {}
    for place, number in sorted(counts.items()):
        domains.setdefault(str(PurePosixPath(place).parent), []).append(number)
    for domain, few in domains.items():
        print(f"{domain}: {len(few)} classes of {min(few)} to {max(few)} images")
    return 0


if __name__ == "__main__":
    sys.exit(main())
