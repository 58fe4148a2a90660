"""ftlib.margins in the cases that a pass over blocks of logits could get wrong, and mirror images worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ftlib.core import ClassSplit
from ftlib.margins import mirrored_margins
from ftlib.metrics import split_accuracies

SPLIT = ClassSplit([0, 1], [2, 3])


def test_bfloat16_margins_are_differences_of_the_stored_values():
    logits = torch.tensor([[256.0, 0, 1, 0]], dtype=torch.bfloat16)  # 255 itself is not a bfloat16 neighbour of 256
    assert split_accuracies(logits, torch.tensor([2]), SPLIT, 255.0).uy == 0.0
    assert split_accuracies(logits, torch.tensor([2]), SPLIT, np.nextafter(255.0, 256)).uy == 1.0


@pytest.mark.parametrize("threads", [1, 3])
def test_many_blocks_equal_one_row_at_a_time_and_threads_stay_as_they_were(threads):
    rng = np.random.default_rng(0)
    logits, labels = rng.integers(0, 40, (20_000, 60)).astype(np.float32), rng.integers(0, 60, 20_000)
    split = ClassSplit(range(0, 60, 2), range(1, 60, 2))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        a = split_accuracies(logits, labels, split, 0.5)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    shifted = logits.copy()
    shifted[:, list(split.absent)] += 0.5  # exact: integers and a half, hence without a tie between the sides
    assert a.yy == np.mean(shifted.argmax(1) == labels)


def test_read_only_strided_and_differentiable_inputs_are_taken_as_they_are():
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(size=(6, 8)), np.array([0, 1, 2, 3, 0, 2], np.int32)
    expected = split_accuracies(logits[:, ::2].copy(), labels, SPLIT)
    logits.flags.writeable = False
    assert split_accuracies(logits[:, ::2], labels, SPLIT) == expected
    tensor = torch.tensor(logits[:, ::2].copy(), requires_grad=True)
    assert split_accuracies(tensor, torch.from_numpy(labels), SPLIT) == expected


def test_mirrored_margins_by_hand():
    # Strongest wrong seen 3 and 9, strongest absent 5 and 3; class 3 is outside Y.
    logits = np.array([[9.0, 1, 3, 99, -1, 5], [1, 0, 7, 99, 9, 3]])
    old_head = np.array([[4.0, 99, 3, 99, 1, 99], [2, 99, 5, 99, 8, 99]])  # advantages 4 − 3 and 5 − 8
    m = mirrored_margins(logits, np.array([0, 2]), ClassSplit([0, 2, 4], [1, 5]), old_head)
    assert m.seen.tolist() == [9 - 5, 9 - 3] and m.seen_hit.tolist() == [True, False]
    assert m.absent.tolist() == [3 - (5 + 1), 9 - (3 + 0)] and m.absent_hit.tolist() == [True, False]
