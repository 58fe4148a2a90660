"""A statement, its measured effect with an interval, and a verdict; and the record that a chapter leaves."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlib.estimates import Estimate, by_seed, estimate, over_seeds, percent, table
from ftlib.provenance import versions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "Claim", "Estimate", "Record", "by_seed", "check", "estimate", "load_results", "over_seeds", "percent",
    "table",
]  # fmt: skip

SYMBOLS = {"replicates": "✓", "contradicts": "✗", "inconclusive": "~", "reported": "·"}


@dataclass(frozen=True)
class Claim:
    """A judged statement. ``effects``: {"effect", "of"} for each of the n independent repetitions.

    A repetition that averages a group also holds its ``parts``, label to effect. ``at_least`` is None if
    ``within`` is the bound.
    """

    id: str
    statement: str
    unit: str
    effects: list[dict[str, Any]]
    n: int
    mean: float
    low: float
    high: float
    at_least: float | None
    within: float | None
    verdict: str

    def fact(self) -> str:
        """The line that a checked cell prints: "absent-drop: replicates"."""
        return f"{self.id}: {self.verdict}"

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON; an infinite bound is None."""
        return {k: None if isinstance(v, float) and math.isinf(v) else v for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Claim:
        bounds = {"low": -math.inf, "high": math.inf}
        values = {f.name: data[f.name] for f in fields(cls)}
        return cls(**values | {k: inf for k, inf in bounds.items() if values[k] is None})

    def _repr_markdown_(self) -> str:
        digits = ".1f" if self.unit == "points" else ".3g"
        interval = f"95 % interval [{self.low:{digits}}, {self.high:{digits}}]" if self.n > 1 else "no interval"
        bound = f"within ±{self.within:g}" if self.within is not None else f"above {self.at_least:g}"
        asked = "" if self.verdict == "reported" else f" · expected {bound}"
        return (
            f"> **{SYMBOLS[self.verdict]} {self.verdict}** — {self.statement}  \n"
            f"> {self.mean:{digits}} {self.unit}, {interval}, n = {self.n}{asked} · `{self.id}`"
        )


def check(
    id: str,
    statement: str,
    effects: Mapping[str | tuple[str, int], float] | Iterable[tuple[str | tuple[str, int], float]],
    *,
    at_least: float = 0.0,
    within: float | None = None,
    unit: str = "points",
    groups: Mapping[str, Any] | Sequence[Any] | None = None,
    judged: bool = True,
) -> Claim:
    """Judge a statement by its measured effects: mean, 95 % Student-t interval over repetitions, verdict.

    Parameters
    ----------
    id, statement : str
    effects : mapping or pairs of label and effect
        In ``unit``; "points" are points of accuracy, so fractions times 100. A label (pair, seed) is written
        "print-neon, seed 0", and if all labels are such, the seeds are the groups unless others are given.
    at_least : float
        "replicates" if the whole interval is above, "contradicts" if it is wholly below.
    within : float, optional
        Equivalence instead: "replicates" if the interval is inside ±within, "contradicts" if wholly outside.
    groups : mapping from label to group, or a group for each effect, optional
        Effects that share a pre-trained model (one seed) are not independent: taken one by one they would make the
        interval too narrow. Effects of a group are averaged first and the interval runs over the n groups.
    judged : bool
        False gives the verdict "reported".

    Raises
    ------
    ValueError
        No effects, a repeated label, an effect that is not finite, a label without a group, or bounds that clash.
    """
    pairs = list(effects.items() if isinstance(effects, Mapping) else effects)
    if groups is None and pairs and all(isinstance(label, tuple) for label, _ in pairs):
        groups = [f"seed {seed}" for (_, seed), _ in pairs]
    pairs = [("{}, seed {}".format(*k) if isinstance(k, tuple) else str(k), float(v)) for k, v in pairs]
    labels = [label for label, _ in pairs]
    if not pairs:
        raise ValueError(f"claim {id!r} has no effects: give one for each repetition")
    if repeated := sorted({label for label in labels if labels.count(label) > 1}):
        raise ValueError(f"claim {id!r} repeats the labels {repeated}: one effect for each repetition")
    if unfit := {label: value for label, value in pairs if not math.isfinite(value)}:
        raise ValueError(f"claim {id!r} has effects that are not finite: {unfit}")
    if within is not None and (at_least != 0 or not within > 0):
        raise ValueError(f"claim {id!r}: within={within} must be positive and excludes at_least={at_least}")

    repetitions = _average_groups(id, pairs, groups)
    e = estimate(r["effect"] for r in repetitions)
    if not judged:
        verdict = "reported"
    elif e.low > at_least if within is None else -within < e.low and e.high < within:
        verdict = "replicates"
    elif e.high < at_least if within is None else e.low > within or e.high < -within:
        verdict = "contradicts"
    else:
        verdict = "inconclusive"
    bound = float(at_least) if within is None else None
    return Claim(id, statement, unit, repetitions, e.n, e.mean, e.low, e.high, bound, within, verdict)


class Record:
    """The claims and values of one chapter, for ``<root>/<profile>/<chapter>.json``.

    ``values`` is a plain dict for whatever the page's tables and sentences use.
    """

    def __init__(self, chapter: str, profile: str, root: str | Path = "results") -> None:
        self.chapter, self.profile, self.root = chapter, profile, Path(root)
        self.claims: list[Claim] = []
        self.values: dict[str, Any] = {}

    def check(self, id: str, *args: Any, **kwargs: Any) -> Claim:
        """`check`, kept in the record. ValueError if the record holds the id already."""
        if id in {claim.id for claim in self.claims}:
            raise ValueError(f"chapter {self.chapter} has a claim {id!r} already: ids are unique")
        self.claims.append(claim := check(id, *args, **kwargs))
        return claim

    def save(self, runs: Iterable[Any] = (), **extra: Any) -> Path:
        """Write the file whole or not at all; ``extra`` (seeds, say) goes to the provenance.

        Parameters
        ----------
        runs : iterable of Run
            Each with ``key`` and ``log``, a dict with "device" and "seconds".

        Raises
        ------
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
        path = self.root / self.profile / f"{self.chapter}.json"
        _write(path, text.encode() + b"\n")
        return path

    def elsewhere(self) -> dict[str, dict[str, Any]]:
        """Profile to values: what this chapter recorded under the other profiles that are published for readers."""
        return {
            profile: chapters[self.chapter]["values"]
            for profile, chapters in load_results(self.root).items()
            if profile not in (self.profile, "ci", "local") and self.chapter in chapters
        }

    def picture(self, figure: Figure, name: str) -> Path:
        """Write a figure beside the results, as <root>/<profile>/<name>.png, for use outside of the page."""
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=130)
        path = self.root / self.profile / f"{name}.png"
        _write(path, content.getvalue())
        return path


def load_results(root: str | Path = "results") -> dict[str, dict[str, dict[str, Any]]]:
    """What all chapters recorded: profile to chapter to content of the file.

    Raises
    ------
    FileNotFoundError
        There is no such folder.
    ValueError
        A file is damaged; the message names it.
    """
    if not (root := Path(root)).is_dir():
        raise FileNotFoundError(f"no folder {root}: execute the chapters first, or name where their results are")
    results: dict[str, dict[str, dict[str, Any]]] = {}
    for path in sorted(root.glob("*/*.json")):
        try:
            results.setdefault(path.parent.name, {})[path.stem] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is damaged ({error}): execute chapter {path.stem} again") from error
    return results


def _average_groups(id: str, pairs: list[tuple[str, float]], groups: Any) -> list[dict[str, Any]]:
    if groups is None:
        return [{"effect": value, "of": label} for label, value in pairs]
    if not isinstance(groups, Mapping):
        groups = list(groups)
        if len(groups) != len(pairs):
            raise ValueError(f"claim {id!r} has {len(pairs)} effects, but {len(groups)} groups")
        groups = dict(zip((label for label, _ in pairs), groups, strict=True))
    if missing := [label for label, _ in pairs if label not in groups]:
        raise ValueError(f"claim {id!r}: no group for {missing}")
    parts: dict[str, dict[str, float]] = {}
    for label, value in pairs:
        parts.setdefault(str(groups[label]), {})[label] = value
    if len(parts) == len(pairs):
        return [{"effect": value, "of": label} for label, value in pairs]
    return [{"effect": sum(p.values()) / len(p), "of": group, "parts": p} for group, p in parts.items()]


def _provenance(runs: Iterable[Any]) -> dict[str, Any]:
    logs = {run.key: run.log for run in runs}  # a run that is used twice was trained once
    return {
        "device": sorted({str(log["device"]) for log in logs.values()}),
        "seconds": sum(log["seconds"] for log in logs.values()),
        "runs": sorted(logs),
        "versions": versions("torch", "timm", "numpy", "matplotlib"),
    }


def _plain(value: Any, name: str) -> Any:
    """Plain JSON values, floats with 6 significant digits, what is not finite as None."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if hasattr(value, "tolist"):  # NumPy and torch, scalars and arrays
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(k): _plain(v, f"{name}.{k}") for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v, f"{name}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    raise TypeError(f"{name} is a {type(value).__name__}: results hold plain values only")


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OSError(error.errno, f"cannot write {path} ({error}); an older file is untouched") from error
