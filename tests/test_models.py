"""ftlib.models: any timm classifier, its weights, its groups of parameters and its input."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from ftlib import models
from ftlib.calibration import fold_gamma

FAMILIES = {
    "test_resnet": {},
    "test_byobnet": {},
    "test_vit": {"img_size": 32, "patch_size": 4},
    "test_convnext": {},
    "test_efficientnet": {},
}


def images(n: int = 3) -> torch.Tensor:
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def same(model: torch.nn.Module, other: torch.nn.Module) -> bool:
    own, others = model.state_dict(), other.state_dict()
    return own.keys() == others.keys() and all(torch.equal(own[k], others[k]) for k in own)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The folder in which checkpoints are looked for."""
    monkeypatch.setenv("FTLIB_DATA", str(tmp_path))
    return tmp_path


# ---------------------------------------------------------------------------------------- the model as it is built


@pytest.mark.parametrize("backbone", FAMILIES)
def test_features_and_logits_are_those_of_the_model(backbone):
    model = models.build(backbone, 7, options=FAMILIES[backbone]).eval()
    with torch.no_grad():
        features, logits = models.features_and_logits(model, images())
        expected = model(images())
    torch.testing.assert_close(logits, expected)
    assert logits.shape == (3, 7)
    head = models.head(model)
    torch.testing.assert_close(features @ head.weight.T + head.bias, logits)


def test_the_seed_determines_the_weights():
    first, again, other = (models.build("test_resnet", 5, seed=seed) for seed in (3, 3, 4))
    assert same(first, again)
    assert not torch.equal(models.head(first).weight, models.head(other).weight)


def test_building_leaves_the_random_state_alone():
    before = torch.random.get_rng_state()
    models.build("test_resnet", 5, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_options_reach_timm():
    model = models.build("test_resnet", 5, options={"pretrained_cfg_overlay": {"mean": (0.1, 0.2, 0.3)}})
    assert model.pretrained_cfg["mean"] == (0.1, 0.2, 0.3)


def test_an_unknown_backbone_is_told_its_neighbours():
    with pytest.raises(ValueError, match=r"unknown backbone 'test_resnett'.*near: .*\btest_resnet\b"):
        models.build("test_resnett", 5)


def test_an_unknown_option_is_named():
    with pytest.raises(ValueError, match=r"test_resnet does not take the options \{'colour': 3\}.*colour"):
        models.build("test_resnet", 5, options={"colour": 3})


def test_a_model_without_one_linear_head_is_refused():
    with pytest.raises(TypeError, match=r"Identity.*expected one linear layer"):
        models.head(models.build("test_resnet", 0))


# ---------------------------------------------------------------------------------------- the cosine head


def cosine(backbone: str = "test_resnet", num_classes: int = 7, **options) -> torch.nn.Module:
    return models.build(backbone, num_classes, head="cosine", options=FAMILIES[backbone], **options).eval()


@pytest.mark.parametrize("backbone", FAMILIES)
def test_the_logits_of_a_cosine_head_are_scaled_cosines(backbone):
    model = cosine(backbone)
    head = models.head(model)
    with torch.no_grad():
        head.scale.fill_(3.5)
        features, logits = models.features_and_logits(model, images())
        answers = model(images())
    expected = np.empty((3, 7))
    for i, x in enumerate(features.double().numpy()):
        for c, w in enumerate(head.weight.detach().double().numpy()):
            expected[i, c] = 3.5 * sum(x * w) / (sum(x * x) ** 0.5 * sum(w * w) ** 0.5)
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    np.testing.assert_allclose(answers, expected, atol=1e-5)


@pytest.mark.parametrize("backbone", FAMILIES)
def test_a_cosine_head_sits_on_the_backbone_of_the_linear_one(backbone):
    """A comparison of heads starts from the same backbone."""
    model, linear = cosine(backbone, seed=3), models.build(backbone, 7, options=FAMILIES[backbone], seed=3)
    of_head = {id(p) for m in (model, linear) for p in models.head(m).parameters()}
    own, others = ({n: p for n, p in m.named_parameters() if id(p) not in of_head} for m in (model, linear))
    assert own.keys() == others.keys()
    assert all(torch.equal(own[name], others[name]) for name in own)


def test_the_scale_of_a_cosine_head_is_learnt_and_starts_at_ten():
    head = models.head(cosine())
    assert {name: p.requires_grad for name, p in head.named_parameters()} == {"weight": True, "scale": True}
    assert head.scale == 10


def test_the_seed_determines_a_cosine_head():
    first, again, other = (cosine(seed=seed) for seed in (3, 3, 4))
    assert same(first, again)
    assert not torch.equal(models.head(first).weight, models.head(other).weight)


def test_building_a_cosine_head_leaves_the_random_state_alone():
    before = torch.random.get_rng_state()
    cosine()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_an_unknown_head_is_answered_with_those_that_exist():
    with pytest.raises(ValueError, match=r"unknown head 'cosin': expected one of linear, cosine"):
        models.build("test_resnet", 5, head="cosin")


@pytest.mark.parametrize("backbone", FAMILIES)
def test_gamma_folded_into_a_cosine_head_shifts_the_absent_logits(backbone):
    model = cosine(backbone)
    with torch.no_grad():
        before = model(images())
        after = fold_gamma(model, 2.5, [1, 4])(images())
    torch.testing.assert_close(after, before + 2.5 * torch.tensor([0, 1, 0, 0, 1, 0, 0]))


def test_a_cosine_checkpoint_is_loaded_whole(place):
    source = cosine(seed=1)
    with torch.no_grad():
        models.head(source).scale.fill_(7.0)
    save_file(source.state_dict(), place / "cosine.safetensors")
    assert same(cosine(checkpoint="cosine.safetensors", seed=2), source)


def test_a_cosine_head_of_another_size_is_left_out(place):
    save_file(cosine(num_classes=9, seed=1).state_dict(), place / "cosine.safetensors")
    loaded = cosine(num_classes=5, checkpoint="cosine.safetensors", seed=2)
    assert torch.equal(models.head(loaded).weight, models.head(cosine(num_classes=5, seed=2)).weight)
    assert torch.equal(loaded.bn1.weight, cosine(seed=1).bn1.weight)


@pytest.mark.parametrize("num_classes", [9, 5])
def test_a_cosine_head_starts_from_a_backbone_that_had_a_linear_one(place, num_classes):
    source = models.build("test_resnet", 9, seed=1)
    save_file(source.state_dict(), place / "linear.safetensors")
    loaded = cosine(num_classes=num_classes, checkpoint="linear.safetensors", seed=2)
    own, others = loaded.state_dict(), source.state_dict()
    assert all(torch.equal(own[name], others[name]) for name in others if not name.startswith("fc."))


# ---------------------------------------------------------------------------------------- weights from elsewhere


def test_a_safetensors_checkpoint_is_found_and_loaded(place):
    source = models.build("test_resnet", 5, seed=1)
    save_file(source.state_dict(), place / "weights.safetensors")
    assert same(models.build("test_resnet", 5, checkpoint="weights.safetensors", seed=2), source)


def test_a_pth_checkpoint_is_loaded_from_an_absolute_path(place):
    source = models.build("test_vit", 5, options=FAMILIES["test_vit"], seed=1)
    torch.save(source.state_dict(), place / "elsewhere.pth")
    loaded = models.build("test_vit", 5, options=FAMILIES["test_vit"], checkpoint=place / "elsewhere.pth", seed=2)
    assert same(loaded, source)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext"])
def test_a_head_of_another_size_is_left_out(place, backbone):
    source, fresh = models.build(backbone, 9, seed=1), models.build(backbone, 5, seed=2)
    save_file(source.state_dict(), place / "weights.safetensors")
    loaded = models.build(backbone, 5, checkpoint="weights.safetensors", seed=2)
    for name, value in loaded.state_dict().items():
        from_head = value.shape[:1] == (5,)
        assert torch.equal(value, (fresh if from_head else source).state_dict()[name]), name
    assert torch.equal(models.head(loaded).weight, models.head(fresh).weight)


def test_half_precision_weights_are_converted(place):
    source = models.build("test_resnet", 5, seed=1)
    save_file(
        {k: v.half() if v.is_floating_point() else v for k, v in source.state_dict().items()}, place / "h.safetensors"
    )
    loaded = models.build("test_resnet", 5, checkpoint="h.safetensors")
    assert all(p.dtype == torch.float32 for p in loaded.parameters())
    assert torch.equal(models.head(loaded).weight, models.head(source).weight.half().float())


def test_a_checkpoint_without_batch_counts_is_whole(place):
    source = models.build("test_resnet", 5, seed=1)
    save_file({k: v for k, v in source.state_dict().items() if "num_batches" not in k}, place / "old.safetensors")
    assert same(models.build("test_resnet", 5, checkpoint="old.safetensors"), source)


def test_a_pickle_with_code_is_refused(place):
    class Payload:
        def __reduce__(self):
            return (place.joinpath("was-run").touch, ())

    (place / "evil.pth").write_bytes(pickle.dumps({"fc.weight": Payload()}, protocol=2))
    torch.save({"fc.weight": Payload()}, place / "evil-zip.pth")
    for name in ("evil.pth", "evil-zip.pth"):
        with pytest.raises(ValueError, match=rf"{name} is not a readable"):
            models.build("test_resnet", 5, checkpoint=name)
    assert not (place / "was-run").exists()


def test_a_truncated_checkpoint_is_named(place):
    save_file(models.build("test_resnet", 5).state_dict(), place / "cut.safetensors")
    whole = (place / "cut.safetensors").read_bytes()
    (place / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut\.safetensors is not a readable"):
        models.build("test_resnet", 5, checkpoint="cut.safetensors")


def test_weights_of_another_architecture_are_refused_with_their_names(place):
    save_file(models.build("test_byobnet", 5).state_dict(), place / "other.safetensors")
    with pytest.raises(ValueError, match=r"other\.safetensors does not fit ResNet: other\.safetensors lacks bn1"):
        models.build("test_resnet", 5, checkpoint="other.safetensors")


def test_weights_of_other_shapes_and_unknown_weights_are_named(place):
    state = models.build("test_resnet", 5).state_dict()
    save_file(state | {"layer9.weight": torch.zeros(1)}, place / "more.safetensors")
    with pytest.raises(ValueError, match=r"the architecture does not know layer9\.weight"):
        models.build("test_resnet", 5, checkpoint="more.safetensors")
    save_file(state | {"bn1.weight": torch.zeros(3)}, place / "shape.safetensors")
    with pytest.raises(ValueError, match=r"has other shapes for bn1\.weight"):
        models.build("test_resnet", 5, checkpoint="shape.safetensors")


def test_a_missing_checkpoint_says_where_it_was_looked_for(place):
    with pytest.raises(FileNotFoundError, match=rf"no checkpoint 'none\.pth' in {place}.*FTLIB_DATA"):
        models.build("test_resnet", 5, checkpoint="none.pth")


def test_an_unreachable_hub_says_what_to_do(monkeypatch):
    def unreachable(*_, **__):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(RuntimeError, match=r"'test_resnet' could not be fetched.*checkpoint='<file>' instead"):
        models.build("test_resnet", 5, pretrained=True)


def test_weights_have_one_origin():
    with pytest.raises(ValueError, match=r"both pretrained=True and checkpoint='a\.pth'"):
        models.build("test_resnet", 5, pretrained=True, checkpoint="a.pth")


# ---------------------------------------------------------------------------------------- what training asks of it


@pytest.mark.parametrize("head", models.HEADS)
@pytest.mark.parametrize("backbone", FAMILIES)
def test_every_parameter_is_in_one_group_and_the_head_in_the_first(backbone, head):
    model = models.build(backbone, 7, head=head, options=FAMILIES[backbone])
    head, backbone_group = models.parameter_groups(model, lr=0.5, backbone_lr=0.1)
    assert (head["lr"], backbone_group["lr"]) == (0.5, 0.05)
    assert [id(p) for p in head["params"]] == [id(p) for p in model.get_classifier().parameters()]
    grouped = [id(p) for group in (head, backbone_group) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())


def test_what_requires_no_gradient_is_in_no_group():
    model = models.build("test_resnet", 7)
    models.head(model).bias.requires_grad_(False)
    model.bn1.weight.requires_grad_(False)
    grouped = {id(p) for group in models.parameter_groups(model, 0.5, 0.1) for p in group["params"]}
    still = {id(models.head(model).bias), id(model.bn1.weight)}
    assert grouped == {id(p) for p in model.parameters()} - still


@pytest.mark.parametrize(("frozen", "rate"), [("head", 0.05), ("backbone", 0.5)])
def test_a_group_of_nothing_is_left_out(frozen, rate):
    model = models.build("test_resnet", 7)
    model.requires_grad_(frozen == "head")
    models.head(model).requires_grad_(frozen == "backbone")
    assert [group["lr"] for group in models.parameter_groups(model, 0.5, 0.1)] == [rate]


def test_normalisation_scales_bytes_as_the_weights_expect():
    overlay = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    model = models.build("test_resnet", 5, options={"pretrained_cfg_overlay": overlay})
    scale, shift = models.normalisation(model, torch.device("cpu"))
    pixels = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    mean, std = (torch.tensor(overlay[key]).view(3, 1, 1) for key in ("mean", "std"))
    torch.testing.assert_close(pixels * scale + shift, (pixels / 255 - mean) / std)
