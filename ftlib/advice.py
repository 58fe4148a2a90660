"""What the outputs of one's own model say against using γ: mistakes in what was given, models that γ cannot help."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ftlib.calibration import Gamma, competitor_gap
from ftlib.core import ClassSplit
from ftlib.evidence import Evidence

BETWEEN = ("same", "exchanged")


class Advice(NamedTuple):
    """Something that the outputs show: ``level`` is "stop" (γ is not advised), "caution" or "note"."""

    level: str
    code: str
    text: str


def advise(logits: Tensor, old: Tensor | None, images: Evidence, gamma: Gamma, low: float, high: float) -> list[Advice]:
    """What speaks against γ, of which resampled images and classes say that it lies between ``low`` and ``high``.

    ``logits`` and ``old`` are those of the new and of the old head [N, C], ``images`` what they tell image by image.
    """
    split, y, n = gamma.split, images.label, len(images.label)
    gap = float(images.gap.mean())
    sizes = np.bincount(y, minlength=split.seen[-1] + 1)[list(split.seen)]
    guess = np.array(split.classes)[logits[:, list(split.classes)].argmax(1).cpu().numpy()]
    shift, off = max(((by, float(np.mean(guess == y + by))) for by in (1, -1)), key=lambda pair: pair[1])
    whole = logits.sum(1).double()
    low_one, high_one = logits.aminmax()
    chances = bool(0 <= low_one < high_one and (high_one <= 1 or (whole - 100).abs().max() < 1))
    # A sigmoid head that was taught one class an image lights one, on the images that taught it.
    sigmoid = not chances and bool((logits.double().sigmoid().sum(1) - 1).abs().median() < 0.1)
    on = [float((logits[:, list(split.absent)] + by > 0).any(1).double().mean()) for by in (0.0, gamma)]
    # Over 81 fine-tunings of drawn characters: where fewer than .55 were found, γ changed Acc_{Y/Y} by −6 to +4 points;
    # elsewhere it won 9 to 39. Of 127 sound ones no rule stops any, and each of eight mistakes is stopped in all.
    found, who = float(images.seen_hit.mean()), "new head"
    if old is not None and images.absent_hit.mean() < found:
        found, who = float(images.absent_hit.mean()), "old head on the new features"
    amiss = (
        f"the {who} finds the true class among the seen ones for {found:.0%} of the images: were they sized and "
        "normalised as in training, the model in evaluation mode, the classes in this order? Else the features "
        "suffered, and γ "
    )
    rules = [
        (chances, "stop", "probabilities",
         "all numbers lie between 0 and 1, or add up to 100: probabilities. Give logits, or their log"),
        (not chances and bool(logits.logsumexp(1).abs().max() < 1e-2), "note", "log-probabilities",
         "these are log-probabilities, which serve as well as logits"),
        (sigmoid, "caution", "sigmoid",
         "a sigmoid head: γ is for the largest logit. At threshold ½ it lights an absent class on "
         f"{on[1]:.0%} of these images, where none belongs, in place of {on[0]:.0%}"),
        (off > max(0.3, 2 * np.mean(guess == y)), "stop", "labels",
         f"{off:.0%} of the predictions are the label {shift:+d}: number the classes from 0"),
        (found < 0.55, "stop", "features", f"{amiss}cannot help"),
        (0.55 <= found < 0.8, "caution", "features", f"{amiss}helps less than it seems"),
        # Of a model without a gap a quantile would take its share all the same; few rivals tell of none where there is.
        (low <= 0 <= high or gamma <= 0 or (gap <= 0 and 2 * len(sizes) >= len(split.absent)), "stop", "nothing",
         "γ cannot be told from 0: there is nothing to repair, or it was repaired already"),
        (len(sizes) < 8, "caution", "few-classes",
         f"{len(sizes)} seen classes tell little about others: look at what γ costs on images that were held out"),
        ((sizes == 0).any(), "caution", "missing", f"{(sizes == 0).sum()} of {len(sizes)} seen classes have no image"),
        (n < 10 * len(sizes), "caution", "few-images", f"{n / len(sizes):.1f} images a seen class are few"),
        (images.accuracy(0.0).seen >= 0.995, "note", "memorised",
         "they are known by heart: on new images γ costs more seen accuracy than said here"),
    ]  # fmt: skip
    return [Advice(*advice) for holds, *advice in rules if holds]


def between(logits: Tensor, old: Tensor, labels: Tensor, split: ClassSplit) -> list[Advice]:
    """What is amiss between two checkpoints, whose heads [N, C] read the new one's features of images with labels [N].

    The advice is coded `BETWEEN`.
    """
    if torch.allclose(old.to(logits), logits, rtol=1e-4, atol=1e-4):
        return [Advice("stop", "same", "the old head says what the new one says: the two checkpoints are the same")]
    more = competitor_gap(old, labels, split) - competitor_gap(logits, labels, split)
    text = f"the old head favours seen classes more, by {more:.2g}: exchanged checkpoints, or repaired already?"
    return [Advice("stop", "exchanged", text)] if more > 0 else []
