"""ftlib.batches: which crops a training sees, and where its images lie."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fakes import assembled

from ftlib import batches, models
from ftlib.batches import placed, random_crops
from ftlib.core import ImageSet
from ftlib.training import Recipe


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("size", [None, 20])
@pytest.mark.parametrize("shape", [(32, 32), (24, 40)])
def test_batches_are_windows_of_the_padded_images_some_mirrored(padding, size, shape):
    """Against a loop over single images, which makes the same draws."""
    generator = torch.Generator().manual_seed(1)
    data = ImageSet(torch.randint(0, 256, (21, 3, *shape), dtype=torch.uint8), torch.arange(21) % 4)
    side = size or min(shape)
    scale, shift = models.normalisation(models.build("test_byobnet", 4), torch.device("cpu"))
    expected = []
    for _ in range(2):
        order = torch.randperm(21, generator=generator)[:20]
        tops = torch.randint(0, shape[0] + 2 * padding - side + 1, (20,), generator=generator)
        lefts = torch.randint(0, shape[1] + 2 * padding - side + 1, (20,), generator=generator)
        flips = torch.randint(0, 2, (20,), generator=generator)
        for index, top, left, flip in zip(order.tolist(), tops.tolist(), lefts.tolist(), flips.tolist(), strict=True):
            borders = (padding, padding), (padding, padding)
            padded = np.pad(data.images[index].numpy(), ((0, 0), *borders), mode="edge")
            window = padded[:, top : top + side, left : left + side]
            window = torch.from_numpy(np.ascontiguousarray(window[..., ::-1] if flip else window))
            expected.append((window * scale + shift, index % 4))

    crops = assembled(data, Recipe(epochs=2, batch_size=5, size=size, padding=padding, flip=True), seed=1)
    assert [len(labels) for _, labels in crops] == [5] * 8
    torch.testing.assert_close(torch.cat([images for images, _ in crops]), torch.stack([e[0] for e in expected]))
    assert torch.cat([labels for _, labels in crops]).tolist() == [e[1] for e in expected]


def numbered(n: int) -> ImageSet:
    """Image i is of one colour, which names it; label i % 4."""
    return ImageSet(torch.arange(n, dtype=torch.uint8)[:, None, None, None].repeat(1, 3, 32, 32), torch.arange(n) % 4)


def names(images: torch.Tensor) -> list[int]:
    scale, shift = models.normalisation(models.build("test_byobnet", 4), torch.device("cpu"))
    return ((images - shift) / scale)[:, 0, 0, 0].round().int().tolist()


def test_an_epoch_shows_an_image_at_most_once_and_drops_the_last_batch():
    crops = assembled(numbered(50), Recipe(epochs=3, batch_size=16))
    assert [len(images) for images, _ in crops] == [16] * 9
    for epoch in (crops[:3], crops[3:6], crops[6:]):
        assert len({name for images, _ in epoch for name in names(images)}) == 48
    assert names(crops[0][0]) != names(crops[3][0])


def test_a_batch_larger_than_the_set_is_the_whole_set():
    crops = assembled(numbered(10), Recipe(epochs=2, batch_size=64))
    assert [sorted(names(images)) for images, _ in crops] == [list(range(10))] * 2


def test_labels_stay_with_their_images():
    for images, labels in assembled(numbered(50), Recipe(epochs=1, batch_size=16)):
        assert [name % 4 for name in names(images)] == labels.tolist()


def test_every_image_of_a_batch_has_its_own_crop_and_mirror():
    ramp = torch.arange(32)[:, None] * 4 + torch.arange(32)  # every pixel's neighbours differ
    data = ImageSet(ramp.to(torch.uint8).expand(64, 3, 32, 32).clone(), torch.arange(64) % 4)
    ((images, _),) = assembled(data, Recipe(epochs=1, batch_size=64, padding=2, flip=True))
    assert len(images.flatten(1).unique(dim=0)) > 20
    rises_to_the_right = images[:, 0, 16, 20] > images[:, 0, 16, 10]
    assert 16 < int(rises_to_the_right.sum()) < 48


def test_no_flip_unless_asked_for():
    ramp = torch.arange(32).expand(64, 3, 32, 32).to(torch.uint8)
    ((images, _),) = assembled(ImageSet(ramp, torch.arange(64) % 4), Recipe(epochs=1, padding=2))
    assert (images[:, 0, 16, 20] > images[:, 0, 16, 10]).all()


def test_images_stay_bytes_until_they_are_in_a_batch(blobs):
    """The set that is held through training is not four times as large as its bytes."""
    model = models.build("test_byobnet", 4)
    crops = random_crops(model, blobs, 16, None, 0, False, seed=0)
    images, _ = next(crops)
    held = [v for v in crops.gi_frame.f_locals.values() if isinstance(v, torch.Tensor) and len(v) >= len(blobs)]
    assert images.dtype == torch.float32
    assert sum(v.nbytes for v in held) < 2 * blobs.images.nbytes


def test_images_are_channels_last(blobs):
    images, _ = assembled(blobs, Recipe(epochs=2, batch_size=16))[0]
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_images_stay_on_the_host_if_they_are_more_than_a_third_of_a_gpus_memory(blobs, monkeypatch):
    gpu = SimpleNamespace(total_memory=4 * blobs.images.nbytes)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: gpu)
    assert batches._fits(blobs.images, torch.device("cuda", 0))
    gpu.total_memory = 2 * blobs.images.nbytes
    assert not batches._fits(blobs.images, torch.device("cuda", 0))
    assert placed(blobs, torch.device("cuda", 0)) is blobs
    assert batches._fits(blobs.images, torch.device("cpu"))
