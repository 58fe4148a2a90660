"""Means with intervals, and how a page writes them: in a sentence, in a cell, as a table."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit


def number(x: float, spec: str = ".1f") -> str:
    """A number as pages write it, also where it rounds to zero.

    >>> number(-1.25, "+.2f"), number(-0.01, "+.1f")
    ('−1.25', '0.0')
    """
    return tidy(format(x, spec))


def tidy(text: str) -> str:
    """A text whose numbers have real minus signs, and no sign before a zero; "print-neon" and "1e-3" stay."""
    unsigned_zeros = re.sub(r"(?<![\w.])[+-](?=0(\.0*)?(?![\d.]))", "", text)
    return re.sub(r"(?<![\w.])-(?=\d|inf\b)", "\N{MINUS SIGN}", unsigned_zeros)


def unbroken(text: str) -> str:
    """A text that is broken neither before a % nor at a ±, for a narrow column."""
    return re.sub(r"(?<=[\d.]) (?=[%±])|(?<=±) ", "\N{NO-BREAK SPACE}", text)


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % Student-t interval over n independent repetitions; ±inf for n = 1.

    ``f"{estimate:+.2f}"`` formats both, the sign is the mean's alone; ``str`` takes one decimal: "57.1 ± 1.2".
    """

    mean: float
    low: float
    high: float
    n: int

    def __format__(self, spec: str) -> str:
        mean = number(self.mean, spec or ".1f")
        if self.n == 1:
            return f"{mean} (n = 1)"
        return f"{mean} ± {number((self.high - self.low) / 2, spec.lstrip('+') or '.1f')}"

    def __str__(self) -> str:
        return format(self, "")


def estimate(values: Iterable[float]) -> Estimate:
    """Mean and 95 % interval of one value for each independent repetition: mean ± t(0.975, n − 1)·s/√n.

    >>> print(estimate([56.0, 57.0, 58.0]))
    57.0 ± 2.5

    Raises
    ------
    ValueError
        No values, or one that is not finite.
    """
    try:
        values = list(values)
        sample = np.array([float(v) for v in values])
    except (TypeError, ValueError):
        raise ValueError(f"values {values}: expected numbers, one for each independent repetition") from None
    if len(sample) == 0 or not np.isfinite(sample).all():
        raise ValueError(f"values {sample.tolist()}: an estimate needs at least one, all finite")
    n, mean = len(sample), float(sample.mean())
    half = float(stdtrit(n - 1, 0.975) * sample.std(ddof=1) / math.sqrt(n)) if n > 1 else math.inf
    return Estimate(mean, mean - half, mean + half, n)


def by_seed(values: Mapping[tuple[str, int], Any]) -> dict[int, Any]:
    """Means over the pairs of domains, a number or array for each seed, of values under (pair, seed).

    Pairs of one seed share pre-trained models and the choice of classes, so the seed is what repeats independently.
    """
    if odd := [key for key, _ in values.items() if not (isinstance(key, tuple) and len(key) == 2)]:
        raise ValueError(f"a value under {odd[0]!r}: expected keys (pair, seed), such as ('print-neon', 0)")
    seeds: dict[int, list[Any]] = {}
    for (_, seed), value in values.items():
        seeds.setdefault(seed, []).append(value)
    return {seed: np.mean(group, axis=0) for seed, group in seeds.items()}


def over_seeds(values: Mapping[tuple[str, int], float]) -> Estimate:
    """The estimate over seeds of values under (pair, seed), averaged over the pairs of each seed first."""
    return estimate(by_seed(values).values())


def percent(x: float | Estimate, digits: int = 1) -> str:
    """A fraction, or an estimate of one, for a sentence.

    >>> percent(0.5712), percent(estimate([0.56, 0.57, 0.58]))
    ('57.1 %', '57.0 ± 2.5 %')
    """
    if not isinstance(x, Estimate):
        return f"{number(100 * x, f'.{digits}f')} %"
    if x.n == 1:
        return f"{percent(x.mean, digits)} (n = 1)"
    return f"{Estimate(100 * x.mean, 100 * x.low, 100 * x.high, x.n):.{digits}f} %"


@dataclass(frozen=True)
class Table:
    """Rows of cells under a header, shown as a Markdown table."""

    header: Sequence[Any]
    rows: Sequence[Sequence[Any]]

    def _repr_markdown_(self) -> str:
        rule = [":--", *["--:"] * (len(self.header) - 1)]
        rows = (self.header, rule, *self.rows)
        lines = ([unbroken(tidy(str(cell))).replace("|", "\\|") for cell in row] for row in rows)
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def table(header: Sequence[Any], rows: Iterable[Sequence[Any]]) -> Table:
    """A Markdown table of ready-made cells, the first column to the left, the others to the right."""
    rows = [list(row) for row in rows]
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"row {row} has {len(row)} cells, the header has {len(header)}")
    return Table(list(header), rows)
