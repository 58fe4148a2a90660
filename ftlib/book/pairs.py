"""What chapter 5 records of every pair of domains, for the page that shows the pairs of all worlds side by side.

A mean of curves is taken along rays from the origin: each curve falls from (Acc_{S/S}, 0) to (0, Acc_{U/U}) and meets
every ray once, so that seeds are averaged at the same ratio of absent to seen accuracy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from ftlib.book.boundary import recommended_gamma
from ftlib.book.estimates import Estimate, estimate
from ftlib.book.study import Key, Runs, of_pairs
from ftlib.calibration import average_logit_gap
from ftlib.metrics import Curve, seen_unseen_curve
from ftlib.runs import Run

RAYS = np.linspace(0, 90, 31)  # degrees above the axis of seen accuracy
TUNED, CURVES = "fine-tuned", "05-the-logit-gap"
STATES = ("pre-trained", "AdaBN", TUNED, *(f"{TUNED} + {name}" for name in ("ALG", "recommended", "γ*")))
ACCURACIES = ("yy", "sy", "uy")
HEAD, FEATURES = "trained head", "nearest class means"


def recorded(runs: Mapping[str, Runs], heads: Mapping[Key, nn.Module]) -> dict[str, dict[str, Any]]:
    """Pair to its mean curves and to its accuracies, a list over seeds, in plain values.

    Parameters
    ----------
    runs : mapping
        Name of a state, such as "pre-trained", to its runs. Of "fine-tuned" the accuracies are taken with the γ of ALG,
        of the recommended estimator and of the test images themselves (γ*) as well.
    heads : mapping
        The pre-trained heads, by (pair, seed), which the recommended estimator asks.
    """
    tables = {name: of.measure(_without) for name, of in runs.items()}
    tables |= {f"{TUNED} + {name}": of for name, of in _with_gamma(runs[TUNED], heads).items()}
    found: dict[str, dict[str, Any]] = {}
    for name, of in tables.items():
        for pair, rows in of_pairs(of).items():
            own = found.setdefault(pair, {"curves": {}, "accuracies": {}})
            own["accuracies"][name] = {part: rows[part].tolist() for part in ACCURACIES}
            if name in runs:
                own["curves"][name] = along_rays(rows.curve)
    return found


def along_rays(curves: Iterable[Curve]) -> list[float]:
    """Distances from the origin [rays] at which the curves meet `RAYS`, averaged over the curves."""
    return np.mean([_distances(curve) for curve in curves], axis=0).round(4).tolist()


def on_plane(distances: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Acc_{S/Y} and Acc_{U/Y} [rays] of what `along_rays` gives."""
    angles = np.deg2rad(RAYS)
    return np.asarray(distances) * np.cos(angles), np.asarray(distances) * np.sin(angles)


def _distances(curve: Curve) -> np.ndarray:
    """Where the lines between the knots meet each ray: on it, −sin(angle)·sy + cos(angle)·uy is zero."""
    found = []
    for angle in np.deg2rad(RAYS):
        above = np.cos(angle) * curve.uy - np.sin(angle) * curve.sy  # ascends from knot to knot
        i = int(np.clip(np.searchsorted(above, 0.0), 1, len(above) - 1))
        rise = above[i] - above[i - 1]
        share = float(np.clip(-above[i - 1] / rise, 0, 1)) if rise else 0.0
        sy, uy = (of[i - 1] + share * (of[i] - of[i - 1]) for of in (curve.sy, curve.uy))
        found.append(np.hypot(sy, uy))
    return np.array(found)


def _curve(run: Run) -> Curve:
    return seen_unseen_curve(run.test.logits, run.test.labels, run.split)


def _without(run: Run) -> dict[str, Any]:
    return {"curve": (curve := _curve(run))} | curve.at(0.0)._asdict()


def _with_gamma(tuned: Runs, heads: Mapping[Key, nn.Module]) -> dict[str, Any]:
    """ALG, the recommended estimator and γ* to a table with the accuracies that their γ gives."""

    def gammas(run: Run, head: nn.Module) -> dict[tuple[str, str], float]:
        seen, split, curve = run.seen_train, run.split, _curve(run)
        chosen = {
            "ALG": average_logit_gap(seen.logits, seen.labels, split),
            "recommended": recommended_gamma(seen, split, head),
            "γ*": curve.best_gamma(),
        }
        return {(name, part): x for name, g in chosen.items() for part, x in curve.at(g)._asdict().items()}

    found = tuned.measure(gammas, heads)
    return {name: found[name] for name in found.columns.unique(0)}


# --- what the page makes of it ----------------------------------------------------------------------------------------


def of_world(chapters: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """What chapter 5 recorded of a world's pairs; empty if it did not."""
    return chapters.get(CURVES, {}).get("values", {}).get("pairs", {})


def is_drawn(chapters: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether all images that a world's curves are measured on are drawn."""
    measured = chapters.get(CURVES, {}).get("provenance", {}).get("benchmarks", [])
    return bool(measured) and all(name.startswith("glyphs/") for name in measured)


def effects_of(chapters: Mapping[str, Mapping[str, Any]], id: str) -> dict[str, np.ndarray]:
    """Pair to a claim's effects [seeds] on it; empty if no chapter has the claim."""
    found: dict[str, list[float]] = {}
    for claim in (claim for record in chapters.values() for claim in record["claims"] if claim["id"] == id):
        for repetition in claim["effects"]:
            for name, effect in (repetition.get("parts") or {repetition["of"]: repetition["effect"]}).items():
                found.setdefault(name.rpartition(", seed ")[0], []).append(effect)
    return {pair: np.array(of) for pair, of in found.items()}


def head_and_features(chapters: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Estimate]]:
    """Pair to the change of the accuracy (a fraction) on absent classes by the trained head and by class means."""
    lost, gained = (effects_of(chapters, id) for id in ("absent-drop", "ncm-absent-gain"))
    both = [pair for pair in lost if pair in gained]
    return {pair: {HEAD: estimate(-lost[pair] / 100), FEATURES: estimate(gained[pair] / 100)} for pair in both}


def over_pairs(of: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, np.ndarray]]:
    """State, such as "fine-tuned + ALG", to accuracies [seeds], averaged over a world's pairs."""
    tables = [own["accuracies"] for own in of.values()]
    return {
        name: {part: np.mean([own[name][part] for own in tables], axis=0) for part in ACCURACIES} for name in STATES
    }


def shares_of_star(of: Mapping[str, Mapping[str, Any]]) -> tuple[float, float, float]:
    """Points of Acc_{Y/Y} that γ* adds to fine-tuning, and the shares of it that ALG and the recommended γ add."""
    means = {name: float(own["yy"].mean()) for name, own in over_pairs(of).items()}
    added = {name: means[f"{TUNED} + {name}"] - means[TUNED] for name in ("γ*", "ALG", "recommended")}
    star = added["γ*"] or np.nan
    return 100 * added["γ*"], added["ALG"] / star, added["recommended"] / star
