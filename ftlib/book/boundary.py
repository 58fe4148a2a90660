"""When fine-tuning loses: what it gains over doing nothing, what could warn of it, and how far more numbers would go.

    gains      over the pre-trained model and over its batch-norm statistics alone, with the recommended γ
    SIGNS      what anyone can measure who has no image of an absent class; `signs` measures it
    rules      a threshold for each sign, that which carries best from pair to pair first
    informed   hit rate less false-alarm rate, as one effect a seed
    in_a_mix   what each way to choose γ leaves when another share of the images is absent
    misfit     how far mirror images are from absent ones, and what of γ* that may cost
    ceilings   what γ, a scale and γ, and a bias a class reach on images that did not choose them
    levels     each absent class's mean logit on images of others: a bias a class without an absent image

Logits are floating arrays [N, C]; accuracies are fractions, gains are points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax

from ftlib.analysis import lead
from ftlib.book.estimates import Estimate, number
from ftlib.book.repairs import best_scale, rescale
from ftlib.calibration import (
    Gamma,
    absent_share,
    average_logit_gap,
    best_of_mirrored,
    estimated_share,
    margin_quantile,
    mirrored,
    recommended,
)
from ftlib.checks import Array, check_logits
from ftlib.core import ClassSplit, Outputs
from ftlib.margins import mirrored_margins
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


# Under each sign whether it warns below its threshold, and why there: what theory says, whatever the runs say.
SIGNS = {
    "old head": (True, "absent classes keep their old rows: where these read seen classes badly, they do absent ones"),
    "old head, gain": (
        True,
        "where old rows read the new features no better than the old ones, absent classes gain none",
    ),
    "old head, errors mended": (True, "the same, as a share of what the better free model had left to mend"),
    "imitated": (True, "what mirror images reach at most, absent classes will not reach"),
    "CKA": (True, "nothing holds absent classes' features to their old rows but that the features stay alike"),
    "distance": (False, "the same: the farther the features moved, the less their old rows fit"),
    "accuracy": (False, "a model that is good on the target has much to lose and little to gain"),
    "margin": (False, "the same, in standard deviations"),
    "seen share": (True, "few classes teach features that tell these few apart, not all"),
    "images a class": (True, "few images are learnt by heart"),
}


def signs(run: Run, free: Mapping[str, Run], old_head: nn.Module) -> dict[str, float]:
    """`SIGNS` of a run. Images are those of seen classes that no training used: here, their test images.

    ``free`` are the models that cost nothing, "pre-trained" among them. ``old head`` is the accuracy within S of the
    pre-trained head on the fine-tuned features, ``gain`` that less what it had on its own features, ``errors mended``
    that less what the best of ``free`` has, as a share of the latter's errors; ``imitated`` the Acc_{U/Y} of
    `ftlib.margins.mirrored_margins` at the recommended γ; ``CKA`` (linear; Kornblith et al., ICML 2019) and
    ``distance`` (relative) compare features of before and after; ``accuracy`` (within S) and ``margin`` (its mean by
    its standard deviation) are the pre-trained model's; ``seen share`` is |S| / |Y|. All are free of a scale but for
    ``images a class``, of fine-tuning.
    """
    split, gamma = run.split, recommended_gamma(run.seen_train, run.split, old_head)
    held = torch.isin(run.test.labels, torch.tensor(split.seen))
    now, then = (Outputs(*(part[held] for part in of.test)) for of in (run, free["pre-trained"]))
    leads = {name: lead(of.test.logits[held], now.labels, split.seen) for name, of in free.items()}
    own, best = leads["pre-trained"], max(float((of > 0).mean()) for of in leads.values())
    m = mirrored_margins(now.logits, now.labels, split, old_head(now.features).detach())
    old = float(m.absent_hit.mean())
    return {
        "old head": old,
        "old head, gain": old - float((own > 0).mean()),
        "old head, errors mended": (old - best) / max(1 - best, 1 / len(own)),
        "imitated": float((m.absent_hit & (m.absent < gamma)).mean()),
        "CKA": cka(then.features, now.features),
        "distance": float((now.features - then.features).norm() / then.features.norm()),
        "accuracy": float((own > 0).mean()),
        "margin": float(own.mean() / own.std()),
        "seen share": len(split.seen) / len(split.classes),
        "images a class": len(run.seen_train.labels) / len(split.seen),
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


def rules(table: pd.DataFrame, lost: pd.Series) -> dict[str, Rule]:
    """Every sign's (column's) rule; that whose threshold carries best from pair to pair is first, and to be taken.

    A sign's side is that of `SIGNS`; its threshold has the largest hit rate less false-alarm rate over all pairs. It
    carries as well as that difference is on each pair for a threshold that was learnt on the others, on average; with
    one pair, on itself. ValueError if all runs lost, or none.
    """
    _some_lost(lost)
    of_pair, columns, yes = table.index.get_level_values("pair"), cast(Any, table), cast(Any, lost)
    pairs = [p for p in of_pair.unique() if yes[of_pair == p].nunique() == 2]

    def carries(name: str) -> float:
        if len(pairs) < 2:
            return difference(_threshold(columns[name], lost), table, lost)
        parts = [(of_pair == p, (of_pair != p) & of_pair.isin(pairs)) for p in pairs]
        found = [difference(_threshold(columns[name][o], yes[o]), columns[p], yes[p]) for p, o in parts]
        return float(np.mean(found))

    return {name: _threshold(columns[name], lost) for name in sorted(map(str, table), key=carries, reverse=True)}


def recorded_rules(recorded: Mapping[str, Mapping[str, Any]], profile: str) -> dict[str, Rule]:
    """The rules that the chapter found under another profile, as `ftlib.book.record.Record.elsewhere` has them."""
    if "rules" not in recorded.get(profile, {}):
        raise ValueError(f"profile {profile!r} has recorded no rules here: execute this chapter under it first")
    return {of["sign"]: Rule(**of) for of in recorded[profile]["rules"]}


def _threshold(sign: pd.Series, lost: pd.Series) -> Rule:
    """Half-way between two values; of equally good ones that whose neighbours are farthest apart."""
    name, yes, x = str(sign.name), _some_lost(lost), sign.to_numpy(float)
    below, values = SIGNS[name][0], np.unique(x)
    if len(values) == 1:
        return Rule(name, below, float(values[0]))  # warns never
    under = x < (values[1:, None] + values[:-1, None]) / 2
    better = (1 if below else -1) * (under[:, yes].mean(1) - under[:, ~yes].mean(1))
    i = np.lexsort((np.diff(values), better))[-1]
    return Rule(name, below, float(values[i] + values[i + 1]) / 2)


def difference(rule: Rule, table: pd.DataFrame, lost: pd.Series) -> float:
    """Hit rate less false-alarm rate of a rule, which a blind one has at 0."""
    yes, warned = _some_lost(lost), rule.warns(table).to_numpy()
    return float(warned[yes].mean() - warned[~yes].mean())


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


# --- another mix of images -------------------------------------------------------------------------------------------


def in_a_mix(run: Run, old_head: nn.Module, share: float) -> dict[str, float]:
    """Accuracy in percent if ``share`` of the images shows absent classes, by how γ was chosen, and the best there is.

    Acc_{S/Y} and Acc_{U/Y} are weighed, so that nothing is drawn. ``told`` is the share,
    ``estimated`` finds it by `ftlib.calibration.estimated_share` on test images in that mix, without their labels;
    ``unaware`` takes it for |U| / |Y|.
    """
    seen, split, curve = run.seen_train, run.split, seen_unseen_curve(run.test.logits, run.test.labels, run.split)
    margins = mirrored_margins(seen.logits, seen.labels, split, old_head(seen.features).detach())
    mixed, told = mix(run.test, split, share).logits, min(max(share, 0.01), 0.99)

    def mirror(of: float | None) -> Gamma:
        return best_of_mirrored(margins, seen.labels.numpy(), split, of)

    gammas = {
        "no γ": 0.0,
        "ALG": average_logit_gap(seen.logits, seen.labels, split),
        "5 % of the margins": margin_quantile(seen.logits, seen.labels, split),
        "mirrored, unaware": mirror(None),
        "mirrored, estimated": mirror(estimated_share(mixed, split, mirror(None))),
        "mirrored, told": mirror(told),
        "share of U, unaware": absent_share(mixed, split),
        "share of U, told": absent_share(mixed, split, told),
    }
    points = {name: curve.at(gamma) for name, gamma in gammas.items()}
    right = {name: 100 * ((1 - share) * p.sy + share * p.uy) for name, p in points.items()}
    return right | {"γ*": 100 * float(((1 - share) * curve.sy + share * curve.uy).max())}


def mix(test: Outputs, split: ClassSplit, share: float) -> Outputs:
    """As many test images as give this share of absent ones, evenly taken from both sides."""
    absent = torch.isin(test.labels, torch.tensor(split.absent))
    sides = [(~absent).nonzero()[:, 0], absent.nonzero()[:, 0]]
    parts = 1 - share, share
    total = min(len(side) / part for side, part in zip(sides, parts, strict=True) if part)
    sizes = [round(total * part) for part in parts]
    taken = [side[torch.linspace(0, len(side) - 1, n).long()] for side, n in zip(sides, sizes, strict=True)]
    return Outputs(*(part[torch.cat(taken)] for part in test))


# --- where mirroring's assumption breaks ------------------------------------------------------------------------------


def misfit(run: Run, old_head: nn.Module) -> dict[str, float]:
    """The distances and the bound of the book's page of theory, in points, and the regret of `mirrored` below it.

    ``seen side`` is the largest difference over γ between Acc_{S/Y} on the fine-tuning images and on test images,
    ``absent side`` that between Acc_{U/Y} of mirror images and of absent test images. Images at hand are weighed such
    that each class counts the same, as `mirrored` does.
    """
    seen, split, curve = run.seen_train, run.split, seen_unseen_curve(run.test.logits, run.test.labels, run.split)
    m = mirrored_margins(seen.logits, seen.labels, split, old_head(seen.features).detach())
    weight = 1 / np.bincount(seen.labels.numpy())[seen.labels.numpy()] / len(split.seen)
    share = float(torch.isin(run.test.labels, torch.tensor(split.absent)).double().mean())
    gammas = np.unique(np.concatenate([curve.gamma[np.isfinite(curve.gamma)], m.seen, m.absent]))
    points = [curve.at(gamma) for gamma in gammas]
    far = {
        "seen side": max(
            abs(p.sy - weight @ (m.seen_hit & (g <= m.seen))) for p, g in zip(points, gammas, strict=True)
        ),
        "absent side": max(
            abs(p.uy - weight @ (m.absent_hit & (g > m.absent))) for p, g in zip(points, gammas, strict=True)
        ),
    }
    chosen = best_of_mirrored(m, seen.labels.numpy(), split)
    error = np.sqrt(0.25 / (2 * len(weight)))  # the most that one standard error can be
    bound = 2 * ((1 - share) * far["seen side"] + share * far["absent side"]) + error
    found = far | {"bound": bound, "regret": curve.yy.max() - curve.at(chosen).yy}
    return {name: 100 * float(x) for name, x in found.items()}


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
