"""Where the tasks of a sweep run: in this process, in processes of this machine, or on a Dask cluster.

A pool takes `slots()` tasks at a time, one in each of its processes: training sets the random state of its process, and
a GPU is best used by one run. A task is a Job, to be computed and kept in the store by the function that the pool was
given; it brings None, or what went wrong in words.
"""

from __future__ import annotations

import ctypes
import os
import platform
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol

import torch

from ftlib.store import Store

POLL = 2.0  # seconds after which a cluster is asked again for its workers
IDLE = 300  # seconds that a process waits for the next sweep: importing torch and timm takes longer than a small run
LOST = "the scheduler was lost: what is finished is kept; start it, its workers and the sweep again to go on"
_processes: dict[tuple[int, tuple[tuple[str, str], ...]], Any] = {}  # of this machine, warm from sweep to sweep
_one_at_a_time = threading.RLock()


class Job(Protocol):
    """What can be computed and kept: a frozen dataclass of plain values whose key follows from them and the code."""

    method: str
    benchmark: str
    seed: int

    @property
    def key(self) -> str: ...

    @property
    def parents(self) -> Sequence[Any]:
        """The jobs whose results this one starts from."""
        ...


Compute = Callable[..., Any]  # of a Job, with `store` and `device`: makes sure that the store has its result


class Here(AbstractContextManager):
    """This process, where a task runs while it is submitted; and what the other pools have in common with it."""

    def __init__(self, compute: Compute, store: Store, device: str | None) -> None:
        self.compute, self.store, self.device = compute, store, device

    def slots(self) -> int:
        """How many tasks the pool has room for, at present."""
        return 1

    def submit(self, job: Job) -> Any:
        """Start a task; the future's result is None or what went wrong."""
        future: Future = Future()
        future.set_result(attempt(self.compute, job, job.key, self.store, self.device))
        return future

    def __exit__(self, *error: object) -> None:
        """Give back what the pool holds."""


class Processes(Here):
    """joblib's processes (loky), each on its own GPU if there are several.

    Every slot is a pool of one process, so that a process that dies takes no other task with it. A process sees its
    GPU alone (CUDA_VISIBLE_DEVICES): torch sets up a context, some hundred MB, on every GPU that it can see.
    """

    def __init__(self, jobs: int, compute: Compute, store: Store, device: str | None) -> None:
        super().__init__(compute, store, device)
        one = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")}
        # A process that waits from sweep to sweep stays where it was started: what is relative is so to this one.
        one["FTLIB_DATA"] = str(Path(os.environ.get("FTLIB_DATA") or ".").expanduser().absolute())
        gpus = [{"CUDA_VISIBLE_DEVICES": name} for name in visible_gpus()] if device in (None, "cuda") else []
        places = (one | (gpus[slot % len(gpus)] if gpus else {}) for slot in range(jobs))
        self.free = [(slot, tuple(place.items())) for slot, place in enumerate(places)]
        self.jobs, self.busy = jobs, set()

    def slots(self) -> int:
        return self.jobs

    def submit(self, job: Job) -> Future:
        place = self.free.pop(0)
        task = partial(_process(place).submit, attempt, self.compute, job, job.key, self.store, self.device)
        try:
            future = task()
        except BrokenProcessPool:  # it died while it waited for work
            _processes.pop(place)
            future = _process(place).submit(*task.args)
        self.busy.add(place)
        future.add_done_callback(partial(self._release, place))
        return future

    def _release(self, place: Any, future: Future) -> None:
        if not future.cancelled() and isinstance(future.exception(), BrokenProcessPool):
            _processes.pop(place, None)
        self.busy.discard(place)
        self.free.append(place)

    def __exit__(self, *error: object) -> None:
        for place in list(self.busy):  # an interrupt: what they compute is not waited for
            if process := _processes.pop(place, None):
                process.shutdown(kill_workers=True)


class Cluster(Here):
    """The workers of a Dask cluster, of those that declare the resource "GPU" if there are any.

    ``scheduler`` is an address, such as "tcp://10.0.0.1:8786", or the path of a scheduler file (*.json). ImportError if
    Dask is not installed, ConnectionError if no scheduler answers there.
    """

    def __init__(self, scheduler: str, compute: Compute, store: Store, device: str | None) -> None:
        try:
            from distributed import Client
        except ImportError as error:
            extra = "pip install 'dask[distributed]', which is ftlib's extra [cluster]"
            raise ImportError(f"a sweep on {scheduler} needs Dask: {extra}") from error
        if scheduler.endswith(".json") and not Path(scheduler).exists():
            raise FileNotFoundError(f"no scheduler file {scheduler}: dask scheduler --scheduler-file {scheduler}")
        where: dict[str, Any] = {"scheduler_file" if scheduler.endswith(".json") else "address": scheduler}
        try:
            self.client = Client(**where, set_as_default=False, name="ftlib-sweep")
        except (OSError, TimeoutError) as error:
            raise ConnectionError(f"no Dask scheduler answers at {scheduler} ({error}): is it running?") from error
        super().__init__(compute, store, device)
        self.asked = -POLL
        self.mark = tempfile.NamedTemporaryFile(dir=store.prepare(), prefix="sweep-")  # noqa: SIM115  a worker knows the store by it

    def slots(self) -> int:
        if time.monotonic() - self.asked >= POLL:
            try:
                workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
            except OSError as error:
                raise ConnectionError(LOST) from error
            with_gpu = [worker for worker in workers if worker["resources"].get("GPU", 0) >= 1]
            self.resources = {"GPU": 1} if with_gpu else None
            # No task waits in a worker's queue: Dask blames a worker's death on all the tasks that it was given.
            self.workers, self.asked = len(with_gpu or workers), time.monotonic()
        return self.workers

    def submit(self, job: Job) -> Any:
        shown = f"{job.method}-{job.key}-{uuid.uuid4().hex[:8]}"  # by the dashboard
        what = attempt, self.compute, job, job.key, self.store, self.device, self.mark.name
        return self.client.submit(*what, key=shown, resources=self.resources)

    def __exit__(self, *error: object) -> None:
        self.mark.close()
        self.client.close()


def attempt(
    compute: Compute, job: Any, key: str, store: Store, device: str | None, mark: str | None = None
) -> str | None:
    """Compute a Run and keep it; say what went wrong, instead of raising, so that the other runs go on.

    ``key`` is what the sweep's own process has, from its code; ``mark`` a file in the store, for other machines.
    """
    keep_memory()
    with _one_at_a_time:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # two processes of one thread do more than one process of two
        try:
            own = replace(job)  # its key is not yet computed
            if own.key != key:
                why = f"the code here is not that of the sweep, or the images are not (key {own.key}, not {key})"
                raise RuntimeError(
                    f"{why}: install the same ftlib as in {Path(__file__).parent}, start the process anew"
                )
            store = shared(store, mark) if mark else store
            compute(own, store=store, device=device)
        except Exception as error:  # whatever it is, it goes into the sweep's report
            if store.find(key):  # two may compute a run where a file system's locks fail: the first one's is kept
                return None
            return f"{type(error).__name__}: {error}" + (f" (on {platform.node()})" if mark else "")
        finally:
            torch.set_num_threads(threads)
    return None


@cache
def keep_memory() -> None:
    """Have malloc keep what was freed for the next step, which needs as much again.

    Dask tells its workers, and with them all processes that are started later, to return it at once
    (MALLOC_TRIM_THRESHOLD_=65536): a training on the CPU is then two fifths slower. See mallopt(3) for the numbers.
    """
    trim_threshold, mmap_threshold = -1, -3
    with suppress(OSError, AttributeError, TypeError):  # what is not glibc has no such function
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(trim_threshold, 2**30)
        mallopt(mmap_threshold, 2**25)


def shared(store: Store, mark: str) -> Store:
    """The sweep's store as this machine sees it: at the same path, or where its own $FTLIB_STORE points."""
    for place in (store, Store()):
        if (place.root / "locks" / Path(mark).name).exists():
            return place
    own = os.environ.get("FTLIB_STORE", "not set")
    why = "all machines must share the folder; set FTLIB_STORE where the worker is started"
    raise FileNotFoundError(f"the sweep's store {store.root} is not here, nor at FTLIB_STORE ({own}): {why}")


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them: numbers or UUIDs."""
    count, names = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    return names.split(",")[:count] if names else [str(number) for number in range(count)]


def _process(place: tuple[int, tuple[tuple[str, str], ...]]) -> Any:
    from joblib.externals.loky import ProcessPoolExecutor

    if place not in _processes:
        follow = {"initializer": _follow, "initargs": (os.getpid(),)}
        _processes[place] = ProcessPoolExecutor(max_workers=1, timeout=IDLE, env=dict(place[1]), **follow)
    return _processes[place]


def _follow(parent: int) -> None:
    """Have this process end with the one that started it: that may be killed, and can then say nothing."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
