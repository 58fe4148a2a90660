"""CLIP (Radford et al., ICML 2021) as a classifier: an image tower of timm's, whose head are embeddings of class names.

``clip_vit_base_patch32`` is an architecture like timm's own, known as soon as this module is imported. `weights` makes
its checkpoint for one list of classes, from the tower's published weights and the embeddings, which open_clip computes
(the extra ``clip``) or a file holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from timm.models import register_model  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor, nn

TOWER = "vit_base_patch32_clip_quickgelu_224"  # OpenAI's weights were trained with this activation
LENGTH = 10.0  # of an image's embedding and of each row of the head: the logits are 100 cosines, CLIP's own scale
MODEL = "ViT-B-32-quickgelu"  # open_clip's name of the tower whose text side embeds


@register_model
def clip_vit_base_patch32(pretrained: bool = False, num_classes: int = 1000, embedding: int = 512, **options: Any):
    """The image tower, its projection [embedding, D] and the embeddings of the classes as a linear head.

    Options go to timm's `TOWER`. There are no weights to fetch for given classes: `weights` makes them.
    """
    if pretrained:
        raise ValueError("clip_vit_base_patch32 has no head of its own: make a checkpoint with book/zero_shot.py")
    given = {name: value for name, value in options.items() if value is not None}
    model: Any = timm.create_model(TOWER, num_classes=num_classes, **given)
    model.fc_norm = nn.Sequential(nn.Linear(model.num_features, embedding, bias=False), Scaled())
    model.head = nn.Linear(embedding, num_classes)
    return model


class Scaled(nn.Module):
    """Vectors [..., D] brought to one length."""

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1) * LENGTH


def weights(tower: Mapping[str, Tensor], embeddings: Tensor) -> dict[str, Tensor]:
    """A state of ``clip_vit_base_patch32`` from timm's tower, whose head is the projection, and the classes' [C, D].

    Raises
    ------
    ValueError
        The tower has no projection; embeddings of another width than it has, or one of length 0.
    """
    state = {name: tensor.float() for name, tensor in tower.items() if name not in ("head.weight", "head.bias")}
    if (projection := tower.get("head.weight")) is None:
        raise ValueError(f"the tower has no head.weight, the projection to embeddings: take timm's {TOWER}.openai")
    if embeddings.ndim != 2 or embeddings.shape[1] != len(projection):
        raise ValueError(f"embeddings {list(embeddings.shape)}: expected [classes, {len(projection)}] for this tower")
    if not (embeddings.isfinite().all() and embeddings.norm(dim=1).min() > 0):
        raise ValueError("an embedding is 0, NaN or infinite: expected one direction for each class")
    head = F.normalize(embeddings.float(), dim=1) * LENGTH
    return state | {"fc_norm.0.weight": projection.float(), "head.weight": head, "head.bias": torch.zeros(len(head))}


def read_head(path: Path) -> Tensor:
    """The embeddings [C, D] in a .safetensors file, under any name; a ValueError if there is not one such tensor."""
    found = [tensor for tensor in load_file(path).values() if tensor.ndim == 2]
    if len(found) != 1:
        raise ValueError(f"{path} holds {len(found)} tensors of two dimensions: expected one, [classes, width]")
    return found[0]


def embed(names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Embeddings [C, D] of class names by open_clip, each the mean direction of its sentences.

    A template is a sentence with ``{}`` or ``{c}`` in place of the name, such as "a photo of a {c}.".

    Raises
    ------
    ImportError
        open_clip is not installed.
    ValueError
        A template has no place for the name.
    """
    if odd := [own for own in templates if "{}" not in own and "{c}" not in own]:
        raise ValueError(f"template {odd[0]!r} has no {{}} or {{c}}, in place of the name")
    try:
        import open_clip  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ImportError("embeddings of names take open_clip: pip install open_clip_torch, or ftlib[clip]") from None
    text: Any = open_clip.create_model(MODEL, pretrained="openai").eval()
    tokenizer = open_clip.get_tokenizer(MODEL)
    rows = []
    with torch.no_grad():
        for name in names:
            sentences = [own.replace("{c}", name).replace("{}", name) for own in templates]
            rows.append(F.normalize(text.encode_text(tokenizer(sentences)).float(), dim=-1).mean(0))
    return F.normalize(torch.stack(rows), dim=-1)
