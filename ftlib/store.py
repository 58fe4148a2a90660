"""The run store: a folder a Run, written whole or not at all, shared by any number of processes.

A Run's folder is named by its key and holds ``spec.json`` (what was asked), ``arrays.safetensors`` (what came out, no
pickle) and ``log.json`` (device, versions, seconds). It is written beside its place and renamed into it.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import os
import platform
import shutil
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


class Store:
    """Runs under one folder.

    Parameters
    ----------
    root : path, optional
        Default: ``$FTLIB_STORE``, else ``~/.cache/ftlib/runs``. Made on the first write.
    """

    def __init__(self, root: str | Path | None = None) -> None:
        self.root = Path(root or os.environ.get("FTLIB_STORE") or "~/.cache/ftlib/runs").expanduser()

    def find(self, key: str) -> Path | None:
        """The folder of a Run, or None if there is none or a damaged one, which is set aside with a warning."""
        place = self.root / key
        if not place.exists():
            return None
        try:
            for name in ("spec.json", "log.json"):
                json.loads((place / name).read_text(encoding="utf-8"))
            with safe_open(place / "arrays.safetensors", "pt"):  # compares the header with the length of the file
                return place
        # Any other OSError, such as too many open files, says nothing about the Run.
        except (FileNotFoundError, NotADirectoryError, ValueError, SafetensorError) as error:
            aside = self.root / "damaged" / f"{key}-{uuid.uuid4().hex[:8]}"
            aside.parent.mkdir(exist_ok=True)
            with suppress(FileNotFoundError):  # another process was quicker
                os.rename(place, aside)
                warnings.warn(f"run {key} was damaged ({error}): moved to {aside}, to be computed again", stacklevel=2)
            return None

    def save(self, key: str, spec: Mapping[str, Any], arrays: Mapping[str, Tensor], log: Mapping[str, Any]) -> Path:
        """Write a Run whole. One that is there already is kept.

        Raises
        ------
        OSError
            It could not be written (a full disk, say). Nothing of it is left, and no other Run is touched.
        """
        place, beside = self.root / key, self.root / f".{key}.{uuid.uuid4().hex[:8]}"
        try:
            beside.mkdir(parents=True)
            (beside / "spec.json").write_text(json.dumps(spec, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            # Copies: safetensors refuses arrays that share memory, as CoaT's weights and views of one tensor do.
            whole = torch.contiguous_format
            tensors = {name: array.detach().cpu().clone(memory_format=whole) for name, array in arrays.items()}
            save_file(tensors, beside / "arrays.safetensors")
            (beside / "log.json").write_text(json.dumps(log, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            if not place.exists():
                os.rename(beside, place)
        except (OSError, SafetensorError) as error:
            raise OSError(
                f"run {key} could not be written to {self.root} ({error}): free some space there or point FTLIB_STORE "
                "elsewhere, and start again; nothing was left half-written and finished runs are kept"
            ) from error
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        return place

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Held while a Run is computed, so that of several processes one computes it and the others wait for it.

        The operating system drops it with the process that holds it; what that process left half-written is removed.
        """
        folder = self.root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{key}.lock"):
            for leftover in self.root.glob(f".{key}.*"):
                shutil.rmtree(leftover, ignore_errors=True)
            yield


# --- what a result depends on and where it came from ------------------------------------------------------------------


def code_hash(parts: Iterable[ModuleType | Callable[..., Any]]) -> str:
    """Of the code of modules and functions, without comments and docstrings: those may change and retrain nothing."""
    return "".join(_hash_of(part) for part in dict.fromkeys(parts))


def versions(*packages: str) -> dict[str, str]:
    """Of Python and of those packages that are installed."""
    found = {package: _version(package) for package in packages}
    return {"python": platform.python_version()} | {package: version for package, version in found.items() if version}


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
