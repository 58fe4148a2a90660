"""Brushes: a shape is kept as its signed distance to the outline, and every style is arithmetic on distances.

Ink is where d > 0, a neon tube where d is near 0, its glow as d falls, a soft photograph where the step at 0 is wide. A
random view of a shape is one ``grid_sample``. All of it runs on whole batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt
from torch import Generator, Tensor

from ftlib.core import seeded

SIZE = 32  # pixels, height and width of an image
FIELD = 48  # pixels, height and width of a stored distance field
FILL = 0.7  # share of the field that the longer side of a shape takes


class Style(NamedTuple):
    """How far the view of a domain strays, and how the domain paints distances."""

    scale: tuple[float, float]  # height of the character, as a share of the image's
    turn: float  # radians, at most, either way
    slant: float  # shear, at most, either way
    tilt: float  # perspective, at most: the near edge is seen 1 + tilt as large
    paint: Callable[[Tensor, Generator], Tensor]  # distances [B, 1, H, W] in pixels -> colours [B, 3, H, W] in [0, 1]


def view(fields: Tensor, style: Style, generator: Generator) -> Tensor:
    """See each distance field [B, h, w] through a random perspective; distances [B, 1, 32, 32] in image pixels."""
    n = len(fields)
    angle = uniform(n, -style.turn, style.turn, generator)
    shear = uniform(n, -style.slant, style.slant, generator)
    height = uniform(n, *style.scale, generator)
    stretch = uniform(n, 0.85, 1.15, generator)
    tilt = uniform((n, 1, 1, 2), -style.tilt, style.tilt, generator)
    shift = uniform((n, 1, 1, 2), -1.0, 1.0, generator) * (1 - height).clamp(min=0.0).view(n, 1, 1, 1) * 0.7

    zoom = FILL / height  # image coordinates -> field coordinates
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    matrix = torch.stack([cos * stretch, (sin + shear * cos) * stretch, -sin, cos - shear * sin], 1).view(n, 2, 2)
    axis = (torch.arange(SIZE) + 0.5) * (2 / SIZE) - 1
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1) - shift  # [B, 32, 32, 2]
    depth = 1 + (grid * tilt).sum(-1, keepdim=True)
    grid = (grid.view(n, -1, 2) @ matrix.transpose(1, 2)).view_as(grid) / depth
    seen = F.grid_sample(fields[:, None], grid, padding_mode="border", align_corners=False)
    return seen * (SIZE / FIELD / zoom).view(n, 1, 1, 1)


def paint_print(d: Tensor, generator: Generator) -> Tensor:
    """Flat ink on flat paper, dark on light or light on dark."""
    paper, ink = contrasting_colours(len(d), 0.45, 0.5, generator)
    return torch.lerp(paper, ink, cover(d + uniform(d, -0.2, 0.5, generator), 1.0))


def paint_neon(d: Tensor, generator: Generator) -> Tensor:
    """A glowing tube along the outline, on a wall at night."""
    wall = uniform((len(d), 3, 1, 1), 0.0, 0.16, generator) + 0.10 * smooth_noise(d, 4, generator)
    colour = vivid_colours(len(d), generator)
    away = (d + uniform(d, 0.8, 1.8, generator)).abs()
    power = 0.3 + 0.9 * smooth_noise(d, 5, generator)  # old tubes: some stretches are nearly dead
    tube = cover(uniform(d, 0.4, 0.8, generator) - away, 1.0) * power
    glow = torch.exp(away / -uniform(d, 1.2, 3.0, generator)) * uniform(d, 0.3, 0.7, generator) * power
    return wall + colour * glow + (0.35 + 0.65 * colour) * tube


def paint_chalk(d: Tensor, generator: Generator) -> Tensor:
    """Broken strokes of chalk on a board that was wiped many times."""
    hue = vivid_colours(len(d), generator)
    board = 0.10 + 0.12 * hue + 0.22 * smooth_noise(d, 3, generator) * uniform(d, 0.2, 1.0, generator)
    chalk = 0.72 + 0.28 * vivid_colours(len(d), generator)
    wobble = 1.5 * (smooth_noise(d, 9, generator) - 0.5)
    grain = torch.rand(d.shape, generator=generator)
    pressure = uniform(d, 0.1, 0.4, generator) + 0.9 * (smooth_noise(d, 7, generator) - 0.5)
    stroke = cover(d + wobble + 0.2, 1.2) * cover(grain - pressure, 0.5)
    return torch.lerp(board, chalk, stroke) + 0.10 * (grain - 0.5)


def paint_photo(d: Tensor, generator: Generator) -> Tensor:
    """A painted sign, out of focus, with a shadow, in uneven light, seen by a noisy sensor."""
    n = len(d)
    wall, ink = contrasting_colours(n, 0.35, 0.3, generator)
    other = wall.roll(1, 1)  # another hue, about as bright: the character still stands out
    wall = torch.lerp(wall, other, 0.6 * smooth_noise(d, 4, generator))
    wall = torch.lerp(wall, other, 0.8 * cover(straight_edge(n, generator), 1.5))
    blur = uniform(d, 1.0, 1.8, generator)
    shadow = cover(d.roll((2, 1), (2, 3)), 2 * blur) * uniform(d, 0.0, 0.45, generator)
    sign = torch.lerp(wall * (1 - shadow), ink, cover(d + 0.3, blur) * uniform(d, 0.75, 1.0, generator))
    light = 0.55 + 0.6 * smooth_noise(d, 2, generator)
    light = light * (1 - 0.4 * cover(straight_edge(n, generator), 2.0))
    return sign * light + 0.025 * torch.randn(n, 3, SIZE, SIZE, generator=generator)


def distance_field(mask: np.ndarray) -> Tensor:
    """The signed distance to a mask's outline, positive inside, in field pixels: bool [h, w] to [1, 1, 48, 48]."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    mask = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    side = math.ceil(max(mask.shape) / FILL)
    square = np.zeros((side, side), dtype=bool)
    top, left = (side - mask.shape[0]) // 2, (side - mask.shape[1]) // 2
    square[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    distance = np.asarray(distance_transform_edt(square)) - np.asarray(distance_transform_edt(~square))
    distance = torch.from_numpy(distance).float()[None, None] * (FIELD / side)
    return F.interpolate(distance, (FIELD, FIELD), mode="bilinear", antialias=True)


def torch_generator(seed: int, *purpose: str) -> Generator:
    return Generator().manual_seed(int(seeded(seed, *purpose).integers(2**63)))


def uniform(like: Tensor | tuple[int, ...] | int, low: float, high: float, generator: Generator) -> Tensor:
    """Numbers between low and high; for a batch [B, ...], one number an image, [B, 1, 1, 1]."""
    shape = (len(like), 1, 1, 1) if isinstance(like, Tensor) else like
    return torch.rand(shape, generator=generator) * (high - low) + low


def smooth_noise(like: Tensor, cells: int, generator: Generator) -> Tensor:
    """Noise in [0, 1] that changes smoothly over ``cells`` cells an image: [B, 1, H, W]."""
    coarse = torch.rand(len(like), 1, cells, cells, generator=generator)
    return F.interpolate(coarse, like.shape[-2:], mode="bilinear", align_corners=True)


def cover(d: Tensor, softness: float | Tensor) -> Tensor:
    """How much of a pixel at distance d is inside, 0 to 1, for an edge ``softness`` pixels wide."""
    return (d / softness + 0.5).clamp(0, 1)


def straight_edge(n: int, generator: Generator) -> Tensor:
    """Signed distances in pixels to a random line through the image: [n, 1, 32, 32]."""
    angle = uniform((n, 1, 1, 1), 0.0, 2 * math.pi, generator)
    offset = uniform((n, 1, 1, 1), -0.1, 0.5, generator) * SIZE
    axis = torch.arange(SIZE) - (SIZE - 1) / 2
    return angle.cos() * axis + angle.sin() * axis[:, None] - offset


def contrasting_colours(n: int, contrast: float, inverted: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """Ground and ink [n, 3, 1, 1], ``contrast`` apart in every channel; a share ``inverted`` has light ink."""
    room = 1 - contrast
    dark = torch.rand(n, 3, 1, 1, generator=generator) * room
    light = dark + contrast + torch.rand(n, 3, 1, 1, generator=generator) * (room - dark)
    swap = torch.rand(n, 1, 1, 1, generator=generator) < inverted
    return torch.where(swap, dark, light), torch.where(swap, light, dark)


def vivid_colours(n: int, generator: Generator) -> Tensor:
    """Saturated colours of every hue: [n, 3, 1, 1]."""
    hue = torch.rand(n, 1, 1, 1, generator=generator) * 6
    wheel = torch.tensor([0.0, 4.0, 2.0]).view(1, 3, 1, 1)
    return (((hue + wheel) % 6 - 3).abs() - 1).clamp(0, 1)


def to_uint8(colours: Tensor) -> Tensor:
    return (colours.clamp(0, 1) * 255).round().to(torch.uint8)
