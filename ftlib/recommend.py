"""γ for one's own model: which one, for which head, how far to trust it and what it costs. Arrays in, numbers out.

ftlib.calibrate(logits, labels, split, old_head)    a `Calibrated`: .gamma .by_estimator .interval .advice .curve()
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from ftlib import calibration
from ftlib.advice import BETWEEN, Advice, advise, between
from ftlib.calibration import Gamma, best_of_mirrored, estimated_share
from ftlib.checks import Array, as_tensor, check_finite, check_labels, check_logits, check_matrix
from ftlib.core import ClassSplit, seeded
from ftlib.evidence import Accuracy, Evidence, resampled
from ftlib.heads import HEADS, read_by
from ftlib.metrics import Curve, curve_of

MOST = 20_000  # images that are looked at, drawn at random from more: others would hardly narrow the interval
ALONE = "take absent_share of ftlib.calibration on unlabelled images, with the share of absent ones among them"
PREFERENCES = ("min_sy", "min_uy", "share", "weight")


@dataclass(frozen=True)
class Calibrated:
    """What `calibrate` found.

    Attributes
    ----------
    gamma : Gamma
        The recommended one, in logits; ``estimator`` says which of its two estimators gave it.
    by_estimator : dict of str to Gamma
        Every estimator that the inputs allow.
    interval : (float, float)
        What holds 95 % of the γ of resampled images, and of those of resampled classes; ``spread`` has each. It tells
        how firm the estimate is, not where γ* lies: over 81 fine-tunings it held γ* in 41 % of them.
    without, with_gamma : Accuracy
    share : float
        Of absent images in use, that γ is for.
    advice : tuple of Advice
    """

    gamma: Gamma
    estimator: str
    by_estimator: dict[str, Gamma]
    interval: tuple[float, float]
    spread: dict[str, tuple[float, float]]
    without: Accuracy
    with_gamma: Accuracy
    share: float
    advice: tuple[Advice, ...]
    _images: Evidence = field(repr=False)

    @property
    def advised(self) -> bool:
        """Whether nothing speaks against using γ."""
        return all(a.level != "stop" for a in self.advice)

    def curve(self) -> Curve:
        """The trade-off that γ is chosen on: the images given, and their mirror images, which bound the absent side.

        Raises
        ------
        ValueError
            Without the old head: `ftlib.metrics.seen_unseen_curve` draws it from a labelled test set.
        """
        i = self._images
        if not i.known:
            raise ValueError("the absent side of the curve is unknown: give the old head's logits, or take test images")
        curve = curve_of(i.seen[i.seen_hit], i.absent[i.absent_hit], len(i.label), len(i.label))
        return replace(curve, yy=(1 - self.share) * curve.sy + self.share * curve.uy)


def calibrate(
    logits: Array,
    labels: Array,
    split: ClassSplit,
    old_head: Array | None = None,
    unlabelled: Array | None = None,
    prefer: Mapping[str, float | str] | None = None,
) -> Calibrated:
    """The recommended γ, the larger of `mirrored` and `margin_quantile`, and what speaks against it.

    Parameters
    ----------
    logits : floating array [N, C]
        Of the fine-tuned model on images that it was fine-tuned on, or better on others of the seen classes.
    labels : integer array [N], each a class of S.
    split : ClassSplit
    old_head : floating array [N, C], optional
        Logits that the pre-trained head gives to the fine-tuned features of the same images.
    unlabelled : floating array [M, C], optional
        Of the fine-tuned model on images of all classes, mixed as they will be in use.
    prefer : mapping, optional
        ``share``: of absent images in use, or "unlabelled" to estimate it; |U| / |Y| if not given. ``weight``: what an
        absent image counts if a seen one counts 1. ``min_sy``, ``min_uy``: accuracies to keep, of the images given and
        of their mirror images. All but ``min_sy`` need the old head. The fewer absent images are expected, the fewer
        of the seen ones are given up.

    Raises
    ------
    ValueError
        What the estimators refuse, a preference that is unknown, lacks its input, or can be kept by no γ.

    Examples
    --------
    >>> split = ClassSplit(seen=[0, 1], absent=[2, 3])
    >>> logits = np.array([[12.0, 9, 1, 0], [12, 9, 0, 1], [9, 12, 1, 0], [2, 8, 3, 0]])
    >>> old_head = np.array([[3.0, 2, 1, 0], [3, 2, 0, 1], [2, 3, 1, 0], [2, 3, 1, 0]])
    >>> found = calibrate(logits, np.array([0, 0, 1, 1]), split, old_head)
    >>> float(found.gamma), found.estimator, found.advised
    (9.0, 'mirrored', True)
    >>> found.without, found.with_gamma
    (Accuracy(seen=1.0, absent_at_most=0.25), Accuracy(seen=0.75, absent_at_most=1.0))
    """
    prefer = _preferences(prefer or {}, old_head, unlabelled)
    logits = check_logits(logits, split)
    labels = check_labels(labels, logits, split.seen, calibration.SEEN_ONLY)
    if old_head is not None:
        old_head = check_head_of(old_head, "old_head", logits, split)
        if len(old_head) != len(logits):
            raise ValueError(f"old_head has {len(old_head)} rows, the logits {len(logits)}: expected the same images")
    if unlabelled is not None:
        unlabelled = check_head_of(unlabelled, "unlabelled", logits, split)
    if len(split.seen) == 1:
        raise ValueError(f"class {split.seen[0]} is the only seen class, which tells nothing of others: {ALONE}")
    total, rows = len(logits), _some(len(logits))
    logits, labels = logits[rows], labels[rows]
    old = None if old_head is None else old_head[rows].to(logits.device)
    images, share = Evidence.of(logits, labels, split, old), len(split.absent) / len(split.classes)
    asked = prefer.get("share", share)
    if unlabelled is not None:
        unlabelled = unlabelled[_some(len(unlabelled))]
        if asked == "unlabelled":
            asked = estimated_share(unlabelled, split, _both(images, split)["mirrored"])
    share, weight = float(asked), float(prefer.get("weight", 1.0))
    weighed = weight * share / (weight * share + 1 - share) if prefer else None
    few = 2 * len(split.seen) < len(split.absent)  # whose few rivals make the mirrored γ too small

    def bound(images: Evidence) -> tuple[float, float]:
        """γ, and one whose sign tells whether there is a gap: the quantile takes its share in any case."""
        gammas = _both(images, split, weighed)
        largest = max(gammas.values())
        return _within(largest, images, prefer), largest if few else gammas.get("mirrored", largest)

    recommended = _both(images, split, weighed)
    found = {} if old is None else {"mirrored": Gamma(recommended["mirrored"], split)}
    found["competitor_gap"] = Gamma(float(images.gap.mean()), split)
    for name in ("average_logit_gap", "rival_share", "margin_quantile"):
        found[name] = getattr(calibration, name)(logits, labels, split)
    found["prior_gamma"] = calibration.prior_gamma(labels.repeat(-(-total // len(labels)))[:total], split)
    if unlabelled is not None:
        found["absent_share"] = calibration.absent_share(unlabelled, split, share)
    choice = max(recommended, key=lambda name: recommended[name])
    gamma, sign = bound(images)
    gamma = Gamma(gamma, split)
    with_gamma = images.accuracy(gamma)
    for name, has in (("min_sy", with_gamma.seen), ("min_uy", with_gamma.absent_at_most)):
        if has + 1e-9 < (least := float(prefer.get(name, 0))):
            raise ValueError(f"no γ keeps {name}={least}: it comes to {has:.3f} at γ={gamma:.2f}; ask for less")
    ends = resampled(bound, images)
    spread = {name: (float(low), float(high)) for name, ((low, _), (high, _)) in ends.items()}
    lows, highs = zip(*spread.values(), strict=True)
    interval = min(*lows, gamma), max(*highs, gamma)
    signs = [sign, *(float(end) for of in ends.values() for end in of[:, 1])]
    advice = [] if old is None else between(logits, old, labels, split)
    advice += advise(logits, old, images, gamma, min(signs), max(signs))
    if total > len(labels):
        advice.append(Advice("note", "sampled", f"found from {len(labels):,} of {total:,} images, drawn at random"))
    if prefer.get("share") == "unlabelled":
        text = f"{share:.0%} of the unlabelled images are taken for absent ones; where most are, this says too few"
        advice.append(Advice("note", "share", text))
    advice.sort(key=lambda a: ("stop", "caution", "note").index(a.level))
    without = images.accuracy(0.0)
    return Calibrated(gamma, choice, found, interval, spread, without, with_gamma, share, tuple(advice), images)


def choose_head(
    logits: Array,
    labels: Array,
    split: ClassSplit,
    old_head: Array | None,
    unlabelled: tuple[Array, Array | None] | None = None,
    prefer: Mapping[str, float | str] | None = None,
    heads: Sequence[str] = HEADS,
) -> tuple[str, Calibrated]:
    """Of ``heads``, by the names of `ftlib.heads.read_by`, the one that does best with its γ, and what it found.

    Compared is the overall accuracy at γ, where mirror images stand for absent ones (`Accuracy.overall`). Give images
    that were held out of training: of those that the fine-tuned head knows by heart it reads too many right, and is
    then taken where another would have been better. Chapter 14 of the book measures what such a choice gains.

    Parameters
    ----------
    unlabelled : pair of floating arrays [M, C], optional
        Of the fine-tuned and of the pre-trained head, on images of all classes. The other arguments are those of
        `calibrate`, whose errors are raised for any of the heads.
    """
    found, given = {}, (logits, old_head)
    for head in heads:
        read, old = read_by(head, logits, split, old_head)
        mixed = None if unlabelled is None else read_by(head, unlabelled[0], split, unlabelled[1], given)[0]
        found[head] = calibrate(read, labels, split, old, mixed, prefer)
    if old_head is not None and [*found] != ["new"]:
        rows = _some(len(logits))
        arrays = {"logits": logits, "old_head": old_head, "labels": labels}
        new, old, known = (as_tensor(of, name, "an array")[rows] for name, of in arrays.items())
        told = between(new, old, known, split)
        for head in found.keys() - {"new"}:  # what is amiss between the checkpoints the new head tells
            advice = *told, *(a for a in found[head].advice if a.code not in BETWEEN)
            found[head] = replace(found[head], advice=advice)
    return max(found.items(), key=lambda of: of[1].with_gamma.overall(split, of[1].share))


# --- choosing along the curve -----------------------------------------------------------------------------------------


def _both(images: Evidence, split: ClassSplit, share: float | None = None) -> dict[str, float]:
    """The two of `calibration.recommended`, for a share of absent images if one is said.

    The fewer of these, the fewer seen images the quantile gives up for them: as the odds, and never more than one in
    twenty.
    """
    u = len(split.absent) / len(split.classes)
    rarer = 1.0 if share is None else min(1.0, share * (1 - u) / ((1 - share) * u))
    mirrored = {"mirrored": best_of_mirrored(images.mirrored, images.label, split, share)} if images.known else {}
    return mirrored | {"margin_quantile": float(np.quantile(images.seen, 0.05 * rarer))}


def _preferences(prefer: Mapping, old_head: Array | None, unlabelled: Array | None) -> Mapping:
    for name, value in prefer.items():
        if name not in PREFERENCES:
            raise ValueError(f"unknown preference {name!r}: expected one of {', '.join(PREFERENCES)}")
        if old_head is None and name != "min_sy":
            raise ValueError(f"{name} needs old_head, whose mirror images stand for the absent side")
        if name == "share" and value == "unlabelled":
            if unlabelled is None:
                raise ValueError("share='unlabelled' needs the logits of unlabelled images")
        elif not isinstance(value, int | float) or not 0 < value < (np.inf if name == "weight" else 1):
            expected = "a finite number above 0" if name == "weight" else "a number between 0 and 1"
            raise ValueError(f"{name}={value!r}: expected {expected}")
    return prefer


def _within(gamma: float, images: Evidence, prefer: Mapping) -> float:
    """γ, or the nearest at which the accuracies asked for are kept, as far as they can be; min_sy has the last word."""
    won, kept = np.sort(images.absent[images.absent_hit]), -np.sort(-images.seen[images.seen_hit])
    for name, margins in (("min_uy", won), ("min_sy", kept)):
        if name in prefer and len(margins):
            last = float(margins[min(int(np.ceil(prefer[name] * len(images.label) - 1e-9)), len(margins)) - 1])
            gamma = min(gamma, last) if name == "min_sy" else max(gamma, float(np.nextafter(last, np.inf)))
    return gamma


def check_head_of(array: Array, name: str, logits: Tensor, split: ClassSplit) -> Tensor:
    """Other logits, finite, of a head with as many classes; ValueError if not."""
    other = check_matrix(array, name)
    if other.shape[1] != logits.shape[1]:
        raise ValueError(f"{name} has {other.shape[1]} columns, the logits {logits.shape[1]}: expected the same")
    check_finite(other, name, split.classes)
    return other


def _some(n: int) -> Tensor:
    """Positions of all, or of `MOST` drawn at random, ascending."""
    return torch.from_numpy(np.arange(n) if n <= MOST else np.sort(seeded(0, "images").choice(n, MOST, replace=False)))
