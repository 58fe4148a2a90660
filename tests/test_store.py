"""ftlib.store: a Run is whole or not there, whatever happens while it is written."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ftlib import store as store_module
from ftlib.store import Store, write_atomic

ARRAYS = {"test/logits": torch.arange(12.0).view(3, 4), "model/weight": torch.ones(2, 2)}
UMASK = os.umask(0)
os.umask(UMASK)
SPEC, LOG = {"seed": 0, "benchmark": "α"}, {"seconds": 1.5}


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


def test_what_is_asked_for_again_is_read_and_what_differs_is_computed(store):
    computed = []

    def compute():
        computed.append(1)
        return {"n": torch.tensor(len(computed))}

    def kept(asked, code):
        return store.keep(asked, code, compute)["n"].item()

    assert [kept({"a": 1, "b": 2}, [whole]), kept({"b": 2, "a": 1}, [whole])] == [1, 1]
    assert [kept({"a": 2, "b": 2}, [whole]), kept({"a": 1, "b": 2}, [files]), kept({"a": 1, "b": 2}, [whole])] == [
        2,
        3,
        1,
    ]


def test_the_store_lies_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("FTLIB_STORE", str(tmp_path / "here"))
    assert Store().root == tmp_path / "here"
    monkeypatch.setenv("FTLIB_STORE", "~/here")
    assert Store().root == Path.home() / "here"
    monkeypatch.delenv("FTLIB_STORE")
    assert Store().root == Path.home() / ".cache/ftlib/runs"


def test_a_relative_store_stays_where_it_was_when_the_working_directory_changes(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FTLIB_STORE", "./runs")
    store = Store()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert store.save("abc", SPEC, ARRAYS, LOG) == tmp_path / "runs/abc"


@pytest.mark.parametrize(("umask", "mode"), [(0o002, 0o664), (0o022, 0o644), (0o077, 0o600)])
def test_all_files_are_as_readable_as_the_umask_lets_them_be(store, umask, mode):
    """safetensors makes its own readable by the owner alone."""
    usual = os.umask(umask)
    try:
        place = store.save("abc", SPEC, ARRAYS, LOG)
        with store.lock("abc"):
            lock = (store.root / "locks/abc.lock").stat().st_mode & 0o777
    finally:
        os.umask(usual)
    assert {path.name: path.stat().st_mode & 0o777 for path in place.iterdir()} == dict.fromkeys(
        ("spec.json", "arrays.safetensors", "log.json"), mode
    )
    assert lock == mode
    assert place.stat().st_mode & 0o777 == 0o777 & ~umask


# ---------------------------------------------------------------------------------------- what a name stood for


def test_a_digest_is_known_under_its_name_until_another_is(store):
    assert store.recall("folder:α/a-b") is None
    for digest in ("1", "2"):
        store.remember("folder:α/a-b", digest)
        store.remember("weights.pth", "3")
        assert store.recall("folder:α/a-b") == digest
    assert store.recall("weights.pth") == "3"
    assert len(files(store.root)) == 2


def test_a_digest_that_is_known_is_not_written_again(store, monkeypatch):
    store.remember("a", "1")
    monkeypatch.setattr(store_module, "write_atomic", None)
    store.remember("a", "1")


# ---------------------------------------------------------------------------------------- one file, whole or not at all


def test_a_file_is_written_with_its_folder_and_in_place_of_an_older_one(tmp_path):
    path = tmp_path / "new/folder/file"
    for content in (b"first", b"second, longer"):
        write_atomic(path, content)
        assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o666 & ~UMASK


def test_a_file_that_cannot_be_written_leaves_the_older_one_and_nothing_beside_it(tmp_path):
    write_atomic(tmp_path / "file", b"first")
    with files_of_at_most(4096), pytest.raises(OSError, match=rf"cannot write {tmp_path}/file \(.*free some space"):
        write_atomic(tmp_path / "file", bytes(100_000))
    assert (tmp_path / "file").read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=rf"cannot write {tmp_path}/file/x \(.*name another folder"):
        write_atomic(tmp_path / "file/x", b"")


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


@contextmanager
def as_nobody(*folders: Path):
    """Without root's rights, if the tests have them; the folders can be entered by all."""
    usual = os.geteuid()
    for folder in folders:
        folder.chmod(0o755)
    if usual == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(usual)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.mark.parametrize("name", ["arrays.safetensors", "spec.json", "."])
def test_a_run_that_may_not_be_read_is_no_damage_and_stays(open_folder, name):
    store = Store(open_folder / "store")
    place = store.save("abc", SPEC, ARRAYS, LOG)
    (place / name).chmod(0o000)
    store.root.chmod(0o777)
    with (
        as_nobody(open_folder),
        pytest.raises(PermissionError, match=rf"run abc may not be read \({place}.*ask its owner for chmod -R g\+rX"),
    ):
        store.find("abc")
    (place / name).chmod(0o755)
    assert store.find("abc") == place
    assert [path.name for path in store.root.iterdir()] == ["abc"]


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


@pytest.mark.parametrize("root", ["{}/file", "{}/file/x", "/proc/x/store", "/dev/full/x"])
@pytest.mark.parametrize("ask", [Store.prepare, lambda store: store.lock("abc").__enter__()])
def test_a_store_that_cannot_be_made_is_named_before_anything_is_computed(tmp_path, root, ask):
    (tmp_path / "file").write_text("")
    root = root.format(tmp_path)
    with pytest.raises(OSError, match=rf"the run store {root} cannot be made or written to \(.*point FTLIB_STORE"):
        ask(Store(root))


def test_a_store_of_somebody_else_is_named_before_anything_is_computed(open_folder):
    store = Store(open_folder / "store")
    store.prepare()
    with (
        as_nobody(open_folder),
        pytest.raises(PermissionError, match=r"cannot be made or written to \(Permission denied"),
    ):
        store.prepare()


# ---------------------------------------------------------------------------------------- killed, and shared


def test_a_run_that_another_process_has_mended_meanwhile_stays(store, monkeypatch):
    """Both found it damaged; the other set it aside and computed it again before this one came to it."""
    store.save("abc", SPEC, ARRAYS, LOG)

    def read_before_the_other_came(path: Path, framework: str) -> None:
        os.rename(path.parent, store.root / "elsewhere")
        store.save("abc", SPEC, ARRAYS, LOG)
        raise SafetensorError("header too large")

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "safe_open", read_before_the_other_came)
        assert store.find("abc") == store.root / "abc"
    assert store.find("abc") == store.root / "abc"


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


def test_a_run_is_locked_while_it_is_computed_by_whomever(store):
    assert not store.is_locked("abc")
    begun, done = PROCESSES.Event(), PROCESSES.Event()

    def work() -> None:
        with store.lock("abc"):
            begun.set()
            done.wait(60)

    process = PROCESSES.Process(target=work)
    process.start()
    assert begun.wait(60) and store.is_locked("abc") and not store.is_locked("other")
    done.set()
    process.join()
    assert not store.is_locked("abc")
