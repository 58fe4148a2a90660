"""ftlib.heads: rows that are read, and rows that are put back, against each other and cases worked by hand."""

from __future__ import annotations

import ftlib  # isort: skip  # before timm, which needs it where torchvision's operators are missing

import numpy as np
import pytest
import timm
import torch
from torch import nn

from ftlib.calibration import recommended
from ftlib.core import ClassSplit
from ftlib.heads import level_rows, levels, read_by, restore_rows
from ftlib.models import CosineHead

assert ftlib.__version__
SPLIT = ClassSplit([0, 2, 4], [1, 5])  # class 3 is outside Y


def test_the_head_that_reads_has_its_own_untrained_rows():
    split, logits, old = ClassSplit([0], [1]), np.array([[3.0, 1.0]]), np.array([[2.0, 5.0]])
    assert read_by("new", logits, split) == (logits, None)
    assert all(part is old for part in read_by("old", logits, split, old))
    both = [part.tolist() for part in read_by("both", torch.tensor(logits), split, torch.tensor(old))]
    assert both == [[[5.0, 6.0]], [[4.0, 10.0]]]
    for new, was in ((logits, old), (torch.tensor(logits), torch.tensor(old)), (torch.tensor(logits).float(), old)):
        restored, untrained = read_by("restored", new, split, was)
        assert restored.tolist() == [[3.0, 5.0]] and untrained is was
    assert logits.tolist() == [[3.0, 1.0]]  # as they were


def test_levels_are_mean_absent_logits_around_their_own_mean():
    split = ClassSplit([0, 1], [2, 3])
    assert levels(np.array([[9.0, 1, 2, 4], [7, 3, 0, 4]]), split).tolist() == [0, 0, -1.5, 1.5]


def test_levelled_rows_stand_out_on_no_image_of_a_seen_class():
    rng = np.random.default_rng(0)
    split, absent = ClassSplit([0, 2], [1, 3, 4]), [1, 3, 4]
    logits, old, test = rng.normal(size=(50, 5)), rng.normal(size=(50, 5)) + np.arange(5), rng.normal(size=(9, 5))
    levelled, untrained = read_by("levelled", logits, split, old)
    assert np.ptp(levelled[:, absent].mean(0)) < 1e-12 and untrained is old
    assert levelled[:, absent].mean() == pytest.approx(old[:, absent].mean())  # of the mean γ takes care
    assert np.array_equal(levelled[:, [0, 2]], logits[:, [0, 2]])
    level = levels(old, split)
    assert level[[0, 2]].tolist() == [0, 0] and level[absent] == pytest.approx(
        old.mean(0)[absent] - old.mean(0)[absent].mean()
    )
    elsewhere, _ = read_by("levelled", test, split, 2 * test, (logits, old))
    assert elsewhere[:, absent] == pytest.approx(2 * test[:, absent] - level[absent])
    as_tensor, _ = read_by("levelled", torch.tensor(test).float(), split, torch.tensor(2 * test), (logits, old))
    assert as_tensor.numpy() == pytest.approx(elsewhere, abs=1e-5)


def test_restored_rows_know_nothing_of_what_training_has_done_to_those_of_absent_classes():
    """Whatever it was, γ and the logits that it is for are the same."""
    rng = np.random.default_rng(0)
    split, labels = ClassSplit(range(4), range(4, 8)), rng.integers(4, size=200)
    old = rng.normal(size=(200, 8)) + 3 * np.eye(8)[labels]
    new = old + 2 * np.eye(8)[labels]
    pushed = new - np.where(np.arange(8) < 4, 0, rng.uniform(2, 9, size=(200, 8)))
    found = [read_by("restored", logits, split, old) for logits in (new, pushed)]
    assert np.array_equal(found[0][0], found[1][0])
    assert recommended(found[1][0], labels, split, old) == recommended(new, labels, split, old)
    assert recommended(pushed, labels, split, old) > recommended(new, labels, split, old) + 2


@pytest.mark.parametrize(
    ("head", "old", "says"),
    [
        ("mean", np.zeros((2, 4)), r"head='mean': expected one of new, restored, levelled, old, both"),
        ("old", None, r"head='old' needs old_head, of the pre-trained head on the same features: got none"),
        ("restored", None, r"head='restored' needs old_head"),
        ("both", np.zeros((3, 4)), r"got \[3, 4\] for logits \[2, 4\]"),
    ],
)
def test_a_head_that_is_none_or_lacks_its_logits_is_refused(head, old, says):
    with pytest.raises(ValueError, match=says):
        read_by(head, np.zeros((2, 4)), ClassSplit([0, 1], [2, 3]), old)


def test_of_equal_heads_the_sum_has_twice_the_gamma():
    """Everything that an estimator looks at is then twice as large."""
    rng = np.random.default_rng(0)
    split, labels = ClassSplit(range(4), range(4, 8)), rng.integers(4, size=200)
    logits = rng.normal(size=(200, 8)) + 3 * np.eye(8)[labels]
    sums, untrained = read_by("both", logits, split, logits)
    assert recommended(sums, labels, split, untrained) == pytest.approx(2 * recommended(logits, labels, split, logits))


# --- in a model -------------------------------------------------------------------------------------------------------


class Cosine(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6, 8))


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
def test_a_model_with_restored_rows_says_what_reading_by_them_does(backbone):
    torch.manual_seed(0)
    size = {"img_size": 32, "patch_size": 4} if backbone == "test_vit" else {}
    model, before = (timm.create_model(backbone, num_classes=6, **size).eval() for _ in range(2))
    images, before = torch.randn(16, 3, 32, 32), before.double()
    nn.init.normal_(before.get_classifier().bias)
    with torch.no_grad():
        features = model.forward_head(model.forward_features(images), pre_logits=True)
        logits, old = model(images), before.get_classifier()(features.double())
        assert restore_rows(model, before, SPLIT.absent) is model
        restored, _ = read_by("restored", logits, SPLIT, old.float())
        torch.testing.assert_close(model(images), restored, rtol=0, atol=1e-5)
    assert not torch.allclose(restored, logits) and model.get_classifier().weight.requires_grad


@pytest.mark.parametrize(
    "make", [lambda: nn.Linear(8, 6, bias=False), lambda: nn.Conv2d(8, 6, 1), lambda: CosineHead(8, 6)]
)
def test_rows_of_a_head_itself_are_restored_and_nothing_else(make):
    head, before = make(), make()
    kept = {name: value.clone() for name, value in head.state_dict().items()}
    restore_rows(head, before, torch.tensor([False, True, False, False, False, True]))
    for name, value in head.state_dict().items():
        for row in range(len(value) if value.ndim else 0):
            assert torch.equal(value[row], (before.state_dict() if row in (1, 5) else kept)[name][row])


def test_a_model_whose_rows_are_levelled_says_what_reading_by_them_does():
    torch.manual_seed(0)
    for make in (lambda: nn.Linear(8, 6), lambda: nn.Linear(8, 6, bias=False)):
        model, before, features = make(), make(), torch.randn(30, 8)
        with torch.no_grad():
            wanted, _ = read_by("levelled", model(features), SPLIT, before(features))
            logits = restore_rows(model, before, SPLIT.absent)(features)
            assert level_rows(model, logits, SPLIT) is model
            torch.testing.assert_close(model(features), wanted, rtol=0, atol=1e-5)
    kept = model.bias.clone()
    with pytest.raises(ValueError, match="the logits have 7 columns, the head 6 rows"):
        level_rows(model, torch.randn(30, 7), SPLIT)
    with pytest.raises(ValueError, match="the head is Cosine, which has no bias"):
        level_rows(Cosine(), logits, SPLIT)
    assert torch.equal(model.bias, kept)


@pytest.mark.parametrize(
    ("before", "absent", "message"),
    [
        (
            nn.Linear(8, 5),
            [1],
            r"the head has .*\[6, 8\].*, the one before fine-tuning .*\[5, 8\].*: expected the same",
        ),
        (nn.Linear(8, 6, bias=False), [1], "expected the same parts"),
        (nn.Linear(8, 6), [6], r"absent classes \[6\]: expected.*0 to 5"),
        (nn.Linear(8, 6), [], "the absent classes are empty"),
        (nn.Identity(), [1], "the head is Identity"),
        (nn.Linear(8, 6).state_dict(), [1], "the model is a OrderedDict, expected a Module"),
    ],
)
def test_rows_that_cannot_be_restored_are_named_and_nothing_is_changed(before, absent, message):
    head = nn.Linear(8, 6)
    kept = {name: value.clone() for name, value in head.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        restore_rows(head, before, absent)
    assert all(torch.equal(value, kept[name]) for name, value in head.state_dict().items())
