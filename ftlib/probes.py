"""Can the two sides be told apart in the features? A linear probe is asked, beside probes of sides dealt at random."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import Tensor

from ftlib.checks import check_labels
from ftlib.core import ClassSplit

FOLDS = 4  # groups of classes that are kept from the probe in turn; no more than the smaller side has classes
RIDGE = 0.01  # as a multiple of the features' mean variance
DEALINGS = 20  # random lists, each with as many classes of either side in every fold as the split has


class Separability(NamedTuple):
    """Balanced accuracy (fraction; chance is a half) of a linear probe that answers "seen or absent?"."""

    known: float  # the probe was told the side of every class, on training images
    unknown: float  # it was told the sides of other classes, and none of the image's own
    known_halving: float  # as `known`, with sides dealt out at random: the mean over the dealings
    unknown_halving: float


def separability(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], split: ClassSplit) -> Separability:
    """Can a linear probe read from features whether their class is seen or absent, better than any two halves?

    Whoever can tell classes apart can learn any list of classes by heart. So the accuracy alone says nothing: it must
    be compared with that for sides dealt out at random. And a probe that has found what "seen" looks like, not a list
    of classes, also works on classes whose side it was never told; for random sides that is a coin toss.

    Fitted to ``train`` and judged on ``test``, each (features [N, D], labels [N]). The fit is to ±1; the answer changes
    halfway between the mean scores of the two sides, whatever their sizes.
    """
    order = np.concatenate([split.seen, split.absent])
    folds = min(FOLDS, len(split.seen), len(split.absent))
    if folds < 2:
        raise ValueError(f"{len(split.seen)} seen and {len(split.absent)} absent classes: expected two of each or more")
    fold = np.concatenate([np.arange(len(side)) % folds for side in (split.seen, split.absent)])
    rng, sides = np.random.default_rng(0), [np.isin(order, split.seen)]
    for _ in range(DEALINGS):
        sides.append(dealt := sides[0].copy())
        for f in range(folds):
            dealt[fold == f] = rng.permutation(dealt[fold == f])
    place = np.full(order.max() + 1, -1)
    place[order] = np.arange(len(order))
    (x, y), (x_test, y_test) = (
        (features.double().numpy(), place[check_labels(labels, features, split.classes, "the split's classes")])
        for features, labels in (train, test)
    )
    sides = np.array(sides).T  # [classes, lists]
    truth, known = sides[y_test], _probe(x, sides[y], x_test)
    unknown = np.empty_like(truth)
    for f in range(folds):
        told, asked = fold[y] != f, fold[y_test] == f
        unknown[asked] = _probe(x[told], sides[y[told]], x_test[asked])
    accuracies = []
    for answers in (known, unknown):
        of_sides = [((answers == truth) & side).sum(0) / side.sum(0) for side in (truth, ~truth)]
        accuracies.append((of_sides[0] + of_sides[1]) / 2)
    (known, *known_dealt), (unknown, *unknown_dealt) = accuracies
    return Separability(float(known), float(unknown), float(np.mean(known_dealt)), float(np.mean(unknown_dealt)))


def _probe(x: np.ndarray, yes: np.ndarray, x_asked: np.ndarray) -> np.ndarray:
    """bool [n, L] for features [n, D], from one ridge regression for each of L lists of answers, bool [N, L]."""
    from sklearn.linear_model import Ridge  # not loaded before it is needed

    model = Ridge(alpha=RIDGE * len(x) * x.var(0).mean()).fit(x, 2.0 * yes - 1)
    scores = model.predict(x)
    middle = [(scores * side).sum(0) / side.sum(0) for side in (yes, ~yes)]
    return model.predict(x_asked) > (middle[0] + middle[1]) / 2
