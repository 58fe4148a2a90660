"""What a sweep costs beyond training, and how much two workers bring.

The cost of a run is the time of the sweep less the time that the runs' own logs give to their methods, where the
pre-trainings are in the store: finding, sending, loading the pre-trained model, keeping the result.

One worker and two get the same runs into empty stores, in turn, and the median ratio counts. Two rows take it apart.
The time of the workers that was spent in methods is the sweep's part: twice that share is what two workers would
bring on cores that do not slow each other down. How much longer the same methods take side by side is the machine's.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median

from ftlib.experiments import Experiment, sweep
from ftlib.store import Store
from ftlib.training import Recipe

DATA = {"classes": 20, "source_per_class": 20, "target_per_class": 20, "test_per_class": 5}
RECIPE = Recipe(epochs=3, evaluations=2)  # a run of 0.4 s, to measure what is around it
LONGER = Recipe(epochs=12, evaluations=2)  # one of 1 s, to measure what a second worker brings
TARGETS = ("neon", "chalk", "photo")
ROUNDS = 5
QUIET = {  # every process of Dask watches itself, for some percent of a core: here all cores train
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
}


def bench() -> list[tuple[str, float, str]]:
    with tempfile.TemporaryDirectory() as folder, workers(1) as one, workers(2) as two:
        stores = (Store(Path(folder, str(number))) for number in range(10_000))
        for ways in ({"scheduler": one}, {"scheduler": two}, {"jobs": 1}, {"jobs": 2}):
            sweep(runs(range(2)), store=next(stores), **ways)  # starts what there is to start
        rows = overhead(next(stores), {"in this process": {"jobs": 1}, "on a Dask worker": {"scheduler": one}})
        for what, single, double in (
            ("processes", {"jobs": 1}, {"jobs": 2}),
            ("Dask workers", {"scheduler": one}, {"scheduler": two}),
        ):
            rounds = [
                tuple(measure(next(stores), runs(range(2), LONGER), **way) for way in (single, double))
                for _ in range(ROUNDS)
            ]
            gain = median(alone[0] / both[0] for alone, both in rounds)
            share = median(busy / (2 * seconds) for _, (seconds, busy) in rounds)
            slower = median(both[1] / alone[1] for alone, both in rounds)
            rows.append((f"two {what} against one", gain, "times as fast, at least 1.8 on two idle cores"))
            rows.append((f"two {what}, in methods", share, "of their time, at least 0.9"))
            rows.append((f"two {what}, the same methods", slower, "times as long as alone: 1 on two idle cores"))
    return rows


def overhead(store: Store, ways: dict[str, dict[str, object]]) -> list[tuple[str, float, str]]:
    """Milliseconds a run, beyond its method, and of a run that is there; and how fast each way trains."""
    rows, rates, seeds = [], {}, range(4)
    sweep([e.source for e in runs(seeds)], store=store, jobs=1)
    for number, (what, way) in enumerate(ways.items()):
        wanted = [replace(e, recipe=replace(RECIPE, lr=0.01 + 0.001 * number)) for e in runs(seeds)]
        seconds, busy = measure(store, wanted, **way)
        rows.append((f"a run, {what}", 1000 * (seconds - busy) / len(wanted), "ms beyond its method, at most 50"))
        rates[what] = median(result.log["images_per_second"] for result in sweep(wanted, store=store))
    first, *others = rates
    rows += [(f"training {what}", rates[what] / rates[first], f"of the speed {first}, at least 0.9") for what in others]
    times = [timed(lambda: sweep(wanted, store=store))[1] for _ in range(20)]
    rows.append(("a run that is in the store", 1000 * median(times) / len(wanted), "ms"))
    return rows


def runs(seeds: range, recipe: Recipe = RECIPE) -> list[Experiment]:
    """Three targets of one source for each seed."""
    common = {"backbone": "test_byobnet", "recipe": recipe, "pretraining": recipe, "data": DATA}
    return [Experiment(f"glyphs/print-{target}", seed=seed, **common) for seed in seeds for target in TARGETS]


def measure(store: Store, wanted: list[Experiment], **way: object) -> tuple[float, float]:
    """Seconds of a sweep, and of the methods within it."""
    before = {path.name for path in store.root.glob("*")}
    _, seconds = timed(lambda: sweep(wanted, store=store, **way))
    new = [e for e in every(wanted) if e.key not in before]
    return seconds, sum(result.log["seconds"] for result in sweep(new, store=store))


def every(wanted: list[Experiment]) -> list[Experiment]:
    """The runs and the pre-trainings that they start from, each once."""
    return list(dict.fromkeys([*(e.source for e in wanted), *wanted]))


def timed(work: Callable[[], object]) -> tuple[object, float]:
    start = time.perf_counter()
    return work(), time.perf_counter() - start


@contextmanager
def workers(count: int) -> Iterator[str]:
    """The address of a Dask cluster on this machine with ``count`` worker processes of one thread."""
    import dask
    from distributed import LocalCluster

    with dask.config.set(QUIET):
        cluster = LocalCluster(n_workers=count, threads_per_worker=1, memory_limit=0, dashboard_address=None)
    with cluster:
        yield cluster.scheduler_address


if __name__ == "__main__":
    for what, value, unit in bench():
        print(f"{what:40s} {value:10.3f}  {unit}")
