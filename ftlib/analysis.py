"""What happened inside: pure functions of a run's arrays that the chapters turn into pictures."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ftlib.benchmarks import ClassSplit
from ftlib.metrics import split_accuracies


def trajectory(history: Mapping[str, Tensor], labels: Tensor, split: ClassSplit) -> dict[str, np.ndarray]:
    """How a fine-tuning went, at every evaluation of its history.

    Parameters
    ----------
    history : mapping
        ``epoch`` [E], test ``logits`` [E, N, C] and head ``weight`` [E, C, D], as a Run keeps them.
    labels : Tensor
        int64 [N], of the test images.
    split : ClassSplit

    Returns
    -------
    dict of float64 [E]
        ``epoch``; ``yy``, ``sy``, ``uy``, ``ss``, ``uu`` (fractions); ``seen_norm`` and ``absent_norm`` (mean L2 norm
        of the head's rows); and on the test images of each side, as means of logits, ``SIDE_true``,
        ``SIDE_other_seen`` and ``SIDE_other_absent``: the true class and the largest other seen and absent one.
        nan where a side has but one class and so no other. (Figures 6b and 12 of Mai et al., 2024.)
    """
    points = []
    for logits, weight in zip(history["logits"], history["weight"], strict=True):
        accuracies = split_accuracies(logits, labels, split)
        point = {name: getattr(accuracies, name) for name in ("yy", "sy", "uy", "ss", "uu")}
        for side in ("seen", "absent"):
            classes = torch.tensor(getattr(split, side))
            point[f"{side}_norm"] = float(weight[classes].norm(dim=1).mean())
            of_side = torch.isin(labels, classes)
            point |= {f"{side}_{name}": value for name, value in _competitors(logits[of_side], labels[of_side], split)}
        points.append(point)
    return {"epoch": history["epoch"].double().numpy()} | {
        name: np.array([point[name] for point in points]) for name in (points or [{}])[0]
    }


def _competitors(logits: Tensor, labels: Tensor, split: ClassSplit) -> list[tuple[str, float]]:
    """Mean true logit and mean largest other logit of each side, on images of one side."""
    true = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -torch.inf)
    means = [("true", float(true.mean()))]
    for side in ("seen", "absent"):
        largest = others[:, torch.tensor(getattr(split, side))].amax(1)
        means.append((f"other_{side}", float(largest.mean()) if largest.isfinite().all() else float("nan")))
    return means
