"""A timm classifier as this book sees it: a backbone that gives features, and a head that gives logits.

Any architecture of timm goes through `build`. What the rest of ftlib asks of a model is asked here: its features
and logits, its head, its parameters in groups with the backbone at a lower rate, and how it wants its input scaled.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.models import load_state_dict
from torch import Tensor, nn


def build(
    backbone: str,
    num_classes: int,
    *,
    head: str = "linear",
    options: Mapping[str, Any] | None = None,
    checkpoint: str | Path = "",
    pretrained: bool = False,
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
        Weights to start from, if not empty: .safetensors or .pth (read with ``weights_only``). A relative path is
        looked for in ``$FTLIB_DATA`` and then in the working directory. Of its head is taken what fits this one.
    pretrained : bool
        Fetch timm's published weights from the hub instead.
    seed : int
        Of the initial weights. The global random state is left as it was.

    Raises
    ------
    ValueError
        Unknown backbone or head; a checkpoint whose backbone does not fit the architecture.
    FileNotFoundError
        No such checkpoint.
    RuntimeError
        The hub cannot be reached: the message says what to do instead.
    """
    if not timm.is_model(backbone):
        near = difflib.get_close_matches(backbone, timm.list_models(), n=3)
        raise ValueError(f"unknown backbone {backbone!r}: timm has no such model; near: {', '.join(near) or 'none'}")
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
            raise RuntimeError(
                f"the weights of {backbone!r} could not be fetched from the hub ({type(error).__name__}). Download its "
                "model.safetensors on a machine that can reach the hub, put it into $FTLIB_DATA and pass "
                "checkpoint='<file>' instead of pretrained=True"
            ) from error
        if head == "cosine":
            _replace_head(model, CosineHead)
    if checkpoint:
        _load(model, find_checkpoint(checkpoint))
    return model


class CosineHead(nn.Linear):
    """scale · cos(w_c, φ(x)): no class can win by the norm of its weights (Gidaris and Komodakis, CVPR 2018).

    The scale is learnt. There is no bias, until γ is folded into one.
    """

    def __init__(self, features: int, classes: int, scale: float = 10.0) -> None:
        super().__init__(features, classes, bias=False)
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, features: Tensor) -> Tensor:
        cosines = F.linear(F.normalize(features, dim=-1), F.normalize(self.weight, dim=-1))
        return self.scale * cosines if self.bias is None else self.scale * cosines + self.bias


HEADS = ("linear", "cosine")


def find_checkpoint(name: str | Path) -> Path:
    """Where a checkpoint lies: as named if absolute, else in $FTLIB_DATA, else in the working directory."""
    places = [Path(os.environ[key]) for key in ("FTLIB_DATA",) if key in os.environ] + [Path()]
    for path in (place.expanduser() / name for place in places):
        if path.is_file():
            return path
    looked = ", ".join(str(place.resolve()) for place in places)
    raise FileNotFoundError(f"no checkpoint {str(name)!r} in {looked}: set FTLIB_DATA to the folder that holds it")


def features_and_logits(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """What the head sees, [B, D], and what it answers, [B, C], for normalised images [B, 3, H, W]."""
    features = model.forward_head(model.forward_features(images), pre_logits=True)
    return features, head(model)(features)


def head(model: nn.Module) -> nn.Module:
    """The classifier, whose weight [C, D] has a row a class.

    Raises
    ------
    TypeError
        If the model ends in anything else than one linear layer.
    """
    classifier = model.get_classifier()
    if getattr(classifier, "weight", None) is None or classifier.weight.ndim != 2:
        raise TypeError(f"the head is {classifier}: expected one linear layer with a weight [C, D]")
    return classifier


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
    mean, std = (torch.tensor(model.pretrained_cfg[key], device=device).view(3, 1, 1) for key in ("mean", "std"))
    return 1 / (255 * std), -mean / std


def _replace_head(model: nn.Module, kind: type[CosineHead]) -> None:
    old = head(model)
    parent, _, own = _name(model, old).rpartition(".")
    setattr(model.get_submodule(parent), own, kind(old.in_features, old.out_features))


def _name(model: nn.Module, part: nn.Module) -> str:
    return next(name for name, module in model.named_modules() if module is part)


def _load(model: nn.Module, path: Path) -> None:
    """Copy the weights of a file into a model, of the head what fits; anything else amiss is an error."""
    try:
        state = load_state_dict(str(path), weights_only=True)
    except Exception as error:
        raise ValueError(f"{path} is not a readable .safetensors or .pth checkpoint of weights: {error}") from error
    own, place = model.state_dict(), _name(model, head(model)) + "."
    of_head = {k for k in own.keys() | state.keys() if k.startswith(place)}
    state = {k: v for k, v in state.items() if k not in of_head or (k in own and v.shape == own[k].shape)}
    # Weights from before 2019 do not count batches, and nothing here reads the count.
    counts = {k for k in own if k.endswith("num_batches_tracked")}
    missing = sorted(own.keys() - state.keys() - of_head - counts)
    unknown = sorted(state.keys() - own.keys())
    reshaped = sorted(k for k in own.keys() & state.keys() if own[k].shape != state[k].shape)
    for what, keys in (("lacks", missing), ("does not know", unknown), ("has other shapes for", reshaped)):
        if keys:
            subject = "the architecture" if what == "does not know" else path.name
            raise ValueError(f"{path.name} does not fit {type(model).__name__}: {subject} {what} {', '.join(keys[:5])}")
    model.load_state_dict({k: v.to(own[k].dtype) for k, v in state.items()}, strict=False)
