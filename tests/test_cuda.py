"""What holds on a GPU: skipped where there is none. $FTLIB_TEST_DEVICE=cpu tries these tests themselves."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch

from ftlib import batches, models, training
from ftlib.training import Recipe

DEVICE = os.environ.get("FTLIB_TEST_DEVICE", "cuda")
pytestmark = pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="no GPU")
RECIPE = Recipe(steps=40, batch_size=32, lr=0.05, backbone_lr=1.0, evaluations=0)


def trained(images, device: str, recipe: Recipe = RECIPE):
    model = models.build("test_resnet", 4, seed=1).to(device)
    training.fit(model, images, recipe, seed=0)
    return model


def accuracy(model, images) -> float:
    logits = training.predict(model, images.to(next(model.parameters()).device)).logits
    return float((logits.argmax(1) == images.labels).double().mean())


def test_one_seed_gives_the_same_bits_twice(blobs):
    first, second = (trained(blobs, DEVICE).state_dict() for _ in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_model_says_the_same_on_a_gpu_as_on_a_cpu(blobs, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # which rounds what is multiplied to ten bits
    model = trained(blobs, "cpu")
    here = training.predict(model, blobs)
    there = training.predict(model.to(DEVICE), blobs.to(DEVICE))
    for one, other in ((here.features, there.features), (here.logits, there.logits)):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-3 * float(one.abs().max()))


def test_training_in_bf16_is_no_less_accurate_than_in_fp32(blobs):
    """A GPU trains in bf16, a CPU in fp32: what either has learnt is judged in fp32."""
    assert accuracy(trained(blobs, DEVICE), blobs) >= accuracy(trained(blobs, "cpu"), blobs) - 0.02


def test_images_that_are_sent_by_the_batch_give_the_bits_of_resident_ones(blobs, monkeypatch):
    """Whatever the copies overlap with."""
    recipe = Recipe(steps=60, batch_size=32, flip=True, size=28, evaluations=0)
    resident = trained(blobs, DEVICE, recipe).state_dict()
    monkeypatch.setattr(batches, "_fits", lambda images, device: False)
    streamed = trained(blobs, DEVICE, recipe).state_dict()
    assert all(torch.equal(value, resident[name]) for name, value in streamed.items())


def test_a_compiled_model_is_no_less_accurate(blobs, monkeypatch):
    monkeypatch.setattr(training, "PAYS", 0)
    compiled = trained(blobs, DEVICE, replace(RECIPE, compile=True))
    assert accuracy(compiled, blobs) >= accuracy(trained(blobs, DEVICE), blobs) - 0.02
