"""A chapter's runs, measured into one table: (pair, seed) × measures, whose columns become claims, tables and figures.

study = Study("03-what-breaks", profile, benchmarks, seeds, backbone=backbone)
before, after = study.runs("pretrained"), study.runs("finetune", recipe=recipe)
change = after.measure(accuracies) - before.measure(accuracies)
study.check("absent-drop", "Fine-tuning on S lowers the accuracy on U", -100 * change.uy)
study.finish({"uy": percent(over_seeds(change.uy))})
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import Markdown
from torch import nn

from ftlib import benchmarks as families
from ftlib.book import figures
from ftlib.book.claims import Claim
from ftlib.book.estimates import by_seed
from ftlib.book.record import Record
from ftlib.experiments import Experiment, Run, grid, sweep
from ftlib.metrics import seen_unseen_curve, split_accuracies
from ftlib.sweeps import SweepError

Key = tuple[str, int]  # (pair of domains, seed)
HOLDOUT = 0.2  # share of each seen class's images that is kept out of training when settings are chosen
BLIND = 0.05  # of the way from chance to perfect: a pre-trained model below that has nothing that one could break


class Runs(dict[Key, Run]):
    """Runs under (pair, seed)."""

    def measure(self, what: Callable[..., Any], *beside: Mapping[Key, Any]) -> pd.DataFrame:
        """A row a run: ``what(run)`` gives a dataclass, a NamedTuple or a mapping of measures; arrays stay arrays.

        ``beside`` are mappings under the same keys, such as other runs, whose entries ``what`` takes in addition.
        """
        rows = {key: _mapping(what(run, *(other[key] for other in beside))) for key, run in self.items()}
        table = pd.DataFrame(list(rows.values()), pd.MultiIndex.from_tuples(rows, names=["pair", "seed"]))
        if len(table.columns) and all(isinstance(name, tuple) for name in table.columns):
            table.columns = pd.MultiIndex.from_tuples(table.columns)
        return table

    @property
    def first(self) -> Run:
        return next(iter(self.values()))


class Study:
    """The parameters that all of a chapter's runs share, and the record that they end in.

    The record goes to results/<profile>/<chapter>.json. ``common`` is what all runs share, as `ftlib.experiments.grid`
    takes it: backbone, model, checkpoint, data, pretraining. TypeError if ``benchmarks`` or ``seeds`` is no list, as
    plain papermill passes them with ``-p``: the message has the form.
    """

    def __init__(self, chapter: str, profile: str, benchmarks: list[str], seeds: list[int], **common: Any) -> None:
        for name, value, kind in (("benchmarks", benchmarks, str), ("seeds", seeds, int)):
            if not isinstance(value, list) or not value or not all(type(v) is kind for v in value):
                form = '["glyphs/print-neon"]' if kind is str else "[0, 1, 2]"
                raise TypeError(f"{name} is {value!r}, expected a list such as {form}: papermill takes -y '{name}: …'")
        figures.use_style()
        self.record, self.benchmarks, self.seeds, self.common = Record(chapter, profile), benchmarks, seeds, common
        self.used: dict[str, Run] = {}
        self.blind: str | None = None

    def plan(self, method: str, *, benchmarks: Iterable[str] | None = None, **own: Any) -> dict[Key, Experiment]:
        """Experiments of one method; ``own`` overrides what the study's runs share, ``seeds`` included."""
        seeds = own.pop("seeds", self.seeds)
        return grid(benchmarks or self.benchmarks, seeds, method, **self.common | own)

    def sweep(self, plans: Mapping[Any, Mapping[Key, Experiment]]) -> dict[Any, Runs]:
        """The runs of several plans, computed together so that no core waits between them."""
        found = {name: Runs(runs) for name, runs in sweep(plans).items()}
        self.used |= {run.key: run for runs in found.values() for run in runs.values()}
        return found

    def finished(self, plans: Mapping[Any, Mapping[Key, Experiment]]) -> dict[Any, Runs]:
        """`sweep`, less the runs whose training diverged, or left no finite logits: that is a result, too."""
        try:
            found = self.sweep(plans)
        except SweepError as error:
            lost = error.failures
            if not all("FloatingPointError" in text for text in lost.values()):
                raise
            found = self.sweep({name: {k: e for k, e in of.items() if e not in lost} for name, of in plans.items()})
        return {name: Runs({key: run for key, run in runs.items() if _finite(run)}) for name, runs in found.items()}

    def heads(self, **own: Any) -> dict[Key, nn.Module]:
        """The heads of the pre-trained models, as they were before any fine-tuning; ``own`` as for `plan`."""
        sources = sweep({key: e.source for key, e in self.plan("pretrained", **own).items()})
        return {key: run.head() for key, run in sources.items()}

    def runs(self, method: str, **own: Any) -> Runs:
        return self.sweep({method: self.plan(method, **own)})[method]

    def tune(self, settings: Mapping[Any, Mapping[str, Any]], seeds: Sequence[int], **own: Any) -> pd.DataFrame:
        """Settings tried on seeds that no result comes from: a row a setting, means over the pairs and these seeds.

        ``settings`` are what `plan` takes, such as {"recipe": {"lr": 0.1}}, by default of fine-tuning. ``held_out`` is
        Acc_{S/Y} on images that are kept out of training, which anyone has; ``oracle`` is Acc_{Y/Y} with γ* on the test
        images, a luxury. A setting that diverged has no row.
        """
        how: dict[str, Any] = {"method": "finetune", "seeds": seeds} | own
        plans = {}
        for name, values in settings.items():
            values = {**how, **values}
            options = {**values.pop("options", {}), "holdout": HOLDOUT}
            plans[name] = self.plan(**values, options=options)
        found = {name: runs for name, runs in self.finished(plans).items() if len(runs) == len(plans[name])}
        tried = {name: runs.measure(_scores).mean() for name, runs in found.items()}
        return pd.DataFrame(tried, index=["held_out", "oracle"]).T

    def choose(
        self, settings: Mapping[str, Sequence[Mapping[str, Any]]], seeds: Sequence[int]
    ) -> tuple[dict[str, Mapping[str, Any]], pd.DataFrame]:
        """Under each name the setting with the best ``held_out`` of `tune`, and its table: rows (name, number).

        All are tried on the first pair alone; where there is only one setting, nothing is tried.
        """
        tried = {(name, i): how for name, of in settings.items() if len(of) > 1 for i, how in enumerate(of)}
        scores = self.tune(tried, seeds, benchmarks=self.benchmarks[:1])
        held_out = scores.held_out
        best = {name: max(range(len(of)), key=lambda i: held_out.get((name, i), 0)) for name, of in settings.items()}
        return {name: settings[name][i] for name, i in best.items()}, scores

    def check(self, id: str, statement: str, effects: pd.Series | Mapping[Any, float], **how: Any) -> Claim:
        """`ftlib.book.claims.check` of a column; withheld, that is only reported, if the pre-trained model is blind."""
        if self.banner():
            how["judged"] = False
        effects = effects.to_dict() if isinstance(effects, pd.Series) else effects
        return self.record.check(id, statement, effects, **how)

    def banner(self) -> str:
        """Why no verdict is given, if the pre-trained models are near chance on the target; else nothing."""
        before = [run for run in self.used.values() if run.spec["method"] == "pretrained"]
        if self.blind is None and before:
            right = np.mean([split_accuracies(r.test.logits, r.test.labels, r.split).yy for r in before])
            chance = np.mean([1 / len(r.split.classes) for r in before])
            why = (
                f"The pre-trained models are right on {right:.1%} of the target's images, chance is {chance:.1%}: "
                "there is little that fine-tuning could break, so verdicts are withheld. Pre-train longer or more "
                "gently, start from better weights, or check their input's mean, std and padding."
            )
            self.blind = "" if right >= chance + BLIND * (1 - chance) else why
        return self.blind or ""

    def setup(self, **more: Any) -> Markdown | None:
        """What parameters do not say: ``more``, what was left out of the images, the banner; None if nothing is."""
        told = [f"{name} {value}." for name, value in more.items()]
        if files := ", ".join(f"{count} {reason}" for reason, count in self.left_out().items()):
            told.append(f"Left out of the images: {files}.")
        if self.banner():
            told.append(f"\n\n> **{self.banner()}**")
        return Markdown(" ".join(told)) if told else None

    def left_out(self) -> dict[str, int]:
        """Files that the loaders passed over, by reason."""
        return families.left_out(self.benchmarks, self.common.get("data"))

    def finish(self, texts: Mapping[str, str], **extra: Any) -> None:
        """`ftlib.book.record.Record.finish` with all runs that were asked for, and what they share."""
        told = {"seeds": self.seeds, "benchmarks": self.benchmarks, "backbone": self.common.get("backbone")}
        if left := self.left_out():
            told["left_out"] = left
        self.record.finish(texts, self.used.values(), **told | extra)


def over_setups(
    found: Mapping[Any, Runs], what: Callable[..., Any], *beside: Mapping[Any, Mapping[Key, Any]]
) -> pd.DataFrame:
    """`Runs.measure` of the runs under each setup as one table, indexed by (setup, pair, seed); so is ``beside``."""
    tables = {name: runs.measure(what, *(of[name] for of in beside)) for name, runs in found.items()}
    return pd.concat(tables, names=["setup"])


def nearest_to_mean(column: pd.Series) -> Key:
    """The (pair, seed) whose value is nearest to the mean of all: the run to show in a picture."""
    return (column - column.mean()).abs().idxmin()


def side_by_side(found: Mapping[Any, Mapping[Key, Any]]) -> dict[Key, dict[Any, Any]]:
    """Several kinds of runs, as `Study.sweep` gives them, as one mapping for each (pair, seed)."""
    return {key: {name: runs[key] for name, runs in found.items()} for key in next(iter(found.values()))}


def of_pairs(frame: Any) -> dict[str, Any]:
    """Under each pair its rows, of a table or a column, in the order of the pairs."""
    return {pair: frame.xs(pair, level="pair", drop_level=False) for pair in frame.index.unique("pair")}


def bands(column: pd.Series, scale: float = 1) -> np.ndarray:
    """A column of arrays [E] as lines [seeds, E], averaged over the pairs of each seed, for `figures.trajectories`."""
    return scale * np.array([*by_seed(column.to_dict()).values()])


def _finite(run: Run) -> bool:
    return all(bool(part.logits.isfinite().all()) for part in (run.train, run.test))


def _scores(run: Run) -> dict[str, float]:
    curve = seen_unseen_curve(run.test.logits, run.test.labels, run.split)
    held_out = split_accuracies(run.held_out.logits, run.held_out.labels, run.split)
    return {"held_out": held_out.sy, "oracle": curve.at(curve.best_gamma()).yy}


def _mapping(value: Any) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    return value._asdict() if hasattr(value, "_asdict") else asdict(value)
