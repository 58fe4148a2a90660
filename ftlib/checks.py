"""What every pure function of arrays asks of its input: one place, one wording."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from ftlib.core import ClassSplit, class_ids

Array = Tensor | np.ndarray
SEEN_ONLY = "the seen classes: an estimator takes fine-tuning training outputs only, since absent-class data would leak"


def check_outputs(logits: Array, labels: Array, split: ClassSplit, finite: bool = True) -> tuple[Tensor, Tensor]:
    """Logits [N, C], as `check_logits` gives them, and int64 labels [N] in Y as tensors on one device."""
    logits = check_logits(logits, split, finite)
    return logits, check_labels(labels, logits, split.classes, "the split's classes Y = S ∪ U")


def check_seen(logits: Array, labels: Array, split: ClassSplit) -> tuple[Tensor, Tensor]:
    """As `check_outputs`, of two seen classes or more, without a label of any other."""
    logits, labels = check_outputs(logits, labels, split)
    if len(split.seen) == 1:
        raise ValueError(f"class {split.seen[0]} is the only seen class: γ is found by comparing it with others")
    return logits, check_labels(labels, logits, split.seen, SEEN_ONLY)


def check_logits(logits: Array, split: ClassSplit, finite: bool = True) -> Tensor:
    """Logits [N, C] that have a column for every class of the split; of these the numbers are finite, if asked."""
    logits = check_matrix(logits, "logits")
    if not isinstance(split, ClassSplit):
        raise TypeError(f"the split is {split!r}, expected ClassSplit(seen, absent)")
    if (largest := split.classes[-1]) >= logits.shape[1]:
        raise ValueError(f"the split names class {largest}, but the logits have only {logits.shape[1]} columns")
    if finite:
        check_finite(logits, "logits", split.classes)
    return logits


def check_matrix(array: Array, name: str) -> Tensor:
    """A floating tensor [N, D], not empty, as `as_tensor` gives it."""
    tensor = as_tensor(array, name, expected := "floating [N, D], not empty")
    if tensor.ndim != 2 or 0 in tensor.shape or not tensor.is_floating_point():
        raise ValueError(f"{name} are {kind_of(tensor)}, expected {expected}")
    return tensor


def as_tensor(array: Array, name: str, expected: str) -> Tensor:
    """A tensor without gradient; NumPy arrays are shared, not copied, unless they run backwards."""
    if isinstance(array, Tensor):
        return array.detach()
    try:
        values = np.asarray(array)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # it is only read
            return torch.from_numpy(values if min(values.strides, default=0) >= 0 else values.copy())
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} are {kind_of(array)}, expected {expected}") from error


def kind_of(array: object) -> str:
    """Type and shape, for a message."""
    if isinstance(array, Tensor | np.ndarray):
        return f"{array.dtype} {list(array.shape)}"
    return f"a {type(array).__name__}"


def check_finite(matrix: Tensor, name: str, columns: Sequence[int] | None = None) -> None:
    """ValueError with the number of NaN, or of infinities in the given columns (in all if None), and the first place.

    Classes outside Y are masked, so an infinity there is no matter; NaN always tells of a broken model.
    """
    if matrix.sum(dtype=torch.promote_types(matrix.dtype, torch.float32)).isfinite():
        return  # a sum is many times faster than a look at each number; it may also overflow, so look closely then
    infinite = torch.zeros_like(matrix, dtype=torch.bool)
    infinite[:, slice(None) if columns is None else list(columns)] = True
    infinite &= matrix.isinf()
    for bad, what, why in (
        (matrix.isnan(), "NaN", "the model diverged or its input is damaged"),
        (infinite, "infinite values", "leave out classes without data or masked ones, and look for an overflow"),
    ):
        if len(where := bad.nonzero()):
            row, column = where[0].tolist()
            many = f"{len(where)} {what} in {len(where[:, 0].unique())} of {len(matrix)} rows"
            raise ValueError(f"{name} hold {many}, the first at row {row}, column {column}: {why}")


def check_labels(labels: Array, of: Tensor, allowed: Iterable[int], meaning: str) -> Tensor:
    """int64 labels [N] on the device of the matrix that they belong to; ValueError names labels not allowed."""
    labels = as_tensor(labels, "labels", expected := f"integers [{len(of)}]")
    integers = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    if not integers or labels.shape != of.shape[:1]:
        raise ValueError(f"labels are {kind_of(labels)}, expected {expected}")
    labels = labels.to(of.device, torch.int64)
    ids = torch.tensor(list(allowed), device=of.device)
    size = int(ids.max()) + 1
    known = torch.zeros(size + 1, dtype=torch.bool, device=of.device)  # the last entry stands for all other labels
    known[ids] = True
    known = known[labels.clamp(-1, size)]
    if not known.all():
        raise ValueError(f"labels {labels[~known].unique().tolist()} are not among {meaning}")
    return labels


def check_absent(absent: Iterable[int], num_classes: int) -> list[int]:
    """Ids of absent classes, from ids or a mask [C], at least one and all below ``num_classes``."""
    if columns := class_ids(absent, num_classes, "absent classes"):
        return list(columns)
    raise ValueError(f"the absent classes are empty: expected at least one of {num_classes}")


def check_gamma(gamma: float, absent: Iterable[int] | None = None) -> float:
    """γ, also as a tensor or array of one number, as a plain float.

    ValueError if it is NaN or no number, or if it was found for other absent classes than these.
    """
    own = getattr(gamma, "split", None)  # an `ftlib.calibration.Gamma` knows what it was found for
    if isinstance(own, ClassSplit) and absent is not None and own.absent != (wanted := class_ids(absent)):
        only = sorted(set(own.absent) ^ set(wanted))
        raise ValueError(f"this γ was found for another split, whose absent classes differ in {only}: find it anew")
    try:
        value = float(gamma.detach() if isinstance(gamma, Tensor) else gamma)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"γ is {gamma!r}, expected one number of logits") from None
    if math.isnan(value):
        raise ValueError("γ is NaN, expected a number of logits")
    return value
