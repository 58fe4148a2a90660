"""A model of one's own: folders of images and checkpoints in, features, logits and a calibrated checkpoint out."""

from __future__ import annotations

import importlib
import inspect
import json
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ftlib import checkpoints, models
from ftlib.calibration import Gamma
from ftlib.core import head_layers
from ftlib.heads import read_by
from ftlib.store import write_atomic

if TYPE_CHECKING:
    from torchvision.datasets import ImageFolder

NOTE = "ftlib"  # the name of γ and split in a checkpoint's metadata


def collect(
    model: nn.Module, batches: Iterable[Any] | str | Path, device: torch.device | str | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Features [N, D], logits [N, C] and labels [N] of a loader's batches, on the CPU; no graph, no image is kept.

    Parameters
    ----------
    model : Module
        In evaluation mode. It answers with logits or, as those of transformers do, with an object that has ``.logits``.
    batches : iterable or folder
        Of images [B, 3, H, W], of (images, labels), or of mappings with ``pixel_values`` and maybe ``labels``. A folder
        with one folder a class, numbered in alphabetical order, is read as timm prepares images for the model.
    device : optional
        The model is moved there; it stays where it is if not given.

    Raises
    ------
    ValueError
        A model in training mode, no batch, and what `ftlib.models.features_and_logits` refuses.

    Warns
    -----
    UserWarning
        The first images look as if they had not been normalised.
    """
    if model.training:
        raise ValueError("the model is in training mode: call model.eval() first")
    model = model if device is None else model.to(device)
    if isinstance(batches, str | Path):
        batches = DataLoader(image_folder(Path(batches), model), batch_size=32)
    parts = []
    for batch in batches:
        if isinstance(batch, Mapping):
            batch = batch["pixel_values"], *([batch["labels"]] if "labels" in batch else [])
        images, *labels = [batch] if isinstance(batch, Tensor) else batch
        if not parts:
            _check_normalised(images, model)
        features, logits = models.features_and_logits(model, images, max(1, len(images)))
        parts.append([features.detach().cpu(), logits.detach().cpu(), *(torch.as_tensor(y).cpu() for y in labels[:1])])
    if not parts:
        raise ValueError("no batch of images came: nothing to collect")
    features, logits, *labels = (torch.cat(column) for column in zip(*parts, strict=True))
    return features, logits, labels[0] if labels else None


def _check_normalised(images: Tensor, model: nn.Module) -> None:
    low, high, config = float(images.min()), float(images.max()), getattr(model, "pretrained_cfg", {})
    if low >= 0 and (high > 20 or (high <= 1 and any(config.get("mean", ())))):
        asked = f", by mean {config['mean']} and std {config['std']} of images in [0, 1]" if "mean" in config else ""
        text = f"the first images run from {low:g} to {high:g}: normalise them as in training{asked}"
        warnings.warn(text, stacklevel=3)


# --- checkpoints ------------------------------------------------------------------------------------------------------


class Checkpoints:
    """A model by name, and the checkpoints from before and after fine-tuning, all that is wrong with them said at once.

    Parameters
    ----------
    name : str
        Of a timm model, ``torchvision:NAME``, or ``package.module:function`` that makes the model.
    """

    def __init__(self, name: str, before: Path, after: Path, options: Mapping[str, Any], writes: bool = True) -> None:
        if missing := [path for path in (before, after) if not path.is_file()]:
            raise FileNotFoundError(f"no file {missing[0]}: expected a .safetensors or .pth checkpoint")
        make, self.after, state = _maker(name, options), after, checkpoints.read(after)
        if folded := note(after):
            by = f"γ={folded['gamma']:.3g}"
            raise ValueError(f"{after} has been calibrated already, by {by}: take the one from before")
        model = make(2)
        places = [models.name_of(model, layer) for layer in head_layers(model)]
        raw = checkpoints.renamed({key: key for key in state}, model.state_dict())  # type: ignore[arg-type]
        for key in (f"{place}.weight" for place in places):
            if key not in raw:
                raise ValueError(f"{after} has no {key}, the head of {name}: another architecture, or no head")
        without = [bias for place in places if (bias := f"{place}.bias") not in raw]
        if writes and without:
            why = "γ goes into a bias, a new one would not load elsewhere; leave out --output, and add γ to the logits"
            raise ValueError(f"{after} has no {without[0]}: {why}")
        parts = [f"{place}.{part}" for place in places for part in ("weight", "bias")]
        self.keys = {} if without else {name: str(raw[name]) for name in parts}
        self.classes = len(state[str(raw[f"{places[0]}.weight"])])
        self.model, self.old = make(self.classes).eval(), make(self.classes).eval()
        for model, path in ((self.model, after), (self.old, before)):
            models.load(model, str(path.absolute()), whole=True)

    def write(self, path: Path, gamma: Gamma, head: str = "new", level: Any = 0.0, **more: Any) -> None:
        """The checkpoint with γ in its bias as .safetensors: same keys, and γ with its split in the metadata.

        With another ``head`` of `ftlib.heads.read_by` than the new one its rows are that head's; those of
        "levelled" get their biases less their ``level`` [C]. A bias of half precision becomes float32, which does not
        round γ; loaders convert it as they do all.
        """
        rows = "restored" if head == "levelled" else head
        whole = checkpoints.read(self.after)
        state = {key: value.clone(memory_format=torch.contiguous_format) for key, value in whole.items()}
        for name, key in self.keys.items() if head != "new" else ():
            new, old = (model.get_parameter(name).detach().cpu().movedim(0, -1) for model in (self.model, self.old))
            state[key] = read_by(rows, new, gamma.split, old)[0].movedim(-1, 0).to(state[key].dtype).contiguous()
        for key in (key for name, key in self.keys.items() if name.endswith(".bias")):
            state[key] = state[key].to(torch.promote_types(state[key].dtype, torch.float32))
            state[key] = state[key] - torch.as_tensor(level, dtype=state[key].dtype)
            state[key][list(gamma.split.absent)] += float(gamma)
        own = {"gamma": float(gamma), "head": head, "seen": gamma.split.seen, "absent": gamma.split.absent, **more}
        write_atomic(path, save(state, {"format": "pt", **_metadata(self.after), NOTE: json.dumps(own)}))


def note(path: Path) -> dict[str, Any]:
    """What `Checkpoints.write` noted beside the weights; nothing in any other file."""
    return json.loads(_metadata(path).get(NOTE, "{}"))


def _metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except Exception:  # another format has none
        return {}


def _maker(name: str, options: Mapping[str, Any]) -> Callable[[int], nn.Module]:
    """What makes the model of so many classes."""
    module, colon, own = name.partition(":")
    if not colon:
        return lambda classes: models.build(name, classes, options=options)
    sys.path.insert(0, "")  # as `python -m` has it
    try:
        make = getattr(importlib.import_module("torchvision.models" if module == "torchvision" else module), own)
        has = inspect.signature(make).parameters.values()
    except Exception as error:  # whatever the module does when it is imported
        expected = "expected a timm name, torchvision:NAME or module:function"
        raise ValueError(f"--model {name}: {error}; {expected}") from error
    takes = any(p.name == "num_classes" or p.kind is p.VAR_KEYWORD for p in has)

    def made(classes: int) -> nn.Module:
        try:
            model = make(**({"num_classes": classes} if takes else {}), **options)
        except Exception as error:
            raise ValueError(f"--model {name} with --options {options} fails: {error}") from error
        if not isinstance(model, nn.Module):
            raise ValueError(f"--model {name} gives a {type(model).__name__}: expected a torch Module")
        return model

    return made


# --- images -----------------------------------------------------------------------------------------------------------


def image_folder(root: Path, model: nn.Module) -> ImageFolder:
    """Images of a folder a class, in alphabetical order, as timm prepares them for the model."""
    from timm.data.config import resolve_model_data_config
    from timm.data.transforms_factory import create_transform
    from torchvision.datasets import ImageFolder
    from torchvision.datasets.folder import default_loader

    def loader(path: str) -> Any:
        try:
            return default_loader(path)
        except Exception as error:  # whatever Pillow makes of a damaged image
            raise ValueError(f"{path} is no readable image: {error}") from error

    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}")
    if not any(entry.is_dir() for entry in root.iterdir()):
        raise ValueError(f"{root} has no folder in it: expected a folder a class, with images of that class")
    transform: Any = create_transform(**resolve_model_data_config(model), is_training=False)
    return ImageFolder(root, transform, loader=loader, allow_empty=True)
