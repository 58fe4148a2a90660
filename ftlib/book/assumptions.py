"""What a γ costs where it takes for granted what is not so: the mix of images in use, their likeness, their time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import nn

from ftlib.calibration import (
    absent_share,
    average_logit_gap,
    best_of_mirrored,
    estimated_share,
    margin_quantile,
    mirrored,
)
from ftlib.core import ClassSplit, Outputs
from ftlib.margins import mirrored_margins
from ftlib.metrics import seen_unseen_curve
from ftlib.runs import Run


def in_mixes(run: Run, old_head: nn.Module, shares: Sequence[float]) -> dict[tuple[float, str], float]:
    """Accuracy in percent if a share of the images shows absent classes, by how γ was chosen, and the best there is.

    Under (share, name). Acc_{S/Y} and Acc_{U/Y} are weighed, so that nothing is drawn. ``told`` is the share,
    ``estimated`` finds it by `ftlib.calibration.estimated_share` on test images in that mix, without their labels;
    ``unaware`` takes it for |U| / |Y|.
    """
    seen, split, curve = run.seen_train, run.split, seen_unseen_curve(run.test.logits, run.test.labels, run.split)
    margins = mirrored_margins(seen.logits, seen.labels, split, old_head(seen.features))
    labels = seen.labels.numpy()
    gammas = {
        "no γ": 0.0,
        "ALG": average_logit_gap(seen.logits, seen.labels, split),
        "5 % of the margins": margin_quantile(seen.logits, seen.labels, split),
        "mirrored, unaware": (unaware := best_of_mirrored(margins, labels, split)),
    }
    right = {}
    for share in shares:
        mixed, told = mix(run.test, split, share).logits, min(max(share, 0.01), 0.99)
        gammas["mirrored, estimated"] = best_of_mirrored(margins, labels, split, estimated_share(mixed, split, unaware))
        gammas["mirrored, told"] = best_of_mirrored(margins, labels, split, told)
        gammas["share of U, unaware"] = absent_share(mixed, split)
        gammas["share of U, told"] = absent_share(mixed, split, told)
        points = {name: curve.at(gamma) for name, gamma in gammas.items()}
        right |= {(share, name): 100 * ((1 - share) * p.sy + share * p.uy) for name, p in points.items()}
        right[share, "γ*"] = 100 * float(((1 - share) * curve.sy + share * curve.uy).max())
    return right


def mix(test: Outputs, split: ClassSplit, share: float) -> Outputs:
    """As many test images as give this share of absent ones, evenly taken from both sides."""
    absent = torch.isin(test.labels, torch.tensor(split.absent))
    sides = [(~absent).nonzero()[:, 0], absent.nonzero()[:, 0]]
    parts = 1 - share, share
    total = min(len(side) / part for side, part in zip(sides, parts, strict=True) if part)
    sizes = [round(total * part) for part in parts]
    taken = [side[torch.linspace(0, len(side) - 1, n).long()] for side, n in zip(sides, sizes, strict=True)]
    return Outputs(*(part[torch.cat(taken)] for part in test))


def misfit(run: Run, old_head: nn.Module) -> dict[str, float]:
    """The distances and the bound of the book's page of theory, in points, and the regret of `mirrored` below it.

    ``seen side`` is the largest difference over γ between Acc_{S/Y} on the fine-tuning images and on test images,
    ``absent side`` that between Acc_{U/Y} of mirror images and of absent test images. Images at hand are weighed such
    that each class counts the same, as `mirrored` does.
    """
    seen, split, curve = run.seen_train, run.split, seen_unseen_curve(run.test.logits, run.test.labels, run.split)
    m = mirrored_margins(seen.logits, seen.labels, split, old_head(seen.features))
    weight = 1 / np.bincount(seen.labels.numpy())[seen.labels.numpy()] / len(split.seen)
    share = float(torch.isin(run.test.labels, torch.tensor(split.absent)).double().mean())
    gammas = np.unique(np.concatenate([curve.gamma[np.isfinite(curve.gamma)], m.seen, m.absent]))
    sy, uy, _ = np.array([curve.at(gamma) for gamma in gammas]).T

    def below(margins: np.ndarray, hit: np.ndarray) -> np.ndarray:
        """Under each γ the weight of the images that are right within their side and have a smaller margin."""
        order = margins[hit].argsort()
        return np.append(0, weight[hit][order].cumsum())[np.searchsorted(margins[hit][order], gammas)]

    far = {
        "seen side": np.abs(sy - weight @ m.seen_hit + below(m.seen, m.seen_hit)).max(),
        "absent side": np.abs(uy - below(m.absent, m.absent_hit)).max(),
    }
    chosen = best_of_mirrored(m, seen.labels.numpy(), split)
    error = np.sqrt(0.25 / (2 * len(weight)))  # the most that one standard error can be
    bound = 2 * ((1 - share) * far["seen side"] + share * far["absent side"]) + error
    found = far | {"bound": bound, "regret": curve.yy.max() - curve.at(chosen).yy}
    return {name: 100 * float(x) for name, x in found.items()}


def later(run: Run, old_head: nn.Module, few: int) -> dict[str, float]:
    """Accuracy over all classes in percent, by the images that `mirrored` finds γ on, where test images are later.

    ``before`` are the fine-tuning images, ``later`` the first ``few`` test images of each seen class, ``both`` these
    together; beside them ``no γ`` and ``γ*``. Judged are the test images less the first ``few`` of every class.
    """
    labels = run.test.labels.numpy()
    number = torch.tensor(pd.Series(labels).groupby(labels).cumcount().to_numpy())
    known = (number < few) & torch.isin(run.test.labels, torch.tensor(run.split.seen))
    new, judged = (Outputs(*(part[which] for part in run.test)) for which in (known, number >= few))
    curve = seen_unseen_curve(judged.logits, judged.labels, run.split)
    both = Outputs(*map(torch.cat, zip(run.seen_train, new, strict=True)))
    gammas: dict[str, float] = {"no γ": 0.0, "γ*": curve.best_gamma()}
    for name, of in {"before": run.seen_train, "later": new, "both": both}.items():
        gammas[name] = mirrored(of.logits, of.labels, run.split, old_head(of.features))
    return {name: 100 * curve.at(gamma).yy for name, gamma in gammas.items()}
