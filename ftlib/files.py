"""Files of one's own: logits and labels as arrays or tables, and the names of classes."""

from __future__ import annotations

import csv
import difflib
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

ARRAYS = ("logits", "labels", "old_head", "unlabelled")


def read_arrays(path: Path, labelled: bool = True) -> dict[str, Any]:
    """logits [N, C], labels [N] and what else of `ARRAYS` a file holds; of a table also the columns' ``names``.

    .npz and .safetensors hold arrays of these names. A table, .csv or (by pandas) .parquet, has a row an image, a
    column "label" of ids or names, and a column of logits for each class, in the head's order. Only where a file need
    not be ``labelled`` may the labels be missing.
    """
    kind = path.suffix.lower()
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}{', but a folder' * path.is_dir()}")
    try:
        if kind == ".npz":
            with np.load(path, allow_pickle=False) as file:
                found: dict[str, Any] = {name: file[name] for name in file.files if name in ARRAYS}
                has = file.files
        elif kind == ".safetensors":
            has = list(found := load_file(path))
        elif kind in (".csv", ".parquet"):
            found = _table(path, kind, labelled)
            has = list(found)
        else:
            raise ValueError("expected .npz, .safetensors, .csv or .parquet")
    except Exception as error:  # whatever a reader makes of a broken file
        raise ValueError(f"{path} cannot be read: {error}") from error
    if not ({"logits", "labels"} <= found.keys() if labelled else {"logits", "unlabelled"} & found.keys()):
        told = ", ".join([*has[:5], *["…"] * (len(has) > 5)]) or "nothing"
        raise ValueError(f"{path} holds {told}: expected logits{' and labels' * labelled} by these names")
    return found


def class_columns(text: str, names: Sequence[str] | None, total: int, option: str) -> list[int]:
    """Columns from a text or from a file: names, ids or ranges such as 0-4, separated by commas or lines."""
    path = Path(text)
    lines = names_in(path) if len(text) < 250 and path.is_file() else [part.strip() for part in text.split(",")]
    found: list[int] = []
    for entry in lines:
        span = re.fullmatch(r"(\d+)(?:-(\d+))?", entry)
        if names and entry in names:
            found.append(names.index(entry))
        elif span and int(span[1]) <= (last := int(span[2] or span[1])):
            if last >= total:
                raise ValueError(f"{option} names class {last}, but the last of {total} classes is {total - 1}")
            found += range(int(span[1]), last + 1)
        else:
            near = ", ".join(difflib.get_close_matches(entry, names or [], n=3) or (names or [])[:3])
            why = f"near: {near}" if near else "give ids, or --classes FILE with names"
            raise ValueError(f"{option}: no class is called {entry[:50]!r}{', and no file' * (len(lines) < 2)}; {why}")
    return found


def names_in(path: Path) -> list[str]:
    """The lines of a file that hold something, each of them once."""
    names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{path} has {repeated[0]!r} twice: give every class a line and a name of its own")
    if not names:
        raise ValueError(f"{path} is empty: expected a name a line")
    return names


def _table(path: Path, kind: str, labelled: bool) -> dict[str, Any]:
    frame: Any = None
    if kind == ".csv":
        with path.open(encoding="utf-8-sig", newline="") as file:
            try:
                names = [name.strip() for name in next(csv.reader(file), [])]
            except UnicodeDecodeError as error:
                raise ValueError(f"it is not UTF-8 ({error.reason}): save it as CSV in UTF-8") from None
    else:
        import pandas

        frame = pandas.read_parquet(path)
        names = [str(name) for name in frame.columns]
    if bare := [name for name in names if re.fullmatch(r"-\d+|-?\d*\.\d+(e[+-]?\d+)?", name, re.IGNORECASE)]:
        raise ValueError(f"its first row holds the number {bare[0]}: expected a row with the names of the columns")
    told = repr(", ".join([*names[:3], *["…"] * (len(names) > 3)])[:60])
    if (labelled and "label" not in names) or len(names) < 2:
        more = ", and commas between them" * (kind == ".csv")
        raise ValueError(f"its columns are {told}: expected one called label, and one for each class{more}")
    if wrong := [name for name, times in Counter(names).items() if not name or times > 1]:
        odd = f"{wrong[0]!r} twice" if wrong[0] else "a column without a name"
        expected = "expected each class once, and no column of row numbers"
        raise ValueError(f"{odd} is among its columns {told}: {expected}")
    place = names.index("label") if "label" in names else None
    classes = [name for name in names if name != "label"]
    ids = {name: float(number) for number, name in enumerate(classes) if not name.isdigit()}  # a number is an id
    if frame is None:
        read: Any = {} if place is None else {place: lambda entry: ids[entry] if entry in ids else float(entry)}
        how: Any = dict(delimiter=",", skiprows=1, ndmin=2, encoding="utf-8", quotechar='"', comments=None)
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # of a table without rows
            rows = np.loadtxt(path, np.float32, converters=read, **how)
    else:
        rows = frame.replace({"label": ids}).to_numpy(np.float32) if place is not None else frame.to_numpy(np.float32)
    if rows.size and rows.shape[1] != len(names):
        raise ValueError(f"its header names {len(names)} columns, and its rows have {rows.shape[1]}: expected as many")
    if place is None:
        return {"logits": rows, "names": classes}
    labels = rows[:, place] if len(rows) else rows
    if not len(rows) or not (np.isfinite(labels) & (labels == np.round(labels))).all():
        raise ValueError("its labels are not whole numbers: expected a class id in every row, and a row an image")
    return {"logits": np.delete(rows, place, 1), "labels": labels.astype(np.int64), "names": classes}
