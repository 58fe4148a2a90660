"""Recipe and fit: training from the first step to the last, and a pass over images afterwards.

Images are on the device throughout; `ftlib.batches` makes steps of them. The same seed on the same machine gives the
same bits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from ftlib.batches import centre_crops, placed, random_crops
from ftlib.core import ImageSet, Outputs
from ftlib.models import CosineHead, features_and_logits, head, parameter_groups

# Steps that pay for a compilation. A guess: it takes a minute, and makes a step of thirty milliseconds a fifth shorter.
PAYS = 10_000


@dataclass(frozen=True)
class Recipe:
    """How to train, in plain values. The defaults fine-tune a small network on glyphs."""

    epochs: int = 10
    steps: int | None = None  # in place of epochs: as many on a small target as on a large one; 0 trains nothing
    batch_size: int = 64  # images a step; the last, smaller batch of an epoch is dropped
    optimizer: str = "sgd"  # timm's name; its "sgd" is SGD with Nesterov momentum
    lr: float = 1e-2  # of the head, at the peak of the schedule
    backbone_lr: float = 0.1  # as a multiple of lr
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup: float = 0.0  # share of the steps over which the rate rises linearly, before the cosine takes it to 0
    finish: int = 0  # iterations of L-BFGS, at most, that take the head alone to convergence after the last step
    size: int | None = None  # height and width of the crop that is trained on; None: that of the images
    padding: int = 2  # pixels by which a crop may leave the image; the border is repeated there
    flip: bool = False  # mirror half of the images; wrong for characters
    loss: str = "softmax"  # cross-entropy over all logits; "sigmoid": a binary one for each class, summed over them
    label_smoothing: float = 0.0  # share of a label that is spread evenly over all classes
    batch_norm: str = "train"  # statistics of the batch, which also move the running ones; "eval": the latter, frozen
    compile: bool = False  # torch.compile, in trainings of at least PAYS steps
    evaluations: int = 5  # points of the history after the start, evenly spread; 0 keeps none

    def __post_init__(self) -> None:
        for field in fields(self):
            name, value, kind = field.name, getattr(self, field.name), field.type
            if kind == "float" and type(value) is int:
                object.__setattr__(self, name, float(value))
            elif type(value).__name__ not in kind.replace("None", "NoneType").split(" | "):
                raise TypeError(f"Recipe.{name} is {value!r} ({type(value).__name__}), expected {kind}")
            above = name in ("epochs", "batch_size", "lr")
            if kind in ("int", "float") and not (0 < value < math.inf or (value == 0 and not above)):
                raise ValueError(f"Recipe.{name} is {value}, expected {'above 0' if above else '0 or more'}")
        if self.steps is not None and self.steps < 0:
            raise ValueError(f"Recipe.steps is {self.steps}, expected 0 or more, or None for epochs")
        if self.momentum == 0 and self.optimizer in ("sgd", "nesterov"):
            raise ValueError("Recipe.momentum is 0, but timm's sgd is Nesterov's: expected more, or 'momentum'")
        for name, known in (("batch_norm", ("train", "eval")), ("loss", ("softmax", "sigmoid"))):
            if getattr(self, name) not in known:
                raise ValueError(f"Recipe.{name} is {getattr(self, name)!r}, expected {known[0]!r} or {known[1]!r}")
        if self.label_smoothing >= 1:
            raise ValueError(f"Recipe.label_smoothing is {self.label_smoothing}, expected a share below 1")
        if self.warmup >= 1 or (self.size is not None and self.size < 1):
            raise ValueError(f"Recipe.warmup is {self.warmup} (below 1), size {self.size} (1 or more, or None)")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Recipe:
        """A Recipe from some of its values, such as a profile's; a name that it does not know is a ValueError."""
        if not isinstance(values, Mapping):
            raise TypeError(f"the recipe is {values!r}, expected a mapping such as {{'lr': 0.1}}")
        names = [field.name for field in fields(cls)]
        if unknown := sorted(set(values) - set(names)):
            raise ValueError(f"a recipe has no {', '.join(unknown)}: it has {', '.join(names)}")
        return cls(**values)

    def steps_for(self, images: int) -> int:
        """How many steps a training on so many images takes."""
        return self.epochs * (images // min(self.batch_size, images)) if self.steps is None else self.steps


def loss_of(recipe: Recipe, logits: Tensor, labels: Tensor) -> Tensor:
    """The recipe's loss of logits [B, C], all of which take part, those of absent classes included."""
    if recipe.loss == "softmax":
        return F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
    on = F.one_hot(labels, logits.shape[1]).to(logits.dtype)
    on = on.lerp(torch.full_like(on, 1 / logits.shape[1]), recipe.label_smoothing)
    return F.binary_cross_entropy_with_logits(logits, on, reduction="sum") / len(logits)


class FitLog(NamedTuple):
    losses: Tensor  # float32 [steps], on the CPU
    seconds: float  # of all steps, without evaluations and what finishes the head
    images_per_second: float

    @classmethod
    def joined(cls, logs: Sequence[FitLog]) -> FitLog:
        """One log of trainings that followed one another."""
        seconds = sum(log.seconds for log in logs)
        images = sum(log.images_per_second * log.seconds for log in logs)
        return cls(torch.cat([log.losses for log in logs]), seconds, images / seconds if seconds else 0.0)


def fit(
    model: nn.Module,
    data: ImageSet,
    recipe: Recipe,
    *,
    seed: int,
    evaluate: Callable[[float], None] | None = None,
    loss: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
    after_step: Callable[[], None] | None = None,
    span: tuple[float, float] = (0.0, 1.0),
) -> FitLog:
    """Train a model in place, on the device that it is on: what of it requires a gradient.

    Parameters
    ----------
    data : ImageSet
        Moved to the model's device whole, if `placed` finds that they fit.
    evaluate : callable, optional
        Called with the epochs done, at the start and at ``recipe.evaluations`` later points (at every step if there
        are fewer), with the model in evaluation mode.
    loss : callable, optional
        Of logits [B, C], labels [B] and normalised images [B, 3, size, size]. Default: `loss_of` the recipe.
    after_step : callable, optional
        Called after each step, to undo what an optimizer must not do.
    span : pair of floats
        The part of the schedule that this call covers, for a training that is done in pieces.

    Raises
    ------
    ValueError
        No images; a label that is not a column of the head; a crop that does not fit the images; a head to be finished
        by another loss than the recipe's.
    FloatingPointError
        The loss, or a weight in the end, is not finite; the message gives step, learning rate and seed.
    """
    if recipe.finish and loss:
        why = "this method has a loss of its own, and the head is finished by the recipe's"
        raise ValueError(f"Recipe.finish is {recipe.finish}, but {why}: expected 0")
    device = next(model.parameters()).device
    check_labels(model, data)
    data = placed(data, device)
    batch_size = min(recipe.batch_size, len(data))
    epoch = len(data) // batch_size  # in steps
    steps = recipe.steps_for(len(data))
    stops = {round(steps * k / recipe.evaluations) for k in range(1, recipe.evaluations + 1)} if evaluate else set()
    losses = torch.zeros(steps, device=device)
    middles = ((step + 0.5) / steps for step in range(steps))  # of the steps: the first has a rate too
    rates = [_schedule(span[0] + (span[1] - span[0]) * middle, recipe.warmup) for middle in middles]
    seconds = 0.0

    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = make_optimizer(model, recipe)
    peaks = [group["lr"] for group in optimizer.param_groups]
    forward = torch.compile(model) if recipe.compile and steps >= PAYS else model
    bf16 = _in_bf16(device)

    with reproducible(seed):
        batches = islice(random_crops(model, data, batch_size, recipe.size, recipe.padding, recipe.flip, seed), steps)
        if stops:
            model.eval()
            evaluate(0.0)  # pyright: ignore[reportOptionalCall]
        _train_mode(model, recipe)
        start = time.perf_counter()
        bar = tqdm(batches, "training", steps, delay=5, mininterval=1, leave=False, unit="step")
        for step, (images, labels) in enumerate(bar):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * rates[step]
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                logits = forward(images)
                value = loss(logits, labels, images) if loss else loss_of(recipe, logits, labels)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            if after_step:
                after_step()
            losses[step] = value.detach()
            # A look at the loss waits for the device: it is taken a few times a run, and finds the step afterwards.
            if step + 1 == steps or step + 1 in stops or step % 512 == 0:
                _check_finite(losses[: step + 1], [recipe.lr * rate for rate in rates], seed)
                seconds += time.perf_counter() - start
                if step + 1 == steps:
                    _check_weights(model, recipe.lr * rates[step], step, seed)
                    if recipe.finish:
                        finish_head(model, data, recipe)
                if step + 1 in stops:
                    model.eval()
                    evaluate((step + 1) / epoch)  # pyright: ignore[reportOptionalCall]
                    _train_mode(model, recipe)
                start = time.perf_counter()
    model.eval()
    return FitLog(losses.cpu(), seconds, steps * batch_size / seconds if steps else 0.0)


@torch.no_grad()
def predict(model: nn.Module, data: ImageSet, size: int | None = None, batch_size: int = 256) -> Outputs:
    """Features and logits of the centre crops [size, size], in float32 and evaluation mode.

    Training mode, if the model was in it, is restored.
    """
    training = model.training
    model.eval()
    features, logits = features_and_logits(model, centre_crops(model, data, size, batch_size))
    model.train(training)
    return Outputs(features.float().cpu(), logits.float().cpu(), data.labels.cpu())


@torch.no_grad()
def reset_statistics(model: nn.Module, data: ImageSet, recipe: Recipe, *, seed: int) -> None:
    """Take every batch norm's running mean and variance anew, from centre crops of the images; no weight changes.

    The plain average over batches in random order, of ``recipe.batch_size`` images or a few more.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    model.eval()
    if not norms:
        return
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for a plain average
        norm.train()
    for index in order.chunk(max(1, len(data) // recipe.batch_size)):
        model(next(centre_crops(model, ImageSet(data.images[index], data.labels[index]), recipe.size, len(index))))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


def finish_head(model: nn.Module, data: ImageSet, recipe: Recipe) -> None:
    """Take the head alone to convergence on the features of the centre crops: logistic regression, by L-BFGS.

    What it minimises is the recipe's loss over all logits plus its weight decay, weight_decay/2 · ‖w‖², in at most
    ``recipe.finish`` iterations. Of the head moves what requires a gradient. A cosine head's rows are not decayed,
    since their length is nothing to its logits: they would shrink without an end.
    """
    classifier = head(model)
    parameters = [p for p in classifier.parameters() if p.requires_grad]
    if not parameters:
        return
    decayed = [classifier.scale] if isinstance(classifier, CosineHead) else parameters
    outputs = predict(model, data, recipe.size)
    features, labels = (part.to(parameters[0].device) for part in (outputs.features, outputs.labels))
    optimizer = torch.optim.LBFGS(parameters, max_iter=recipe.finish, history_size=20, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        optimizer.zero_grad()
        decay = sum((p.square().sum() for p in decayed), torch.zeros((), device=features.device))
        value = loss_of(recipe, classifier(features), labels) + recipe.weight_decay / 2 * decay
        value.backward()
        return value

    optimizer.step(objective)


def check_labels(model: nn.Module, data: ImageSet) -> None:
    """Raise ValueError if there are no images, or labels that are not columns of the model's head."""
    if len(data) == 0:
        raise ValueError("no images to train on: expected at least one")
    low, high = int(data.labels.min()), int(data.labels.max())
    if low < 0 or high >= model.num_classes:  # pyright: ignore[reportOperatorIssue]
        raise ValueError(f"labels run from {low} to {high}, but the head has columns 0 to {model.num_classes - 1}")  # pyright: ignore[reportOperatorIssue]


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """timm's optimizer of that name, fused into one kernel where torch has one, the backbone at its lower rate."""
    from timm.optim import create_optimizer_v2  # pyright: ignore[reportPrivateImportUsage]  timm loads for seconds

    how: dict[str, Any] = {"fused": True} if recipe.optimizer in ("sgd", "momentum", "adam", "adamw") else {}
    how |= {"lr": recipe.lr, "momentum": recipe.momentum, "weight_decay": recipe.weight_decay}
    how["param_group_fn"] = lambda m: parameter_groups(m, recipe.lr, recipe.backbone_lr)
    return create_optimizer_v2(model, opt=recipe.optimizer, **how)


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Seed torch and ask for deterministic kernels; random state and settings are as before afterwards."""
    mode, benchmark = torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark
    fill = torch.utils.deterministic.fill_uninitialized_memory  # pyright: ignore[reportAttributeAccessIssue]
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(True, warn_only=True)
        # By default every new tensor is then filled with NaN first, which costs a tenth of the time on a CPU.
        torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
        torch.backends.cudnn.benchmark = False
        try:
            yield
        finally:
            torch.set_deterministic_debug_mode(mode)
            torch.utils.deterministic.fill_uninitialized_memory = fill  # pyright: ignore[reportAttributeAccessIssue]
            torch.backends.cudnn.benchmark = benchmark


def _in_bf16(device: torch.device) -> bool:
    """Whether a training multiplies in bf16: on GPUs that can. Weights, loss and predictions stay in float32."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def _train_mode(model: nn.Module, recipe: Recipe) -> None:
    model.train()
    if recipe.batch_norm == "eval":
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def _schedule(progress: float, warmup: float) -> float:
    """Multiple of the peak rate after a share ``progress`` of the steps: linear rise, then half a cosine."""
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def _check_finite(losses: Tensor, lrs: list[float], seed: int) -> None:
    if len(bad := (~torch.isfinite(losses)).nonzero()):
        step = int(bad[0])
        raise _diverged(f"the loss is {float(losses[step])} at step {step}", lrs[step], seed)


def _check_weights(model: nn.Module, lr: float, step: int, seed: int) -> None:
    """The loss of a step does not tell what the step itself has made of the weights, and after the last nobody asks."""
    if not torch.stack([p.detach().isfinite().all() for p in model.parameters()]).all():
        raise _diverged(f"weights are not finite after the last step, {step}", lr, seed)


def _diverged(what: str, lr: float, seed: int) -> FloatingPointError:
    return FloatingPointError(f"{what} (lr {lr:.3g}, seed {seed}): lower the learning rate or check the images")
