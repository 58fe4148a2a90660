"""Many Experiments at once, each computed once: on this machine, or on a Dask cluster.

    sweep(grid(...))                                        # a process for each core, or for each GPU
    sweep({"SGD": grid(...), "Adam": grid(...)})            # several grids at once: no core waits between them
    sweep(grid(...), scheduler="tcp://10.0.0.1:8786")       # as many as the cluster has workers; or $FTLIB_SCHEDULER

What several runs start from, such as a pre-training, is a task of its own, and they begin when it is done: it is not
computed twice, and no worker is held while it waits. What is finished is in the store: a second start goes on from it.
"""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from tqdm import tqdm

from ftlib import pools
from ftlib.runs import Run
from ftlib.store import Store

if TYPE_CHECKING:
    from ftlib.experiments import Experiment

Key = TypeVar("Key")
PATIENCE = (0.0, 0.1, 0.4, 1.5, 5.0, 15.0)  # seconds between looks for a run that another machine has written


class SweepError(RuntimeError):
    """Some runs of a sweep failed.

    Attributes
    ----------
    failures : mapping from Experiment to str
    """

    def __init__(self, message: str, failures: Mapping[Experiment, str] | None = None) -> None:
        super().__init__(message)
        self.failures = dict(failures or {})


def sweep(
    experiments: Mapping[Key, Any] | Iterable[Experiment],
    *,
    store: Store | None = None,
    jobs: int | None = None,
    device: str | None = None,
    scheduler: str | None = None,
) -> dict[Key, Any] | list[Run]:
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
    if not isinstance(experiments, Mapping):
        numbered = dict(enumerate(experiments))
        return list(sweep(numbered, store=store, jobs=jobs, device=device, scheduler=scheduler).values())
    if experiments and all(isinstance(of, Mapping) for of in experiments.values()):
        flat = {(name, key): e for name, of in experiments.items() for key, e in of.items()}
        runs = sweep(flat, store=store, jobs=jobs, device=device, scheduler=scheduler)
        return {name: {key: runs[name, key] for key in of} for name, of in experiments.items()}
    if scheduler and jobs:
        raise ValueError(f"jobs={jobs} are processes here, scheduler={scheduler!r} has workers elsewhere: give one")
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs is {jobs}, expected 1 or more")
    store = Store((store or Store()).root.absolute())  # other processes have other working directories
    scheduler = scheduler or (None if jobs else os.environ.get("FTLIB_SCHEDULER"))
    wanted = {e.key: e for e in experiments.values()}
    paths = {key: store.find(key) for key in wanted}
    missing = [wanted[key] for key, path in paths.items() if path is None]
    if missing:
        tasks = _plan(missing, store)
        at_once = sum(not parents for _, parents in tasks.values())
        with _pool(max(len(missing), at_once), store, jobs, device, scheduler) as pool:
            failures = _work(tasks, pool)
        if failures := {e: failures[e.key] for e in missing if e.key in failures}:
            lines = "\n".join(f"- {e}\n    {problem}" for e, problem in failures.items())
            raise SweepError(f"{len(failures)} of {len(missing)} runs failed:\n{lines}", failures)
        paths |= {e.key: _look(e.key, store, PATIENCE if scheduler else (0.0,)) for e in missing}
    return {name: Run(e, paths[e.key]) for name, e in experiments.items()}


def _plan(missing: list[Experiment], store: Store) -> dict[str, tuple[Experiment, set[str]]]:
    """Every task under its key, with the keys of those that must be done before.

    What many wait for comes first, and of the others those on the same images follow each other.
    """
    tasks, there = {}, {}

    def add(experiment: Experiment) -> bool:
        """Add a task and what it starts from, unless the store has it already."""
        key = experiment.key
        if key not in there:
            there[key] = store.find(key) is not None
            if not there[key]:
                tasks[key] = experiment, {parent.key for parent in experiment.parents if add(parent)}
        return not there[key]

    for experiment in missing:
        add(experiment)
    awaited = Counter(key for _, parents in tasks.values() for key in parents)
    turn = {of: place for place, of in enumerate(dict.fromkeys((e.benchmark, e.seed) for e, _ in tasks.values()))}
    rank = {key: (-awaited[key], turn[e.benchmark, e.seed]) for key, (e, _) in tasks.items()}
    return {key: tasks[key] for key in sorted(tasks, key=rank.__getitem__)}


def _pool(width: int, store: Store, jobs: int | None, device: str | None, scheduler: str | None) -> Any:
    """The pool for tasks of which at most ``width`` can run at a time."""
    if scheduler:
        return pools.Cluster(scheduler, store, device)
    if jobs is None:
        import joblib

        gpus = torch.cuda.device_count() if device in (None, "cuda") else 0
        jobs = gpus or (1 if (device or "").startswith("cuda") else joblib.cpu_count())
    jobs = min(jobs, width)
    return pools.Here(store, device) if jobs == 1 else pools.Processes(jobs, store, device)


def _work(tasks: dict[str, tuple[Experiment, set[str]]], pool: AbstractContextManager) -> dict[str, str]:
    """Bring every task to an end, with a progress bar; what went wrong, under the task's key."""
    ready = deque(experiment for experiment, parents in tasks.values() if not parents)
    running, done, died, failures = {}, SimpleQueue(), set(), {}
    children: dict[str, list[Experiment]] = {}
    for experiment, parents in tasks.values():
        for key in parents:
            children.setdefault(key, []).append(experiment)

    def finish(experiment: Experiment, problem: str | None) -> None:
        bar.update()
        if problem:
            failures[experiment.key] = problem
        for child in children.get(experiment.key, ()):
            parents = tasks[child.key][1]
            parents.discard(experiment.key)
            if problem and child.key not in failures:
                finish(child, f"the {experiment.method} run that it starts from failed: {problem}")
            elif not parents and child.key not in failures:
                ready.append(child)

    with tqdm(total=len(tasks), desc="runs", unit="run") as bar:
        while ready or running:
            while ready and len(running) < pool.slots():
                future = pool.submit(experiment := ready.popleft())
                running[future] = experiment
                future.add_done_callback(done.put)
            try:
                future = done.get(timeout=pools.POLL)
            except Empty:  # there may be more workers by now
                bar.set_postfix_str("" if running else "no worker yet")
                continue
            experiment = running.pop(future)
            if future.cancelled():
                raise ConnectionError(pools.LOST)
            error = future.exception()
            if isinstance(error, BrokenProcessPool) and experiment.key not in died:
                died.add(experiment.key)  # once may be bad luck: another process had taken the memory
                ready.append(experiment)
            else:
                finish(experiment, f"{type(error).__name__}: {error}" if error else future.result())
    return failures


def _look(key: str, store: Store, pauses: Iterable[float]) -> Any:
    """The folder of a Run that was just computed; a network file system may show it a little later."""
    for pause in pauses:
        time.sleep(pause)
        if path := store.find(key):
            return path
    raise SweepError(
        f"run {key} was computed, but it is not in {store.root}: is that the folder that the workers write to? All "
        "machines must share it (FTLIB_STORE, here and where the workers are started)"
    )
