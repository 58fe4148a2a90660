"""ftlib.sweeps: what is missing is planned and worked off, each run once, and what fails is told apart."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace

import pytest
import torch

from ftlib import models, pools, sweeps
from ftlib.experiments import Experiment, run, sweep
from ftlib.store import Store
from ftlib.sweeps import SweepError
from ftlib.training import Recipe

DATA = {"classes": 8, "source_per_class": 8, "target_per_class": 6, "test_per_class": 4}
TINY = Recipe(epochs=1, batch_size=8)
BASE = Experiment("glyphs/print-neon", "test_byobnet", "finetune", TINY, pretraining=TINY, data=DATA)
CHALK = replace(BASE, benchmark="glyphs/print-chalk")  # of the same source


def seeds(*numbers: int) -> list[Experiment]:
    return [replace(BASE, seed=number) for number in numbers]


# ---------------------------------------------------------------------------------------- what a sweep brings


def test_a_sweep_keeps_the_order_and_computes_what_is_equal_once(trainings):
    results = sweep(seeds(2, 0, 2, 1, 0), jobs=1)
    assert [result.spec["seed"] for result in results] == [2, 0, 2, 1, 0]
    assert sorted(trainings) == [0, 0, 1, 1, 2, 2]  # source and target of each


def test_a_sweep_over_a_mapping_gives_the_runs_under_its_keys():
    results = sweep({"first": BASE, "second": replace(BASE, method="pretrained")}, jobs=1)
    assert {name: result.spec["method"] for name, result in results.items()} == {
        "first": "finetune",
        "second": "pretrained",
    }


def test_a_sweep_over_grids_under_names_keeps_both_keys_and_computes_what_they_share_once(trainings):
    results = sweep({"all": {0: BASE, 1: replace(BASE, seed=1)}, "none": {}, "one": {"again": BASE}}, jobs=1)
    assert {name: list(of) for name, of in results.items()} == {"all": [0, 1], "none": [], "one": ["again"]}
    assert [run.spec["seed"] for of in results.values() for run in of.values()] == [0, 1, 0]
    assert len(trainings) == 4  # source and target of each seed


def test_a_sweep_finishes_the_others_reports_the_failed_and_resumes(trainings, monkeypatch):
    build = models.build

    def broken(*arguments, seed=0, **options):
        if seed == 1:
            raise MemoryError("none left")
        return build(*arguments, seed=seed, **options)

    wanted = seeds(0, 1, 2)
    with monkeypatch.context() as patch:
        patch.setattr(models, "build", broken)
        with pytest.raises(SweepError, match=r"(?s)1 of 3 runs failed:.*seed=1.*MemoryError: none left") as failure:
            sweep(wanted, jobs=1)
    assert "seed=0" not in str(failure.value)
    assert list(failure.value.failures) == [wanted[1]]
    assert sorted(set(trainings)) == [0, 2]
    trainings.clear()
    assert len(sweep(wanted, jobs=1)) == 3
    assert set(trainings) == {1}


def test_a_sweep_leaves_the_number_of_threads_alone():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        sweep([BASE], jobs=1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_the_bar_counts_runs_and_their_pretraining(capfd):
    sweep([BASE, CHALK], jobs=1)
    assert "3/3" in capfd.readouterr().err


def test_what_is_there_shows_no_bar_and_starts_no_process(store, capfd, monkeypatch):
    run(BASE, store=store)
    monkeypatch.setattr(sweeps, "_pool", None)
    assert sweep([BASE], store=store)[0].path == store.root / BASE.key
    assert capfd.readouterr().err == ""


def test_a_store_with_a_relative_path_is_the_same_folder_for_every_process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sweep([BASE], store=Store("here"), jobs=1)[0].path == tmp_path / "here" / BASE.key


def test_a_store_that_cannot_be_written_is_named_before_anything_is_trained(tmp_path, trainings):
    (tmp_path / "file").write_text("")
    for begin in (run, lambda e, store: sweep([e], store=store, jobs=1)):
        with pytest.raises(OSError, match=rf"the run store {tmp_path}/file cannot be made or written to .*FTLIB_STORE"):
            begin(BASE, store=Store(tmp_path / "file"))
    assert trainings == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"jobs": 2, "scheduler": "tcp://127.0.0.1:8786"}, "jobs=2 are processes here.*give one"),
        ({"jobs": 0}, "jobs=0: expected an integer >= 1"),
    ],
)
def test_options_that_clash_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        sweep([BASE], **options)


# ---------------------------------------------------------------------------------------- what waits for what


class Pretended:
    """A pool whose tasks end at once, as told: an error, a text, or None."""

    def __init__(self, ends: Callable[[Experiment], object] = lambda _: None, slots: int = 2) -> None:
        self.ends, self.room, self.order = ends, slots, []

    def slots(self) -> int:
        return self.room

    def submit(self, experiment: Experiment) -> Future:
        self.order.append(experiment)
        future, end = Future(), self.ends(experiment)
        (future.set_exception if isinstance(end, Exception) else future.set_result)(end)
        return future


def test_a_missing_pretraining_is_a_task_ahead_of_those_that_start_from_it(store):
    pool, wanted = Pretended(), [BASE, CHALK, replace(BASE, method="pretrained"), replace(BASE, seed=1)]
    assert sweeps._work(sweeps._plan(wanted, store), pool, store) == {}
    assert Counter(e.key for e in pool.order) == Counter(e.key for e in [*wanted, BASE.source, wanted[3].source])
    for place, experiment in enumerate(pool.order):
        assert all(parent in pool.order[:place] for parent in experiment.parents)
    assert pool.order[0] == BASE.source  # for which most runs wait


def test_a_pretraining_in_the_store_is_no_task(store):
    run(BASE.source, store=store)
    assert list(sweeps._plan([BASE, CHALK], store)) == [BASE.key, CHALK.key]


def test_runs_on_the_same_images_follow_each_other(store):
    wanted = [replace(e, method=method) for method in ("finetune", "masked") for e in (BASE, CHALK, *seeds(1))]
    planned = [e for e, parents in sweeps._plan(wanted, store).values() if parents]
    assert planned == [wanted[i] for i in (0, 3, 1, 4, 2, 5)]


def test_of_a_chain_only_what_is_missing_is_planned(store):
    wise = replace(BASE, method="wise")  # starts from a pre-trained and from a fine-tuned model
    plan = sweeps._plan([wise], store)
    assert list(plan)[-1] == wise.key
    assert plan[wise.key][1] == {BASE.key, BASE.source.key}
    run(BASE, store=store)
    assert list(sweeps._plan([wise], store)) == [wise.key]


def test_what_starts_from_a_failed_run_fails_with_its_reason_and_is_not_tried(store):
    pool = Pretended(lambda e: "MemoryError: none left" if e == BASE.source else None)
    wanted = [replace(BASE, method="wise"), CHALK, replace(BASE, seed=1)]
    failures = sweeps._work(sweeps._plan(wanted, store), pool, store)
    assert [e.seed for e in pool.order] == [0, 1, 1]
    assert failures.keys() == {e.key for e in (BASE.source, BASE, *wanted[:2])}
    assert failures[CHALK.key] == "the pretrain run that it starts from failed: MemoryError: none left"


def test_a_task_whose_process_dies_is_tried_once_more(store):
    deaths = []

    def once(experiment: Experiment) -> object:
        if experiment == CHALK and not deaths:
            deaths.append(experiment)
            return BrokenProcessPool("killed")

    pool = Pretended(once)
    assert sweeps._work(sweeps._plan([BASE, CHALK], store), pool, store) == {}
    assert Counter(pool.order)[CHALK] == 2 and Counter(pool.order)[BASE] == 1


def test_a_task_whose_processes_die_is_reported_and_the_others_finish(store):
    pool = Pretended(lambda e: BrokenProcessPool("killed") if e == CHALK else None)
    assert sweeps._work(sweeps._plan([CHALK, BASE], store), pool, store) == {CHALK.key: "BrokenProcessPool: killed"}
    assert Counter(pool.order)[CHALK] == 2 and Counter(pool.order)[BASE] == 1


def test_what_another_sweep_computes_is_left_to_the_last(store):
    """Else two sweeps of the same runs would wait for each other at every one of them."""
    pool, wanted = Pretended(slots=1), seeds(0, 1)
    with store.lock(wanted[0].source.key):
        assert sweeps._work(sweeps._plan(wanted, store), pool, store) == {}
    assert pool.order == [wanted[1].source, wanted[1], wanted[0].source, wanted[0]]


def test_no_more_tasks_run_than_a_pool_has_room_for(store):
    most, now = [], []

    class Slow(Pretended):
        def submit(self, experiment: Experiment) -> Future:
            now.append(future := Future())
            most.append(len(now))
            threading.Timer(0.02, lambda: (now.remove(future), future.set_result(None))).start()
            return future

    sweeps._work(sweeps._plan(seeds(*range(6)), store), Slow(slots=3), store)
    assert max(most) == 3


def test_a_run_that_does_not_arrive_says_that_the_store_must_be_shared(store):
    with pytest.raises(SweepError, match=rf"run abc was computed, but it is not in {store.root}.*FTLIB_STORE"):
        sweeps._look("abc", store, (0.0, 0.01))


def test_a_run_that_arrives_late_is_waited_for(store):
    threading.Timer(0.1, lambda: run(BASE, store=store)).start()
    assert sweeps._look(BASE.key, store, [0.1] * 100) == store.root / BASE.key


def test_there_are_as_many_processes_as_gpus_or_else_cores(store, monkeypatch):
    monkeypatch.setattr("joblib.cpu_count", lambda: 3)
    made = lambda width, jobs=None, device=None: sweeps._pool(width, run, store, jobs, device, None)  # noqa: E731
    assert made(9).jobs == 3
    assert made(2).jobs == 2
    assert isinstance(made(1), pools.Here)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert made(9).jobs == 4
    assert made(9, device="cpu").jobs == 3
    assert made(9, jobs=8).jobs == 8
    assert isinstance(made(9, device="cuda:1"), pools.Here)
