"""The run store: a folder a Run, written whole or not at all, shared by any number of processes and people.

A Run's folder is named by its key and holds ``spec.json`` (what was asked), ``arrays.safetensors`` (what came out, no
pickle) and ``log.json`` (device, versions, seconds). It is written beside its place and renamed into it.

A key knows the content of images and checkpoints, which need not be where a store is read: ``known`` holds a small
file for each name of such, with the digest that it last had where it was computed with.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import os
import platform
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor


class Store:
    """Runs under one folder, by default ``$FTLIB_STORE``, else ``~/.cache/ftlib/runs``; made on the first write.

    It stays where it is, whatever becomes of the working directory.
    """

    def __init__(self, root: str | Path | None = None) -> None:
        self.root = Path(root or os.environ.get("FTLIB_STORE") or "~/.cache/ftlib/runs").expanduser().absolute()

    def find(self, key: str) -> Path | None:
        """The folder of a Run, or None if there is none or a damaged one, which is set aside with a warning.

        PermissionError if it may not be read, which is no damage.
        """
        place, looked_at = self.root / key, None
        try:
            if not place.exists():
                return None
            looked_at = place.stat().st_ino
            for name in ("spec.json", "log.json"):
                json.loads((place / name).read_text(encoding="utf-8"))
            arrays = place / "arrays.safetensors"
            # safe_open compares the header with the length of the file, and calls one that may not be read missing.
            with open(arrays, "rb"), safe_open(arrays, "pt"):
                return place
        except PermissionError as error:
            why = f"run {key} may not be read ({error.filename}): ask its owner for chmod -R g+rX"
            raise PermissionError(error.errno, f"{why} {self.root}, or point FTLIB_STORE elsewhere") from error
        # Any other OSError, such as too many open files, says nothing about the Run.
        except (FileNotFoundError, NotADirectoryError, ValueError, SafetensorError) as error:
            aside = self.root / "damaged" / f"{key}-{uuid.uuid4().hex[:8]}"
            aside.parent.mkdir(exist_ok=True)
            with suppress(FileNotFoundError):  # another process was quicker
                os.rename(place, aside)
                if aside.stat().st_ino != looked_at:  # and has already computed it again
                    os.rename(aside, place)
                    return place
                warnings.warn(f"run {key} was damaged ({error}): moved to {aside}, to be computed again", stacklevel=2)
            return None

    def save(self, key: str, spec: Mapping[str, Any], arrays: Mapping[str, Tensor], log: Mapping[str, Any]) -> Path:
        """Write a Run whole; one that is there already is kept.

        OSError if it cannot be written (a full disk, say): nothing of it is left, and no other Run is touched.
        """
        place, beside = self.root / key, self.root / f".{key}.{uuid.uuid4().hex[:8]}"
        try:
            beside.mkdir(parents=True)
            for name, values in (("spec.json", spec), ("log.json", log)):
                (beside / name).write_text(json.dumps(values, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            # Copies: safetensors refuses arrays that share memory, as CoaT's weights and views of one tensor do.
            whole = torch.contiguous_format
            tensors = {name: array.detach().cpu().clone(memory_format=whole) for name, array in arrays.items()}
            save_file(tensors, beside / "arrays.safetensors")
            mode = (beside / "spec.json").stat().st_mode  # by the umask; safetensors lets the owner alone read its file
            (beside / "arrays.safetensors").chmod(mode)
            if not place.exists():
                os.rename(beside, place)
        except (OSError, SafetensorError) as error:
            why = f"run {key} could not be written to {self.root} ({error})"
            raise OSError(f"{why}: free some space or point FTLIB_STORE elsewhere; finished runs are kept") from error
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        return place

    def keep(
        self,
        asked: Mapping[str, Any],
        code: Iterable[ModuleType | Callable[..., Any]],
        compute: Callable[[], Mapping[str, Tensor]],
    ) -> dict[str, Tensor]:
        """What ``compute`` gives for what is ``asked`` (in JSON's types) by this ``code``: computed once, then read."""
        key = hashlib.sha256(json.dumps([asked, code_hash(code)], sort_keys=True).encode()).hexdigest()[:20]
        if (path := self.find(key)) is None:
            path = self.save(key, asked, compute(), {"device": device_name("cpu")})
        return load_file(path / "arrays.safetensors")

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Held while a Run is computed, so that of several processes one computes it and the others wait for it.

        The operating system drops it with the process that holds it; what that process left half-written is removed.
        OSError as for `prepare`.
        """
        self.prepare()
        with self._lock(key):
            for leftover in self.root.glob(f".{key}.*"):
                shutil.rmtree(leftover, ignore_errors=True)
            yield

    def is_locked(self, key: str) -> bool:
        """Whether a Run is being computed at this moment, in whatever process."""
        with suppress(FileNotFoundError):  # nobody has computed anything here
            try:
                with self._lock(key).acquire(blocking=False):
                    pass
            except Timeout:
                return True
        return False

    def prepare(self) -> Path:
        """Make the store, and see that it can be written to (else OSError), before it is used; its folder of locks."""
        folder = self.root / "locks"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for place in (self.root, folder):
                with tempfile.TemporaryFile(dir=place):
                    pass
        except OSError as error:
            why = f"the run store {self.root} cannot be made or written to ({error.strerror})"
            raise OSError(error.errno, f"{why}: point FTLIB_STORE to a folder that can") from error
        return folder

    def remember(self, name: str, digest: str) -> None:
        """Keep the digest of images or of a checkpoint, for those who have them not."""
        if self.recall(name) != digest:
            write_atomic(self._known(name), json.dumps({"name": name, "digest": digest}).encode())

    def recall(self, name: str) -> str | None:
        """The digest that `remember` was last given for this name, if any."""
        with suppress(FileNotFoundError, NotADirectoryError, ValueError):
            return json.loads(self._known(name).read_text(encoding="utf-8"))["digest"]
        return None

    def _lock(self, key: str) -> FileLock:
        folder = self.root / "locks"
        return FileLock(folder / f"{key}.lock", mode=folder.stat().st_mode & 0o666)  # for all who may write here

    def _known(self, name: str) -> Path:
        return self.root / "known" / f"{hashlib.sha256(name.encode()).hexdigest()[:20]}.json"


def write_atomic(path: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write a file whole or not at all, and its folder if need be: beside its place, to the disk, then renamed.

    What is large need not be copied for it: ``content`` may be a function that writes it into the open file.

    OSError if it cannot be written: what was there before is as it was, and nothing is left beside it.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            content(file) if callable(content) else file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        why = f"cannot write {path} ({error.strerror or error})"
        how = "free some space or name another folder; what was there before is untouched"
        raise OSError(error.errno, f"{why}: {how}") from error


# --- what a result depends on and where it came from ------------------------------------------------------------------


def code_hash(parts: Iterable[ModuleType | Callable[..., Any]]) -> str:
    """Of the code of modules and functions, without comments and docstrings: those may change and retrain nothing."""
    return "".join(_hash_of(part) for part in dict.fromkeys(parts))


def versions(*packages: str) -> dict[str, str]:
    """Of Python and of those packages that are installed."""
    found = {package: _version(package) for package in packages}
    return {"python": platform.python_version()} | {package: version for package, version in found.items() if version}


def usable(device: str | None) -> str:
    """The device, by default CUDA if there is a GPU, else the CPU; a ValueError if it is not here."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):  # the latter of torch without CUDA
        expected = "expected cpu, or cuda or cuda:N where there is a GPU"
        raise ValueError(f"device={device!r} is not here: {expected}") from None
    return device


def device_name(device: str) -> str:
    """The GPU's or the processor's own name."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    cpus = Path("/proc/cpuinfo")  # Linux has no better place
    lines = cpus.read_text(encoding="utf-8").splitlines() if cpus.exists() else []
    found = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return found[0] if found else platform.processor() or platform.machine()


@cache  # looking it up takes a millisecond, and every run is asked
def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@cache  # reading it again would name results of the code in memory after what a file has become since
def _hash_of(part: ModuleType | Callable[..., Any]) -> str:
    tree = ast.parse(inspect.getsource(part))
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value.value = ""
    return hashlib.sha256(repr(_plain(tree)).encode()).hexdigest()


def _plain(node: Any) -> Any:
    """A syntax tree as nested lists. Empty fields are left out: their number differs between versions of Python."""
    if isinstance(node, list):
        return [_plain(part) for part in node]
    if not isinstance(node, ast.AST):
        return node
    parts = ((name, _plain(value)) for name, value in ast.iter_fields(node))
    return [type(node).__name__, *(part for part in parts if part[1] not in (None, []))]
