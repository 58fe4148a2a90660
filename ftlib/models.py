"""A classifier as this book sees it: a backbone that gives features, and a head that gives logits.

Which classifiers work is said here alone: those of timm whose last layer, linear or a 1×1 convolution, gives the
model's own logits, and those that average two such heads. That leaves out VOLO and EfficientViM, which add up more, and
encoders without a head: 26 of timm's 1,371. All but `build` and `normalisation` take any other torch classifier that
ends so, such as torchvision's. Features are what the last layer sees: an MLP in front of it belongs to the backbone.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftlib import checkpoints, core
from ftlib.core import head_layers, unwrapped

HEADS = ("linear", "cosine")
_tried: set[str] = set()  # what `build` has tried an image on


def build(
    backbone: str,
    num_classes: int,
    *,
    head: str = "linear",
    options: Mapping[str, Any] | None = None,
    checkpoint: str | Path = "",
    pretrained: bool = False,
    whole: bool = False,
    seed: int = 0,
) -> nn.Module:
    """A timm model with a fresh head of ``num_classes`` columns, on the CPU.

    Parameters
    ----------
    backbone : str
        Name of a timm architecture.
    head : "linear" or "cosine"
    options : mapping, optional
        Keywords for ``timm.create_model``, such as ``pad_type``, ``img_size`` or ``pretrained_cfg_overlay``, whose
        ``mean`` and ``std`` say how the weights want their input.
    checkpoint : path
        Weights to start from, if not empty: .safetensors or .pth (read with ``weights_only``), as training scripts
        save them. Names are timm's, behind a prefix such as ``module.`` or not; torchvision's are not translated. Of
        its head is taken what fits this one; a warning names the rest. A relative path is looked for in
        ``$FTLIB_DATA``, then in the working directory. "pip:efficientnet_lite0" are weights by pip, for the backbone
        ``tf_efficientnet_lite0``, and there is lite1.
    pretrained : bool
        Fetch timm's published weights from the hub instead.
    whole : bool
        Accept no fresh head: the checkpoint must have one for these classes.
    seed : int
        Of the initial weights. The global random state is left as it was.

    Raises
    ------
    ValueError
        Unknown backbone or head; a classifier that does not work here; a checkpoint that is none, holds NaN or
        infinity, or whose backbone does not fit the architecture.
    FileNotFoundError
        No such checkpoint.
    RuntimeError
        The hub cannot be reached: the message says what to do instead.
    """
    import timm  # takes seconds, and who only reads what was computed needs no model

    import ftlib.clip  # noqa: F401  adds its architecture to timm's

    if not (isinstance(backbone, str) and timm.is_model(backbone)):
        near = difflib.get_close_matches(str(backbone), timm.list_models(), n=3)
        raise ValueError(f"unknown backbone {backbone!r}: timm has no such model; near: {', '.join(near) or 'none'}")
    num_classes = core.whole("num_classes", num_classes, 1)
    if head not in HEADS:
        raise ValueError(f"unknown head {head!r}: expected one of {', '.join(HEADS)}")
    if pretrained and checkpoint:
        raise ValueError(f"both pretrained=True and checkpoint={str(checkpoint)!r}: choose where weights come from")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = timm.create_model(backbone, num_classes=num_classes, pretrained=pretrained, **(options or {}))
        except TypeError as error:
            raise ValueError(f"{backbone} does not take the options {dict(options or {})}: {error}") from error
        except Exception as error:
            if not pretrained:
                raise
            how = "put its model.safetensors into $FTLIB_DATA and pass checkpoint='<file>' instead of pretrained=True"
            why = f"could not be fetched from the hub ({type(error).__name__})"
            raise RuntimeError(f"the weights of {backbone!r} {why}: {how}") from error
        _try(model, backbone, options or {})
        for layer in head_layers(model) if head == "cosine" else ():
            model.set_submodule(name_of(model, layer), CosineHead(*reversed(layer.weight.shape[:2])))
    if checkpoint:
        load(model, str(checkpoint), whole)
    elif whole and not (pretrained and timm.get_pretrained_cfg_value(backbone, "num_classes") == num_classes):
        raise ValueError("no checkpoint with a head for these classes: name one that was trained on them, or train it")
    return model


class CosineHead(nn.Linear):
    """scale · cos(w_c, φ(x)): no class can win by the norm of its weights (Gidaris and Komodakis, CVPR 2018).

    The scale is learnt. There is no bias, until γ is folded into one.
    """

    def __init__(self, features: int, classes: int, scale: float = 10.0) -> None:
        super().__init__(features, classes, bias=False)
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, features: Tensor) -> Tensor:
        features = features.flatten(1) if features.ndim == 4 else features  # [B, D, 1, 1], in place of a convolution
        cosines = F.linear(F.normalize(features, dim=-1), F.normalize(self.weight, dim=-1))
        return self.scale * cosines if self.bias is None else self.scale * cosines + self.bias


class Head(nn.Module):
    """A 1×1 convolution, or two heads that are averaged, as one map of features [N, D] to logits [N, C].

    Two heads see two sets of features, which stand side by side in D. The parameters are the model's own.
    """

    def __init__(self, layers: Iterable[Any]) -> None:
        super().__init__()
        self.layers: Any = nn.ModuleList(layers)

    def forward(self, features: Tensor) -> Tensor:
        parts = features.split([layer.weight.shape[1] for layer in self.layers], dim=1)
        logits = [
            layer(part.unflatten(1, (-1, *layer.weight.shape[2:]))).flatten(1)  # [N, D], or [N, D, 1, 1] to convolve
            for layer, part in zip(self.layers, parts, strict=True)
        ]
        return torch.stack(logits).mean(0)

    @property
    def weight(self) -> Tensor:
        """[C, D]: the logits are features @ weight.T + bias, if the layers are linear."""
        return torch.cat([layer.weight.flatten(1) for layer in self.layers], dim=1) / len(self.layers)

    @property
    def bias(self) -> Tensor | None:
        """[C], or None."""
        biases = [layer.bias for layer in self.layers if layer.bias is not None]
        return torch.stack(biases).sum(0) / len(self.layers) if biases else None


def head(model: nn.Module) -> nn.Module:
    """The classifier, a map of features [N, D] to logits [N, C] whose ``weight`` [C, D] has a row a class.

    Raises
    ------
    TypeError
        There is no layer that could be one.
    """
    layers = head_layers(model)
    return layers[0] if len(layers) == 1 and layers[0].weight.ndim == 2 else Head(layers)


def features_and_logits(
    model: nn.Module, images: Tensor | Iterable[Tensor], batch_size: int = 32
) -> tuple[Tensor, Tensor]:
    """What the head sees, [N, D], and the model's own logits, [N, C], on its device and in the mode that it is in.

    Parameters
    ----------
    images : Tensor [N, 3, H, W], or iterable of such batches
        Normalised, on any device. No graph is kept of them, unless they require a gradient.
    batch_size : int
        Images that pass through the model at once.

    Raises
    ------
    TypeError, ValueError
        No head; images that are not floating; logits that are not `head` of the features: such a model is not a
        backbone with a linear head, and what is found for its head does not hold for its answers.
    """
    batches = images.split(batch_size) if isinstance(images, Tensor) else images
    features, logits = zip(*(_batch(unwrapped(model), batch) for batch in batches), strict=True)
    return torch.cat(features), torch.cat(logits)


def parameter_groups(model: nn.Module, lr: float, backbone_lr: float) -> list[dict[str, Any]]:
    """The head at rate ``lr`` and the backbone at ``backbone_lr`` times that, for a torch optimizer.

    What requires no gradient is in neither group, and a group of nothing is left out.
    """
    of_head = {id(p) for p in head(model).parameters()}
    groups = [
        {"params": [p for p in head(model).parameters() if p.requires_grad], "lr": lr},
        {"params": [p for p in model.parameters() if p.requires_grad and id(p) not in of_head], "lr": lr * backbone_lr},
    ]
    return [group for group in groups if group["params"]]


def normalisation(model: nn.Module, device: torch.device) -> tuple[Tensor, Tensor]:
    """(scale, shift), each [3, 1, 1], such that ``uint8 * scale + shift`` is the input the weights were made for."""
    config: Any = unwrapped(model).pretrained_cfg
    mean, std = (torch.tensor(config[key], device=device).view(3, 1, 1) for key in ("mean", "std"))
    return 1 / (255 * std), -mean / std


# --- features and the head --------------------------------------------------------------------------------------------


def _batch(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    if not images.is_floating_point():
        raise ValueError(f"images are {images.dtype}: expected floating ones, normalised as the model was trained on")
    layers, inputs = head_layers(model), {}
    hooks = [layer.register_forward_pre_hook(lambda of, given: inputs.update({of: given[0]})) for layer in layers]
    try:
        with torch.set_grad_enabled(torch.is_grad_enabled() and images.requires_grad):
            answer = model(images.to(next(model.parameters())))
    finally:
        for hook in hooks:
            hook.remove()
    name, logits = type(model).__name__, getattr(answer, "logits", answer)  # transformers' models answer with an object
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(inputs) < len(layers):
        raise ValueError(f"{name} does not answer with the logits [N, C] of its last linear layer")
    features = torch.cat([_pooled(inputs[layer], layer) for layer in layers], dim=1)
    with torch.no_grad():
        off = (head(model)(features) - logits).abs().max()
    if off > torch.finfo(logits.dtype).eps ** 0.5 * logits.abs().max():
        raise ValueError(f"the logits of {name} are not those of its last linear layer, but off by {off:.2g}")
    return features, logits


def _pooled(features: Tensor, layer: Any) -> Tensor:
    """[B, D]; a head may answer at every place of an image, if the mean of its answers is the model's."""
    last = layer.weight.ndim == 2 and features.shape[-1] == layer.weight.shape[1]
    return features.movedim(-1 if last else 1, 1).flatten(2).mean(2) if features.ndim > 2 else features


def _try(model: Any, backbone: str, options: Mapping[str, Any]) -> None:
    """ValueError unless head(features) are the model's logits for a random image; asked once a process."""
    if (kind := f"{backbone} {model.num_classes} {sorted(options.items())}") in _tried:
        return
    size = options.get("img_size") or model.pretrained_cfg["input_size"][-1]
    size = (size, size) if isinstance(size, int) else tuple(size)
    try:
        with torch.random.fork_rng(devices=[]):
            features_and_logits(model.eval(), torch.randn(1, 3, *size))
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{backbone} does not work here, tried on an image {[3, *size]}: {error}") from error
    model.train()
    _tried.add(kind)


def name_of(model: nn.Module, part: nn.Module) -> str:
    """Where a layer is in a model, such as "head.fc"."""
    return next(name for name, module in model.named_modules() if module is part)


# --- weights from elsewhere -------------------------------------------------------------------------------------------


def load(model: nn.Module, checkpoint: str, whole: bool = False) -> None:
    """Copy the weights of a file into a model, of the head what fits; anything else amiss is an error.

    With ``whole`` a head that is not in the file, or of other classes, is an error, too; else it starts fresh.
    """
    path, own = checkpoints.find(checkpoint), model.state_dict()
    state = checkpoints.renamed(checkpoints.read(path), own, in_order=checkpoint.startswith("pip:"))
    places = tuple(name_of(model, layer) + "." for layer in head_layers(model))
    of_head = {k for k in own.keys() | state.keys() if k.startswith(places)}
    state = {k: v for k, v in state.items() if k not in of_head or (k in own and v.shape == own[k].shape)}
    # Weights from before 2019 do not count batches, and nothing here reads the count.
    counts = {k for k in own if k.endswith("num_batches_tracked")}
    missing = sorted(own.keys() - state.keys() - of_head - counts)
    unknown = sorted(state.keys() - own.keys())
    reshaped = sorted(k for k in own.keys() & state.keys() if own[k].shape != state[k].shape)
    for what, keys in (("lacks", missing), ("does not know", unknown), ("has other shapes for", reshaped)):
        if keys:
            subject = "the architecture" if what == "does not know" else path.name
            names = f"{subject} {what} {', '.join(keys[:5])} (names must be timm's own, others are not translated)"
            raise ValueError(f"{path.name} does not fit {type(model).__name__}: {names}")
    state = {k: v.to(own[k].dtype) for k, v in state.items()}
    if damaged := [k for k, v in state.items() if not v.isfinite().all()]:
        raise ValueError(f"{path.name} holds NaN or infinity in {', '.join(damaged[:5])}: take weights that do not")
    if fresh := sorted((of_head & own.keys()) - state.keys()):
        says = f"{path.name} has no {', '.join(fresh)} of this head's shape"
        if whole:
            raise ValueError(f"{says}: what is not trained needs them, so name another checkpoint, or train it")
        warnings.warn(f"{says}: they start fresh", stacklevel=3)
    model.load_state_dict(state, strict=False)
