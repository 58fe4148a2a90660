"""ftlib.pools: every run is computed once, whatever dies, and what fails is told apart."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from ftlib import experiments, pools
from ftlib import store as store_module
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


def wait_until(true: Callable[[], object], seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.01)


# ---------------------------------------------------------------------------------------- one attempt


def test_code_that_differs_is_refused_before_it_computes(store, trainings):
    problem = pools.attempt(run, BASE, "0" * 20, store, None)
    assert f"not that of the sweep, or the images are not (key {BASE.key}, not {'0' * 20})" in problem
    assert trainings == []


def test_a_key_that_came_with_the_experiment_does_not_hide_other_code(store, monkeypatch):
    """The client's key travels with the experiment; a worker has to compute its own."""
    sent = replace(BASE)
    assert sent.key == BASE.key
    monkeypatch.setattr(experiments, "code_hash", lambda _: "other code")
    assert "the code here is not that of the sweep" in pools.attempt(run, sent, BASE.key, store, None)


def test_a_failure_is_none_if_another_was_quicker(store):
    """Where a file system's locks do not work two may compute a run, and it must do no harm."""
    run(BASE, store=store)

    def late(*_, **__):
        raise OSError("Directory not empty")

    assert pools.attempt(late, BASE, BASE.key, store, None) is None
    assert pools.attempt(late, CHALK, CHALK.key, store, None) == "OSError: Directory not empty"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc of glibc")
def test_memory_that_is_freed_is_kept_although_dask_says_otherwise():
    program = """if 1:
        import resource, torch
        from ftlib import pools
        counts = []
        for change in (lambda: None, pools.keep_memory):
            change()
            torch.ones(2_000_000)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for _ in range(100):
                torch.ones(2_000_000)
            counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
        print(*counts)
    """
    environment = os.environ | {"MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_MMAP_THRESHOLD_": "33554432"}
    output = subprocess.check_output([sys.executable, "-c", program], env=environment)
    returned, kept = map(int, output.split())  # pages that were new to the process
    if returned < 1000:
        pytest.skip("pages are huge here")
    assert kept < returned / 10


def test_runs_of_one_process_take_turns(store):
    inside, most = [], []

    def slow(*_, **__):
        inside.append(0)
        most.append(len(inside))
        time.sleep(0.02)
        inside.pop()

    threads = [threading.Thread(target=pools.attempt, args=(slow, BASE, BASE.key, store, None)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]


def test_a_worker_finds_the_store_by_its_mark_where_it_is_mounted(tmp_path, monkeypatch):
    (tmp_path / "here/locks").mkdir(parents=True)
    (tmp_path / "here/locks/sweep-1").touch()
    asked = Store("/mounted/elsewhere")
    monkeypatch.setenv("FTLIB_STORE", str(tmp_path / "here"))
    assert pools.shared(asked, "/mounted/elsewhere/locks/sweep-1").root == tmp_path / "here"
    (tmp_path / "here/locks/sweep-1").unlink()
    with pytest.raises(FileNotFoundError, match=r"store /mounted/elsewhere is not here, nor at FTLIB_STORE.*share"):
        pools.shared(asked, "/mounted/elsewhere/locks/sweep-1")


# ---------------------------------------------------------------------------------------- processes of this machine


def test_a_sweep_in_processes_brings_what_run_brings(store):
    results = sweep(seeds(0, 1), store=store, jobs=2)
    assert [result.spec["seed"] for result in results] == [0, 1]
    assert torch.equal(results[0].test.logits, run(BASE).test.logits)
    assert results[0].log["threads"] == 1
    used = {slot for slot, _ in pools._processes}
    assert used == {0, 1}
    for process in pools._processes.values():  # Dask is for those who have a cluster
        assert process.submit(eval, "'distributed' in __import__('sys').modules").result() is False


def test_a_killed_process_costs_its_own_run_one_more_attempt(store):
    sweep(seeds(0, 1), store=store, jobs=2)  # so that the processes are there
    victim = next(iter(next(iter(pools._processes.values()))._processes))
    wanted = seeds(*range(2, 8))
    killer = threading.Thread(
        target=lambda: (wait_until(lambda: store.find(wanted[0].source.key)), os.kill(victim, signal.SIGKILL))
    )
    killer.start()
    assert len(sweep(wanted, store=store, jobs=2)) == 6
    killer.join()
    assert victim not in {pid for process in pools._processes.values() for pid in process._processes}


def test_an_interrupt_leaves_a_store_that_a_second_start_goes_on_from(store):
    wanted = seeds(*range(20, 32))
    interrupter = threading.Thread(
        target=lambda: (wait_until(lambda: store.find(wanted[0].source.key)), os.kill(os.getpid(), signal.SIGINT))
    )
    # A shell that starts its tests in the background has them ignore the signal: Python would never hear of it.
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        interrupter.start()
        with pytest.raises(KeyboardInterrupt):
            sweep(wanted, store=store, jobs=2)
        interrupter.join()
    finally:
        signal.signal(signal.SIGINT, usual)
    kept = {path.name: path.stat().st_ino for path in store.root.iterdir() if not path.name.startswith(".")}
    assert 1 < len(kept) < 25  # locks, and some runs
    assert len(sweep(wanted[:2], store=store, jobs=1)) == 2
    assert all((store.root / name).stat().st_ino == inode for name, inode in kept.items())


@pytest.mark.parametrize(("visible", "names"), [(None, ["0", "1", "0"]), ("5,GPU-ab,7", ["5", "GPU-ab", "5"])])
def test_each_process_sees_a_gpu_of_its_own(store, monkeypatch, visible, names):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    for device in (None, "cuda"):
        pool = pools.Processes(3, run, store, device)
        assert [dict(place)["CUDA_VISIBLE_DEVICES"] for _, place in pool.free] == names
    assert all("CUDA_VISIBLE_DEVICES" not in dict(place) for _, place in pools.Processes(3, run, store, "cuda:1").free)


# ---------------------------------------------------------------------------------------- a Dask cluster


def serve(scheduler: str, name: str, resources: dict[str, int], notes: Path) -> None:
    """A worker process that notes the beginning of every run, and is killed by some: at once, or half-way."""
    compute = experiments._compute

    def half(_, path: Path) -> None:
        path.write_bytes(b"half of it")
        (notes.parent / "half").touch()
        os.kill(os.getpid(), signal.SIGKILL)  # by itself: whoever kills it from elsewhere may come too late

    def noted(experiment: Experiment, store: Store, device: str | None) -> Path:
        with open(notes, "a") as file:
            file.write(f"{experiment.key} {name}\n")
        if experiment.seed == POISON:
            os.kill(os.getpid(), signal.SIGKILL)
        if experiment == VICTIM and notes.read_text().count(experiment.key) == 1:
            store_module.save_file = half
        return compute(experiment, store, device)

    experiments._compute = noted

    async def work() -> None:
        from distributed import Worker

        async with Worker(scheduler, nthreads=1, name=name, resources=resources, dashboard_address=":0") as worker:
            await worker.finished()

    asyncio.run(work())


POISON = 13
VICTIM = replace(CHALK, seed=2)


class Cluster:
    """A scheduler in this process, and workers that are processes of their own."""

    def __init__(self, folder: Path) -> None:
        from distributed import LocalCluster

        self.notes, self.workers = folder / "notes", {}
        self.dask = LocalCluster(n_workers=0, threads_per_worker=1, dashboard_address=":0", host="127.0.0.1")
        self.address, self.scheduler = self.dask.scheduler_address, self.dask.scheduler
        self.context = multiprocessing.get_context("forkserver")  # torch, timm and Dask are imported once
        self.context.set_forkserver_preload(["ftlib.experiments", "distributed"])

    def need(self, count: int) -> None:
        """Have ``count`` workers, and no notes."""
        self.notes.write_text("")
        self.workers = {name: process for name, process in self.workers.items() if process.is_alive()}
        for number in range(len(self.workers), count):
            name = f"{time.monotonic_ns()}-{number}"
            process = self.context.Process(target=serve, args=(self.address, name, {"GPU": 1}, self.notes), daemon=True)
            process.start()
            self.workers[name] = process
        wait_until(lambda: set(self.workers) == {worker.name for worker in self.scheduler.workers.values()})

    def begun(self) -> list[tuple[str, str]]:
        """(key, worker) of every run that was begun."""
        return [tuple(line.split()) for line in self.notes.read_text().splitlines()]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Cluster:
    pytest.importorskip("distributed")
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    for process in cluster.workers.values():
        process.kill()
    cluster.dask.close()


def with_sources(wanted: list[Experiment]) -> set[str]:
    return {e.key for e in wanted} | {e.source.key for e in wanted}


def leftovers(store: Store, wanted: list[Experiment]) -> list[str]:
    """Files that belong to none of the wanted runs."""
    files = (path for path in store.root.rglob("*") if path.is_file() and path.suffix != ".lock")
    return [str(path) for path in files if path.parent.name not in with_sources(wanted)]


def test_two_workers_bring_what_run_brings_each_run_once(cluster, store):
    cluster.need(2)
    wanted = [*seeds(0, 1, 3, 4), CHALK]
    results = sweep(wanted, store=store, scheduler=cluster.address)
    assert torch.equal(results[0].test.logits, run(BASE).test.logits)
    assert sorted(key for key, _ in cluster.begun()) == sorted(with_sources(wanted))
    assert {name for _, name in cluster.begun()} == set(cluster.workers)
    assert leftovers(store, wanted) == []


def test_of_workers_those_with_a_gpu_compute_and_the_client_is_closed(cluster, store, monkeypatch):
    cluster.need(2)
    cluster.dask.scale(1)  # one more, without the resource
    wait_until(lambda: len(cluster.scheduler.workers) == 3)
    monkeypatch.setenv("FTLIB_SCHEDULER", cluster.address)  # this is how a chapter finds it
    wanted = seeds(*range(6))
    sweep(wanted, store=store)
    assert len(cluster.begun()) == 12  # the third worker takes no notes
    assert [client for client in cluster.scheduler.clients if "ftlib-sweep" in client] == []
    cluster.dask.scale(0)
    wait_until(lambda: len(cluster.scheduler.workers) == 2)


def test_a_worker_killed_in_the_middle_loses_nothing_and_repeats_its_own_run_alone(cluster, store):
    cluster.need(2)
    wanted = [replace(e, seed=s) for s in (0, 1, 2, 3) for e in (BASE, CHALK)]
    assert VICTIM in wanted
    results = sweep(wanted, store=store, scheduler=cluster.address)
    assert (cluster.notes.parent / "half").exists()
    assert [store.find(e.key) for e in wanted] == [result.path for result in results]
    times = Counter(key for key, _ in cluster.begun())
    assert times.pop(VICTIM.key) == 2
    assert times == dict.fromkeys(with_sources(wanted) - {VICTIM.key}, 1)
    assert sum(process.is_alive() for process in cluster.workers.values()) == 1
    assert leftovers(store, wanted) == []  # what the killed one had half-written is gone


def test_a_run_that_kills_its_workers_is_reported_and_the_others_finish(cluster, store, monkeypatch):
    cluster.need(2)
    monkeypatch.setattr(cluster.scheduler, "allowed_failures", 0)  # Dask's own default is 3 deaths more
    wanted = seeds(*range(4), POISON)
    with pytest.raises(SweepError, match=rf"(?s)1 of 5 runs failed:.*seed={POISON}.*KilledWorker") as failure:
        sweep(wanted, store=store, scheduler=cluster.address)
    assert list(failure.value.failures) == [wanted[-1]]
    assert all(store.find(e.key) for e in wanted[:-1])
    assert set(Counter(key for key, _ in cluster.begun()).values()) == {1}


def test_a_worker_without_the_store_says_so(cluster, store):
    cluster.need(1)
    pool = pools.Cluster(cluster.address, run, store, None)
    with pool:
        os.unlink(pool.mark.name)
        pool.slots()
        problem = pool.submit(BASE).result()
        Path(pool.mark.name).touch()
    assert "all machines must share the folder; set FTLIB_STORE" in problem
    assert store.find(BASE.key) is None


def test_a_sweep_waits_for_workers_and_takes_those_that_come(store, monkeypatch, capfd):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(pools, "POLL", 0.1)
    with distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as cluster:
        threading.Timer(0.5, cluster.scale, [1]).start()
        sweep([BASE], store=store, scheduler=cluster.scheduler_address)
    assert "no worker yet" in capfd.readouterr().err


def test_a_scheduler_that_does_not_answer_is_named(store, tmp_path, monkeypatch):
    dask = pytest.importorskip("dask")
    monkeypatch.setenv("FTLIB_SCHEDULER", "tcp://127.0.0.1:9")
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "200ms"}),
        pytest.raises(ConnectionError, match=r"no Dask scheduler answers at tcp://127.0.0.1:9 .*is it running\?"),
    ):
        sweep([BASE], store=store)
    with pytest.raises(FileNotFoundError, match=r"no scheduler file .*/none.json: dask scheduler --scheduler-file"):
        sweep([BASE], store=store, scheduler=str(tmp_path / "none.json"))
    assert len(sweep([BASE], store=store, jobs=1)) == 1  # who asks for processes here gets them


def test_without_dask_a_cluster_is_refused_with_what_to_install(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r"needs Dask: pip install 'dask\[distributed\]'"):
        sweep([BASE], store=store, scheduler="tcp://127.0.0.1:8786")


@pytest.mark.parametrize("moment", ["its processes start", "runs are finished"])
def test_a_sweep_that_is_killed_takes_its_processes_with_it_and_loses_no_finished_run(store, trainings, moment):
    wanted = seeds(*range(40, 46))
    code = "import sys; from tests.test_pools import *\n"
    code += f"sweep(seeds(*range(40, 46)), store=Store({str(store.root)!r}), jobs=2)"
    with subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parent.parent) as parent:
        started, process = [], psutil.Process(parent.pid)
        wait_until(lambda: started.extend(process.children(recursive=True)) or len({p.pid for p in started}) >= 3)
        if moment == "runs are finished":
            wait_until(lambda: any(store.find(e.key) for e in wanted))
        started += process.children(recursive=True)
        parent.kill()
    wait_until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in started), 20)
    tasks = {e.key for e in wanted} | {e.source.key for e in wanted}
    kept = {path.name for path in store.root.iterdir() if path.name in tasks}
    assert bool(kept) == (moment == "runs are finished") and all(store.find(key) for key in kept)
    assert len(sweep(wanted, store=store, jobs=1)) == 6
    assert len(trainings) == len(tasks - kept)
    assert {path.name for path in store.root.iterdir()} == tasks | {"locks"}  # nothing damaged, nothing half-written


def test_a_process_ends_with_the_one_that_started_it_however_that_ends(tmp_path):
    code = "import os, time; from ftlib import pools\n"
    code += "place = (0, ())\nprint(pools._process(place).submit(os.getpid).result(), flush=True)\ntime.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        worker = int(parent.stdout.readline())
        parent.kill()
    end = time.monotonic() + 10
    while Path(f"/proc/{worker}").exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert not Path(f"/proc/{worker}").exists()
