"""A warning that fine-tuning will lose, for one who has no image of an absent class.

    SIGNS      what anyone can measure; `signs` measures it
    rules      a threshold for each sign, that which carries best from pair to pair first
    informed   hit rate less false-alarm rate, as one effect a seed

Tables are indexed by (setup, pair, seed), with a sign a column.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ftlib.analysis import lead
from ftlib.book.boundary import recommended_gamma
from ftlib.book.estimates import number
from ftlib.core import Outputs
from ftlib.margins import mirrored_margins
from ftlib.runs import Run

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
    m = mirrored_margins(now.logits, now.labels, split, old_head(now.features))
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


def recorded_rules(values: Mapping[str, Any]) -> dict[str, Rule]:
    """The rules that the chapter found under another profile, from what it recorded there."""
    return {of["sign"]: Rule(**of) for of in values["rules"]}


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


def informed(warned: pd.Series, lost: pd.Series) -> pd.Series:
    """Hit rate less false-alarm rate, which a blind guess has at 0, as effects in points under "seed 0", "seed 1" …

    Their mean is that of all runs together, so a seed in which nothing was lost takes part, too. ValueError if all
    runs lost, or none.
    """
    yes = _some_lost(lost)
    share = pd.Series(warned.to_numpy(float) * np.where(yes, 1 / yes.sum(), -1 / (~yes).sum()), lost.index)
    of_seed: Any = share.groupby("seed").sum()
    return (100 * len(of_seed) * of_seed).rename("seed {}".format)


def _some_lost(lost: pd.Series) -> np.ndarray:
    yes = lost.to_numpy(bool)
    if yes.all() or not yes.any():
        raise ValueError(f"{yes.sum()} of {len(yes)} runs lost: a rule needs setups of both kinds, add some")
    return yes
