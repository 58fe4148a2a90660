"""From images to batches: bytes on the device, crops, flips, and numbers as a model wants them.

    placed        the images where they are trained on: on the device, if they leave it room
    random_crops  epoch after epoch, for training
    centre_crops  all of them once, for a look at them

One gather cuts a whole batch of random crops and flips out of the resident bytes, and one fused multiply-add normalises
it; no loader, no worker, no copy from the host. Images that are too many for a GPU's memory come to it by the batch,
while it computes on the one before, and go the same way from there.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ftlib.core import ImageSet
from ftlib.models import normalisation

SHARE = 1 / 3  # of a GPU's memory: more bytes of images than that stay on the host


def placed(data: ImageSet, device: torch.device) -> ImageSet:
    """The images on a device, where they take at most a third of its memory (`SHARE`); else as they are, on the host.

    For a moment they take twice that, while their pixels are laid out one after the other, three bytes each.
    """
    if not _fits(data.images, device):
        return data
    return ImageSet(data.images.to(device, memory_format=torch.channels_last), data.labels.to(device))


def random_crops(
    model: nn.Module, data: ImageSet, batch_size: int, size: int | None, padding: int, flip: bool, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Epoch after epoch of (float images [B, 3, size, size], labels [B]), cropped and flipped at random.

    Images are padded by repeating their edges, ``padding`` pixels on each side, and normalised as the model wants them.
    They lie where `placed` has put them, the batches on the model's device.
    """
    height, width = data.images.shape[-2:]
    size, device = _crop_size(data, size), next(model.parameters()).device
    labels, streamed = data.labels.to(device), not _fits(data.images, device)
    # A gather of whole pixels [N·H·W, 3], then arithmetic on whole rows of them [size·3]: steps of three would be slow.
    pixels = (data.images[:0] if streamed else data.images).permute(0, 2, 3, 1).reshape(-1, 3)
    side = torch.cuda.Stream(device) if streamed and device.type == "cuda" else None
    scale, shift = (values.flatten().repeat(size) for values in normalisation(model, device))
    window = torch.arange(size, device=device)
    count = len(data) // batch_size * batch_size
    generator = torch.Generator().manual_seed(seed)  # its own: dropout draws from the other
    while True:
        # All choices of an epoch are drawn on the CPU and moved at once: the same on every device, few copies.
        order = torch.randperm(len(data), generator=generator)[:count]
        ranges = (height + 2 * padding - size + 1, width + 2 * padding - size + 1, 2)
        choices = (torch.randint(0, r, (count,), generator=generator) for r in ranges)
        draws = torch.stack([order, *choices]).to(device)
        batches = zip(order.split(batch_size), *(row.split(batch_size) for row in draws), strict=True)
        for here, index, top, left, mirrored in batches:
            rows = (window + top[:, None] - padding).clamp_(0, height - 1)
            columns = (window + left[:, None] - padding).clamp_(0, width - 1)
            if flip:
                columns = torch.where(mirrored[:, None].bool(), columns.flip(1), columns)
            own = labels[index]
            if streamed:
                pixels, index = _sent(data.images, here, device, side), torch.arange(batch_size, device=device)
            places = (index[:, None, None] * height + rows[:, :, None]) * width + columns[:, None, :]
            crop = pixels.index_select(0, places.flatten()).view(batch_size, size, size * 3)
            images = torch.addcmul(shift, crop, scale).view(batch_size, size, size, 3).permute(0, 3, 1, 2)
            yield images, own


def centre_crops(model: nn.Module, data: ImageSet, size: int | None, batch_size: int) -> Iterator[Tensor]:
    """Float images [B, 3, size, size] as the model wants them, on its device."""
    device = next(model.parameters()).device
    scale, shift = normalisation(model, device)
    size = _crop_size(data, size)
    top, left = ((extent - size) // 2 for extent in data.images.shape[-2:])
    for images in data.images.split(batch_size):
        crop = images[:, :, top : top + size, left : left + size].to(device)
        yield torch.addcmul(shift, crop.contiguous(memory_format=torch.channels_last), scale)


def _fits(images: Tensor, device: torch.device) -> bool:
    """Whether images are trained on where they lie: they are on the device, or take at most `SHARE` of its memory."""
    if device.type != "cuda" or images.is_cuda:
        return True
    return images.nbytes <= SHARE * torch.cuda.get_device_properties(device).total_memory


def _sent(images: Tensor, index: Tensor, device: torch.device, side: torch.cuda.Stream | None) -> Tensor:
    """The pixels [B·H·W, 3] of some of the host's images, on the device.

    They are gathered into pinned memory and copied on a stream of their own, while the device computes what it was
    asked before: nothing waits for them but what is asked of it afterwards.
    """
    batch = torch.empty(len(index), *images.shape[1:], dtype=torch.uint8, pin_memory=side is not None)
    torch.index_select(images, 0, index, out=batch)
    if side is not None:
        now = torch.cuda.current_stream(device)
        with torch.cuda.stream(side):
            batch = batch.to(device, non_blocking=True)
        now.wait_stream(side)
        batch.record_stream(now)  # its memory is used again when this stream is done with it
    return batch.permute(0, 2, 3, 1).reshape(-1, 3)


def _crop_size(data: ImageSet, size: int | None) -> int:
    """Height and width of a crop that lies inside of the images."""
    largest = min(data.images.shape[-2:])
    if size is not None and size > largest:
        raise ValueError(f"size {size} is too large for images of {'×'.join(map(str, data.images.shape[-2:]))}")
    return size or largest
