"""The exact curve with its area: against one `logits.max(1)`, and against a loop over every threshold.

Both sides of a ratio are measured in turn in every round, and the median ratio counts, so that another load on the
machine reaches both; the loop takes many seconds and runs once. A good classifier (the label's logit is raised) has a
curve of nearly as many knots as samples, the slow case; random logits, with few right samples, are the fast one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from torch import Tensor

from ftlib.core import ClassSplit
from ftlib.metrics import seen_unseen_curve

ROUNDS = 7


def bench() -> list[tuple[str, float, str]]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    default = torch.get_num_threads()
    settings = {"one thread": 1} | ({f"{default} threads": default} if default > 1 else {})
    if device.type == "cuda":
        settings = {torch.cuda.get_device_name(): default}
    rows = []
    for raised, kind, limit in ((0.0, "random logits", 1.5), (4.0, "a good classifier", 2.5)):
        test = outputs(1_000_000, 100, raised, device)
        for setting, threads in settings.items():
            torch.set_num_threads(threads)
            what = f"curve + AUSUC, 1,000,000 × 100, {kind}, {setting}"
            rows.append((what, _times_of_one_max(*test), f"of one max(1), at most {limit}"))
    torch.set_num_threads(default)

    test = outputs(2_000, 200, 4.0, torch.device("cpu"))
    seconds = [_seconds(lambda: seen_unseen_curve(*test), device) for _ in range(100)]
    start = time.perf_counter()
    ausuc = loop_ausuc(*test)
    ratio = (time.perf_counter() - start) / median(seconds)
    assert abs(ausuc - seen_unseen_curve(*test).ausuc) < 1e-6
    rows.append(("a loop over every threshold, 2,000 × 200", ratio, "of the exact curve, at least 1,000"))
    return rows


def outputs(n: int, columns: int, raised: float, device: torch.device) -> tuple[Tensor, Tensor, ClassSplit]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(n, columns, generator=generator)
    labels = torch.randint(columns, (n,), generator=generator)
    logits[torch.arange(n), labels] += raised
    order = torch.randperm(columns, generator=generator).tolist()
    split = ClassSplit(order[: columns // 2], order[columns // 2 :])
    return logits.to(device), labels.to(device), split


def loop_ausuc(logits: Tensor, labels: Tensor, split: ClassSplit) -> float:
    """The plain way: for each threshold shift the whole matrix, take the argmax, count."""
    seen, absent = (torch.tensor(side) for side in (split.seen, split.absent))
    is_absent = torch.isin(labels, absent)
    margins = logits[:, seen].amax(1).double() - logits[:, absent].amax(1).double()
    logits, points = logits.double(), []
    for gamma in [-torch.inf, *margins.sort().values.tolist(), torch.inf]:
        shifted = logits.clone()
        shifted[:, absent] += np.nextafter(gamma, np.inf)  # just beyond the margin: the sample is called absent
        right = shifted.max(1).indices == labels
        points.append((right[~is_absent].double().mean().item(), right[is_absent].double().mean().item()))
    sy, uy = np.array(points).T
    return float(np.dot(sy[:-1] - sy[1:], uy[:-1] + uy[1:]) / 2)


def _times_of_one_max(logits: Tensor, labels: Tensor, split: ClassSplit) -> float:
    ratios = []
    for measured in range(-1, ROUNDS):  # the first round warms up
        ours = _seconds(lambda: seen_unseen_curve(logits, labels, split), logits.device)
        theirs = _seconds(lambda: logits.max(1), logits.device)
        if measured >= 0:
            ratios.append(ours / theirs)
    return median(ratios)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    for what, value, unit in bench():
        print(f"{what}: {value:,.2f} {unit}")
