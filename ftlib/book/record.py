"""What a chapter leaves: its claims and values, as one small JSON file."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlib import __version__
from ftlib.book.claims import Claim, check
from ftlib.store import versions, write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNPUBLISHED = ("ci", "quick", "local", "mutant")  # profiles of tests and trials, which no page shows


class Record:
    """The claims and values of one chapter, for ``<root>/<profile>/<chapter>.json``.

    ``values`` is a plain dict for whatever the page's tables and sentences use.
    """

    def __init__(self, chapter: str, profile: str, root: str | Path = "results") -> None:
        self.chapter, self.profile, self.root = chapter, profile, Path(root)
        self.claims: list[Claim] = []
        self.values: dict[str, Any] = {}
        self.path = self.root / self.profile / f"{chapter}.json"
        self.found = _state(self.path)

    def check(self, id: str, *args: Any, **kwargs: Any) -> Claim:
        """`check`, kept in the record. ValueError if the record holds the id already."""
        if id in {claim.id for claim in self.claims}:
            raise ValueError(f"chapter {self.chapter} has a claim {id!r} already: ids are unique")
        self.claims.append(claim := check(id, *args, **kwargs))
        return claim

    def save(self, runs: Iterable[Any] = (), **extra: Any) -> Path:
        """Write the file whole or not at all; the runs and ``extra`` (seeds, say) go to the provenance.

        Raises
        ------
        FileExistsError
            Another run of the chapter wrote the file while this one was under way; it is left as it was.
        OSError
            The file cannot be written; an older one is left as it was.
        TypeError
            A value is not plain; the message names it.
        """
        content = {
            "chapter": self.chapter,
            "profile": self.profile,
            "claims": [claim.to_json() for claim in self.claims],
            "values": self.values,
            "provenance": _provenance(runs) | extra,
        }
        text = json.dumps(_plain(content, "record"), sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
        if _state(self.path) not in (self.found, None):
            why = "while this one was under way and is kept: execute it again by itself, or with another profile than"
            raise FileExistsError(
                f"{self.path} was written by another run of chapter {self.chapter} {why} {self.profile!r}"
            )
        write_atomic(self.path, text.encode() + b"\n")
        self.found = _state(self.path)
        return self.path

    def finish(self, texts: Mapping[str, str], runs: Iterable[Any] = (), **extra: Any) -> None:
        """Keep what the page says, `save`, and hand the texts to the page's sentences (``{glue:text}``)."""
        from myst_nb import glue

        self.values |= texts
        self.save(runs, **extra)
        for name, text in texts.items():
            glue(name, text, display=False)

    def under(self, profile: str) -> dict[str, Any]:
        """What this chapter recorded as values under another profile. FileNotFoundError says what to execute first."""
        chapters = load_results(self.root).get(profile, {})
        if self.chapter not in chapters:
            raise FileNotFoundError(f"no results of chapter {self.chapter} under profile {profile!r}: execute it first")
        return chapters[self.chapter]["values"]

    def picture(self, figure: Figure, name: str) -> Path:
        """Write a figure beside the results, as <root>/<profile>/<name>.png, for use outside of the page."""
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=130)
        path = self.root / self.profile / f"{name}.png"
        write_atomic(path, content.getvalue())
        return path


def load_results(root: str | Path = "results") -> dict[str, dict[str, dict[str, Any]]]:
    """What all chapters recorded: profile to chapter to content of the file. ValueError names one that is damaged."""
    if not (root := Path(root)).is_dir():
        raise FileNotFoundError(f"no folder {root}: execute the chapters first, or name where their results are")
    results: dict[str, dict[str, dict[str, Any]]] = {}
    for path in sorted(root.glob("*/*.json")):
        try:
            results.setdefault(path.parent.name, {})[path.stem] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is damaged ({error}): execute chapter {path.stem} again") from error
    return results


def _state(path: Path) -> tuple[int, int] | None:
    """What differs once a file has been written anew; None without a file."""
    return (path.stat().st_ino, path.stat().st_mtime_ns) if path.exists() else None


def _provenance(runs: Iterable[Any]) -> dict[str, Any]:
    logs = {run.key: run.log for run in runs}  # a run that is used twice was trained once
    return {
        "device": sorted({str(log["device"]) for log in logs.values()}),
        "seconds": sum(log["seconds"] for log in logs.values()),
        "runs": sorted(logs),
        "versions": {"ftlib": __version__} | versions("torch", "timm", "numpy", "matplotlib"),
    }


def _plain(value: Any, name: str) -> Any:
    """Plain JSON values, floats with 6 significant digits, what is not finite as None."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if tolist := getattr(value, "tolist", None):  # NumPy and torch, scalars and arrays
        value = tolist()
    if isinstance(value, Mapping):
        return {str(k): _plain(v, f"{name}.{k}") for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v, f"{name}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    raise TypeError(f"{name} is a {type(value).__name__}: results hold plain values only")
