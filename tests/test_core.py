"""ftlib.core: class ids and masks, as people write them; where their files are looked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ftlib.calibration import apply
from ftlib.core import ClassSplit, class_ids, find_data, split_classes

MASK = [False, True, False, True, False]


@pytest.mark.parametrize("mask", [MASK, tuple(MASK), np.array(MASK), torch.tensor(MASK), list(np.array(MASK))])
def test_a_mask_names_the_classes_where_it_is_true(mask):
    assert class_ids(mask) == class_ids(mask, 5) == (1, 3)
    assert ClassSplit(mask, [0]).seen == (1, 3)
    assert apply(torch.zeros(1, 5), 2.0, mask).tolist() == [[0, 2, 0, 2, 0]]


@pytest.mark.parametrize(
    "ids", [[3, 1], {1, 3}, range(1, 4, 2), iter([3, 1]), np.array([3, 1], np.uint8), torch.tensor([3, 1]),
            [np.int64(3), torch.tensor(1)]]
)  # fmt: skip
def test_ids_are_put_in_ascending_order(ids):
    found = class_ids(ids, 4)
    assert found == (1, 3) and all(type(c) is int for c in found)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([0.7], "the classes hold 0.7: expected integers, or a mask"),
        ([np.float64(1)], "hold 1.0: expected integers"),
        (torch.tensor([1.0]), "hold 1.0: expected integers"),
        (["a"], "hold 'a': expected integers"),
        ([True, 2], "hold True: expected integers, or a mask of booleans alone"),
        (np.eye(2, dtype=int), r"hold array\(\[1, 0\]\): expected integers"),
        (torch.eye(2) > 0, r"hold tensor\(\[ True, False\]\)"),
        ([1, -2], r"classes \[-2\]: expected ids from 0 to 4"),
        ([1, 5], r"classes \[5\]: expected ids from 0 to 4"),
        ([1, 2, 1], r"the classes repeat \[1\]"),
        (np.array(MASK, np.uint8), r"the classes repeat \[0, 1\]: .* if it is a mask, take mask == 1"),
        (3, "the classes are 3: expected a list of integers, or a mask of booleans"),
        (torch.tensor(3), r"the classes are tensor\(3\): expected a list"),
        (MASK[:4], "a mask of 4, expected one entry for each of 5"),
    ],
)
def test_what_is_no_list_of_classes_is_refused(classes, message):
    with pytest.raises(ValueError, match=message):
        class_ids(classes, 5)


def test_a_split_says_which_side_is_wrong():
    with pytest.raises(ValueError, match=r"seen classes \[-1\]: expected ids of 0 or more"):
        ClassSplit([-1, 0], [1])
    with pytest.raises(ValueError, match=r"the absent classes hold 1.2: expected integers"):
        ClassSplit([0], [1.2])
    with pytest.raises(ValueError, match="the absent classes are empty"):
        ClassSplit([0], [False, False])


def test_numbers_of_numpy_are_numbers():
    assert split_classes(10, np.int64(3), np.int32(4)) == split_classes(10, 3, 4)


def test_data_is_found_in_ftlib_data_before_the_working_directory(tmp_path, monkeypatch):
    for name in ("here/one", "here/both", "there/both"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("FTLIB_DATA", "../there")
    assert find_data("both").samefile(tmp_path / "there/both") and find_data("one").samefile(tmp_path / "here/one")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FTLIB_DATA", "~/there")
    assert find_data("both") == tmp_path / "there/both" and find_data("~/here/one") == tmp_path / "here/one"
    with pytest.raises(FileNotFoundError, match=r"no 'gone' in .*there, .*here: set FTLIB_DATA"):
        find_data("gone")
