"""From a file of logits to γ, against reading the file: at most three times as long, of 1,000,000 × 1,000 numbers."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import torch
from safetensors.torch import load_file, save_file

import ftlib
from ftlib.core import ClassSplit
from ftlib.files import read_arrays

COLUMNS, LIMIT = 1000, 3.0
SPLIT = ClassSplit(range(500), range(500, COLUMNS))


def bench() -> list[tuple[str, float, str]]:
    """Seconds to γ over seconds to read, of either format; a quarter of the rows where memory is short."""
    rows = 1_000_000 if psutil.virtual_memory().available > 14e9 else 250_000
    with tempfile.TemporaryDirectory() as folder:
        labels = torch.arange(rows) % 500
        logits = torch.randn(rows, COLUMNS)
        logits[:, :500] += 2
        logits[torch.arange(rows), labels] += 6
        npz, tensors = Path(folder, "x.npz"), Path(folder, "x.safetensors")
        np.savez(npz, logits=logits.numpy(), labels=labels.numpy())
        save_file({"logits": logits, "labels": labels}, tensors)
        del logits
        readers = {npz: lambda: np.load(npz)["logits"], tensors: lambda: load_file(tensors)["logits"].clone()}
        return [
            (
                f"{path.suffix}, {rows:,} × {COLUMNS:,}, to γ",
                _seconds(lambda path=path: _gamma(path)) / _seconds(read),
                f"of reading it, at most {LIMIT:g}",
            )
            for path, read in readers.items()
        ]


def _gamma(path: Path) -> float:
    arrays = read_arrays(path)
    return float(ftlib.calibrate(arrays["logits"], arrays["labels"], SPLIT).gamma)


def _seconds(work: Callable[[], object]) -> float:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return sorted(times)[1]
