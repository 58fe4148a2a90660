"""CLIP as a classifier: cosines of images and class names, from a file's embeddings or from open_clip's."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file

from ftlib import clip, models, training
from ftlib.benchmarks import load_target
from ftlib.experiments import Experiment, Recipe, grid, run
from ftlib.store import Store

spec = importlib.util.spec_from_file_location("zero_shot", Path(__file__).parent.parent / "book/zero_shot.py")
zero_shot = importlib.util.module_from_spec(spec)
spec.loader.exec_module(zero_shot)

SMALL = {"img_size": 32, "embed_dim": 32, "depth": 1, "num_heads": 2}  # options of the tower
WIDTH = 16  # of the embeddings


@pytest.fixture
def tower() -> dict[str, torch.Tensor]:
    """Timm's tower as it publishes CLIP's: the projection is its head."""
    torch.manual_seed(0)
    return timm.create_model(clip.TOWER, num_classes=WIDTH, **SMALL).state_dict()


@pytest.fixture
def names() -> torch.Tensor:
    return torch.randn(10, WIDTH, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def data(tmp_path, monkeypatch, tower, names) -> Path:
    """A miniature EuroSAT with two images of each class to train on and two to test on."""
    monkeypatch.setenv("FTLIB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("FTLIB_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "data/vtab-1k/eurosat"
    for number, side in enumerate(("train800val200", "test")):
        (root / "images" / side).mkdir(parents=True)
        rows = [(f"images/{side}/{i:06}.png", i // 2) for i in range(20)]
        for i, (path, _) in enumerate(rows):
            Image.new("RGB", (32, 32), (12 * i, 99, 100 * number)).save(root / path)
        (root / f"{side}.txt").write_text("\n".join(f"{path} {label}" for path, label in rows))
    save_file({"a": names}, root.parent / "head.safetensors")
    save_file({k: v.contiguous() for k, v in tower.items()}, root.parent / "tower.safetensors")
    return tmp_path / "data"


def built(tower, names):
    model = models.build("clip_vit_base_patch32", len(names), options=SMALL | {"embedding": WIDTH})
    model.load_state_dict(clip.weights(tower, names))
    return model.eval()


def test_logits_are_a_hundred_cosines_of_image_and_name(tower, names):
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    image = timm.create_model(clip.TOWER, num_classes=WIDTH, **SMALL).eval()
    image.load_state_dict(tower)
    with torch.no_grad():
        cosines = F.normalize(image(images), dim=-1) @ F.normalize(names, dim=-1).T
        assert torch.allclose(built(tower, names)(images), 100 * cosines, atol=1e-4)


def test_the_head_is_linear_on_the_embeddings(tower, names):
    model = built(tower, names)
    features, logits = models.features_and_logits(model, torch.randn(3, 3, 32, 32))
    assert features.shape == (3, WIDTH) and torch.allclose(features.norm(dim=1), torch.tensor(clip.LENGTH))
    assert torch.allclose(models.head(model)(features), logits)


def test_clip_s_own_mean_and_deviation_are_taken(tower, names):
    assert built(tower, names).pretrained_cfg["mean"][0] == pytest.approx(0.4815, abs=1e-4)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda t, n: (t, n[:, 1:]), ("[10, 15]", "[classes, 16]")),
        (lambda t, n: ({k: v for k, v in t.items() if k != "head.weight"}, n), ("projection", clip.TOWER)),
        (lambda t, n: (t, n * 0), ("0, NaN",)),
    ],
)
def test_weights_that_do_not_fit_are_refused(tower, names, spoil, words):
    with pytest.raises(ValueError) as caught:
        clip.weights(*spoil(tower, names))
    assert all(word in str(caught.value) for word in words)


# --- the two roads to a head ------------------------------------------------------------------------------------------


class OpenClip(SimpleNamespace):
    """In place of open_clip: a sentence's embedding is its length and its first letter."""

    @staticmethod
    def create_model(name, pretrained):
        assert (name, pretrained) == ("ViT-B-32-quickgelu", "openai")
        made = torch.nn.Identity()
        made.encode_text = lambda sentences: torch.tensor([[len(s), ord(s[0]), 1.0] for s in sentences])
        return made

    @staticmethod
    def get_tokenizer(name):
        return list


def test_a_name_is_the_mean_direction_of_its_sentences(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", OpenClip())
    found = clip.embed(["cat", "horse"], ["a {}", "the {c}."])
    vectors = F.normalize(torch.tensor([[5.0, 97, 1], [8.0, 116, 1]]), dim=1)
    assert torch.allclose(found[0], F.normalize(vectors.mean(0), dim=0)) and found.shape == (2, 3)


def test_without_open_clip_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ImportError, match="pip install open_clip_torch"):
        clip.embed(["cat"], ["a {}"])
    with pytest.raises(ValueError, match=r"'a cat' has no \{\}"):
        clip.embed(["cat"], ["a cat"])


def test_a_head_file_makes_a_checkpoint_that_a_run_starts_from(data, tower, names, tmp_path):
    asked = ["eurosat", "--head", "vtab-1k/head.safetensors", "--tower", "vtab-1k/tower.safetensors"]
    assert zero_shot.main(asked) == 0
    plan = grid(
        ["vtab/eurosat"],
        [0],
        "pretrained",
        pretraining={"steps": 0},
        backbone="clip_vit_base_patch32",
        model=SMALL | {"embedding": WIDTH},
        checkpoint="clip/{benchmark}.safetensors",
        data={"size": 32, "subset": True},
    )
    assert plan["eurosat", 0].checkpoint == "clip/eurosat.safetensors"
    before = run(plan["eurosat", 0], store=Store(tmp_path / "store"))
    target, _ = load_target("vtab/eurosat", size=32, subset=True)
    assert torch.equal(before.test.logits, training.predict(built(tower, names), target.test).logits)
    home = run(plan["eurosat", 0].source, store=Store(tmp_path / "store"))
    assert torch.equal(home.build().head.bias, torch.zeros(10))


def test_open_clip_makes_one_for_every_set_that_is_there(data, monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", OpenClip())
    monkeypatch.setattr(zero_shot, "read_tower", lambda file: {"head.weight": torch.ones(3, 4)})
    root = data / "vtab-1k/eurosat"
    (root / "classnames.txt").write_text("\n".join(f"kind {'x' * i}" for i in range(10)))
    (root / "zeroshot_classification_templates.txt").write_text("a photo of {c}.\n")
    assert zero_shot.main([]) == 0
    head = load_file(data / "clip/eurosat.safetensors")["head.weight"]
    assert head.shape == (10, 3) and torch.allclose(head.norm(dim=1), torch.tensor(clip.LENGTH))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["eurosat"], ("classnames.txt", "zeroshot_classification_templates.txt", "wds_vtab-eurosat", "--head")),
        (["dtd"], ("vtab-1k/dtd", "OSU-MLB/MLB-VTAB")),
        (["eurosat", "--head", "gone.safetensors"], ("gone.safetensors", "FTLIB_DATA")),
        (["eurosat", "--head", "vtab-1k/tower.safetensors"], ("tensors of two dimensions", "[classes, width]")),
        (["eurosat", "dtd", "--head", "vtab-1k/head.safetensors"], ("2 sets", "one alone")),
    ],
)
def test_what_is_missing_is_said(data, capsys, asked, words):
    assert zero_shot.main(asked) == 1
    told = capsys.readouterr().err
    assert all(word in told for word in words), told
    assert not (data / "clip").exists()


def test_without_the_hub_it_is_said_which_file_to_bring(monkeypatch):
    def none(*_, **__):
        raise OSError("no route")

    monkeypatch.setattr(zero_shot.timm, "create_model", none)
    with pytest.raises(RuntimeError, match=r"model.safetensors of timm/.*--tower"):
        zero_shot.read_tower(None)


def test_the_architecture_has_no_weights_to_fetch():
    with pytest.raises(RuntimeError, match="could not be fetched"):
        models.build("clip_vit_base_patch32", 3, pretrained=True)


def test_a_set_of_vtab_takes_no_pre_training_of_ours():
    with pytest.raises(ValueError, match="steps=0"):
        Experiment("vtab/eurosat", pretraining=Recipe(steps=3))
