"""``python -m ftlib calibrate``: from files to γ and to a checkpoint that others serve; bad input is one sentence."""

from __future__ import annotations

import ftlib  # isort: skip  # before timm, which needs it where torchvision's operators are missing

import colorsys
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from ftlib import calibration
from ftlib.__main__ import SERVES, main
from ftlib.core import ClassSplit
from ftlib.models import features_and_logits, head

NAMES = ["ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen", "ibis", "jay"]
SEEN, ABSENT = (0, 2, 3, 6, 8), (1, 4, 5, 7, 9)
SPLIT = ClassSplit(SEEN, ABSENT)


def draw(seed=0, n=200):
    """Logits of ten classes with a gap of 4 in favour of S, labels of S, and the old head's logits without it."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(SEEN, n)
    old = rng.normal(size=(n, 10)) + 4 * np.eye(10)[labels]
    return (old + 4 * np.isin(np.arange(10), SEEN)).astype(np.float32), labels, old.astype(np.float32)


@pytest.fixture
def logits(tmp_path):
    values, labels, old = draw()
    np.savez(tmp_path / "train.npz", logits=values, labels=labels, old_head=old)
    return tmp_path / "train.npz"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Photographs of ten colours, and a network whose head knows them, before and after a gap of 120 logits."""
    root = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(0)
    for c, name in enumerate(NAMES):
        (root / "images" / name).mkdir(parents=True)
        for i in range(6):
            colour = 255 * np.array(colorsys.hsv_to_rgb(c / 10, 1, 0.5 + 0.5 * rng.random()))
            noisy = np.clip(colour + rng.normal(scale=8, size=(32, 32, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(root / "images" / name / f"{i}.png")
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=10).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    files = [(root / "images" / name / f"{i}.png", c) for c, name in enumerate(NAMES) for i in range(6)]
    images = torch.stack([transform(Image.open(file).convert("RGB")) for file, _ in files])
    labels = torch.tensor([c for _, c in files])
    features, _ = features_and_logits(model, images)
    features = torch.cat([features, torch.ones(len(features), 1)], 1).double()
    targets = 100 * torch.eye(10, dtype=torch.float64)[labels]
    eye = 1e-9 * torch.eye(features.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(features.T @ features + eye, features.T @ targets)
    with torch.no_grad():
        head(model).weight.copy_(weights[:-1].T)
        head(model).bias.copy_(weights[-1])
        save_file(model.state_dict(), root / "before.safetensors")
        head(model).bias[list(SEEN)] += 120
    save_file(model.state_dict(), root / "after.safetensors")
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, root / "ddp.pth")
    (root / "classes.txt").write_text("\n".join(NAMES))
    return root, images, labels


def run(*arguments):
    return main(["calibrate", *map(str, arguments)])


def from_checkpoints(world, after="after.safetensors", *more, model="test_resnet", seen="ant,cat,dog,gnu,ibis"):
    root = world[0]
    files = "--before", root / "before.safetensors", "--after", root / after, "--images", root / "images"
    return run("--model", model, *files, "--seen", seen, *more)


# ---------------------------------------------------------------------------------------------- from logits


def test_logits_give_gamma_a_report_and_a_page(logits, tmp_path, capsys):
    assert run("--logits", logits, "--seen", "0,2,3,6,8", "--report", tmp_path / "report") == 0
    values, labels, old = draw()
    gamma = calibration.recommended(values, labels, SPLIT, old)
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["gamma"] == pytest.approx(gamma) and report["seen"] == list(SEEN) and report["advised"]
    assert f"γ = {gamma:.2f} by margin_quantile" in capsys.readouterr().out
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert f"γ = {gamma:.2f}" in page and "http" not in page


def test_every_file_format_gives_the_same(logits, tmp_path, capsys):
    values, labels, _ = draw()
    save_file({k: torch.from_numpy(v) for k, v in np.load(logits).items()}, tmp_path / "train.safetensors")
    header = ",".join(["label", *NAMES])
    np.savetxt(tmp_path / "t.csv", np.c_[labels, values], delimiter=",", header=header, comments="", fmt="%.9g")
    assert run("--logits", logits, "--seen", "0,2,3,6,8") == 0
    whole = capsys.readouterr().out
    assert run("--logits", tmp_path / "train.safetensors", "--seen", "0,2-3,6,8") == 0
    assert capsys.readouterr().out == whole
    np.savez(tmp_path / "alone.npz", logits=values, labels=labels)
    assert run("--logits", tmp_path / "alone.npz", "--seen", "0,2,3,6,8") == 0
    alone = capsys.readouterr().out
    (tmp_path / "seen.txt").write_text("ant\ncat\ndog\ngnu\nibis\n")
    for seen in ("ant,cat,dog,gnu,ibis", tmp_path / "seen.txt"):
        assert run("--logits", tmp_path / "t.csv", "--seen", seen) == 0
        assert capsys.readouterr().out == alone


@pytest.mark.parametrize("label", ["ids", "names", "floats"])
def test_a_table_from_a_spreadsheet_serves_too(tmp_path, capsys, label):
    """A mark at its start, quoted names with commas, labels as a spreadsheet writes them."""
    values, labels, _ = draw()
    np.savez(tmp_path / "alone.npz", logits=values, labels=labels)
    run("--logits", tmp_path / "alone.npz", "--seen", "0,2,3,6,8")
    expected = capsys.readouterr().out
    names = ["ant, red", *NAMES[1:]]
    told = {"ids": labels, "names": [f'"{names[y]}"' for y in labels], "floats": [f"{y}.0" for y in labels]}[label]
    rows = [",".join([str(y), *(f"{x:.9g}" for x in row)]) for y, row in zip(told, values, strict=True)]
    header = ",".join(["label", *(f'"{name}"' for name in names)])
    (tmp_path / "t.csv").write_text("\n".join([header, *rows]), encoding="utf-8-sig")
    assert run("--logits", tmp_path / "t.csv", "--seen", "0,2,3,6,8") == 0
    assert capsys.readouterr().out == expected


def test_an_unlabelled_test_file_may_be_a_table(logits, tmp_path, capsys):
    values, _, _ = draw(3)
    np.savez(tmp_path / "u.npz", logits=values)
    np.savetxt(tmp_path / "u.csv", values, delimiter=",", header=",".join(NAMES), comments="", fmt="%.9g")
    said = []
    for name in ("u.npz", "u.csv"):
        assert run("--logits", logits, "--seen", "0,2,3,6,8", "--test", tmp_path / name, "--share", "unlabelled") == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] and "absent_share" in said[0]


def test_a_table_by_pandas_serves_too(logits, tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    values, labels, _ = draw()
    for label in (labels, [NAMES[y] for y in labels]):
        pandas.DataFrame(values, columns=NAMES).assign(label=label).to_parquet(tmp_path / "t.parquet")
        assert run("--logits", tmp_path / "t.parquet", "--seen", "ant,cat,dog,gnu,ibis") == 0


def test_a_labelled_test_file_tells_what_gamma_wins_and_the_best_one(logits, tmp_path, capsys):
    rng = np.random.default_rng(2)
    labels = rng.integers(10, size=200)
    values = rng.normal(size=(200, 10)) + 4 * np.eye(10)[labels] + 4 * np.isin(np.arange(10), SEEN)
    np.savez(tmp_path / "test.npz", logits=values, labels=labels)
    arguments = "--logits", logits, "--seen", "0,2,3,6,8", "--test", tmp_path / "test.npz"
    assert run(*arguments, "--share", "unlabelled", "--report", tmp_path / "r") == 0
    test = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["test"]
    assert test["0"]["yy"] < test["gamma"]["yy"] <= test["best"]["yy"]
    assert "test: the best γ is" in capsys.readouterr().out


def test_what_is_not_advised_ends_with_one(logits, tmp_path, capsys):
    values, labels, old = draw()
    np.savez(tmp_path / "p.npz", logits=torch.from_numpy(values).softmax(1).numpy(), labels=labels)
    assert run("--logits", tmp_path / "p.npz", "--seen", "0,2,3,6,8") == 1
    assert "stop: all numbers lie between 0 and 1" in capsys.readouterr().out
    np.savez(tmp_path / "x.npz", logits=old, labels=labels, old_head=old)
    assert run("--logits", tmp_path / "x.npz", "--seen", "0,2,3,6,8") == 1


# ---------------------------------------------------------------------------------------------- from checkpoints


def test_a_calibrated_checkpoint_differs_in_the_bias_of_absent_classes_alone(world, tmp_path):
    out = tmp_path / "calibrated.safetensors"
    assert from_checkpoints(world, "after.safetensors", "--output", out) == 0
    before, after = load_file(world[0] / "after.safetensors"), load_file(out)
    assert before.keys() == after.keys()
    assert [k for k in before if not torch.equal(before[k], after[k])] == ["fc.bias"]
    with safe_open(out, "pt") as file:
        note = json.loads(file.metadata()["ftlib"])
    change = after["fc.bias"] - before["fc.bias"]
    assert note["seen"] == list(SEEN) and note["absent"] == list(ABSENT)
    assert torch.allclose(change[list(ABSENT)], torch.tensor(note["gamma"]), atol=1e-4)
    assert not change[list(SEEN)].any()


def test_timm_serves_it_and_it_is_right_where_the_other_was_wrong(world, tmp_path):
    out = tmp_path / "c.safetensors"
    assert from_checkpoints(world, "after.safetensors", "--output", out) == 0
    served = timm.create_model("test_resnet", num_classes=10, checkpoint_path=str(out)).eval()
    wrong = timm.create_model("test_resnet", num_classes=10, checkpoint_path=str(world[0] / "after.safetensors")).eval()
    with torch.no_grad():
        right, was = ((m(world[1]).argmax(1) == world[2]).float().mean() for m in (served, wrong))
    assert right > 0.95 and was < 0.8


@pytest.mark.parametrize(
    ("head", "new", "old"), [("old", 0, 1), ("both", 1, 1), ("restored", SEEN, ABSENT), ("levelled", SEEN, ABSENT)]
)
def test_another_head_is_served_with_a_gamma_of_its_own(world, tmp_path, head, new, old, capsys):
    out, report = tmp_path / "c.safetensors", tmp_path / "r"
    more = "--output", out, "--report", report, "--force"  # the old head has no gap here: γ alone is not advised
    assert from_checkpoints(world, "ddp.pth", "--head", head, *more) == {"old": 1}.get(head, 0)
    assert SERVES[head] in capsys.readouterr().out
    before, after = load_file(world[0] / "before.safetensors"), load_file(world[0] / "after.safetensors")
    found, told = load_file(out), json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert told["head"] == head
    assert all(torch.equal(v, after[k.removeprefix("module.")]) for k, v in found.items() if ".fc." not in k)
    gamma = told["gamma"] * torch.isin(torch.arange(10), torch.tensor(ABSENT))
    new, old = (of if isinstance(of, int) else torch.isin(torch.arange(10), torch.tensor(of)) for of in (new, old))
    for part, more in (("weight", 0), ("bias", gamma)):
        rows = (of[f"fc.{part}"].movedim(0, -1) for of in (after, before))
        wanted = sum(part * of for part, of in zip((new, old), rows, strict=True)).movedim(-1, 0) + more
        assert torch.allclose(found[f"module.fc.{part}"], wanted, atol=1e-4)


def test_checkpoints_are_served_with_levelled_old_rows_and_logits_as_they_are(world, logits, tmp_path, capsys):
    """Of logits alone nobody but who serves them can change the head; neither can a test file of one head be read."""
    parts = {"before": load_file(world[0] / "before.safetensors"), "after": load_file(world[0] / "after.safetensors")}
    pushed = dict(parts["after"]) | {"fc.weight": parts["after"]["fc.weight"].clone()}
    pushed["fc.weight"][list(ABSENT)] += torch.randn(5, len(pushed["fc.weight"][0]))
    save_file(pushed, world[0] / "pushed.safetensors")
    assert from_checkpoints(world, "pushed.safetensors", "--output", tmp_path / "c.safetensors") == 0
    assert capsys.readouterr().out.count(SERVES["levelled"]) == 2
    found = load_file(tmp_path / "c.safetensors")["fc.weight"]
    assert torch.equal(found, parts["after"]["fc.weight"]) and not torch.equal(found, pushed["fc.weight"])
    uneven = dict(parts["before"]) | {"fc.bias": parts["before"]["fc.bias"].clone()}
    uneven["fc.bias"][list(ABSENT)] += torch.arange(5.0)
    save_file(uneven, world[0] / "uneven.safetensors")
    files = "--before", world[0] / "uneven.safetensors", "--after", world[0] / "pushed.safetensors"
    files = *files, "--images", world[0] / "images", "--output", tmp_path / "u.safetensors"
    assert run("--model", "test_resnet", *files, "--seen", "ant,cat,dog,gnu,ibis") == 0
    biases = [load_file(tmp_path / f"{name}.safetensors")["fc.bias"][list(ABSENT)] for name in "cu"]
    assert torch.allclose(biases[1] - biases[0], (biases[1] - biases[0]).mean(), atol=1e-3)  # what stood out is gone
    np.savez(tmp_path / "test.npz", logits=draw(3)[0])
    for call in (
        lambda: run("--logits", logits, "--seen", "0,2,3,6,8"),
        lambda: from_checkpoints(world, "after.safetensors", "--test", tmp_path / "test.npz"),
    ):
        capsys.readouterr()
        assert call() == 0 and SERVES["levelled"] not in capsys.readouterr().out


def test_the_recipe_of_the_readme_writes_what_the_command_writes(world, tmp_path, monkeypatch):
    root, images, labels = world
    text = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    recipe = next(part for part in text.split("```python\n") if "restore_rows(" in part).partition("```")[0]
    recipe = recipe.replace("seen=[0, 3, 5], absent=[1, 2, 4]", f"seen={list(SEEN)}, absent={list(ABSENT)}")
    assert str(list(SEEN)) in recipe
    pushed = load_file(root / "after.safetensors")
    pushed["fc.weight"][list(ABSENT)] += torch.randn(5, len(pushed["fc.weight"][0]))
    uneven = load_file(root / "before.safetensors")
    uneven["fc.bias"][list(ABSENT)] += torch.arange(5.0)
    files, made = {"after": pushed, "before": uneven}, {}
    for name, state in files.items():
        save_file(state, tmp_path / f"{name}.safetensors")
        made[name] = timm.create_model("test_resnet", num_classes=10).eval()
        made[name].load_state_dict(state)
    seen = torch.isin(labels, torch.tensor(SEEN))
    monkeypatch.chdir(tmp_path)
    exec(
        recipe, {"model": made["after"], "model_before": made["before"], "images": images[seen], "labels": labels[seen]}
    )
    files = "--before", tmp_path / "before.safetensors", "--after", tmp_path / "after.safetensors"
    files = *files, "--images", root / "images", "--output", tmp_path / "c.safetensors"
    assert run("--model", "test_resnet", *files, "--seen", "ant,cat,dog,gnu,ibis") == 0
    written, saved = load_file(tmp_path / "c.safetensors"), torch.load(tmp_path / "calibrated.pth")
    assert written.keys() == saved.keys()
    for name, value in saved.items():
        torch.testing.assert_close(written[name], value, rtol=1e-4, atol=1e-2)


def test_logits_of_both_heads_and_a_test_file_of_both_give_what_their_sum_gives(tmp_path, capsys):
    parts = {name: draw(seed) for name, seed in (("train", 0), ("test", 3))}
    for name, (values, labels, old) in parts.items():
        labels = labels if name == "train" else np.arange(len(labels)) % 10
        np.savez(tmp_path / f"{name}.npz", logits=values, labels=labels, old_head=old)
        np.savez(tmp_path / f"{name}-sum.npz", logits=values + old, labels=labels, old_head=2 * old)
    said = []
    for end, more in (("", ("--head", "both")), ("-sum", ())):
        files = "--logits", tmp_path / f"train{end}.npz", "--test", tmp_path / f"test{end}.npz"
        assert run(*files, "--seen", "0,2,3,6,8", *more) == 0
        said.append(capsys.readouterr().out.replace(", for the sum of both heads", ""))
    assert said[0] == said[1] and "test: overall accuracy" in said[0]


def test_the_best_head_is_the_one_that_reads_these_images_best(tmp_path, capsys):
    values, labels, old = draw()
    noise = 20 * np.random.default_rng(5).normal(size=old.shape)
    for name, logits, untrained in (("new", values, old + noise), ("old", values + noise, old)):
        np.savez(tmp_path / "t.npz", logits=logits, labels=labels, old_head=untrained)
        np.savez(tmp_path / "u.npz", logits=logits, old_head=untrained)
        files = "--logits", tmp_path / "t.npz", "--test", tmp_path / "u.npz", "--share", "unlabelled"
        assert run(*files, "--seen", "0,2,3,6,8", "--head", "best", "--report", tmp_path / name) in (0, 1)
        assert json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))["head"] == name


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ({"labels"}, "head='both' needs old_head"),
        ({"labels", "old_head", "unlabelled"}, "--head both needs old_head beside the logits of other images"),
    ],
)
def test_another_head_needs_the_logits_of_the_old_one(tmp_path, capsys, file, says):
    values, labels, old = draw()
    arrays = {"labels": labels, "old_head": old, "unlabelled": values}
    np.savez(tmp_path / "t.npz", logits=values, **{name: arrays[name] for name in file})
    assert run("--logits", tmp_path / "t.npz", "--seen", "0,2,3,6,8", "--head", "both") == 2
    assert says in capsys.readouterr().err


def test_prefixes_of_a_nested_checkpoint_stay(world, tmp_path):
    out = tmp_path / "c.safetensors"
    assert from_checkpoints(world, "ddp.pth", "--output", out) == 0
    after = torch.load(world[0] / "ddp.pth", weights_only=True)["state_dict"]
    found = load_file(out)
    assert found.keys() == after.keys()
    assert [k for k in after if not torch.equal(after[k], found[k])] == ["module.fc.bias"]


def test_which_of_two_models_in_a_file_is_taken_is_said_once(world, tmp_path, capsys):
    state = load_file(world[0] / "after.safetensors")
    torch.save({"model": load_file(world[0] / "before.safetensors"), "model_ema": state}, world[0] / "two.pth")
    assert from_checkpoints(world, "two.pth", "--output", tmp_path / "c.safetensors") == 0
    assert capsys.readouterr().err.count("ftlib: two.pth holds model_ema and model: model_ema is taken\n") == 1
    found = load_file(tmp_path / "c.safetensors")
    assert [k for k in state if not torch.equal(state[k], found[k])] == ["fc.bias"]


def test_a_head_without_bias_gets_a_gamma_and_no_checkpoint(world, tmp_path, capsys, monkeypatch):
    monkeypatch.syspath_prepend(os.path.dirname(__file__))
    state = small().state_dict()
    state.pop("4.bias")
    for file in ("b", "a"):
        save_file(state, tmp_path / f"{file}.safetensors")
        state["4.weight"] = state["4.weight"] + 0.1
    files = "--before", tmp_path / "b.safetensors", "--after", tmp_path / "a.safetensors"
    arguments = "--model", "test_main:biasless", *files, "--images", world[0] / "images", "--seen", "0,2,3,6,8"
    assert run(*arguments) in (0, 1) and "γ = " in capsys.readouterr().out
    assert run(*arguments, "--output", tmp_path / "c.safetensors") == 2
    assert "leave out --output, and add γ to the logits" in capsys.readouterr().err


def test_a_second_fold_is_refused(world, tmp_path, capsys):
    from_checkpoints(world, "after.safetensors", "--output", world[0] / "c.safetensors", "--force")
    assert from_checkpoints(world, "c.safetensors", "--output", tmp_path / "twice.safetensors") == 2
    assert "calibrated already" in capsys.readouterr().err and not (tmp_path / "twice.safetensors").exists()


def test_exchanged_or_equal_checkpoints_write_nothing_unless_forced(world, tmp_path, capsys):
    root, out = world[0], tmp_path / "c.safetensors"
    files = "--before", root / "after.safetensors", "--after", root / "before.safetensors"
    exchanged = "--model", "test_resnet", *files, "--images", root / "images", "--seen", "0,2,3,6,8", "--output", out
    assert run(*exchanged) == 1 and not out.exists() and "--force" in capsys.readouterr().out
    assert run(*exchanged, "--force") == 1 and out.exists()


@pytest.mark.parametrize(
    ("kind", "which"),
    # The world's old rows have more digits than bfloat16, which here would be all of the margins.
    [(torch.float16, "restored"), (torch.float16, "new"), (torch.bfloat16, "new")],
)
def test_a_head_of_half_precision_keeps_gamma_whole(world, tmp_path, kind, which):
    root, out = world[0], tmp_path / "c.safetensors"
    half = {k: v.to(kind) if v.is_floating_point() else v for k, v in load_file(root / "after.safetensors").items()}
    save_file(half, root / "half.safetensors")
    assert from_checkpoints(world, "half.safetensors", "--output", out, "--head", which) == 0
    found = load_file(out)
    with safe_open(out, "pt") as file:
        gamma = json.loads(file.metadata()["ftlib"])["gamma"]
    wanted = half["fc.bias"].float() + gamma * torch.isin(torch.arange(10), torch.tensor(ABSENT))
    assert torch.allclose(found["fc.bias"], wanted)
    served = timm.create_model("test_resnet", num_classes=10, checkpoint_path=str(out)).eval()
    with torch.no_grad():
        assert (served(world[1]).argmax(1) == world[2]).float().mean() > 0.95


def calibrated(world, tmp_path):
    """The served model, and what it must answer."""
    out = tmp_path / "c.safetensors"
    assert from_checkpoints(world, "after.safetensors", "--output", out) == 0
    with safe_open(out, "pt") as file:
        gamma = json.loads(file.metadata()["ftlib"])["gamma"]
    plain = timm.create_model("test_resnet", num_classes=10, checkpoint_path=str(world[0] / "after.safetensors")).eval()
    served = timm.create_model("test_resnet", num_classes=10, checkpoint_path=str(out)).eval()
    with torch.no_grad():
        return served, calibration.apply(plain(world[1]), gamma, ABSENT).argmax(1)


@pytest.mark.parametrize("how", ["timm", "torch.jit", "torch.export"])
def test_what_serves_the_checkpoint_gives_the_calibrated_predictions(world, tmp_path, how):
    model, expected = calibrated(world, tmp_path)
    images = world[1]
    with torch.no_grad():
        if how == "torch.jit":
            model = torch.jit.trace(model, images[:2])
        if how == "torch.export":
            size = {0: torch.export.Dim("batch", min=2)}
            model = torch.export.export(model, (images[:4],), dynamic_shapes=(size,)).module()
        assert torch.equal(model(images).argmax(1), expected)


def test_onnxruntime_gives_the_calibrated_predictions(world, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, expected = calibrated(world, tmp_path)
    torch.onnx.export(model, (world[1],), tmp_path / "m.onnx", dynamo=True, verbose=False)
    session = runtime.InferenceSession(tmp_path / "m.onnx")
    (answers,) = session.run(None, {session.get_inputs()[0].name: world[1].numpy()})
    assert (answers.argmax(1) == expected.numpy()).all()


def small(num_classes: int = 10) -> nn.Module:
    """A model that timm does not know."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes)
    )


def biasless(num_classes: int = 10) -> nn.Module:
    return small(num_classes)[:4].append(nn.Linear(8, num_classes, bias=False))


def failing():
    raise RuntimeError("no luck")


def list_of():
    return []


def needs(width):
    return small(width)


@pytest.mark.parametrize(
    "name", ["torchvision:shufflenet_v2_x0_5", "torchvision:mobilenet_v3_small", "test_main:small"]
)
def test_models_of_torchvision_and_of_ones_own_serve_as_well(world, tmp_path, name, monkeypatch):
    monkeypatch.syspath_prepend(os.path.dirname(__file__))
    if name.startswith("torchvision"):
        model = pytest.importorskip("torchvision.models").get_model(
            name.partition(":")[2], weights=None, num_classes=10
        )
    else:
        model = small()
    for file in ("b", "a"):
        save_file(model.state_dict(), tmp_path / f"{file}.safetensors")
        with torch.no_grad():
            list(model.parameters())[-1][list(SEEN)] += 4
    files = "--before", tmp_path / "b.safetensors", "--after", tmp_path / "a.safetensors"
    arguments = "--model", name, *files, "--images", world[0] / "images", "--seen", "0,2,3,6,8"
    out = tmp_path / "c.safetensors"
    assert run(*arguments, "--output", out, "--force") in (0, 1)  # the features of random weights need not be good
    model.load_state_dict(load_file(out))
    assert load_file(out).keys() == load_file(tmp_path / "a.safetensors").keys()


def test_a_checkpoint_of_ones_own_model_is_looked_at_as_one_of_timms_is(world, tmp_path, capsys, monkeypatch):
    monkeypatch.syspath_prepend(os.path.dirname(__file__))
    state = small().state_dict()
    save_file(state, tmp_path / "b.safetensors")
    save_file(state | {"0.bias": torch.full((8,), torch.nan)}, tmp_path / "a.safetensors")
    files = "--before", tmp_path / "b.safetensors", "--after", tmp_path / "a.safetensors"
    assert run("--model", "test_main:small", *files, "--images", world[0] / "images", "--seen", "0,2,3,6,8") == 2
    assert "a.safetensors holds NaN or infinity in 0.bias" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------- bad input


class Evil:
    def __reduce__(self):
        return os.mkdir, ("executed",)


TWENTY = {"logits": np.zeros((20, 10)), "labels": np.zeros(20, int)}  # images in order, to which a fault is added
BAD_LOGITS = {
    "no file": ({}, "missing.npz", "no file"),
    "another format": (b"hello", "x.txt", "expected .npz"),
    "not an archive": (b"hello", "x.npz", "cannot be read"),
    "an empty archive": (b"", "x.npz", "cannot be read"),
    "damaged safetensors": (b"\x08\0\0\0\0\0\0\0{}", "x.safetensors", "cannot be read"),
    "other names": ({"scores": np.zeros((2, 10))}, "x.npz", "expected logits and labels"),
    "no labels": ({"logits": np.zeros((2, 10))}, "x.npz", "expected logits and labels"),
    "a table without a header": (b"1,2,3\n4,5,6\n", "x.csv", "expected one called label"),
    "a table with words": (b"label,a,b\n1,x,2\n", "x.csv", "cannot be read"),
    "a table with half labels": (b"label,a,b\n0.5,1,2\n", "x.csv", "not whole numbers"),
    "an empty table": (b"", "x.csv", "expected one called label"),
    "objects": ({"logits": np.array([Evil()], object), "labels": np.zeros(1, int)}, "x.npz", "cannot be read"),
    "one array": (pickle.dumps(1), "x.npz", "cannot be read"),
    "NaN": ({"logits": np.full((20, 10), np.nan), "labels": np.zeros(20, int)}, "x.npz", "NaN"),
    "infinite": ({"logits": np.full((20, 10), np.inf), "labels": np.zeros(20, int)}, "x.npz", "infinite"),
    "absent labels": ({"logits": np.zeros((20, 10)), "labels": np.ones(20, int)}, "x.npz", "not among the seen"),
    "labels outside": ({"logits": np.zeros((20, 10)), "labels": np.full(20, 77)}, "x.npz", "not among the seen"),
    "float labels": ({"logits": np.zeros((20, 10)), "labels": np.zeros(20)}, "x.npz", "expected integers"),
    "fewer labels": ({"logits": np.zeros((20, 10)), "labels": np.zeros(19, int)}, "x.npz", "expected integers"),
    "integer logits": ({"logits": np.zeros((20, 10), int), "labels": np.zeros(20, int)}, "x.npz", "expected floating"),
    "no images": ({"logits": np.zeros((0, 10)), "labels": np.zeros(0, int)}, "x.npz", "not empty"),
    "logits in one row": ({"logits": np.zeros(10), "labels": np.zeros(10, int)}, "x.npz", "expected floating"),
    "a folder": ({}, ".", "no file"),
    "an array alone": (b"\x93NUMPY", "x.npy", "expected .npz"),
    "a checkpoint": (b"PK", "x.pth", "expected .npz"),
    "a cut archive": (b"PK\x03\x04\x14\0\0\0", "x.npz", "cannot be read"),
    "a web page": (b"<html>404</html>", "x.safetensors", "cannot be read"),
    "a table of another kind": (b"PAR1", "x.parquet", "cannot be read"),
    "a ragged table": (b"label,a,b\n0,1,2\n2,3\n", "x.csv", "cannot be read"),
    "a table of bytes": (b"label,a\xff\n0,1\n", "x.csv", "cannot be read"),
    "a table with gaps": (b"label,a,b\n0,1,\n", "x.csv", "cannot be read"),
    "a table of labels": (b"label\n0\n2\n", "x.csv", "one for each class"),
    "a table without images": (b"label,a,b\n", "x.csv", "cannot be read"),
    "columns of numbers": (b",label,a,b\n0,1,2,3\n", "x.csv", "no column of row numbers"),
    "a column twice": (b"label,a,a\n0,1,2\n", "x.csv", "'a' twice"),
    "two columns of labels": (b"label,a,label\n0,1,0\n", "x.csv", "'label' twice"),
    "a short header": (b"label,a,b\n0,1,2,3\n", "x.csv", "its header names 3 columns, and its rows have 4"),
    "no header": (b"-1.5,2.0,1\n0.5,2.5,0\n", "x.csv", "its first row holds the number -1.5"),
    "another encoding": ("label,Käse,b\n0,1,2\n".encode("latin-1"), "x.csv", "it is not UTF-8"),
    "a long header": (b"label,a,b,c\n0,1,2\n", "x.csv", "its header names 4 columns, and its rows have 3"),
    "a label without end": (b"label,a,b\ninf,1,2\n", "x.csv", "not whole numbers"),
    "a label that is no class": (b"label,a,b\nant,1,2\n", "x.csv", "could not convert string"),
    "a table of nothing": (b"\0" * 99, "x.csv", "expected one called label"),
    "decimal commas": (b"label;a;b\n0;1,5;2\n", "x.csv", "commas between them"),
    "a table of a class": (b"label,a\n0,1\n0,2\n", "x.csv", "the last of 1 classes is 0"),
    "a checkpoint's tensors": ({f"layer{i}.weight": np.zeros(2) for i in range(9)}, "x.npz", ", …: expected logits"),
    "complex logits": ({"logits": np.zeros((2, 10), complex), "labels": np.zeros(2, int)}, "x.npz", "complex128"),
    "transposed": ({"logits": np.zeros((10, 20)), "labels": np.zeros(20, int)}, "x.npz", "expected integers [10]"),
    "labels in a column": ({"logits": np.zeros((9, 10)), "labels": np.zeros((9, 1), int)}, "x.npz", "integers [9]"),
    "semicolons": (b"label;a;b\n0;1;2\n", "x.csv", "expected one called label"),
    "a stack of logits": ({"logits": np.zeros((2, 3, 10)), "labels": np.zeros(2, int)}, "x.npz", "expected floating"),
    "logits of text": ({"logits": np.full((2, 10), "a"), "labels": np.zeros(2, int)}, "x.npz", "expected floating"),
    "labels of text": ({"logits": np.zeros((2, 10)), "labels": np.array(["a", "b"])}, "x.npz", "expected integers"),
    "labels one-hot": ({"logits": np.zeros((2, 10)), "labels": np.eye(2, 10, dtype=int)}, "x.npz", "expected integers"),
    "negative labels": ({"logits": np.zeros((2, 10)), "labels": np.full(2, -1)}, "x.npz", "not among the seen"),
    "too few columns": ({"logits": np.zeros((2, 5)), "labels": np.zeros(2, int)}, "x.npz", "the last of 5 classes"),
    "NaN from the old head": (
        TWENTY | {"old_head": np.full((20, 10), np.nan)},
        "x.npz", "NaN",
    ),
    "NaN without labels": (
        TWENTY | {"unlabelled": np.full((20, 10), np.nan)},
        "x.npz", "NaN",
    ),
    "another head without labels": (
        TWENTY | {"unlabelled": np.zeros((20, 7))},
        "x.npz", "unlabelled has 7 columns",
    ),
    "more classes without labels": (
        TWENTY | {"unlabelled": np.zeros((20, 13))},
        "x.npz", "unlabelled has 13 columns",
    ),
    "no images without labels": (
        TWENTY | {"unlabelled": np.zeros((0, 10))},
        "x.npz", "unlabelled are",
    ),
    "fewer images for the old head": (
        TWENTY | {"old_head": np.zeros((19, 10))},
        "x.npz", "old_head has 19 rows",
    ),
    "integers from the old head": (
        TWENTY | {"old_head": np.zeros((20, 10), int)},
        "x.npz", "old_head are torch.int64",
    ),
    "another old head": (
        TWENTY | {"old_head": np.zeros((20, 11))},
        "x.npz", "old_head has 11 columns",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_LOGITS)
def test_a_bad_file_of_logits_is_one_sentence_and_two(case, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, name, says = BAD_LOGITS[case]
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    elif content:
        np.savez(tmp_path / name, **content)
    assert run("--logits", name, "--seen", "0,2,3,6,8") == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1 and error.startswith("ftlib: ")
    assert not (tmp_path / "executed").exists()


BAD_OPTIONS = {
    "a name without names": (["--seen", "cat"], "no class is called 'cat'"),
    "a misspelt name": (["--seen", "antt,bee", "--classes", "classes.txt"], "near: ant"),
    "a negative id": (["--seen=-1"], "no class is called '-1'"),
    "an id outside": (["--seen", "0,12"], "the last of 10 classes is 9"),
    "an id twice": (["--seen", "0,0,2"], "name every class once"),
    "all classes": (["--seen", "0-9"], "absent classes are empty"),
    "nothing": (["--seen", ""], "no class is called ''"),
    "one class": (["--seen", "0"], "not among the seen classes"),
    "both sides": (["--seen", "0,2,3,6,8", "--absent", "1,2"], "both seen and absent"),
    "absent outside": (["--seen", "0,2,3,6,8", "--absent", "55"], "the last of 10 classes is 9"),
    "too few names": (["--seen", "0,2,3,6,8", "--classes", "three.txt"], "3 class names for 10"),
    "no file of names": (["--seen", "0", "--classes", "none.txt"], "No such file"),
    "min_sy above one": (["--seen", "0,2,3,6,8", "--min-sy", "95"], "between 0 and 1"),
    "an impossible promise": (["--seen", "0,2,3,6,8", "--min-sy", "0.9999", "--min-uy", "0.9999"], "ask for less"),
    "a share above one": (["--seen", "0,2,3,6,8", "--share", "50"], "between 0 and 1"),
    "share without images": (["--seen", "0,2,3,6,8", "--share", "unlabelled"], "needs the logits of unlabelled"),
    "a weight below zero": (["--seen", "0,2,3,6,8", "--weight=-2"], "above 0"),
    "a share of nothing": (["--seen", "0,2,3,6,8", "--share", "nan"], "between 0 and 1"),
    "no share": (["--seen", "0,2,3,6,8", "--share", "0"], "between 0 and 1"),
    "a weight without end": (["--seen", "0,2,3,6,8", "--weight", "inf"], "above 0"),
    "min_uy of nothing": (["--seen", "0,2,3,6,8", "--min-uy", "0"], "between 0 and 1"),
    "a range without end": (["--seen", "0-99999999999"], "the last of 10 classes is 9"),
    "a file that is not there": (["--seen", "seen.text"], "no class is called 'seen.text', and no file"),
    "a very long name": (["--seen", "x" * 5000], "no class is called 'xxx"),
    "a folder of classes": (["--seen", "."], "no class is called '.'"),
    "brackets": (["--seen", "[0,2]"], "no class is called '[0'"),
    "spaces": (["--seen", "0 2 3"], "no class is called '0 2 3'"),
    "no name near": (["--seen", "zebu", "--classes", "classes.txt"], "near: ant, bee, cat"),
    "a test file of another head": (["--seen", "0,2,3,6,8", "--test", "wide.npz"], "has 12 columns, the logits 10"),
    "a test file of seen classes": (["--seen", "0,2,3,6,8", "--test", "train.npz"], "no sample of the absent classes"),
    "a test file in another order": (
        ["--seen", "0,2,3,6,8", "--classes", "classes.txt", "--test", "turned.csv"],
        "give them these names, in this order",
    ),
    "a range backwards": (["--seen", "8-0"], "no class is called '8-0'"),
    "a comma too many": (["--seen", "0,2,"], "no class is called ''"),
    "a name among the absent": (["--seen", "0,2,3,6,8", "--absent", "zebra"], "--absent: no class is called 'zebra'"),
    "names twice": (["--seen", "a", "--classes", "twice.txt"], "has 'a' twice"),
    "no names": (["--seen", "a", "--classes", "empty.txt"], "is empty"),
    "a model without checkpoints": (["--model", "resnet18", "--seen", "0"], "either --logits, or all of"),
    "a test file of words": (["--seen", "0,2,3,6,8", "--test", "classes.txt"], "expected .npz"),
    "a report in no folder": (["--seen", "0,2,3,6,8", "--report", "there.json/x/y"], "cannot be written"),
    "no test file": (["--seen", "0,2,3,6,8", "--test", "none.npz"], "no file"),
    "an output without a checkpoint": (["--seen", "0,2,3,6,8", "--output", "c.safetensors"], "needs a checkpoint"),
    "logits and a model": (["--seen", "0,2,3,6,8", "--model", "resnet18"], "either --logits, or all of"),
    "a report that exists": (["--seen", "0,2,3,6,8", "--report", "there"], "--force"),
    "a report below a file": (["--seen", "0,2,3,6,8", "--report", "classes.txt/r"], "cannot be written"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_a_bad_option_is_one_sentence_and_two(case, logits, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "classes.txt").write_text("\n".join(NAMES))
    (tmp_path / "three.txt").write_text("a\nb\nc\n")
    (tmp_path / "twice.txt").write_text("a\na\n" + "\n".join(NAMES[2:]))
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "there.json").write_text("{}")
    (tmp_path / "turned.csv").write_text(f"{','.join(NAMES[::-1])}\n{','.join('0' * 10)}\n")
    np.savez(tmp_path / "wide.npz", logits=np.zeros((4, 12)), labels=np.zeros(4, int))
    options, says = BAD_OPTIONS[case]
    assert run("--logits", logits, *options) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def damaged(world, what):
    """The after checkpoint with one thing wrong."""
    state = load_file(world[0] / "after.safetensors")
    path = world[0] / f"{what.replace(' ', '-')}.pth"
    changes = {
        "no head": lambda: [state.pop(k) for k in ("fc.weight", "fc.bias")],
        "no bias": lambda: state.pop("fc.bias"),
        "a missing key": lambda: state.pop("conv1.0.weight" if "conv1.0.weight" in state else "conv1.weight"),
        "a key too many": lambda: state.update({"extra.weight": torch.zeros(1)}),
        "NaN": lambda: state["fc.weight"].fill_(float("nan")),
        "eleven classes": lambda: state.update({"fc.weight": torch.zeros(11, 96), "fc.bias": torch.zeros(11)}),
    }
    if what in changes:
        changes[what]()
        torch.save(state, path)
    elif what == "code":
        path.write_bytes(pickle.dumps(Evil()))
    else:
        path.write_bytes(
            {"empty": b"", "web page": b"<html>404</html>", "lfs": b"version https://git-lfs.github"}[what]
        )
    return path.name


BAD_CHECKPOINTS = {
    "no head": "no fc.weight", "no bias": "no fc.bias", "a missing key": "lacks conv1",
    "a key too many": "does not know extra.weight", "NaN": "NaN", "code": "not a readable",
    "eleven classes": "has no fc.bias, fc.weight of this head's shape",
    "empty": "it is empty", "web page": "web page", "lfs": "git lfs pull",
}  # fmt: skip


@pytest.mark.parametrize(("what", "says"), BAD_CHECKPOINTS.items())
def test_a_bad_checkpoint_is_one_sentence_and_two(world, tmp_path, capsys, monkeypatch, what, says):
    monkeypatch.chdir(tmp_path)
    assert from_checkpoints(world, damaged(world, what), "--output", tmp_path / "c.safetensors") == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1 and not list(tmp_path.iterdir())


BAD_MODELS = {
    "test_resnett": "near: test_resnet", "test_vit": "another architecture",
    "torchvision:resnet0": "no attribute 'resnet0'",
    "no_module:make": "No module named", "json:nothing": "no attribute 'nothing'", ":": "expected a timm name",
    "json:__name__": "not a callable", "": "either --logits", "test_main:failing": "with --options {} fails: no luck",
    "test_main:list_of": "gives a list: expected a torch Module", "test_main:needs": "missing 1 required positional",
}  # fmt: skip


@pytest.mark.parametrize(("model", "says"), BAD_MODELS.items())
def test_a_bad_model_is_one_sentence_and_two(world, capsys, model, says, monkeypatch):
    monkeypatch.syspath_prepend(os.path.dirname(__file__))
    assert from_checkpoints(world, model=model) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_bad_images_are_one_sentence_and_two(world, tmp_path, capsys):
    root = world[0]
    files = "--model", "test_resnet", "--before", root / "before.safetensors", "--after", root / "after.safetensors"
    cases = {"none": "no folder", "empty": "expected a folder a class", "few": "(ant, bee, cat, …) for a head of 10"}
    (tmp_path / "empty").mkdir()
    for name in NAMES[:3]:
        (tmp_path / "few" / name).mkdir(parents=True)
    for folder, says in cases.items():
        assert run(*files, "--seen", "0,2", "--images", tmp_path / folder) == 2
        assert says in capsys.readouterr().err
    named = "--seen", "ant,cat", "--classes", root / "classes.txt"
    assert run(*files, *named, "--images", tmp_path / "few") == 2 and "has no image" in capsys.readouterr().err
    (tmp_path / "few" / "ant" / "x.png").write_text("no image")
    assert run(*files, *named, "--images", tmp_path / "few") == 2 and "x.png" in capsys.readouterr().err
    (tmp_path / "few" / "ant" / "x.png").write_bytes((root / "images/ant/0.png").read_bytes()[:-400])
    assert run(*files, *named, "--images", tmp_path / "few") == 2 and "x.png is no readable" in capsys.readouterr().err
    for device in ("gpu", "cuda:99"):
        assert run(*files, *named, "--images", tmp_path / "few", "--device", device) == 2
        assert f"device={device!r} is not here" in capsys.readouterr().err
    for before in ("photos.pth", tmp_path):
        assert run(*files, *named, "--images", tmp_path / "few", "--before", before) == 2
        assert f"no file {before}" in capsys.readouterr().err
    (tmp_path / "few" / "zebra").mkdir()
    assert run(*files, *named, "--images", tmp_path / "few") == 2 and "'zebra'" in capsys.readouterr().err


def test_an_output_that_exists_is_kept_until_forced(world, tmp_path, capsys):
    out = tmp_path / "c.safetensors"
    out.write_text("mine")
    assert from_checkpoints(world, "after.safetensors", "--output", out) == 2
    assert "--force" in capsys.readouterr().err and out.read_text() == "mine"
    assert from_checkpoints(world, "after.safetensors", "--output", out, "--force") == 0
    assert from_checkpoints(world, "after.safetensors", "--output", tmp_path / "c.pth") == 2
    assert "c.pth: expected a name that ends in .safetensors" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_known_before_anything_is_computed(logits, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(os, "access", lambda folder, mode: False)  # whoever runs the tests may be allowed everything
    assert run("--logits", logits, "--seen", "0,2,3,6,8", "--report", tmp_path / "r") == 2
    assert "cannot be written" in capsys.readouterr().err


def test_one_image_a_class_and_another_models_head_are_not_passed_over(tmp_path, capsys):
    values, labels, old = draw()
    first = [int(np.flatnonzero(labels == c)[0]) for c in SEEN]
    np.savez(tmp_path / "few.npz", logits=values[first], labels=labels[first])
    assert run("--logits", tmp_path / "few.npz", "--seen", "0,2,3,6,8") in (0, 1)
    assert "caution: 1.0 images a seen class are few" in capsys.readouterr().out
    np.savez(tmp_path / "other.npz", logits=values, labels=labels, old_head=old[:, ::-1])
    assert run("--logits", tmp_path / "other.npz", "--seen", "0,2,3,6,8") == 1
    assert "stop: the old head on the new features" in capsys.readouterr().out


def test_a_hundred_bad_inputs_are_answered():
    """The cases of this file that end with 2: tables, and those that stand in a test of their own."""
    alone = 2 + 11 + 2 + 1 + 1 + 4  # model and images, outputs, a second fold, a folder, words of the command
    assert len(BAD_LOGITS) + len(BAD_OPTIONS) + len(BAD_CHECKPOINTS) + len(BAD_MODELS) + alone >= 100


def test_a_terminal_without_greek_letters_is_served(logits):
    program = [sys.executable, "-m", "ftlib", "calibrate", "--logits", str(logits), "--seen", "0,2,3,6,8"]
    done = subprocess.run(program, capture_output=True, text=True, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0 and "by margin_quantile" in done.stdout


def test_help_has_examples_and_the_version_is_told(capsys):
    for words, said in (["calibrate", "--help"], "examples:"), (["--version"], ftlib.__version__):
        with pytest.raises(SystemExit) as end:
            main(words)
        assert end.value.code == 0 and said in (told := capsys.readouterr().out)
        assert words == ["--version"] or "exit code: 0 done" in told


BAD_WORDS = {
    "--share": ("many", "argument --share: 'many': expected a number or the word unlabelled"),
    "--min-sy": ("much", "argument --min-sy: invalid float value: 'much'"),
    "--options": ("{", "argument --options: '{' is no JSON: expected the like of {\"img_size\": 128}"),
}


@pytest.mark.parametrize("option", BAD_WORDS)
def test_a_word_where_something_else_is_expected_is_named_and_two(option, logits, capsys):
    word, says = BAD_WORDS[option]
    with pytest.raises(SystemExit) as end:
        run("--logits", logits, "--seen", "0,2,3,6,8", option, word)
    assert end.value.code == 2 and says in capsys.readouterr().err


def test_the_module_runs_as_a_program_and_says_what_it_needs():
    done = subprocess.run([sys.executable, "-m", "ftlib", "calibrate"], capture_output=True, text=True)
    assert done.returncode == 2 and "the following arguments are required: --seen" in done.stderr
