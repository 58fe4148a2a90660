"""A Run: what an experiment left in the store, each part read from its folder when it is asked for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from ftlib import models
from ftlib.core import ClassSplit, Outputs


@dataclass(frozen=True)
class Run:
    """What lies in one folder of a store; it can be read whatever has become of the code that wrote it."""

    path: Path

    @property
    def key(self) -> str:
        return self.path.name

    @cached_property
    def spec(self) -> dict[str, Any]:
        """The experiment in plain values: benchmark, backbone, method, recipe, seed and the rest of what was asked."""
        return json.loads(self._file("spec.json").read_text(encoding="utf-8"))

    @cached_property
    def log(self) -> dict[str, Any]:
        """device, threads, versions, seconds, images_per_second, content (digests of images and a checkpoint)."""
        return json.loads(self._file("log.json").read_text(encoding="utf-8"))

    @cached_property
    def split(self) -> ClassSplit:
        """The classes that training saw and those it did not; for a fold of PCV the pseudo-seen and pseudo-absent."""
        sides = self._needed("split")
        return ClassSplit(sides["seen"].tolist(), sides["absent"].tolist())

    @cached_property
    def test(self) -> Outputs:
        """On the target's test images, all classes."""
        return Outputs(**self._needed("test"))

    @cached_property
    def train(self) -> Outputs:
        """On the target's training images, all classes: for diagnostics such as NCM. A method takes `seen_train`."""
        return Outputs(**self._needed("train"))

    @cached_property
    def seen_train(self) -> Outputs:
        """On the images that fine-tuning saw, which is all that a deployable method may look at."""
        return Outputs(*(part[self.seen_images] for part in self.train))

    @cached_property
    def seen_images(self) -> Tensor:
        """bool [N], which of the target's training images fine-tuning saw: those of S, less what was held out."""
        seen = torch.isin(self.train.labels, torch.tensor(self.split.seen))
        seen[self._held_out] = False
        return seen

    @cached_property
    def held_out(self) -> Outputs:
        """On images of S that were held out of training: none, unless the experiment's options ask for some."""
        return Outputs(*(part[self._held_out] for part in self.train))

    @cached_property
    def before(self) -> Outputs:
        """A fold of PCV: the pre-trained model on the images that were held out of it."""
        return Outputs(**self._needed("before"))

    @cached_property
    def history(self) -> dict[str, Tensor]:
        """epoch [E], test logits [E, N, C], head weight [E, C, D] and bias [E, C], and loss [steps]."""
        return self._group("history")

    @property
    def state(self) -> dict[str, Tensor]:
        """The trained weights: a plain state dict of the timm model."""
        return self._group("model")

    def old_head(self, features: Tensor) -> Tensor:
        """Logits [N, C] that the head, as it was before fine-tuning, gives to features [N, D] of any backbone.

        ValueError for a cosine head, or a run that kept no history: take `ftlib.models.head` of the source's model.
        """
        if self.spec["head"] != "linear" or "weight" not in self.history:
            own = f"{self.spec['method']!r} with a {self.spec['head']} head"
            why = "has no linear head of before in its history: use models.head(run(experiment.source).build())"
            raise ValueError(f"{own} {why}")
        logits = features @ self.history["weight"][0].T
        return logits + self.history["bias"][0] if "bias" in self.history else logits

    def build(self) -> nn.Module:
        """The trained classifier, on the CPU, in evaluation mode."""
        spec, state = self.spec, self.state
        if not state:
            raise ValueError(f"a run of {spec['method']!r} keeps no weights: build that of experiment.source")
        model = models.build(spec["backbone"], self.test.logits.shape[1], head=spec["head"], options=spec["model"])
        model.load_state_dict(state)
        return model.eval()

    def head(self) -> nn.Module:
        """The trained classifier's head, features [N, D] to logits [N, C], on the CPU.

        One that is linear is read from the weights alone, since a backbone takes seconds to build: it is the layer that
        gives the run's own test logits.
        """
        state, test = self.state, self.test
        features, classes = test.features.shape[1], test.logits.shape[1]
        for name, weight in ((name, of.flatten(1)) for name, of in state.items() if of.ndim > 1):
            if weight.shape != (classes, features):
                continue
            bias = state.get(f"{name.removesuffix('weight')}bias")
            layer = nn.Linear(features, classes, bias=bias is not None)
            layer.load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}))
            with torch.no_grad():
                if (layer(test.features) - test.logits).norm() < 0.01 * test.logits.norm():
                    return layer.eval()
        return models.head(self.build())

    @cached_property
    def _held_out(self) -> Tensor:
        return self._group("split").get("held_out", torch.empty(0, dtype=torch.int64))

    def _needed(self, prefix: str) -> dict[str, Tensor]:
        """ValueError if this is a run of a method that keeps no such arrays."""
        if not (found := self._group(prefix)):
            has = ", ".join(sorted({name.partition("/")[0] for name in self._group("")})) or "no arrays"
            raise ValueError(f"a run of {self.spec['method']!r} keeps no {prefix!r}: it has {has}")
        return found

    def _file(self, name: str) -> Path:
        if not (path := Path(self.path, name)).exists():
            raise FileNotFoundError(f"no run in {self.path}: expected a folder of a store, which holds {name}")
        return path

    def _group(self, prefix: str) -> dict[str, Tensor]:
        prefix = prefix and f"{prefix}/"
        with safe_open(self._file("arrays.safetensors"), "pt") as file:
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
            return {name.removeprefix(prefix): file.get_tensor(name) for name in names}
