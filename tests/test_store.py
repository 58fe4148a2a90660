"""ftlib.store: a Run is whole or not there, whatever happens while it is written."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ftlib import store as store_module
from ftlib.store import Store

ARRAYS = {"test/logits": torch.arange(12.0).view(3, 4), "model/weight": torch.ones(2, 2)}
SPEC, LOG = {"seed": 0, "benchmark": "α"}, {"seconds": 1.5}


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and path.suffix != ".lock"}


def whole(key: str) -> set[str]:
    return {f"{key}/{name}" for name in ("spec.json", "arrays.safetensors", "log.json")}


def test_what_was_saved_is_found(store):
    place = store.save("abc", SPEC, ARRAYS, LOG)
    assert store.find("abc") == place
    assert json.loads((place / "spec.json").read_text()) == SPEC
    assert json.loads((place / "log.json").read_text()) == LOG
    loaded = load_file(place / "arrays.safetensors")
    assert loaded.keys() == ARRAYS.keys()
    assert all(torch.equal(loaded[name], array) for name, array in ARRAYS.items())
    assert files(store.root) == whole("abc")


def test_nothing_is_found_in_an_empty_store_and_none_is_made(store):
    assert store.find("abc") is None
    assert not store.root.exists()


def test_arrays_keep_their_values_whatever_their_layout(store):
    """Parameters that are channels last, parts of others, or that gradients go to."""
    weight = torch.nn.Parameter(torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last))
    arrays = {"w": weight, "t": torch.arange(6).view(2, 3).T, "part": torch.arange(10)[3:5]}
    loaded = load_file(store.save("abc", SPEC, arrays, LOG) / "arrays.safetensors")
    assert all(torch.equal(loaded[name], array) for name, array in arrays.items())


def test_a_run_that_is_there_is_kept(store):
    store.save("abc", SPEC, ARRAYS, {"seconds": 1})
    place = store.save("abc", SPEC, ARRAYS, {"seconds": 2})
    assert json.loads((place / "log.json").read_text()) == {"seconds": 1}
    assert files(store.root) == whole("abc")


def test_the_store_lies_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("FTLIB_STORE", str(tmp_path / "here"))
    assert Store().root == tmp_path / "here"
    monkeypatch.delenv("FTLIB_STORE")
    assert Store().root == Path.home() / ".cache/ftlib/runs"


# ---------------------------------------------------------------------------------------- damage


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("arrays.safetensors", cut),
        ("arrays.safetensors", lambda path: path.write_bytes(b"")),
        ("arrays.safetensors", Path.unlink),
        ("spec.json", cut),
        ("log.json", lambda path: path.write_text("")),
        ("log.json", lambda path: path.write_bytes(b"\xff\xfe")),
        ("log.json", Path.unlink),
    ],
)
def test_a_damaged_run_is_set_aside_with_a_warning(store, name, damage):
    damage(store.save("abc", SPEC, ARRAYS, LOG) / name)
    store.save("other", SPEC, ARRAYS, LOG)
    with pytest.warns(UserWarning, match=r"run abc was damaged .* moved to .*damaged/abc-"):
        assert store.find("abc") is None
    assert len(list((store.root / "damaged").iterdir())) == 1
    assert store.find("abc") is None  # it is gone: no second warning
    assert store.find("other")
    assert store.find(store.save("abc", SPEC, ARRAYS, LOG).name)


def test_a_run_that_cannot_be_opened_for_now_is_left_alone(store, monkeypatch):
    place = store.save("abc", SPEC, ARRAYS, LOG)

    def too_many(*_):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(store_module, "safe_open", too_many)
    with pytest.raises(OSError, match="Too many open files"):
        store.find("abc")
    monkeypatch.undo()
    assert store.find("abc") == place


# ---------------------------------------------------------------------------------------- no room


@contextmanager
def files_of_at_most(n: int):
    """As on a full disk, a write past n bytes fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_nothing_half_written_and_says_what_to_do(store):
    store.save("other", SPEC, ARRAYS, LOG)
    with (
        files_of_at_most(4096),
        pytest.raises(OSError, match=rf"run abc could not be written to {store.root} \(.*free some space.*FTLIB_STORE"),
    ):
        store.save("abc", SPEC, {"big": torch.zeros(100_000)}, LOG)
    assert files(store.root) == whole("other")
    assert [path.name for path in store.root.iterdir()] == ["other"]
    assert store.find("other")
    assert store.find(store.save("abc", SPEC, ARRAYS, LOG).name)


def test_a_store_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=rf"run abc could not be written to {tmp_path}/file"):
        Store(tmp_path / "file").save("abc", SPEC, ARRAYS, LOG)


# ---------------------------------------------------------------------------------------- killed, and shared

PROCESSES = multiprocessing.get_context("fork")


def killed_while_saving(store: Store) -> None:
    def half(_, path: Path) -> None:
        path.write_bytes(b"half of it")
        os.kill(os.getpid(), signal.SIGKILL)

    store_module.save_file = half
    with store.lock("abc"):
        store.save("abc", SPEC, ARRAYS, LOG)


def test_a_killed_process_leaves_no_run_and_its_leftovers_go(store):
    store.save("other", SPEC, ARRAYS, LOG)
    process = PROCESSES.Process(target=killed_while_saving, args=(store,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert files(store.root) > whole("other")  # something is left
    assert store.find("abc") is None
    with store.lock("abc"):  # it was dropped with the process
        assert files(store.root) == whole("other")
        store.save("abc", SPEC, ARRAYS, LOG)
    assert store.find("abc")
    assert files(store.root) == whole("abc") | whole("other")


def test_of_several_processes_one_computes(store):
    start, computed = PROCESSES.Barrier(4), PROCESSES.Queue()

    def work() -> None:
        start.wait()
        with store.lock("abc"):
            if store.find("abc") is None:
                time.sleep(0.2)  # long enough for the others to come
                store.save("abc", SPEC, ARRAYS, LOG)
                computed.put(os.getpid())

    processes = [PROCESSES.Process(target=work) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert computed.get(timeout=5) in [process.pid for process in processes]
    assert computed.empty()
    assert store.find("abc")
