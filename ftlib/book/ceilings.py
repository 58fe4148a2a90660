"""How far more numbers than one would go: what γ, a scale and γ, and a bias a class reach, chosen on other images.

    ceilings   what each of them reaches on images that did not choose it
    best_read  the head that seen images choose
    levels     each absent class's mean logit on images of others: a bias a class without an absent image

Logits are floating arrays [N, C].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax

from ftlib.book.repairs import best_scale, rescale
from ftlib.calibration import apply
from ftlib.checks import Array
from ftlib.core import ClassSplit, Outputs
from ftlib.evidence import Evidence
from ftlib.metrics import seen_unseen_curve, split_accuracies

ORACLES = ("γ", "scale + γ", "bias a class")


def class_biases(logits: np.ndarray, labels: np.ndarray, split: ClassSplit) -> np.ndarray:
    """A bias a class [C], by maximum likelihood: softmax(scale · f + b), returned as b / scale.

    Within its side each bias has a standard normal prior around the side's own, since a class has few images.
    """
    columns = list(split.classes)
    place, absent = np.searchsorted(columns, labels), np.isin(columns, split.absent)
    x, rows = logits[:, columns], np.arange(len(labels))

    def loss(at: np.ndarray) -> tuple[float, np.ndarray]:
        scale, gamma, own = np.exp(at[0]), at[1], at[2:]
        z = log_softmax(scale * x + gamma * absent + own, axis=1)
        slope = np.exp(z)
        slope[rows, place] -= 1
        d = slope.sum(0)
        grad = np.concatenate([[scale * (slope * x).sum(), d[absent].sum()], d + own])
        return -z[rows, place].sum() + own @ own / 2, grad

    found = minimize(loss, np.zeros(2 + len(columns)), jac=True, method="L-BFGS-B").x
    bias = np.zeros(logits.shape[1])
    bias[columns] = (found[1] * absent + found[2:]) / np.exp(found[0])
    return bias


def halves(labels: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Positions of one half of the images and of the other, both ways, drawn within each class."""
    order = np.random.default_rng(0).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    return [(order[::2], order[1::2]), (order[1::2], order[::2])]


def best_read(heads: Mapping[str, tuple[Array, Array, float]], labels: np.ndarray, split: ClassSplit) -> np.ndarray:
    """On each half of the test images, the logits with γ of the head that the other half's seen images choose: [N, C].

    ``heads`` are of `ftlib.book.boundary.reading`: logits [N, C], those of untrained rows, and γ. What is compared is
    `Accuracy.overall`, in which each seen image stands for itself and, mirrored, for an absent one.
    """
    read = {name: (np.asarray(logits, float), np.asarray(old, float), g) for name, (logits, old, g) in heads.items()}
    found, seen = np.empty_like(next(iter(read.values()))[0]), np.isin(labels, split.seen)
    for this, other in halves(labels):
        held = other[seen[other]]

        def overall(name: str, held: np.ndarray = held) -> float:
            logits, old, gamma = read[name]
            x, y, untrained = (torch.as_tensor(part[held]) for part in (logits, labels, old))
            return Evidence.of(x, y, split, untrained).accuracy(gamma).overall(split)

        logits, _, gamma = read[max(read, key=overall)]
        found[this] = apply(logits, gamma, split.absent)[this]
    return found


def ceilings(test: Outputs, split: ClassSplit, scales: Sequence[float], given: Mapping[str, Array]) -> dict[str, float]:
    """Acc_{Y/Y} in percent on halves of the test images: ``given`` logits, and what the other half chooses.

    ``γ``, ``scale + γ`` and ``bias a class`` are oracles that see labels of absent classes.
    """
    logits, labels = test.logits.double().numpy(), test.labels.numpy()
    absent = np.isin(np.arange(logits.shape[1]), split.absent)
    rows = []
    for this, other in halves(labels):
        x, y = logits[other], labels[other]
        best = best_scale(x, y, split, scales)
        tried = {
            "γ": logits + absent * seen_unseen_curve(x, y, split).best_gamma(),
            "scale + γ": rescale(logits, best.scale, split) + absent * best.gamma,
            "bias a class": logits + class_biases(x, y, split),
            **given,
        }
        rows.append({k: 100 * split_accuracies(np.asarray(v)[this], labels[this], split).yy for k, v in tried.items()})
    return pd.DataFrame(rows).mean().to_dict()
