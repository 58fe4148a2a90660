"""Which rows read the fine-tuned features: the fine-tuned head's, the pre-trained one's, or some of each.

    levels        how far each absent class stands out on images of seen ones
    read_by       the logits of a head, by its name, as the estimators of `ftlib.calibration` take them
    restore_rows  the pre-trained rows of absent classes, put back into a model
    level_rows    the levels, taken out of a model's bias

Fine-tuning needs the new head to train the features, which the old one may read as well. No image has spoken for the
rows of absent classes. What fine-tuning has done to them beyond one constant, which is γ's part, is of two kinds: it
has turned each away from the images that look like its class, and it has levelled them, so that none stands out on
images of seen classes. The old rows undo both; the levelled ones keep the second. γ comes last, for the head that is
served. Chapters 6, 9, 14 and 18 of the book compare the heads, each with its γ.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ftlib.checks import Array, check_absent, check_logits
from ftlib.core import ClassSplit, head_layers

HEADS = ("new", "restored", "levelled", "old", "both")


def levels(logits: Array, split: ClassSplit) -> np.ndarray:
    """Each absent class's mean logit on images of seen classes, less the mean of all of them; 0 for seen classes: [C].

    None of these images is of an absent class, so that none of those should stand out. Taken from the logits it is what
    `average_logit_gap` does, class by class.
    """
    means = check_logits(logits, split).double().mean(0).cpu().numpy()
    level, absent = np.zeros(len(means)), list(split.absent)
    level[absent] = means[absent] - means[absent].mean()
    return level


def read_by(
    head: str,
    logits: Array,
    split: ClassSplit,
    old_head: Array | None = None,
    on_seen: tuple[Array, Array | None] | None = None,
) -> tuple[Any, Any]:
    """The logits of a head on the fine-tuned features, and those of its rows before any fine-tuning.

    They are what estimators take for ``logits`` and ``old_head``.

    Parameters
    ----------
    head : "new", "restored", "levelled", "old" or "both"
        The fine-tuned head; the same with the pre-trained rows of absent classes; these less their `levels`; the
        pre-trained head; or the head whose rows are the sums of new and old. In the sum an absent class's own row
        stands twice, so that the old row of a mirror image does, too.
    logits, old_head : floating arrays [..., C]
        Of the fine-tuned and of the pre-trained head on the same features. "new" does without the latter.
    split : ClassSplit
    on_seen : pair of floating arrays [N, C], optional
        The two on images of seen classes, from which "levelled" takes the levels; if not given, the arrays themselves.

    Raises
    ------
    ValueError
        Another name of a head, no ``old_head`` where it is needed, or arrays of different shapes.
    """
    if head not in HEADS:
        raise ValueError(f"head={head!r}: expected one of {', '.join(HEADS)}")
    if head == "new":
        return logits, old_head
    if old_head is None or np.shape(old_head) != np.shape(logits):
        has = "none" if old_head is None else f"{list(np.shape(old_head))} for logits {list(np.shape(logits))}"
        raise ValueError(f"head={head!r} needs old_head, of the pre-trained head on the same features: got {has}")
    old: Any = old_head
    if head in ("old", "both"):
        return (old, old) if head == "old" else (logits + old, 2 * old)
    absent = np.isin(np.arange(np.shape(logits)[-1]), split.absent)
    if isinstance(logits, Tensor):
        absent, rows = (torch.as_tensor(part, device=logits.device) for part in (absent, old))
        restored: Any = torch.where(absent, rows, logits)
    else:
        restored = np.where(absent, old, logits)
    if head == "levelled":
        seen = restored if on_seen is None else read_by("restored", on_seen[0], split, on_seen[1])[0]
        level = levels(seen, split)
        restored = restored - (restored.new_tensor(level) if isinstance(restored, Tensor) else level)
    return restored, old


# --- in a model -------------------------------------------------------------------------------------------------------


def restore_rows(model: nn.Module, before: nn.Module, absent: Iterable[int]) -> nn.Module:
    """Give the head the rows that the absent classes had before fine-tuning, weights and biases, in place.

    No image has spoken for them since. Level them then by `level_rows`, and estimate γ last, on the logits that the
    model gives by then: this puts a bias back, too. What comes back is the same model.

    Parameters
    ----------
    model, before : Module
        The fine-tuned and the pre-trained classifier, or their heads alone, as `fold_gamma` takes them.
    absent : iterable of int, or bool [C]

    Raises
    ------
    ValueError
        The two have different heads, an absent class is outside of them, or there is no head with rows.

    Examples
    --------
    >>> new, old = nn.Linear(8, 4), nn.Linear(8, 4)
    >>> bool((restore_rows(new, old, absent=[1, 3]).weight[[1, 3]] == old.weight[[1, 3]]).all())
    True
    """
    heads = [[{"weight": of.weight, "bias": getattr(of, "bias", None)} for of in layers_of(m)] for m in (model, before)]
    new, old = ([{name: list(p.shape) for name, p in of.items() if p is not None} for of in head] for head in heads)
    if new != old:
        raise ValueError(f"the head has {new}, the one before fine-tuning {old}: expected the same parts and shapes")
    columns = check_absent(absent, new[0]["weight"][0])
    with torch.no_grad():
        for layer, was in zip(*heads, strict=True):
            for name, parameter in layer.items():
                if parameter is not None:
                    parameter[columns] = was[name][columns].to(parameter)
    return model


def level_rows(model: nn.Module, logits: Array, split: ClassSplit) -> nn.Module:
    """Take the `levels` of absent classes out of the bias, in place, so that none stands out on images of seen classes.

    ``logits`` [N, C] are the model's own, as it is now, on such images. Old rows need it where training has moved the
    features far; after it γ is estimated anew. ValueError as for `fold_gamma`, and for logits of another head.
    """
    layers, level = layers_of(model), levels(logits, split)
    if len(level) != (rows := len(layers[0].weight)):
        raise ValueError(f"the logits have {len(level)} columns, the head {rows} rows: expected the same number")
    add_to_bias(layers, -level)
    return model


def layers_of(model: nn.Module) -> list[Any]:
    """As `ftlib.core.head_layers`, with a ValueError for a model that has none."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"the model is a {type(model).__name__}, expected a Module: load a state dict into one first")
    try:
        return head_layers(model)
    except TypeError as error:
        raise ValueError(f"{error}: γ has no place there") from error


def add_to_bias(layers: list[Any], shift: np.ndarray) -> None:
    """Add ``shift`` [C] in every layer, one without a bias getting one; all are looked at before any is changed."""
    for layer in layers:
        if getattr(layer, "bias", None) is None and not isinstance(layer, nn.Linear | nn.Conv2d):
            raise ValueError(f"the head is {type(layer).__name__}, which has no bias: expected Linear or 1×1 Conv2d")
        if layer.weight.dtype not in (torch.float32, torch.float64):
            why = "which would round γ: fold into model.float(), and serve the head in float32"
            raise ValueError(f"the head is {layer.weight.dtype}, {why}")
    for layer in layers:
        if layer.bias is None:
            weight = layer.weight
            layer.bias = nn.Parameter(weight.new_zeros(len(weight)), requires_grad=weight.requires_grad)
        with torch.no_grad():
            layer.bias += layer.bias.new_tensor(shift)
