"""What γ acts on: margins between the two sides, and the strongest rivals of the true class on either.

Per sample, margin = max_{c∈S} f_c − max_{c∈U} f_c, in float64, says all that γ can do: the sample is predicted absent
if and only if γ > margin (a tie stays seen). Measures take `best_of_sides`, the margins of images of all classes, from
one pass over the logits; estimators take `rivals`, on images of seen classes alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ftlib.checks import Array, check_finite, check_outputs, check_seen
from ftlib.core import ClassSplit


class Best(NamedTuple):
    """Per sample: the margin; is the label the best class of its side; is that side absent; the label. All [N]."""

    margin: np.ndarray
    hit: np.ndarray
    absent: np.ndarray
    label: np.ndarray


def best_of_sides(logits: Array, labels: Array, split: ClassSplit) -> Best:
    """One pass over the logits; ties on one side go to the lowest class id. Errors as for `split_accuracies`."""
    logits, labels = check_outputs(logits, labels, split, finite=False)  # its sum is taken below
    device, columns = logits.device, list(split.classes)
    all_columns = len(columns) == logits.shape[1]
    absent_column = torch.isin(torch.tensor(columns, device=device), torch.tensor(split.absent, device=device))
    place = torch.zeros(logits.shape[1], dtype=torch.int64, device=device)
    place[columns] = torch.arange(len(columns), device=device)
    place = labels if all_columns else place[labels]
    is_absent = absent_column[place]
    masks = torch.zeros(2, 1, len(columns), dtype=logits.dtype, device=device)
    masks[0, 0, absent_column] = masks[1, 0, ~absent_column] = -torch.inf
    margin = torch.empty(len(logits), dtype=torch.float64, device=device)
    hit, tied = torch.empty_like(is_absent), torch.empty_like(is_absent)
    finite = True
    # Blocks that stay in the CPU's cache. Adding −inf takes a column out and adding 0 keeps it as it is, which with a
    # row's maximum costs less than gathering the columns of a side. The label's logit is taken out too, which leaves
    # its rivals: whether it is the best is one comparison, and the slow argmax is needed for exact ties only.
    step = max(1, (2**18 if device.type == "cpu" else 2**27) // len(columns))

    def reduce(start: int) -> None:
        nonlocal finite
        rows = slice(start, start + step)
        block = (logits[rows] if all_columns else logits[rows][:, columns]).contiguous()
        own_side = is_absent[rows]
        at = torch.arange(0, block.numel(), len(columns), device=device) + place[rows]  # labels: gather takes thrice
        own, both = block.view(-1).index_select(0, at), block + masks
        both.view(-1).index_fill_(0, at + block.numel() * own_side, -torch.inf)
        seen, absent = both.amax(2)
        rival, other = torch.where(own_side, absent, seen), torch.where(own_side, seen, absent)
        torch.gt(own, rival, out=hit[rows])
        torch.eq(own, rival, out=tied[rows])
        lead = torch.maximum(own, rival).double() - other
        torch.where(own_side, -lead, lead, out=margin[rows])
        if not block.sum(dtype=torch.promote_types(block.dtype, torch.float32)).isfinite():
            finite = False

    _for_each(reduce, range(0, len(logits), step))
    if not (finite and all_columns):
        check_finite(logits, "logits", columns)
    rows = tied.nonzero()[:, 0]
    for side, classes in ((False, split.seen), (True, split.absent)):
        of_side = rows[is_absent[rows] == side]
        first = logits[of_side][:, list(classes)].argmax(1)
        hit[of_side] = torch.tensor(classes, device=device)[first] == labels[of_side]
    return Best(*(t.cpu().numpy() for t in (margin, hit, is_absent, labels)))


# --- rivals, on images of seen classes -------------------------------------------------------------------------------


def strongest_rival(logits: Tensor, labels: Tensor, classes: Sequence[int]) -> Tensor:
    """The largest logit of ``classes`` less the label's own, [N]; −inf where the label is the only one of them."""
    return logits.scatter(1, labels[:, None], -torch.inf)[:, list(classes)].amax(1)


class Rivals(NamedTuple):
    """On images of seen classes, all float64 [N]: logits of the true class and of its strongest rivals."""

    true: np.ndarray
    seen: np.ndarray  # the strongest class of S that is not the true one
    absent: np.ndarray  # the strongest class of U


def rivals(logits: Array, labels: Array, split: ClassSplit) -> Rivals:
    """What most estimators look at."""
    logits, labels = check_seen(logits, labels, split)
    true = logits.gather(1, labels[:, None])[:, 0]
    parts = true, *(strongest_rival(logits, labels, side) for side in (split.seen, split.absent))
    return Rivals(*(part.double().cpu().numpy() for part in parts))


class Drawn(NamedTuple):
    """All rivals on one side, and how likely each is to be the strongest of a few that are drawn at random."""

    logits: Tensor  # float64 [N, n], ascending
    chance: Tensor  # float64 [n]


def drawn_rivals(logits: Array, labels: Array, split: ClassSplit) -> tuple[Drawn, Drawn]:
    """Rivals in S and in U, as many drawn from either side as the smaller one has."""
    logits, labels = check_seen(logits, labels, split)
    others = logits.double().scatter(1, labels[:, None], -torch.inf)
    k = min(len(split.seen) - 1, len(split.absent))

    def drawn(classes: tuple[int, ...], n: int) -> Drawn:
        chances = [math.comb(weaker, k - 1) / math.comb(n, k) for weaker in range(n)]  # draws of which it is the top
        return Drawn(others[:, list(classes)].sort(1).values[:, -n:], others.new_tensor(chances))

    return drawn(split.seen, len(split.seen) - 1), drawn(split.absent, len(split.absent))  # less the true class


class Mirrored(NamedTuple):
    """Margins (best seen − best absent logit) and whether the true class leads its side, all [N]."""

    seen: np.ndarray
    seen_hit: np.ndarray
    absent: np.ndarray
    absent_hit: np.ndarray


def mirrored_margins(logits: Array, labels: Array, split: ClassSplit, old_head: Array) -> Mirrored:
    """The margins of the seen images, and those that absent images would have, imitated by mirroring the seen ones.

    An image of an absent class differs from a seen one in one respect: its own row of the head was never fine-tuned.
    So give a seen image back its pre-trained row: a = what the pre-trained head says for the true class minus its
    strongest rival in S, on the fine-tuned features. The mirror image's own logit is then that much above the strongest
    absent rival, and its margin is r_S − (r_U + max(a, 0)), with r the strongest wrong logits of the fine-tuned model.

    ``old_head`` are the logits [N, C] that the pre-trained head gives to the fine-tuned features of the same images;
    the other arguments are those of `average_logit_gap`.
    """
    gap = rivals(logits, labels, split)
    old = rivals(same_images(old_head, logits), labels, split)
    advantage = old.true - old.seen
    seen, absent = np.maximum(gap.true, gap.seen) - gap.absent, gap.seen - gap.absent - np.maximum(advantage, 0)
    return Mirrored(seen, gap.true > gap.seen, absent, advantage > 0)


def same_images(other: Array, logits: Array) -> Array:
    if len(other) != len(logits):
        raise ValueError(f"{len(other)} rows of one model, {len(logits)} of the other: both must see the same images")
    return other


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
