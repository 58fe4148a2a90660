"""Many jobs at once, each computed once: on this machine, or on a Dask cluster.

What several jobs start from, such as a pre-training, is a job of its own, and they begin when it is done: it is not
computed twice, and no worker is held while it waits. What is finished is in the store: a second start goes on from it.
"""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import torch
from tqdm import tqdm

from ftlib import pools
from ftlib.core import whole
from ftlib.store import Store

PATIENCE = (0.0, 0.1, 0.4, 1.5, 5.0, 15.0)  # seconds between looks for a run that another machine has written


class SweepError(RuntimeError):
    """Some runs of a sweep failed; ``failures`` says under each job what went wrong."""

    def __init__(self, message: str, failures: Mapping[Any, str] | None = None) -> None:
        super().__init__(message)
        self.failures = dict(failures or {})


def complete(
    wanted: Iterable[pools.Job],
    compute: pools.Compute,
    store: Store,
    jobs: int | None,
    device: str | None,
    scheduler: str | None,
) -> dict[str, Path]:
    """Each job's folder in the store, under its key; what is missing is computed in parallel.

    Other processes import ``compute`` by its name. `ftlib.experiments.sweep` explains the rest, and what is raised.
    """
    if jobs is not None:
        whole("jobs", jobs, 1)
    if scheduler and jobs:
        raise ValueError(f"jobs={jobs} are processes here, scheduler={scheduler!r} has workers elsewhere: give one")
    scheduler = scheduler or (None if jobs else os.environ.get("FTLIB_SCHEDULER"))
    by_key = {job.key: job for job in wanted}
    paths = {key: store.find(key) for key in by_key}
    missing = [by_key[key] for key, path in paths.items() if path is None]
    if missing:
        store.prepare()
        tasks = _plan(missing, store)
        at_once = sum(not parents for _, parents in tasks.values())
        with _pool(max(len(missing), at_once), compute, store, jobs, device, scheduler) as pool:
            failures = _work(tasks, pool, store)
        if failures := {job: failures[job.key] for job in missing if job.key in failures}:
            lines = "\n".join(f"- {job}\n    {problem}" for job, problem in failures.items())
            raise SweepError(f"{len(failures)} of {len(missing)} runs failed:\n{lines}", failures)
    pauses = PATIENCE if missing and scheduler else (0.0,)
    return {key: path or _look(key, store, pauses) for key, path in paths.items()}


def _plan(missing: list[pools.Job], store: Store) -> dict[str, tuple[pools.Job, set[str]]]:
    """Every task under its key, with the keys of those that must be done before.

    What many wait for comes first, and of the others those on the same images follow each other.
    """
    tasks, there = {}, {}

    def add(job: pools.Job) -> bool:
        """Add a task and what it starts from, unless the store has it already."""
        key = job.key
        if key not in there:
            there[key] = store.find(key) is not None
            if not there[key]:
                tasks[key] = job, {parent.key for parent in job.parents if add(parent)}
        return not there[key]

    for job in missing:
        add(job)
    awaited = Counter(key for _, parents in tasks.values() for key in parents)
    turn = {of: place for place, of in enumerate(dict.fromkeys((e.benchmark, e.seed) for e, _ in tasks.values()))}
    rank = {key: (-awaited[key], turn[e.benchmark, e.seed]) for key, (e, _) in tasks.items()}
    return {key: tasks[key] for key in sorted(tasks, key=rank.__getitem__)}


def _pool(
    width: int, compute: pools.Compute, store: Store, jobs: int | None, device: str | None, scheduler: str | None
) -> pools.Here:
    """The pool for tasks of which at most ``width`` can run at a time."""
    if scheduler:
        return pools.Cluster(scheduler, compute, store, device)
    if jobs is None:
        import joblib

        gpus = torch.cuda.device_count() if device in (None, "cuda") else 0
        jobs = gpus or (1 if (device or "").startswith("cuda") else joblib.cpu_count())
    jobs = min(jobs, width)
    return pools.Here(compute, store, device) if jobs == 1 else pools.Processes(jobs, compute, store, device)


def _work(tasks: dict[str, tuple[pools.Job, set[str]]], pool: pools.Here, store: Store) -> dict[str, str]:
    """Bring every task to an end, with a progress bar; what went wrong, under the task's key.

    What another sweep is computing comes last: it would only be waited for, and two sweeps of the same runs, such as
    those of two chapters, would take every one of them together.
    """
    ready = deque(job for job, parents in tasks.values() if not parents)
    running, done, died, failures = {}, SimpleQueue(), set(), {}
    children: dict[str, list[pools.Job]] = {}
    for job, parents in tasks.values():
        for key in parents:
            children.setdefault(key, []).append(job)

    def finish(job: pools.Job, problem: str | None) -> None:
        bar.update()
        if problem:
            failures[job.key] = problem
        for child in children.get(job.key, ()):
            parents = tasks[child.key][1]
            parents.discard(job.key)
            if problem and child.key not in failures:
                finish(child, f"the {job.method} run that it starts from failed: {problem}")
            elif not parents and child.key not in failures:
                ready.append(child)

    with tqdm(total=len(tasks), desc="runs", unit="run") as bar:
        while ready or running:
            while ready and len(running) < pool.slots():
                job = next((job for job in ready if not store.is_locked(job.key)), ready[0])
                ready.remove(job)
                future = pool.submit(job)
                running[future] = job
                future.add_done_callback(done.put)
            try:
                future = done.get(timeout=pools.POLL)
            except Empty:  # there may be more workers by now
                bar.set_postfix_str("" if running else "no worker yet")
                continue
            job = running.pop(future)
            if future.cancelled():
                raise ConnectionError(pools.LOST)
            error = future.exception()
            if isinstance(error, BrokenProcessPool) and job.key not in died:
                died.add(job.key)  # once may be bad luck: another process had taken the memory
                ready.append(job)
            else:
                finish(job, f"{type(error).__name__}: {error}" if error else future.result())
    return failures


def _look(key: str, store: Store, pauses: Iterable[float]) -> Path:
    """The folder of a Run that was just computed; a network file system may show it a little later."""
    for pause in pauses:
        time.sleep(pause)
        if path := store.find(key):
            return path
    why = "do the workers write to another folder? All machines must share that of FTLIB_STORE"
    raise SweepError(f"run {key} was computed, but it is not in {store.root}: {why}")
