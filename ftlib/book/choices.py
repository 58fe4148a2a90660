"""Choices that one has to make, and how much they matter: hyper-parameters, and the classes that are shown.

    measure       of one run: AUSUC, the features' NCM accuracy, and Acc_{Y/Y} with each estimate of γ
    robustness    how far a measure varies over a grid, and what share of the grid is near its best
    best_cell     the setting that is best on average
    best_elsewhere   for each seed the best of many, as the other seeds choose it
    in_every         for each seed the pair that is least, chosen likewise
    choose_seen   S as the classes most like one of them, or as unlike each other as can be
    places        a split in places among some classes, such as those of them that a given head has images of
    sizes_of      shares of the classes as numbers; thinned: images as they come in another mix
    nearness      how like its nearest seen class an absent class is
    tsne          a picture of class means in the plane
    slope         change of a measure with each doubling of a number

All are pure functions of a run's arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ftlib.analysis import cosines
from ftlib.calibration import average_logit_gap, competitor_gap, mirrored
from ftlib.core import ClassSplit, Outputs, whole
from ftlib.metrics import Accuracies, Curve, ncm_logits, seen_unseen_curve, split_accuracies
from ftlib.runs import Run


def measure(run: Run, old_head: Tensor | None = None, split: ClassSplit | None = None) -> dict[str, float]:
    """What a chapter that compares many runs asks of each; accuracies are fractions.

    ``ausuc``; ``yy``, ``sy`` and ``uy``; ``ncm_sy`` and ``ncm_uy``; ``gamma``, which is γ*, and ``oracle_yy``,
    ``oracle_sy``, ``oracle_uy`` with it; and Acc_{Y/Y} with the estimates: ``alg_yy``, ``rival_yy``, ``mirrored_yy``.
    These need ``old_head``, the logits that the pre-trained head gives to ``run.seen_train.features``. ``split`` stands
    for the run's own: a pre-trained model may be compared with any fine-tuning that starts from it.
    """
    split = split or run.split
    curve, features = curve_and_ncm(run, split)
    gamma, plain = curve.best_gamma(), curve.at(0.0)
    oracle = curve.at(gamma)
    values = {"ausuc": curve.ausuc, "gamma": gamma, "ncm_sy": features.sy, "ncm_uy": features.uy}
    values |= plain._asdict() | {f"oracle_{name}": value for name, value in oracle._asdict().items()}
    if old_head is not None:
        logits, labels = run.seen_train.logits, run.seen_train.labels
        estimates = {
            "alg": average_logit_gap(logits, labels, split),
            "rival": competitor_gap(logits, labels, split),
            "mirrored": mirrored(logits, labels, split, old_head),
        }
        values |= {f"{name}_yy": curve.at(estimate).yy for name, estimate in estimates.items()}
    return values


def curve_and_ncm(run: Run, split: ClassSplit) -> tuple[Curve, Accuracies]:
    """The exact curve of a run's test outputs, and the accuracies of the nearest means of its training features."""
    test, train = run.test, run.train
    ncm = ncm_logits(train.features, train.labels, test.features, test.logits.shape[1])
    return seen_unseen_curve(test.logits, test.labels, split), split_accuracies(ncm, test.labels, split)


def best_elsewhere(table: pd.DataFrame, names: Sequence[str], shown: pd.DataFrame | None = None) -> pd.Series:
    """Under each (pair, seed) that of the columns ``names`` whose mean over all *other* seeds is largest.

    The best of many chosen by the seed itself would be best by luck, too. Values are those of ``shown``, by default the
    table's own. A seed that has no other takes the first.
    """
    means: Any = table[list(names)].groupby("seed").mean()
    one = len(means) == 1
    chosen = {seed: names[0] if one else means.drop(index=[seed]).mean().idxmax() for seed in means.index}
    rows: Any = table if shown is None else shown
    return pd.Series([row[chosen[seed]] for (_, seed), row in rows.iterrows()], rows.index)


def in_every(column: pd.Series) -> pd.Series:
    """Under each seed the pair whose mean over all *other* seeds is least: what holds of it holds of every pair.

    ``column`` is indexed by pair and seed, the result by ("least", seed).
    """
    pairs: Any = pd.concat({"least": column.unstack("pair")}, names=["pair"])
    return -best_elsewhere(-pairs, [*pairs])


# --- hyper-parameters ------------------------------------------------------------------------------------------------


class Robustness(NamedTuple):
    """How much a choice of hyper-parameters matters, within one grid."""

    best: float
    spread: float  # best − worst
    near: float  # share of the settings that come within two points of the best
    failed: int  # settings whose training diverged: each counts as 0


def robustness(values: np.ndarray) -> Robustness:
    """Of a measure over one grid, such as AUSUC [learning rates, weight decays], nan where training diverged.

    ValueError for values below 0, which is what a diverged training is worth.
    """
    values = np.asarray(values, float)
    failed = np.isnan(values)
    values = np.where(failed, 0.0, values)
    if values.size == 0 or values.min() < 0:
        raise ValueError(f"values {values.tolist()}: expected a grid of values from 0 upwards")
    best = float(values.max())
    near = float((values >= best - 0.02).mean())
    return Robustness(best, best - float(values.min()), near, int(failed.sum()))


def best_cell(values: np.ndarray) -> tuple[int, ...]:
    """Place of the highest mean over the last axis [..., R]; nan counts as 0 and the first of equal ones is taken."""
    means = np.nan_to_num(np.asarray(values, float)).mean(-1)
    return tuple(int(i) for i in np.unravel_index(means.argmax(), means.shape))


# --- classes ---------------------------------------------------------------------------------------------------------


def choose_seen(means: Tensor, number: int, how: str, start: int) -> list[int]:
    """Choose S, ids in ascending order, by the similarity of classes: the cosine of two means [C, D] less that of all.

    "nearest" takes the ``number`` classes most similar to ``start``, so that S is one corner of the feature space;
    "farthest" from there in turn the class least similar to those chosen already, so that S is spread over all of it.
    ValueError for means that are not finite, or a number, kind or class that is not there.
    """
    similar = _similarities(means)
    whole("number", number, 1, len(similar) - 1)
    whole("start", start, 0, len(similar) - 1)
    if how not in ("nearest", "farthest"):
        raise ValueError(f"how={how!r}: expected 'nearest' or 'farthest'")
    chosen, nearest = [start], similar[start].clone()  # to those chosen, the largest similarity
    while len(chosen) < number:
        candidates = similar[start] if how == "nearest" else -nearest
        candidates = candidates.index_fill(0, torch.tensor(chosen), -torch.inf)
        chosen.append(int(candidates.argmax()))
        nearest = torch.maximum(nearest, similar[chosen[-1]])
    return sorted(chosen)


def places(split: ClassSplit, classes: Sequence[int]) -> ClassSplit:
    """The split in places among ``classes``, as rows of their means [|Y|, D] have them. ValueError for any other."""
    at = {c: i for i, c in enumerate(classes)}
    if other := sorted(set(split.classes) - set(at)):
        raise ValueError(f"classes {other} of the split: expected some of {list(classes)}")
    return ClassSplit([at[c] for c in split.seen], [at[c] for c in split.absent])


def sizes_of(shares: Sequence[float], classes: int) -> list[int]:
    """How many classes these shares of them are, 1 to C − 1, each number once."""
    if odd := [share for share in shares if not 0 < share < 1]:
        raise ValueError(f"shares {odd}: expected shares of the classes, above 0 and below 1")
    return sorted({min(max(round(share * classes), 1), classes - 1) for share in shares})


def thinned(outputs: Outputs, split: ClassSplit, share: float) -> Outputs:
    """All outputs on images of seen classes, and as many of absent ones, evenly taken, as make up the share."""
    if not 0 < share < 1:
        raise ValueError(f"share={share}: expected a share of absent images, above 0 and below 1")
    absent = torch.isin(outputs.labels, torch.tensor(split.absent))
    places, seen = absent.nonzero()[:, 0], int((~absent).sum())
    number = min(max(round(share / (1 - share) * seen), 1), len(places))
    keep = ~absent
    keep[places[torch.linspace(0, len(places) - 1, number).round().long()]] = True
    return Outputs(*(part[keep] for part in outputs))


def nearness(means: Tensor, split: ClassSplit) -> float:
    """Mean over absent classes of the largest similarity to a seen class, as `choose_seen` has it; in [−1, 1]."""
    return float(_similarities(means)[list(split.absent)][:, list(split.seen)].amax(1).mean())


def tsne(means: Tensor) -> np.ndarray:
    """Class means [C, D] in the plane [C, 2], such that near neighbours stay near (van der Maaten and Hinton, 2008)."""
    from sklearn.manifold import TSNE

    perplexity = min(15.0, (len(means) - 1) / 3)
    model = TSNE(perplexity=perplexity, init="pca", metric="cosine", random_state=0)
    return model.fit_transform((means - means.mean(0)).double().numpy())


def slope(sizes: Sequence[int], values: Iterable[float]) -> float:
    """Least-squares slope of values against the binary logarithm of sizes: the change with each doubling."""
    return float(np.polyfit(np.log2(sizes), list(values), 1)[0])


def _similarities(means: Tensor) -> Tensor:
    if means.ndim != 2 or len(means) < 2 or not means.isfinite().all():
        raise ValueError(f"class means {list(means.shape)}: expected finite ones of two classes or more, [C, D]")
    return cosines(means.double() - means.double().mean(0))
