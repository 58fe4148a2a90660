"""Experiment -> Run: all that touches the device happens in here, once, and is kept in the run store.

    run(Experiment("glyphs/print-neon", seed=3)).test.logits

An Experiment says in plain values what is to be measured. Its Run is the pre-trained or fine-tuned classifier's
outputs on the target domain, its weights and its history. `sweep` brings many of them, in parallel, and resumes where
it stopped.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import joblib
import torch
from tqdm import tqdm

from ftlib import baselines, benchmarks, methods, models, training
from ftlib.provenance import code_hash, device_name, versions
from ftlib.runs import Run
from ftlib.store import Store
from ftlib.training import Recipe

__all__ = ["METHODS", "Experiment", "Recipe", "Run", "SweepError", "grid", "run", "sweep"]

METHODS = {
    "pretrain": methods.pretrain, "pretrained": methods.pretrained, "finetune": methods.finetune,
    "oracle": baselines.oracle, "masked": baselines.masked, "frozen_head": baselines.frozen_head,
    "linear_probe": baselines.linear_probe, "wise": baselines.wise, "lolsgd": baselines.lolsgd, "fold": baselines.fold,
}  # fmt: skip
PRETRAINING = Recipe(epochs=5, lr=0.1, backbone_lr=1.0, warmup=0.2, evaluations=0)
Key = TypeVar("Key")


@dataclass(frozen=True)
class Experiment:
    """What is to be measured, in plain values.

    Images of a folder and a checkpoint enter by name: rename them when their content changes.
    """

    benchmark: str  # a pair of domains, as `ftlib.benchmarks.load` takes it
    backbone: str = "test_resnet"  # any architecture of timm
    method: str = "finetune"  # a key of METHODS
    recipe: Recipe = field(default_factory=Recipe)  # of the method
    seed: int = 0  # of class split, image split, initial weights and training
    pretraining: Recipe = PRETRAINING  # on the source domain, shared by all targets and methods
    data: Mapping[str, Any] = field(default_factory=dict)  # options of the benchmark
    model: Mapping[str, Any] = field(default_factory=dict)  # options of timm.create_model
    checkpoint: str = ""  # weights from which pre-training starts
    pretrained: bool = False  # or timm's own, from the hub
    head: str = "linear"  # or "cosine", from pre-training on
    options: Mapping[str, Any] = field(default_factory=dict)  # of the method

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"unknown method {self.method!r}: expected one of {', '.join(METHODS)}")
        if self.method in ("pretrain", "pretrained"):  # no other recipe takes part
            object.__setattr__(self, "recipe", self.pretraining)
        parameters = inspect.signature(METHODS[self.method]).parameters.values()
        known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
        if unknown := sorted(set(self.options) - set(known)):
            raise ValueError(f"{self.method} has no option {', '.join(unknown)}; it has {', '.join(known) or 'none'}")
        # The key is computed once: what the caller does to a mapping must not reach it.
        for name in ("data", "model", "options"):
            object.__setattr__(self, name, dict(getattr(self, name)))

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def spec(self) -> dict[str, Any]:
        return asdict(self)

    @cached_property
    def key(self) -> str:
        """Names the Run: a hash of the spec and of the code that its result depends on."""
        own = inspect.getmodule(METHODS[self.method])
        code = code_hash((models, training, methods, own, *benchmarks.modules_of(self.benchmark)))
        return hashlib.sha256((json.dumps(self.spec, sort_keys=True) + code).encode()).hexdigest()[:20]

    @property
    def source(self) -> Experiment:
        """The pre-training that this experiment starts from."""
        name, options = benchmarks.source_of(self.benchmark, self.data)
        return replace(self, benchmark=name, data=options, method="pretrain", options={})

    @property
    def parents(self) -> tuple[Experiment, ...]:
        """The experiments whose trained models this one starts from."""
        if self.method == "pretrain":
            return ()
        return (self.source, replace(self, method="finetune", options={})) if self.method == "wise" else (self.source,)


def run(experiment: Experiment, *, store: Store | None = None, device: str | None = None) -> Run:
    """The Run of an Experiment, from the store if it is there.

    Parameters
    ----------
    store : Store, optional
        Default: that of ``$FTLIB_STORE``.
    device : str, optional
        Default: CUDA if there is a GPU, else the CPU.
    """
    store = store or Store()
    path = store.find(experiment.key)
    if path is None:
        with store.lock(experiment.key):
            path = store.find(experiment.key) or _compute(experiment, store, device)
    return Run(experiment, path)


def sweep(
    experiments: Mapping[Key, Experiment] | Iterable[Experiment],
    *,
    store: Store | None = None,
    jobs: int | None = None,
    device: str | None = None,
) -> dict[Key, Run] | list[Run]:
    """The Runs of many Experiments; those not in the store are computed in parallel processes.

    Parameters
    ----------
    experiments : mapping or iterable
        A mapping gives the Runs under its keys, an iterable gives them as a list in its order.
    jobs : int, optional
        Processes, of one thread each on a CPU. Default: the CPU's cores, or the number of GPUs.

    Raises
    ------
    SweepError
        Some runs failed. All others are finished and kept; the message has the spec of each that failed.
    """
    store = store or Store()
    if not isinstance(experiments, Mapping):
        numbered = dict(enumerate(experiments))
        return list(sweep(numbered, store=store, jobs=jobs, device=device).values())
    missing = list({e.key: e for e in experiments.values() if store.find(e.key) is None}.values())
    if missing:
        jobs = jobs or torch.cuda.device_count() or joblib.cpu_count()
        work = joblib.Parallel(n_jobs=min(jobs, len(missing)), return_as="generator_unordered")(
            joblib.delayed(_attempt)(e, store, device) for e in _spread(missing)
        )
        failures = [failure for failure in tqdm(work, "runs", len(missing), unit="run") if failure]
        if failures:
            raise SweepError(f"{len(failures)} of {len(missing)} runs failed:\n" + "\n".join(failures))
    return {key: run(e, store=store, device=device) for key, e in experiments.items()}


def grid(
    benchmarks: Iterable[str],
    seeds: Iterable[int],
    method: str,
    *,
    recipe: Mapping[str, Any] | None = None,
    pretraining: Mapping[str, Any] | None = None,
    **common: Any,
) -> dict[tuple[str, int], Experiment]:
    """Experiments of one method over (pair, seed), such as ("print-neon", 0), from a chapter's parameters.

    ``recipe`` and ``pretraining`` are a Recipe's values as far as they differ from its defaults; ``common`` goes to
    Experiment.
    """
    experiments = {}
    for benchmark in benchmarks:
        for seed in seeds:
            key = benchmark.rsplit("/", 1)[-1], seed
            if key in experiments:
                raise ValueError(f"{key[0]!r} with seed {seed} is there twice: name every benchmark and seed once")
            experiments[key] = Experiment(
                benchmark,
                method=method,
                recipe=Recipe.of(recipe or {}),
                seed=seed,
                pretraining=Recipe.of(pretraining) if pretraining else PRETRAINING,
                **common,
            )
    return experiments


class SweepError(RuntimeError):
    """Some runs of a sweep failed."""


def _compute(experiment: Experiment, store: Store, device: str | None) -> Path:
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    models = [run(parent, store=store, device=device).build().to(device) for parent in experiment.parents]
    start = time.perf_counter()  # the parents' own time is in their own logs
    arrays, fit_log = METHODS[experiment.method](experiment, *(models or [device]), **experiment.options)
    log = {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "versions": versions("torch", "timm"),
        "seconds": round(time.perf_counter() - start, 3),
        "images_per_second": fit_log and round(fit_log.images_per_second, 1),
    }
    return store.save(experiment.key, experiment.spec, arrays, log)


def _attempt(experiment: Experiment, store: Store, device: str | None) -> str | None:
    """Compute a Run and keep it; say what went wrong, instead of raising, so that the other runs go on."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two processes of one thread do more than one process of two
    try:
        run(experiment, store=store, device=device)
    except Exception as error:  # whatever it is, it goes into the sweep's report
        return f"- {experiment}\n    {type(error).__name__}: {error}"
    finally:
        torch.set_num_threads(threads)
    return None


def _spread(experiments: list[Experiment]) -> list[Experiment]:
    """Order runs so that neighbours start from different pre-trainings and no process waits for another's."""
    ranks: dict[str, int] = {}
    keyed = []
    for e in experiments:
        source = e.key if e.method == "pretrain" else e.source.key
        ranks[source] = ranks.get(source, -1) + 1
        keyed.append((ranks[source], e))
    return [e for _, e in sorted(keyed, key=lambda pair: pair[0])]
