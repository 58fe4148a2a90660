"""What a pass over the logits must find out for all γ at once: margins, and whether the label leads its side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ftlib.benchmarks.core import ClassSplit
from ftlib.checks import Array, check_no_nan, check_outputs


class Best(NamedTuple):
    """Per sample: the margin; is the label the best class of its side; is that side absent; the label. All [N]."""

    margin: np.ndarray
    hit: np.ndarray
    absent: np.ndarray
    label: np.ndarray


def best_of_sides(logits: Array, labels: Array, split: ClassSplit) -> Best:
    """One pass over the logits; ties on one side go to the lowest class id.

    Raises
    ------
    ValueError
        As `ftlib.metrics.split_accuracies`.
    """
    logits, labels = check_outputs(logits, labels, split)
    columns = torch.tensor(split.seen + split.absent, device=logits.device)
    place = torch.zeros(logits.shape[1], dtype=torch.int64, device=logits.device)
    place[columns] = torch.arange(len(columns), device=logits.device)
    place = place[labels]  # the label's position among the columns, seen ones first
    is_absent = place >= len(split.seen)
    margin = torch.empty(len(logits), dtype=torch.float64, device=logits.device)
    hit, tied = torch.empty_like(is_absent), torch.empty_like(is_absent)
    # One visit to each logit, in blocks that stay in the CPU's cache. Taking the label's logit out leaves its
    # rivals: whether it is the best is one comparison, and the slow argmax is needed for exact ties only.
    step = max(1, (2**18 if logits.device.type == "cpu" else 2**28) // len(columns))

    def reduce(start: int) -> None:
        rows = slice(start, start + step)
        block = logits[rows].T.index_select(0, columns)  # [|Y|, n]
        own = block.gather(0, place[None, rows])
        block.scatter_(0, place[None, rows], -torch.inf)
        seen, absent, own = block[: len(split.seen)].amax(0), block[len(split.seen) :].amax(0), own[0]
        rival = torch.where(is_absent[rows], absent, seen)
        torch.gt(own, rival, out=hit[rows])
        torch.eq(own, rival, out=tied[rows])
        seen = torch.where(is_absent[rows], seen, seen.maximum(own))
        absent = torch.where(is_absent[rows], absent.maximum(own), absent)
        torch.sub(seen.double(), absent.double(), out=margin[rows])

    _for_each(reduce, range(0, len(logits), step))
    for side, classes in ((~is_absent, split.seen), (is_absent, split.absent)):
        if len(rows := (tied & side).nonzero()[:, 0]):
            classes = torch.tensor(classes, device=logits.device)
            hit[rows] = classes[logits[rows][:, classes].argmax(1)] == labels[rows]
    if margin.isnan().any() or len(columns) < logits.shape[1]:
        check_no_nan(logits, "logits")
    if margin.isnan().any():
        row = int(margin.isnan().nonzero()[0])
        raise ValueError(f"row {row}: the best seen and absent logits are the same infinity, so neither side wins")
    return Best(*(t.cpu().numpy() for t in (margin, hit, is_absent, labels)))


def strongest_rival(
    logits: Tensor, labels: Tensor, classes: Sequence[int], reduce: Callable[[Tensor, int], Tensor] = torch.amax
) -> Tensor:
    """The largest logit of ``classes`` less the label's own, [N]; −inf where the label is the only one of them.

    ``reduce`` may be another way to sum up a row, such as `torch.logsumexp`.
    """
    return reduce(logits.scatter(1, labels[:, None], -torch.inf)[:, list(classes)], 1)


def merge_steps(falls: np.ndarray, rises: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct margins below +inf, ascending, and how many falls and rises (each sorted) are not above each."""
    falls, rises = (side[: np.searchsorted(side, np.inf)] for side in (falls, rises))  # γ > inf never holds
    if len(falls) + len(rises) == 0:
        return np.zeros(1), np.zeros(1, int), np.zeros(1, int)  # nothing ever changes: two equal ends
    place = np.searchsorted(falls, rises, side="right") + np.arange(len(rises))
    is_rise = np.zeros(len(falls) + len(rises), bool)
    is_rise[place] = True
    margins = np.empty(len(is_rise))
    margins[is_rise], margins[~is_rise] = rises, falls
    last = np.flatnonzero(np.append(margins[1:] != margins[:-1], True))  # the last of each run of equal margins
    won = np.cumsum(is_rise)[last]
    return margins[last], last + 1 - won, won


def _for_each(work: Callable[[int], None], starts: range) -> None:
    """Blocks over as many threads as torch may use, each serial inside.

    Left to itself torch splits every small operation over its threads and waits for the slowest; on a busy machine
    that costs ten times the work.
    """
    threads = min(torch.get_num_threads(), len(starts))
    if threads == 1:
        for start in starts:
            work(start)
        return
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(work, starts))
    finally:
        torch.set_num_threads(torch.get_num_threads())  # the workers' 1 is now what new threads would start from
