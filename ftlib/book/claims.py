"""A statement, its measured effect with an interval, and a verdict; and the record that a chapter leaves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from scipy.special import stdtr

from ftlib.book.estimates import Estimate, estimate, number

# The findings of Mai et al.; every other claim is the book's own.
PAPER = frozenset({
    "absent-drop", "seen-gain", "absent-kept-within", "ncm-absent-gain", "ncm-seen-gain", "ausuc-gain", "logit-gap",
    "gamma-restores", "alg-restores", "pcv-restores", "calibrated-beats-lolsgd", "calibrated-near-oracle-training",
    "seen-norms-grow-more", "absent-updates-align", "absent-order-kept", "feature-shift-aligned",
    "toy-absent-features", "sgd-robust", "small-steps-match-sgd", "cosine-equals-fc", "full-beats-frozen-head",
    "full-beats-linear-probe", "failure-crossing",
})  # fmt: skip
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

    @property
    def paper(self) -> bool:
        """Whether this is a finding of the paper's, and not the book's own."""
        return self.id in PAPER

    def say(self, replicates: str, contradicts: str, cannot_tell: str) -> str:
        """The sentence that fits the verdict."""
        return {"replicates": replicates, "contradicts": contradicts}.get(self.verdict, cannot_tell)

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON; an infinite bound is None."""
        return {k: None if isinstance(v, float) and math.isinf(v) else v for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Claim:
        bounds = {"low": -math.inf, "high": math.inf}
        values: dict[str, Any] = {f.name: data[f.name] for f in fields(cls)}
        values |= {k: inf for k, inf in bounds.items() if values[k] is None}
        return cls(**values)

    def written(self, x: float, sign: str = "") -> str:
        """A number in the claim's unit: points with one decimal, others to two digits of the interval's half-width."""
        if self.unit == "points":
            return number(x, f"{sign}.1f")
        width = (self.high - self.low) / 2 if self.n > 1 else abs(self.mean)
        decimals = 1 - math.floor(math.log10(width)) if width > 0 else 2
        return number(x, f"{sign}.{min(max(decimals, 0), 3)}f")

    def record(self) -> str:
        """Mean, interval, n and what was expected, in words."""
        low, mean, high = map(self.written, (self.low, self.mean, self.high))
        interval = f"95 % interval [{low}, {high}]" if self.n > 1 else "no interval"
        if self.at_least is None:
            bound = f"within ±{self.within:g}"
        else:
            bound = f"above {self.at_least:g}" if self.at_least >= 0 else f"no worse than by {-self.at_least:g}"
        asked = "" if self.verdict == "reported" else f" · expected {bound}"
        return f"{mean} {self.unit}, {interval}, n = {self.n}{asked} ·"

    def _repr_markdown_(self) -> str:
        return f"> **{SYMBOLS[self.verdict]} {self.verdict}** — {self.statement}  \n> {self.record()} `{self.id}`"


def check(
    id: str,
    statement: str,
    effects: Mapping[str | tuple[str, int], float] | Iterable[tuple[str | tuple[str, int], float]],
    *,
    at_least: float = 0.0,
    within: float | None = None,
    unit: str = "points",
    judged: bool = True,
) -> Claim:
    """Judge a statement by its measured effects: mean, 95 % Student-t interval over repetitions, verdict.

    >>> check("absent-drop", "Absent accuracy falls.", {"seed 0": 12.0, "seed 1": 12.5, "seed 2": 13.0}).verdict
    'replicates'

    A verdict that one more repetition could tip is none: it must stand when one joins that lies two standard deviations
    off the mean, on either side.

    Parameters
    ----------
    effects : mapping or pairs of label and effect
        In ``unit``; "points" are points of accuracy, so fractions times 100. A label (pair, seed) is written
        "print-neon, seed 0". If all labels are such, the effects of a seed, which share a pre-trained model and are not
        independent, are averaged first, and the interval runs over the n seeds: else it would be too narrow.
    at_least : float
        "replicates" if the whole interval is above, "contradicts" if it is wholly below. A negative bound asks for
        non-inferiority: −1 says "no worse than by 1".
    within : float, optional
        Equivalence instead: "replicates" if the interval is inside ±within, "contradicts" if wholly outside.
    judged : bool
        False gives the verdict "reported", which one repetition alone has anyway: effects that cannot be negative,
        such as those of the best γ, prove nothing.

    Raises
    ------
    ValueError
        No effects, a repeated label, an effect that is not finite, or bounds that clash.
    """
    rows: Any = effects
    try:
        rows = list(effects.items() if isinstance(effects, Mapping) else effects)
        by_seed = all(isinstance(label, tuple) for label, _ in rows)
        pairs = [("{}, seed {}".format(*k) if isinstance(k, tuple) else str(k), float(v)) for k, v in rows]
        groups = [f"seed {label[1]}" for label, _ in rows] if by_seed else [label for label, _ in pairs]
    except (TypeError, ValueError, IndexError):
        raise ValueError(f"claim {id!r} has effects {rows}: expected a number under each label") from None
    labels = [label for label, _ in pairs]
    if not pairs:
        raise ValueError(f"claim {id!r} has no effects: give one for each repetition")
    if repeated := sorted({label for label in labels if labels.count(label) > 1}):
        raise ValueError(f"claim {id!r} repeats the labels {repeated}: one effect for each repetition")
    if unfit := {label: value for label, value in pairs if not math.isfinite(value)}:
        raise ValueError(f"claim {id!r} has effects that are not finite: {unfit}")
    if not math.isfinite(at_least):
        raise ValueError(f"claim {id!r}: at_least={at_least}, expected a finite bound")
    if within is not None and (at_least != 0 or not within > 0):
        raise ValueError(f"claim {id!r}: within={within} must be positive and excludes at_least={at_least}")

    parts: dict[str, dict[str, float]] = {}
    for group, (label, value) in zip(groups, pairs, strict=True):
        parts.setdefault(group, {})[label] = value
    repetitions: list[dict[str, Any]] = [{"effect": value, "of": label} for label, value in pairs]
    if len(parts) < len(pairs):
        repetitions = [{"effect": sum(p.values()) / len(p), "of": group, "parts": p} for group, p in parts.items()]
    sample = [r["effect"] for r in repetitions]
    e = estimate(sample)
    verdict = "reported"
    if judged and e.n > 1:
        off = 2 * float(np.std(sample, ddof=1))
        samples = sample, [*sample, e.mean - off], [*sample, e.mean + off]
        verdicts = {_verdict(estimate(s), at_least, within) for s in samples}
        verdict = verdicts.pop() if len(verdicts) == 1 else "inconclusive"
    bound = float(at_least) if within is None else None
    return Claim(id, statement, unit, repetitions, e.n, e.mean, e.low, e.high, bound, within, verdict)


def _verdict(e: Estimate, at_least: float, within: float | None) -> str:
    if e.low > at_least if within is None else -within < e.low and e.high < within:
        return "replicates"
    if e.high < at_least if within is None else e.low > within or e.high < -within:
        return "contradicts"
    return "inconclusive"


def p_value(claim: Claim) -> float:
    """Of the Student-t test behind a verdict: below 0.05 exactly where the 95 % interval lies on one side of the bound.

    Twice the smaller tail; for an equivalence, whose sides must both be met, twice the larger of two.
    """
    effects = np.array([repetition["effect"] for repetition in claim.effects])
    error = effects.std(ddof=1) / math.sqrt(len(effects))

    def tail(distance: float) -> float:
        """How probable a mean so far above its bound is, if the truth lies at the bound."""
        return float(stdtr(len(effects) - 1, -distance / error)) if error > 0 else (1 - np.sign(distance)) / 2

    if claim.at_least is not None:
        return 2 * min(tail(claim.mean - claim.at_least), tail(claim.at_least - claim.mean))
    assert claim.within is not None
    over, under = claim.mean - claim.within, claim.mean + claim.within
    return 2 * min(max(tail(-over), tail(under)), tail(over), tail(-under))


def holm(claims: Iterable[Claim]) -> list[Claim]:
    """Those judged claims whose verdict stands with all asked at once: a false one in at most 5 % of such lists.

    Holm (1979): in the order of their p-values, the i-th of m (from 0) must be at most 0.05/(m − i).
    """
    judged = sorted((claim for claim in claims if claim.verdict != "reported"), key=p_value)
    for i, claim in enumerate(judged):
        if p_value(claim) > 0.05 / (len(judged) - i):
            return judged[:i]
    return judged
