"""ftlib: fine-tune a classifier on some of its classes, see what breaks, and repair it with one number.

The way through the package, each step a module:

    benchmarks ─> models, training, methods ─> experiments, store ─> metrics, calibration, analysis ─> figures, claims
    images         a timm backbone, its head     Experiment -> Run     plain arrays

A first taste, from a fine-tuned model's logits to a calibrated checkpoint::

    from ftlib.benchmarks import ClassSplit
    from ftlib.calibration import fold_gamma, mirrored
    from ftlib.metrics import split_accuracies

    split = ClassSplit(seen=range(0, 34), absent=range(34, 68))
    gamma = mirrored(train_logits, train_labels, split, old_head)  # from the fine-tuning images alone
    split_accuracies(test_logits, test_labels, split, gamma)       # .yy .sy .uy .ss .uu, fractions in [0, 1]
    fold_gamma(model, gamma, split.absent)                         # the repair is now in the model's bias

Importing ftlib loads no model code; it only prepares the ground for torch and timm (below), so import it first.
"""

import os as _os
from typing import Any as _Any

__version__ = "1.0.0"

# cuBLAS picks a workspace when the process first uses it, and only a fixed one makes its sums come out bit for bit the
# same twice, which `training.fit` promises. A value that the user has set stays.
_os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

_torchvision_schemas = None  # holds the library object: the operators vanish with it


def _define_missing_torchvision_operators() -> None:
    """Let ``import timm`` work beside a torchvision whose compiled operators do not fit this torch.

    timm imports torchvision, which at once registers shape functions for two of its compiled operators. Where the
    binary is for CUDA and torch is for the CPU, the operators are missing and both imports end in "operator
    torchvision::nms does not exist". Nothing here calls them: declaring their signatures is enough.

    The binary is tried directly rather than through ``import torchvision``, since a failed import leaves half of a
    package behind. With a working torchvision this loads what it would load itself, and declares nothing.
    """
    global _torchvision_schemas
    from contextlib import suppress
    from importlib.util import find_spec
    from pathlib import Path

    spec = find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return

    import torch

    for folder in spec.submodule_search_locations:
        for binary in (*Path(folder).glob("_C*.so"), *Path(folder).glob("_C*.pyd")):
            with suppress(OSError, ImportError):
                torch.ops.load_library(str(binary))

    if missing := [name for name in ("nms", "qnms") if not hasattr(torch.ops.torchvision, name)]:
        _torchvision_schemas = torch.library.Library("torchvision", "FRAGMENT")
        for name in missing:
            _torchvision_schemas.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


_define_missing_torchvision_operators()


def __getattr__(name: str) -> _Any:
    """`ftlib.calibrate` and `ftlib.collect`, imported when they are asked for."""
    rooms = {"calibrate": "recommend", "collect": "own"}
    if name not in rooms:
        raise AttributeError(f"module 'ftlib' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"ftlib.{rooms[name]}"), name)
