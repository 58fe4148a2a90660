"""γ* against all thresholds, and a folded model against the shifted logits."""

from __future__ import annotations

import ftlib  # isort: skip  # before timm, which needs it where torchvision's operators are missing

import math

import numpy as np
import pytest
import timm
import torch
from torch import nn

from ftlib.calibration import apply, fold_gamma, oracle_gamma
from ftlib.core import ClassSplit
from ftlib.metrics import split_accuracies

assert ftlib.__version__
SPLIT = ClassSplit([0, 2, 4], [1, 5])  # class 3 is outside Y


def test_oracle_is_at_least_as_good_as_any_gamma():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(200, 6)), rng.choice(SPLIT.classes, 200)
    best = split_accuracies(logits, labels, SPLIT, oracle_gamma(logits, labels, SPLIT)).yy
    assert best >= max(split_accuracies(logits, labels, SPLIT, g).yy for g in np.linspace(-5, 5, 1001))


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_apply_shifts_absent_columns_of_a_copy(kind):
    logits = kind(np.zeros((2, 6), np.float32))
    shifted = apply(logits, 1.5, SPLIT.absent)
    assert type(shifted) is type(logits) and shifted.dtype == logits.dtype and not logits.any()
    np.testing.assert_array_equal(np.asarray(shifted), [[0, 1.5, 0, 0, 0, 1.5]] * 2)


def test_apply_and_gamma_agree_on_predictions():
    rng = np.random.default_rng(4)
    logits, labels = rng.normal(size=(500, 6)), rng.choice(SPLIT.classes, 500)
    for gamma in (-0.7, 0.3, 2.0):
        assert split_accuracies(apply(logits, gamma, SPLIT.absent), labels, SPLIT) == split_accuracies(
            logits, labels, SPLIT, gamma
        )


def with_same_predictions(model, images, head_call=lambda m, x: m(x)):
    with torch.no_grad():
        before = head_call(model, images)
        assert fold_gamma(model, 0.25, SPLIT.absent) is model
        after = head_call(model, images)
    expected = apply(before, 0.25, SPLIT.absent)
    torch.testing.assert_close(after, expected, rtol=0, atol=1e-5)
    assert torch.equal(after.argmax(1), expected.argmax(1))


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
def test_a_folded_timm_model_predicts_as_the_shifted_logits(backbone):
    torch.manual_seed(0)
    size = {"img_size": 32, "patch_size": 4} if backbone == "test_vit" else {}
    model = timm.create_model(backbone, num_classes=6, **size).eval()
    with_same_predictions(model, torch.randn(16, 3, 32, 32))
    assert model.get_classifier().bias.requires_grad


@pytest.mark.parametrize("bias", [True, False])
def test_a_head_itself_is_folded_with_or_without_a_bias(bias):
    torch.manual_seed(0)
    with_same_predictions(nn.Linear(8, 6, bias=bias), torch.randn(16, 8))
    with_same_predictions(nn.Conv2d(8, 6, 1, bias=bias), torch.randn(16, 8, 1, 1), lambda m, x: m(x)[..., 0, 0])


def test_a_folded_model_is_a_plain_checkpoint():
    head = fold_gamma(nn.Linear(8, 6, bias=False), 2.0, SPLIT.absent)
    served = nn.Linear(8, 6)
    served.load_state_dict(head.state_dict())
    assert served.bias.tolist() == [0, 2, 0, 0, 0, 2]


class Cosine(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6, 8))


@pytest.mark.parametrize(
    ("model", "gamma", "absent", "message"),
    [
        (nn.Linear(8, 6), math.inf, [1], "γ is inf: only a finite"),
        (nn.Linear(8, 6), math.nan, [1], "γ is nan"),
        (nn.Linear(8, 6), 1.0, [1, 6, -1], r"absent classes \[-1, 6\]: expected.*0 to 5"),
        (nn.Linear(8, 6), 1.0, [], r"the absent classes are empty"),
        (nn.Identity(), 1.0, [1], "the head is Identity, which has no bias"),
        (Cosine(), 1.0, [1], "the head is Cosine, which has no bias"),
        (nn.Conv2d(8, 6, 3), 1.0, [1], r"weight is \[6, 8, 3, 3\]"),
        (timm.create_model("test_resnet", num_classes=0), 1.0, [1], "the head is Identity"),
    ],
)
def test_what_cannot_be_folded_is_named_and_left_alone(model, gamma, absent, message):
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        fold_gamma(model, gamma, absent)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_apply_names_what_is_wrong():
    with pytest.raises(ValueError, match=r"absent classes \[6\]"):
        apply(np.zeros((2, 6)), 1.0, [1, 6])
    with pytest.raises(ValueError, match="γ is NaN"):
        apply(np.zeros((2, 6)), math.nan, [1])
