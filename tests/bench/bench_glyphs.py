"""How fast one core draws glyphs, from the labels to uint8 images; the typefaces are read once, before."""

from __future__ import annotations

import time
from statistics import median

import torch

from ftlib.benchmarks import drawing, glyphs

IMAGES = 4096  # a measurement
ROUNDS = 5


def bench() -> list[tuple[str, float, str]]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    glyphs.distance_fields.cache_clear()
    start = time.perf_counter()
    glyphs.distance_fields()
    rows = [("reading the typefaces, once a process", time.perf_counter() - start, "s")]
    rows += [(f"drawing glyphs/{name}", _rate(name), "images/s on one core, at least 5,000") for name in glyphs.STYLES]
    torch.set_num_threads(threads)
    return rows


def _rate(name: str) -> float:
    labels = torch.arange(IMAGES) % len(glyphs.CHARACTERS)
    seconds = []
    for measured in range(-1, ROUNDS):  # the first round warms up
        start = time.perf_counter()
        glyphs.render(name, labels, drawing.torch_generator(0, name))
        if measured >= 0:
            seconds.append(time.perf_counter() - start)
    return IMAGES / median(seconds)


if __name__ == "__main__":
    for what, value, unit in bench():
        print(f"{what:45s} {value:10,.2f}  {unit}")
