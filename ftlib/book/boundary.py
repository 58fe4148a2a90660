"""When fine-tuning loses: what it gains, with the recommended γ, over doing nothing and over AdaBN alone.

Accuracies are fractions, gains are points.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from torch import nn

from ftlib.book.choices import best_elsewhere, curve_and_ncm
from ftlib.book.estimates import Estimate
from ftlib.calibration import Gamma, recommended
from ftlib.core import ClassSplit, Outputs
from ftlib.heads import read_by
from ftlib.runs import Run


def recommended_gamma(seen: Outputs, split: ClassSplit, old_head: nn.Module) -> Gamma:
    """γ by `ftlib.calibration.recommended`, from the fine-tuning images alone."""
    return recommended(seen.logits, seen.labels, split, old_head(seen.features))


def reading(run: Run, old_head: nn.Module, head: str) -> tuple[Any, Any, Gamma]:
    """Test logits [N, C] of a head, by its name in `ftlib.heads.read_by`, those of its untrained rows, and γ for them.

    γ is the recommended one.
    """
    seen, split = run.seen_train, run.split
    given = seen.logits, old_head(seen.features).detach()
    logits, old = read_by(head, given[0], split, given[1])
    on_test = read_by(head, run.test.logits, split, old_head(run.test.features).detach(), given)
    return *on_test, recommended(logits, seen.labels, split, old)


def served(run: Run, old_head: nn.Module, head: str) -> tuple[Any, Gamma]:
    """Of `reading` the test logits and γ."""
    logits, _, gamma = reading(run, old_head, head)
    return logits, gamma


def gains(run: Run, references: Mapping[str, Run], old_head: nn.Module) -> dict[tuple[str, str], float]:
    """Under (measure, reference) what fine-tuning adds, in points; the references stay as they are, without a γ.

    ``ncm`` is Acc_{U/Y} of nearest class means, ``area`` 100 · AUSUC; ``yy`` and ``uy`` are Acc_{Y/Y} and Acc_{U/Y}
    with the recommended γ.
    """
    gamma = recommended_gamma(run.seen_train, run.split, old_head)
    now = _state(run, run.split, gamma)
    then = {name: _state(of, run.split, 0.0) for name, of in references.items()}
    return {(measure, name): 100 * (now[measure] - of[measure]) for measure in now for name, of in then.items()}


def over_better(gained: pd.DataFrame) -> pd.DataFrame:
    """Of a table of `gains` those over the better of the references: a column a measure."""
    least: Any = gained.T.groupby(level=0).min()
    return least.T


def by_rank(effect: pd.Series, sign: pd.Series) -> pd.Series:
    """Under each seed Spearman's correlation of two columns over the seed's rows; both are indexed alike."""
    ranks: Any = effect.groupby("seed").apply(lambda of: of.corr(sign[of.index], method="spearman"))
    return ranks.rename("seed {}".format)


def word(gain: Estimate) -> str:
    """What its interval says of a gain."""
    return "gains" if gain.low > 0 else "loses" if gain.high < 0 else "cannot tell"


def extremes(gain: pd.Series) -> pd.Series:
    """Under each seed the smaller of the worst setup's loss and the best one's gain, in the unit of the gain.

    Which setups these are, the means of the other seeds say: chosen by the seed itself they would be extreme by luck.
    ``gain`` is indexed by (setup, pair, seed).
    """
    setups: Any = gain.unstack("setup")
    ends: Any = pd.concat([best_elsewhere(of, [*of]) for of in (setups, -setups)], axis=1).groupby("seed").mean()
    return ends.min(axis=1).rename("seed {}".format)


def _state(run: Run, split: ClassSplit, gamma: float) -> dict[str, float]:
    curve, ncm = curve_and_ncm(run, split)
    point = curve.at(gamma)
    return {"ncm": ncm.uy, "area": curve.ausuc, "yy": point.yy, "uy": point.uy}
