"""What the project promises, measured: `make bench`, or `python -m tests.bench fit curve` for some of it.

Each tests/bench/bench_*.py has one function ``bench()`` that returns rows of what was measured, its value, and its unit
with the target. Targets are ratios within one run, so that they mean the same on every machine; nothing here is a test.
"""

import importlib
import os
import platform
import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

import ftlib  # noqa: F401  (first of all that imports timm)


def main() -> None:
    modules = {path.stem.removeprefix("bench_"): path.stem for path in sorted(Path(__file__).parent.glob("bench_*.py"))}
    wanted = sys.argv[1:] or list(modules)
    if unknown := set(wanted) - set(modules):
        sys.exit(f"no benchmark {min(unknown)!r}; there are {', '.join(modules)}")

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    print(f"{device}, {os.cpu_count()} cores, torch {torch.__version__} with {torch.get_num_threads()} threads")

    rows = []
    for name in tqdm(wanted, unit="benchmark"):
        start = time.perf_counter()
        found = importlib.import_module(f"tests.bench.{modules[name]}").bench()
        rows += [
            (name, what, f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}", unit) for what, value, unit in found
        ]
        tqdm.write(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr)

    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for name, what, value, unit in rows:
        print(f"{name:<{widths[0]}}  {what:<{widths[1]}}  {value:>{widths[2]}}  {unit}")


if __name__ == "__main__":  # the workers of a cluster import this file as well
    main()
