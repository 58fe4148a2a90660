"""When fine-tuning loses: what it gains over doing nothing, what could warn of it, and how far more numbers would go.

    gains      over the pre-trained model and over its batch-norm statistics alone, with the recommended γ
    signs      what anyone can measure who has no image of an absent class
    learn      the one threshold on one sign that tells losses from gains best, a `Rule`
    informed   hit rate less false-alarm rate, as one effect a seed
    ceilings   what γ, a scale and γ, and a bias a class reach on images that did not choose them
    levels     each absent class's mean logit on images of others: a bias a class without an absent image

Logits are floating arrays [N, C]; accuracies are fractions, gains are points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax

from ftlib.analysis import lead
from ftlib.book.estimates import Estimate, number
from ftlib.book.repairs import best_scale, rescale
from ftlib.calibration import Gamma, margin_quantile, mirrored, mirrored_margins, recommended
from ftlib.checks import Array, check_logits
from ftlib.core import ClassSplit, Outputs
from ftlib.metrics import ncm_logits, seen_unseen_curve, split_accuracies

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ftlib.runs import Run

ORACLES = ("γ", "scale + γ", "bias a class")


def recommended_gamma(seen: Outputs, split: ClassSplit, old_head: nn.Module) -> Gamma:
    """γ by the estimator that `ftlib.calibration.recommended` names, from the fine-tuning images alone."""
    if recommended(split) == "margin_quantile":
        return margin_quantile(seen.logits, seen.labels, split)
    return mirrored(seen.logits, seen.labels, split, old_head(seen.features).detach())


def gains(run: Run, references: Mapping[str, Run], old_head: nn.Module) -> dict[tuple[str, str], float]:
    """Under (measure, reference) what fine-tuning adds, in points; the references stay as they are, without a γ.

    ``ncm`` is Acc_{U/Y} of nearest class means, ``area`` 100 · AUSUC; ``yy`` and ``uy`` are Acc_{Y/Y} and Acc_{U/Y}
    with the recommended γ.
    """
    gamma = recommended_gamma(run.seen_train, run.split, old_head)
    now = _state(run, run.split, gamma)
    then = {name: _state(of, run.split, 0.0) for name, of in references.items()}
    return {(measure, name): 100 * (now[measure] - of[measure]) for measure in now for name, of in then.items()}


def word(gain: Estimate) -> str:
    """What its interval says of a gain."""
    return "gains" if gain.low > 0 else "loses" if gain.high < 0 else "cannot tell"


def extremes(gain: pd.Series) -> dict[str, float]:
    """Under each seed the smaller of the worst setup's loss and the best one's gain, in the unit of the gain.

    Which setups these are, the means of the other seeds say: chosen by the seed itself they would be extreme by luck.
    ``gain`` is indexed by (setup, pair, seed) with two seeds at least.
    """
    means: Any = gain.groupby(["seed", "setup"]).mean()
    table, effects = means.unstack(), {}
    for seed, own in table.iterrows():
        elsewhere = table.drop(index=[seed]).mean()
        effects[f"seed {seed}"] = min(-own[elsewhere.idxmin()], own[elsewhere.idxmax()])
    return effects


def signs(run: Run, before: Run, old_head: nn.Module) -> dict[str, float]:
    """What may warn. Images are those of seen classes that no training used: here, their test images.

    ``old head`` is the accuracy within S of the pre-trained head on the fine-tuned features, ``old head, change`` that
    less what it had on its own features, ``imitated`` the Acc_{U/Y} of `ftlib.calibration.mirrored_margins` at the
    recommended γ; ``CKA`` (linear; Kornblith et al., ICML 2019) and ``distance`` (relative) compare features of before
    and after; ``accuracy`` (within S) and ``margin`` (logits) are the pre-trained model's; ``seen share`` is |S| / |Y|,
    ``images`` the number of fine-tuning images.
    """
    split, gamma = run.split, recommended_gamma(run.seen_train, run.split, old_head)
    held = torch.isin(run.test.labels, torch.tensor(split.seen))
    now, then = (Outputs(*(part[held] for part in of.test)) for of in (run, before))
    old = old_head(now.features).detach()
    m, own = mirrored_margins(now.logits, now.labels, split, old), lead(then.logits, then.labels, split.seen)
    return {
        "old head": m.absent_hit.mean(),
        "old head, change": m.absent_hit.mean() - (own > 0).mean(),
        "imitated": (m.absent_hit & (m.absent < gamma)).mean(),
        "CKA": cka(then.features, now.features),
        "distance": float((now.features - then.features).norm() / then.features.norm()),
        "accuracy": (own > 0).mean(),
        "margin": own.mean(),
        "seen share": len(split.seen) / len(split.classes),
        "images": len(run.seen_train.labels),
    }


def cka(a: Tensor, b: Tensor) -> float:
    """Linear centred kernel alignment of features [N, D] and [N, E] of the same images: 1 if one turns the other."""
    a, b = (x.double() - x.double().mean(0) for x in (a, b))
    return float((a.T @ b).square().sum() / ((a.T @ a).norm() * (b.T @ b).norm()))


class Rule(NamedTuple):
    """Warn where a sign is on one side of a threshold."""

    sign: str
    below: bool
    threshold: float

    @property
    def written(self) -> str:
        """The condition as a table's cell."""
        return f"{'below' if self.below else 'above'} {number(self.threshold, '.3g')}"

    def warns(self, table: pd.DataFrame) -> pd.Series:
        values: Any = table[self.sign]
        return values < self.threshold if self.below else values > self.threshold


def learn(table: pd.DataFrame, lost: pd.Series) -> Rule:
    """Of all signs (columns) and thresholds the one with the largest hit rate less false-alarm rate.

    Thresholds lie half-way between two values. Of equally good ones the first column's is taken, and there the one
    whose neighbours are farthest apart. ValueError if all runs lost, or none.
    """
    yes = _some_lost(lost)
    found: list[tuple[float, Rule]] = []
    for name in table:
        x = table[name].to_numpy(float)
        values = np.unique(x)
        under = x < (values[1:, None] + values[:-1, None]) / 2
        better = under[:, yes].mean(1) - under[:, ~yes].mean(1)
        for below, difference in ((True, better), (False, -better)):
            for i in np.lexsort((np.diff(values), difference))[-1:]:
                found.append((difference[i], Rule(str(name), below, float(values[i] + values[i + 1]) / 2)))
    return max(found, key=lambda of: of[0])[1]


def informed(warned: pd.Series, lost: pd.Series) -> dict[str, float]:
    """Hit rate less false-alarm rate, which a blind guess has at 0, as effects in points under "seed 0", "seed 1" …

    Their mean is that of all runs together, so a seed in which nothing was lost takes part, too. ValueError if all
    runs lost, or none.
    """
    yes = _some_lost(lost)
    share = warned.to_numpy(float) * np.where(yes, 1 / yes.sum(), -1 / (~yes).sum())
    seeds = lost.index.get_level_values("seed").to_numpy()
    names = np.unique(seeds)
    return {f"seed {seed}": 100 * len(names) * float(share[seeds == seed].sum()) for seed in names}


# --- more numbers than one -------------------------------------------------------------------------------------------


def levels(logits: Array, split: ClassSplit) -> np.ndarray:
    """Each absent class's mean logit on the fine-tuning images, less the mean of all of them; 0 for seen classes: [C].

    Taken from the logits it is what `ftlib.calibration.average_logit_gap` does, class by class.
    """
    means = check_logits(logits, split).double().mean(0).cpu().numpy()
    level, absent = np.zeros(len(means)), list(split.absent)
    level[absent] = means[absent] - means[absent].mean()
    return level


def class_biases(logits: np.ndarray, labels: np.ndarray, split: ClassSplit) -> np.ndarray:
    """A bias a class [C], by maximum likelihood: softmax(scale · f + b), returned as b / scale.

    Within its side each bias has a standard normal prior around the side's own, since a class has few images.
    """
    columns = list(split.classes)
    place, absent = np.searchsorted(columns, labels), np.isin(columns, split.absent)
    x, rows = logits[:, columns], np.arange(len(labels))

    def loss(at: np.ndarray) -> tuple[float, np.ndarray]:
        scale, gamma, own = np.exp(at[0]), at[1], at[2:]
        z = log_softmax(scale * x + gamma * absent + own, axis=1)
        slope = np.exp(z)
        slope[rows, place] -= 1
        d = slope.sum(0)
        grad = np.concatenate([[scale * (slope * x).sum(), d[absent].sum()], d + own])
        return -z[rows, place].sum() + own @ own / 2, grad

    found = minimize(loss, np.zeros(2 + len(columns)), jac=True, method="L-BFGS-B").x
    bias = np.zeros(logits.shape[1])
    bias[columns] = (found[1] * absent + found[2:]) / np.exp(found[0])
    return bias


def ceilings(test: Outputs, split: ClassSplit, scales: Sequence[float], given: Mapping[str, Array]) -> dict[str, float]:
    """Acc_{Y/Y} in percent on halves of the test images: ``given`` logits, and what the other half chooses.

    ``γ``, ``scale + γ`` and ``bias a class`` are oracles that see labels of absent classes. Halves are drawn within
    each class.
    """
    logits, labels = test.logits.double().numpy(), test.labels.numpy()
    order = np.random.default_rng(0).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    absent = np.isin(np.arange(logits.shape[1]), split.absent)
    rows = []
    for this, other in ((order[::2], order[1::2]), (order[1::2], order[::2])):
        x, y = logits[other], labels[other]
        best = best_scale(x, y, split, scales)
        tried = {
            "γ": logits + absent * seen_unseen_curve(x, y, split).best_gamma(),
            "scale + γ": rescale(logits, best.scale, split) + absent * best.gamma,
            "bias a class": logits + class_biases(x, y, split),
            **given,
        }
        rows.append({k: 100 * split_accuracies(np.asarray(v)[this], labels[this], split).yy for k, v in tried.items()})
    return pd.DataFrame(rows).mean().to_dict()


def _state(run: Run, split: ClassSplit, gamma: float) -> dict[str, float]:
    train, test = run.train, run.test
    means = ncm_logits(train.features, train.labels, test.features, test.logits.shape[1])
    curve = seen_unseen_curve(test.logits, test.labels, split)
    point = curve.at(gamma)
    ncm = split_accuracies(means, test.labels, split).uy
    return {"ncm": ncm, "area": curve.ausuc, "yy": point.yy, "uy": point.uy}


def _some_lost(lost: pd.Series) -> np.ndarray:
    yes = lost.to_numpy(bool)
    if yes.all() or not yes.any():
        raise ValueError(f"{yes.sum()} of {len(yes)} runs lost: a rule needs setups of both kinds, add some")
    return yes
