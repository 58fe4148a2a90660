"""Experiment -> Run: all that touches the device happens in here, once, and is kept in the run store.

    run(Experiment("glyphs/print-neon", seed=3)).test.logits

    sweep(grid(...))                                        # a process for each core, or for each GPU
    sweep({"SGD": grid(...), "Adam": grid(...)})            # several grids at once: no core waits between them
    sweep(grid(...), scheduler="tcp://10.0.0.1:8786")       # as many as the cluster has workers; or $FTLIB_SCHEDULER

An Experiment says in plain values what is to be measured. Its Run is the pre-trained or fine-tuned classifier's
outputs on the target domain, its weights and its history. `run` loads the images, hands them to the method as a Task,
and keeps what comes back; `sweep` does so for many, in parallel, and resumes where it stopped.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeVar, overload

import torch

from ftlib import alternatives, baselines, batches, benchmarks, checkpoints, core, methods, models, sweeps, training
from ftlib.methods import Task
from ftlib.mislabelled import mislabelled
from ftlib.runs import Run
from ftlib.store import Store, code_hash, device_name, usable, versions
from ftlib.training import Recipe

METHODS = {
    "pretrain": methods.pretrain, "pretrained": methods.pretrained, "adabn": methods.adabn,
    "finetune": methods.finetune, "mislabelled": mislabelled,
    "oracle": baselines.oracle, "masked": baselines.masked, "frozen_head": baselines.frozen_head,
    "linear_probe": baselines.linear_probe, "wise": baselines.wise, "lolsgd": baselines.lolsgd, "fold": baselines.fold,
    "lwf": alternatives.lwf, "l2sp": alternatives.l2sp, "ldifs": alternatives.ldifs, "lp_ft": alternatives.lp_ft,
    "bias_only": alternatives.bias_only, "norm_only": alternatives.norm_only, "lora": alternatives.lora,
    "balanced": alternatives.balanced,
}  # fmt: skip
SHARED = core, checkpoints, models, batches, training, methods, benchmarks  # the code that every result depends on
Key = TypeVar("Key")
PRETRAINING = Recipe(epochs=5, lr=0.1, backbone_lr=1.0, warmup=0.2, evaluations=0)


@dataclass(frozen=True)
class Experiment:
    """What is to be measured, in plain values.

    Images of a folder and a checkpoint enter by name, and what is computed is kept under their content: a repaired
    folder, another of the same name, an overwritten file are another experiment.
    """

    benchmark: str  # a pair of domains, as `ftlib.benchmarks.load` takes it
    backbone: str = "test_resnet"  # a classifier of timm; `ftlib.models` says which work
    method: str = "finetune"  # a key of METHODS
    recipe: Recipe = field(default_factory=Recipe)  # of the method
    seed: int = 0  # of class split, image split, initial weights and training
    pretraining: Recipe = PRETRAINING  # on the source domain, shared by all targets and methods
    data: Mapping[str, Any] = field(default_factory=dict)  # options of the benchmark
    model: Mapping[str, Any] = field(default_factory=dict)  # options of timm.create_model
    checkpoint: str = ""  # weights from which pre-training starts: a file, "pip:NAME", or "hub" for timm's own
    head: str = "linear"  # or "cosine", from pre-training on
    options: Mapping[str, Any] = field(default_factory=dict)  # of the method

    def __post_init__(self) -> None:
        kinds = {"str": str, "int": int, "Recipe": Recipe, "Mapping[str, Any]": Mapping}
        for part in fields(self):
            if not isinstance(value := getattr(self, part.name), kinds[str(part.type)]):
                raise TypeError(f"Experiment.{part.name} is {value!r}, expected {part.type}")
            for entry in value.values() if isinstance(value, Mapping) else ():
                try:
                    json.dumps(entry)
                except (TypeError, ValueError):
                    plain = "expected plain values, as JSON has them"
                    raise TypeError(f"Experiment.{part.name} holds {entry!r}: {plain}") from None
        core.whole("seed", self.seed, 0)
        if self.method not in METHODS:
            raise ValueError(f"unknown method {self.method!r}: expected one of {', '.join(METHODS)}")
        if not benchmarks.has_source(self.benchmark) and self.pretraining.steps != 0:
            expected = f"expected pretraining with steps=0, not {self.pretraining.steps}, and a checkpoint"
            raise ValueError(f"{self.benchmark} has no source domain to pre-train on, the head is given: {expected}")
        if self.method in ("pretrain", "pretrained", "adabn"):  # no other recipe takes part
            object.__setattr__(self, "recipe", self.pretraining)
        # The key is computed once: what the caller does to a mapping must not reach it.
        for name, values in (("data", self.data), ("model", self.model), ("options", self._own_options())):
            object.__setattr__(self, name, dict(values))

    def _own_options(self) -> dict[str, Any]:
        """Those of the options that are not the method's defaults: one key, whether a default is written out or not."""
        parameters = inspect.signature(METHODS[self.method]).parameters.values()
        known = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        if unknown := sorted(set(self.options) - set(known)):
            raise ValueError(f"{self.method} has no option {', '.join(unknown)}; it has {', '.join(known) or 'none'}")
        if lacking := sorted(k for k in known.keys() - self.options if known[k] is inspect.Parameter.empty):
            raise ValueError(f"{self.method} needs the option {', '.join(lacking)}: it has no default")
        options = {k: float(v) if type(known[k]) is float and type(v) is int else v for k, v in self.options.items()}
        return {k: v for k, v in options.items() if v != known[k]}

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def spec(self) -> dict[str, Any]:
        return asdict(self)

    @cached_property
    def key(self) -> str:
        """Names the Run: a hash of the spec, of what its names stand for and of the code that its result depends on."""
        own = sys.modules[METHODS[self.method].__module__]
        code = code_hash((*SHARED, own, *benchmarks.modules_of(self.benchmark), _task, _start))
        asked = json.dumps([self.spec, self.content], sort_keys=True)
        return hashlib.sha256((asked + code).encode()).hexdigest()[:20]

    @cached_property
    def content(self) -> dict[str, str]:
        """Digests of what the names stand for: a folder's images, a list, a checkpoint. What is drawn has none.

        Where they are not, as on a laptop that reads the store of a GPU machine, the store of ``$FTLIB_STORE`` says
        what they last were when it was computed with them.

        Raises
        ------
        FileNotFoundError
            Neither are they here nor does the store know them.
        """
        found = {}
        looks: list[tuple[Any, Callable[[Any], str]]] = [(self.benchmark, _digest_of_images)]
        if self.checkpoint not in ("", "hub"):
            looks.append((self.checkpoint, lambda name: _digest(checkpoints.find(name))))
        for name in filter(None, map(self.data.get, benchmarks.LISTS)):
            looks.append((name, lambda name: _digest(benchmarks.list_file(name))))
        for name, look in looks:
            try:
                digest = look(name)
            except FileNotFoundError as error:
                store = Store()
                digest = store.recall(name)
                if digest is None:
                    raise FileNotFoundError(f"{error}; and no run in {store.root} was computed with it") from None
            if digest:
                found[name] = digest
        return found

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


def run(experiment: Experiment, *, store: Store | str | Path | None = None, device: str | None = None) -> Run:
    """The Run of an Experiment, from the store if it is there.

    Parameters
    ----------
    store : Store or path, optional
        Default: that of ``$FTLIB_STORE``.
    device : str, optional
        Default: CUDA if there is a GPU, else the CPU.
    """
    store = _opened(store)
    path = store.find(_checked(experiment).key)
    if path is None:
        with store.lock(experiment.key):
            path = store.find(experiment.key) or _compute(experiment, store, device)
    return Run(path)


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
    Experiment. In the name of a checkpoint, ``{benchmark}`` stands for the first of the keys.
    """
    for name, values in (("benchmarks", benchmarks), ("seeds", seeds)):
        if isinstance(values, str) or not isinstance(values, Iterable):
            raise TypeError(f"{name} is {values!r}, expected a list of such")
    experiments = {}
    for benchmark in benchmarks:
        for seed in seeds:
            key = pair_of(benchmark), seed
            if key in experiments:
                raise ValueError(f"{key[0]!r} with seed {seed} is there twice: name every benchmark and seed once")
            own = {"checkpoint": common["checkpoint"].replace("{benchmark}", key[0])} if "checkpoint" in common else {}
            experiments[key] = Experiment(
                benchmark,
                method=method,
                recipe=Recipe.of(recipe or {}),
                seed=seed,
                pretraining=Recipe.of(pretraining) if pretraining else PRETRAINING,
                **common | own,
            )
    return experiments


def pair_of(benchmark: str) -> str:
    """A benchmark's name as tables have it: "print-neon" of "glyphs/print-neon", "photos" of "imagenet:data/photos"."""
    return (benchmark.partition(":")[2] or benchmark).rsplit("/", 1)[-1]


@overload
def sweep(experiments: Mapping[Key, Experiment], **how: Any) -> dict[Key, Run]: ...
@overload
def sweep(experiments: Mapping[Key, Mapping[Any, Experiment]], **how: Any) -> dict[Key, dict[Any, Run]]: ...
@overload
def sweep(experiments: Iterable[Experiment], **how: Any) -> list[Run]: ...
def sweep(  # pyright: ignore[reportInconsistentOverload]  the options are spelled out here alone
    experiments: Any,
    *,
    store: Store | str | Path | None = None,
    jobs: int | None = None,
    device: str | None = None,
    scheduler: str | None = None,
) -> Any:
    """The Runs of many Experiments; those not in the store are computed in parallel.

    Parameters
    ----------
    experiments : mapping or iterable
        A mapping gives the Runs under its keys, a mapping of mappings under the keys of both, an iterable gives them
        as a list in its order.
    jobs : int, optional
        Processes on this machine, of one thread each; 1 stays in this one. Default: the number of GPUs, else of the
        CPU's cores.
    device : str, optional
        Default: CUDA if there is a GPU, else the CPU. "cuda" gives each process a GPU of its own in turn, "cuda:1"
        gives all of them that one.
    scheduler : str, optional
        Address of a Dask scheduler, or its scheduler file (*.json). Its workers compute, one run at a time each, and
        write to this same store, which must be a shared folder. Default: ``$FTLIB_SCHEDULER``, if ``jobs`` is None.

    Raises
    ------
    SweepError
        Some runs failed. All others are finished and kept; the message has the spec of each that failed.
    ConnectionError, ImportError
        No scheduler answers, or no longer; Dask is not installed.
    """
    if isinstance(experiments, Experiment):
        raise TypeError(f"sweep takes a list or a mapping of Experiments: {experiments.method!r} is one, for run")
    how: dict[str, Any] = {"store": _opened(store), "jobs": jobs, "device": device, "scheduler": scheduler}
    if not isinstance(experiments, Mapping):
        return list(sweep(dict(enumerate(experiments)), **how).values())
    if experiments and all(isinstance(of, Mapping) for of in experiments.values()):
        runs = sweep({(name, key): e for name, of in experiments.items() for key, e in of.items()}, **how)
        return {name: {key: runs[name, key] for key in of} for name, of in experiments.items()}
    paths = sweeps.complete(map(_checked, experiments.values()), run, **how)
    return {name: Run(paths[e.key]) for name, e in experiments.items()}


def _opened(store: Any) -> Store:
    if not isinstance(store, Store | str | Path | None):
        raise TypeError(f"the store is {store!r}: expected a Store or path, or None for $FTLIB_STORE")
    return store if isinstance(store, Store) else Store(store)


def _checked(experiment: Any) -> Any:
    if not isinstance(experiment, Experiment):
        raise TypeError(f"{experiment!r} is no Experiment: expected Experiment(benchmark, backbone, method, …)")
    # A sweep draws the split when the pre-training is done, which is late to hear of it.
    seen, classes = experiment.data.get("seen"), experiment.data.get("classes")
    most = classes if type(classes) is int and classes > 1 else None
    if isinstance(seen, Sequence):
        core.class_ids(seen, most, "seen classes")
    elif seen is not None:
        core.whole("seen", seen, 1, most and most - 1)
    return experiment


def _compute(experiment: Experiment, store: Store, device: str | None) -> Path:
    device = usable(device)
    start = time.perf_counter()
    task = _task(experiment)  # before the parents: what is wrong with it is not said after hours of pre-training
    loading = time.perf_counter() - start
    parents = [run(parent, store=store, device=device).build() for parent in experiment.parents]
    start = time.perf_counter() - loading  # the parents' own time is in their own logs
    started = [model.to(device) for model in parents or [_start(experiment, task)]]
    arrays, fit_log = METHODS[experiment.method](task, *started, **experiment.options)
    log = {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "versions": versions("torch", "timm"),
        "seconds": round(time.perf_counter() - start, 3),
        "images_per_second": fit_log and round(fit_log.images_per_second, 1),
        "content": experiment.content,
    }
    path = store.save(experiment.key, experiment.spec, arrays, log)
    for name, digest in experiment.content.items():
        store.remember(name, digest)
    return path


def _task(experiment: Experiment) -> Task:
    """The images, loaded once, and what is to be done with them: the source's for pre-training, else the target's."""
    name, seed, data = experiment.benchmark, experiment.seed, experiment.data
    if experiment.method == "pretrain":
        domain = benchmarks.load_domain(name, seed, **data)
        split = core.split_classes(len(domain.class_names), seed)
    else:
        domain, split = benchmarks.load_target(name, seed, **data)
    return Task(domain, split, experiment.recipe, seed)


def _start(experiment: Experiment, task: Task) -> torch.nn.Module:
    """The model that pre-training starts from: scratch, a checkpoint, or the hub's; of no steps, what it ends with."""
    hub = experiment.checkpoint == "hub"
    return models.build(
        experiment.backbone,
        len(task.domain.class_names),
        head=experiment.head,
        options=experiment.model,
        checkpoint="" if hub else experiment.checkpoint,
        pretrained=hub,
        whole=experiment.pretraining.steps == 0,
        seed=experiment.seed,
    )


def _digest_of_images(benchmark: str) -> str:
    """A look at all the files of a large folder takes a moment, and a sweep asks hundreds of times: once a second."""
    return _looked_at(benchmark, os.environ.get("FTLIB_DATA"), os.getcwd(), int(time.monotonic()))


@lru_cache(maxsize=256)
def _looked_at(benchmark: str, data: str | None, folder: str, second: int) -> str:
    return benchmarks.identity(benchmark)


def _digest(path: Path) -> str:
    about = (path := path.resolve()).stat()
    return _digest_of_file(path, about.st_size, about.st_mtime_ns)


@lru_cache(maxsize=256)
def _digest_of_file(path: Path, size: int, changed: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:20]
