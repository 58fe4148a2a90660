"""Profiles of the paper's own sets, executed end to end on miniature trees with a tiny backbone and a step or two."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from ftlib import clip
from ftlib.benchmarks import iwildcam, officehome, vtab
from ftlib.book.worlds import NAMES
from ftlib.models import build

ROOT = Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location("plan", ROOT / "book/plan.py")
plan = importlib.util.module_from_spec(spec)
spec.loader.exec_module(plan)
PROFILES = {
    name: yaml.safe_load((ROOT / f"book/profiles/{name}.yml").read_text(encoding="utf-8"))["parameters"]
    for name in ("officehome", "imagenet_r", "imagenet_sketch", "vtab", "iwildcam")
}


def picture(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 32), (number % 256, number // 256, 128)).save(path)


def listed(folder: Path, lists: dict[str, str], rows: list[tuple[str, int]], each: int = 3) -> None:
    """Images for (name below ``folder``, class), so many each, the last one to test on; and the lists of both sides."""
    lines: dict[str, list[str]] = {side: [] for side in lists}
    for at, (name, label) in enumerate(rows):
        for i in range(each):
            picture(folder / f"{name}{i}.png", each * at + i)
            lines["test" if i == each - 1 else "train"].append(f"{name}{i}.png {label}\n")
    for side, path in lists.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("".join(lines[side]))


def make_officehome(data: Path) -> dict:
    for domain in ("Art", "Clipart"):
        rows = [(f"{domain}/{name}/", label) for label, name in enumerate(officehome.CLASSES)]
        lists = {side: f"image_list/{domain}_{side}ing.txt" for side in ("train", "test")}
        listed(data / "officehome", lists, rows)
    return {"benchmarks": ["officehome/Art-Clipart"], "checkpoint": "", "pretraining": {"steps": 2, "size": 32}}


def make_imagenet(data: Path, name: str, letter: str, number: int) -> dict:
    seen = PROFILES[name]["data"]["seen"]
    wnids = timm.data.ImageNetInfo().label_names()
    columns = sorted({*seen, *[c for c in range(1000) if c not in seen][: number - len(seen)]})
    lists = {side: f"../image_list/{letter}_{side}ing.txt" for side in ("train", "test")}
    (data / "ImageNet/data").mkdir(parents=True)
    folder = "imagenet-r" if letter == "R" else "imagenet-s"
    listed(data / "ImageNet/data", lists, [(f"{folder}/{wnids[c]}/", c) for c in columns], each=2)
    torch.save(build("test_resnet", 1000).state_dict(), data / "net.pth")
    return {"checkpoint": "net.pth", "pretraining": {"steps": 0, "size": 32}}


def make_vtab(data: Path) -> dict:
    lists = {"train": "train800val200.txt", "test": "test.txt"}
    listed(data / "vtab-1k/eurosat", lists, [(f"images/{c}-", c) for c in range(10)], each=4)
    small = {"img_size": 32, "embed_dim": 32, "depth": 1, "num_heads": 2}
    tower = timm.create_model(clip.TOWER, num_classes=16, **small).state_dict()
    (data / "clip").mkdir()
    save_file(clip.weights(tower, torch.randn(10, 16)), data / "clip/eurosat.safetensors")
    options = small | {"embedding": 16}
    return {"benchmarks": ["vtab/eurosat"], "backbone": "clip_vit_base_patch32", "model_options": options}


def make_iwildcam(data: Path) -> dict:
    root = data / "iwildcam_v2.0"
    rows = [("train", 1, c, f"{i}") for c in range(8) for i in range(6)]
    rows += [("id_test", 1, c, f"{i}") for c in range(8) for i in range(2)]
    rows += [("test", 7, c, f"{i}") for c in range(6) for i in range(5)]
    root.mkdir()
    with open(root / "metadata.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["split", "filename", "y", "location_remapped", "sequence_remapped"])
        for number, (split, location, label, sequence) in enumerate(rows):
            picture(root / f"train/{number}.png", number)
            table.writerow([split, f"{number}.png", label, location, f"{split}{label}-{sequence}"])
    return {"benchmarks": ["iwildcam/top-1"], "checkpoint": "", "pretraining": {"steps": 2, "size": 32}}


MAKE: dict[str, Callable[[Path], dict]] = {
    "officehome": make_officehome,
    "imagenet_r": lambda data: make_imagenet(data, "imagenet_r", "R", 200),
    "imagenet_sketch": lambda data: make_imagenet(data, "imagenet_sketch", "S", 1000),
    "vtab": make_vtab,
    "iwildcam": make_iwildcam,
}


def miniature(tmp_path: Path, name: str) -> tuple[dict, dict[str, str]]:
    """Parameters for a miniature of a profile's set, and the folders of its images, runs and cache."""
    data = tmp_path / "data"
    data.mkdir()
    whole = {} if name.startswith("imagenet") else {"subset": True}
    given = {"backbone": "test_resnet", "seeds": [0], "data": {"size": 32} | whole} | MAKE[name](data)
    given["recipe"] = {"steps": 2, "batch_size": 8, "size": 32, "evaluations": 1}
    return given, {f"FTLIB_{key}": str(tmp_path / key.lower()) for key in ("DATA", "STORE", "CACHE")}


def check_record(path: Path, name: str, given: dict) -> None:
    record = json.loads(path.read_text(encoding="utf-8"))
    measured = given.get("benchmarks", PROFILES[name]["benchmarks"])
    assert record["claims"] and record["provenance"]["benchmarks"] == measured


@pytest.mark.slow
@pytest.mark.parametrize("name", MAKE)
def test_a_profile_runs_end_to_end_on_a_miniature_of_its_set(tmp_path, name):
    given, places = miniature(tmp_path, name)
    command = [
        sys.executable,
        ROOT / "book/execute.py",
        "--profile",
        name,
        "--chapters",
        "03",
        "--stage",
        tmp_path / "s",
    ]
    for key, value in given.items():
        command += ["-p", f"{key}={json.dumps(value)}"]
    done = subprocess.run(command, env=os.environ | places, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    check_record(tmp_path / f"s/book/results/{name}/03-what-breaks.json", name, given)


def test_the_cells_of_a_chapter_run_on_a_miniature_of_vtab(tmp_path, monkeypatch):
    """The same without the runner and its processes, which have their own tests: profile, plan, door and chapter."""
    given, places = miniature(tmp_path, "vtab")
    for name, place in places.items():
        monkeypatch.setenv(name, place)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("joblib.cpu_count", lambda: 1)  # a sweep stays in this process
    asked = [f"{key}={json.dumps(value)}" for key, value in given.items()]
    parameters = plan.read_plan(ROOT / "book", "vtab", ["03"], asked)["chapters"]["03-what-breaks"]
    names: dict = {"display": lambda *_: None}
    for cell in plan.read_source(ROOT / "book/03-what-breaks.md").cells:
        if cell.cell_type == "code" and "solution" not in cell.metadata.get("tags", []):
            exec(cell.source, names)
            names |= parameters if "parameters" in cell.metadata.get("tags", []) else {}
    check_record(tmp_path / "results/vtab/03-what-breaks.json", "vtab", given)


# --- the protocol -----------------------------------------------------------------------------------------------------


def test_the_paper_s_recipes_are_those_of_its_code():
    for name, steps, decay in (("officehome", 20 * 500, 5e-4), ("imagenet_r", 50 * 500, 1e-4)):
        recipe = PROFILES[name]["recipe"]
        asked = ("steps", "batch_size", "lr", "backbone_lr", "weight_decay")
        assert [recipe[key] for key in asked] == [steps, 64, 1e-3, 0.1, decay]
    assert PROFILES["imagenet_r"]["recipe"] == PROFILES["imagenet_sketch"]["recipe"]


def test_the_paper_s_six_pairs_and_eight_sets_are_there():
    pairs = {(a, b) for a in officehome.SEEN for b in officehome.IMAGES if a != b}
    assert PROFILES["officehome"]["benchmarks"] == sorted(f"officehome/{a}-{b}" for a, b in pairs)
    assert PROFILES["vtab"]["benchmarks"] == [f"vtab/{name}" for name in vtab.SETS]


def test_seen_classes_of_imagenet_are_the_authors_half():
    for name, number in (("imagenet_r", 100), ("imagenet_sketch", 500)):
        seen = PROFILES[name]["data"]["seen"]
        assert len(set(seen)) == len(seen) == number and np.isin(seen, range(1000)).all()
    assert PROFILES["imagenet_r"]["data"]["seen"][:3] == [341, 245, 613]
    assert PROFILES["imagenet_sketch"]["data"]["seen"][:3] == [312, 897, 632]


# --- the page ---------------------------------------------------------------------------------------------------------

IMAGES = {  # of a set, and of its largest domain at most
    "officehome": (sum(officehome.IMAGES.values()), max(officehome.IMAGES.values())),
    "imagenet_r": (30_000, 30_000),
    "imagenet_sketch": (50_889, 50_889),
    "vtab": (sum(vtab.TRAIN + test for _, test in vtab.SETS.values()), vtab.TRAIN + vtab.SETS["sun397"][1]),
    "iwildcam": (iwildcam.IMAGES, 2 * iwildcam.CLASSES * PROFILES["iwildcam"]["data"]["per_class"]),
}


@pytest.mark.parametrize("name", PROFILES)
def test_what_the_page_computes_is_what_its_profile_says(name):
    of, (images, largest) = PROFILES[name], IMAGES[name]
    sources = {b.partition("-")[0] if "officehome" in b else "train" for b in of["benchmarks"]}
    trained = [len(of["seeds"]) * len(of["benchmarks"]) * of["recipe"]["steps"] * of["recipe"]["batch_size"]]
    if of["pretraining"]["steps"]:
        trained.append(len(of["seeds"]) * len(sources) * of["pretraining"]["steps"] * of["pretraining"]["batch_size"])
    millions = " + ".join(f"{number / 1e6:.1f}" for number in trained)
    row = f"| `{name}` | {images:,} | {largest * 3 * of['data']['size'] ** 2 / 1e9:.1f} | {millions} |"
    assert row in (ROOT / "book/redo-the-paper.md").read_text(encoding="utf-8")


def test_what_is_said_to_be_not_run_yet_has_no_results():
    text = (ROOT / "book/worlds.md").read_text(encoding="utf-8").partition("## Not run yet")[2].partition("\n## ")[0]
    for name in PROFILES:
        told = f"| {NAMES[name]} | `.venv/bin/python book/execute.py --profile {name}` |" in text
        assert told is not (ROOT / "book/results" / name).exists(), f"book/worlds.md, 'Not run yet', and {name}"
