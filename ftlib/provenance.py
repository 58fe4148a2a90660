"""What a result depends on and where it came from: the code, the versions, the device."""

from __future__ import annotations

import ast
import hashlib
import inspect
import platform
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import torch


def code_hash(modules: Iterable[ModuleType]) -> str:
    """Of the modules' code, without comments and docstrings: those may change and retrain nothing."""
    return "".join(_hash_of_module(module) for module in dict.fromkeys(modules))


def versions(*packages: str) -> dict[str, str]:
    """Of Python and of those packages that are installed."""
    found = {package: _version(package) for package in packages}
    return {"python": platform.python_version()} | {package: version for package, version in found.items() if version}


def device_name(device: str) -> str:
    """The GPU's or the processor's own name."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    cpus = Path("/proc/cpuinfo")  # Linux has no better place
    lines = cpus.read_text().splitlines() if cpus.exists() else []
    found = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return found[0] if found else platform.processor() or platform.machine()


@cache  # looking it up takes a millisecond, and every run is asked
def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@cache  # reading it again would name results of the code in memory after what a file has become since
def _hash_of_module(module: ModuleType) -> str:
    tree = ast.parse(inspect.getsource(module))
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
