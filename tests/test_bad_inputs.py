"""What is brought by mistake is answered by a sentence that names the value, what was expected and what to do.

A case: its name, a call that is given an empty folder, the kind of error, and what the message must contain, of which
at least one part is the value itself or where it lies. Nothing is trained here.
"""

from __future__ import annotations

import functools
import io
import math
import pickle
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from ftlib import (
    alternatives,
    analysis,
    baselines,
    calibration,
    checkpoints,
    methods,
    metrics,
    models,
    probes,
    reliability,
    training,
)
from ftlib.benchmarks import identity, load, load_domain
from ftlib.book import choices, claims, estimates, record, repairs
from ftlib.book.study import Study
from ftlib.calibration import apply, fold_gamma
from ftlib.core import ClassSplit, Domain, ImageSet, Outputs, find_data, split_classes
from ftlib.experiments import Experiment, grid, run, sweep
from ftlib.methods import Task
from ftlib.runs import Run
from ftlib.store import Store, write_atomic
from ftlib.training import Recipe

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "book"))
from plan import BookError, read_plan

NAN, INF = math.nan, math.inf
CASES: list[Any] = []


def bad(name: str, call: Callable[[Path], Any], error: type[Exception], *says: str) -> None:
    CASES.append(pytest.param(call, error, says, id=name))


@pytest.fixture(autouse=True)
def own_places(tmp_path, monkeypatch):
    monkeypatch.setenv("FTLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FTLIB_DATA", raising=False)
    monkeypatch.delenv("FTLIB_SCHEDULER", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def message_of(call: Callable[[Path], Any], error: type[Exception]) -> str:
    with pytest.raises(error) as caught:
        call(Path.cwd())
    assert type(caught.value) is error or issubclass(error, OSError)
    return str(caught.value)


def pytest_generate_tests(metafunc):
    if "says" in metafunc.fixturenames:
        metafunc.parametrize(("call", "error", "says"), CASES)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_bad_input_is_answered_by_a_sentence(call, error, says):
    message = message_of(call, error)
    for part in says:
        assert part in message, message
    assert 20 <= len(message) <= 400, message
    assert "\n" not in message and "Traceback" not in message and " object at 0x" not in message, message
    assert message.count(". ") <= 1, f"one sentence or two: {message}"


def test_there_are_two_hundred_cases_each_with_a_name_of_its_own_and_something_to_say():
    names = [case.id for case in CASES]
    assert len(names) == len(set(names)) >= 200
    assert all(case.values[2] for case in CASES)


# --- what the cases are made of ---------------------------------------------------------------------------------------

SPLIT = ClassSplit(seen=[0, 1], absent=[2, 3])
LOGITS = np.array([[9.0, 3, 1, 0], [2, 8, 0, 1], [1, 0, 7, 2], [0, 1, 3, 6]])
LABELS = np.arange(4)
TRAIN = LOGITS[:2], LABELS[:2]  # images of seen classes
IMAGES = torch.zeros(8, 3, 8, 8, dtype=torch.uint8)


def damaged(value: float, row: int = 1, column: int = 0, logits: np.ndarray = LOGITS) -> np.ndarray:
    logits = logits.copy()
    logits[row, column] = value
    return logits


def image_set(labels: list[int], side: int = 8) -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 255, (len(labels), 3, side, side), generator=generator, dtype=torch.uint8)
    return ImageSet(images, torch.tensor(labels, dtype=torch.int64))


@functools.cache
def net() -> nn.Module:
    return models.build("test_resnet", 4)


def task(seen: list[int] = [0, 1], **recipe: Any) -> Task:  # noqa: B006
    images = image_set([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])
    split = ClassSplit(seen, set(range(4)) - set(seen))
    return Task(Domain(tuple("abcd"), images, images), split, Recipe(**recipe))


def tree(here: Path, layout: Mapping[str, int | bytes]) -> str:
    """Folders of different images, {"a/x": 3}, and files of these bytes; the name of the pair a-b in them."""
    for number, (path, content) in enumerate(layout.items()):
        place = here / "photos" / path
        if isinstance(content, bytes):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
            continue
        place.mkdir(parents=True, exist_ok=True)
        for i in range(content):
            Image.new("RGB", (9, 9), (20 * number, 10 * i, 99)).save(place / f"{i}.png")
    return "folder:photos/a-b"


GOOD = {"a/x": 2, "a/y": 2, "b/x": 2, "b/y": 2}


def saved(here: Path, content: Any, name: str = "net.pth") -> str:
    """A checkpoint: bytes as they are, tensors as safetensors where the name says so, all else as torch saves it."""
    if isinstance(content, bytes):
        (here / name).write_bytes(content)
    elif name.endswith(".safetensors"):
        save_file(content, here / name)
    else:
        torch.save(content, here / name)
    return name


def state(changes: Mapping[str, Any] = {}) -> dict[str, Any]:
    """The weights of `net`, some of them replaced, or left out where None."""
    own = {**net().state_dict(), **changes}
    return {k: v for k, v in own.items() if v is not None}


def built(here: Path, content: Any, name: str = "net.pth", **how: Any) -> Any:
    return models.build("test_resnet", 4, checkpoint=saved(here, content, name), **how)


def run_of(here: Path, method: str = "finetune", **arrays: torch.Tensor) -> Run:
    spec = {"method": method, "head": "linear", "backbone": "test_resnet", "model": {}}
    return Run(Store(here / "store").save("key", spec, arrays, {"device": "cpu", "seconds": 1.0}))


def book(here: Path, profile: str, *overrides: str, cell: str = "", only: list[str] | None = None) -> Any:
    """The plan of a book of one chapter and one profile."""
    cell = cell or 'profile = "none"\nlr = 0.1\nepochs = 3\nfast = True\nseeds = [0, 1]\nrecipe = {"lr": 0.5}'
    (here / "book/profiles").mkdir(parents=True)
    (here / "book/profiles/tiny.yml").write_text(profile, encoding="utf-8")
    tag = "" if cell == "-" else ":tags: [parameters]\n\n"
    text = "---\njupytext: {text_representation: {extension: .md, format_name: myst}}\n---\n\n# What γ does\n\n"
    (here / "book/01-one.md").write_text(f"{text}```{{code-cell}} ipython3\n{tag}{cell}\n```\n", encoding="utf-8")
    return read_plan(here / "book", "tiny", only, overrides)


def png() -> bytes:
    Image.effect_noise((32, 32), 50).save(buffer := io.BytesIO(), "png")
    return buffer.getvalue()


PNG = png()
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
HTML = b"<!DOCTYPE html>\n<html><title>Not found</title></html>\n"


def zipped(path: Path, *names: str) -> None:
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name in names or ["a/x/1.png"]:
            archive.writestr(name, PNG)


def cut(here: Path) -> bytes:
    return (here / saved(here, state(), "whole.pth")).read_bytes()[:-1000]


def conv() -> torch.Tensor:
    return net().state_dict()["conv1.0.weight"]


class Weighted(nn.Module):
    """A head of one's own: a weight, and no place for a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 2))


def curve() -> metrics.Curve:
    return metrics.seen_unseen_curve(LOGITS, LABELS, SPLIT)


def in_a_file(here: Path) -> Store:
    (here / "a-file").write_bytes(b"")
    return Store(here / "a-file")


def saved_record(here: Path, value: Any) -> Any:
    own = record.Record("01", "tiny", here)
    own.values["x"] = value
    return own.save()


def in_folder(variable: str, place: str, call: Callable[[], Any]) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(variable, place)
        return call()


# --- classes and images -----------------------------------------------------------------------------------------------

V, T = ValueError, TypeError
# fmt: off
# A case as a row, wrapped where it must be.

bad("split-shared", lambda _: ClassSplit([0, 1], [1, 2]), V, "[1]", "one side")
bad("split-no-seen", lambda _: ClassSplit([], [1]), V, "seen classes are empty", "at least one class")
bad("split-no-absent", lambda _: ClassSplit([0], []), V, "absent classes are empty", "at least one class")
bad("split-all-false", lambda _: ClassSplit([0], [False, False]), V, "absent classes are empty")
bad("split-repeats", lambda _: ClassSplit([3, 3], [1]), V, "[3]", "every class once")
bad("split-negative", lambda _: ClassSplit([-1], [1]), V, "[-1]", "0 or more")
bad("split-float", lambda _: ClassSplit([0.7], [1]), V, "0.7", "integers")
bad("split-whole-float", lambda _: ClassSplit([1.0], [2]), V, "1.0", "integers")
bad("split-text", lambda _: ClassSplit("01", [2]), V, "'0'", "integers")
bad("split-none-among-ids", lambda _: ClassSplit([0, None], [2]), V, "None", "integers")
bad("split-mask-with-ids", lambda _: ClassSplit([True, 2], [3]), V, "True", "a mask of booleans alone")
bad("split-table", lambda _: ClassSplit(np.eye(2, dtype=int), [2]), V, "array([1, 0])", "integers")
bad("split-number", lambda _: ClassSplit(3, [4]), V, "seen classes are 3", "a list of integers")
bad("split-none", lambda _: ClassSplit([3], None), V, "absent classes are None", "a list of integers")
bad("split-mask-of-bytes", lambda _: ClassSplit(np.array([1, 0, 1], np.uint8), [1]), V, "repeat [1]", "mask == 1",
    "booleans")
bad("seen-nothing", lambda _: split_classes(10, 0, 0), V, "seen=0", "from 1 to 9")
bad("seen-everything", lambda _: split_classes(10, 0, 10), V, "seen=10", "from 1 to 9")
bad("seen-share", lambda _: split_classes(10, 0, 0.5), V, "seen=0.5", "an integer")
bad("seen-outside", lambda _: split_classes(10, 0, [3, 10]), V, "[10]", "from 0 to 9")
bad("seen-floats", lambda _: split_classes(10, 0, [3.5]), V, "3.5", "integers")
bad("classes-seed", lambda _: split_classes(10, -1), V, "seed=-1", ">= 0")

bad("images-float", lambda _: ImageSet(IMAGES.float(), torch.zeros(8).long()), V, "torch.float32", "uint8 [N, 3, H, W]")
bad("images-last", lambda _: ImageSet(IMAGES.permute(0, 2, 3, 1), torch.zeros(8).long()), V, "[8, 8, 8, 3]", "[N, 3")
bad("images-one", lambda _: ImageSet(IMAGES[0], torch.zeros(1).long()), V, "[3, 8, 8]", "uint8 [N, 3, H, W]")
bad("images-grey", lambda _: ImageSet(IMAGES[:, :1], torch.zeros(8).long()), V, "[8, 1, 8, 8]", "uint8 [N, 3, H, W]")
bad("images-labels-int32", lambda _: ImageSet(IMAGES, torch.zeros(8).int()), V, "torch.int32", "int64 [8]")
bad("images-labels-float", lambda _: ImageSet(IMAGES, torch.zeros(8)), V, "torch.float32", "int64 [8]")
bad("images-labels-few", lambda _: ImageSet(IMAGES, torch.zeros(7).long()), V, "[7]", "int64 [8]")
bad("images-labels-one-hot", lambda _: ImageSet(IMAGES, torch.zeros(8, 4).long()), V, "[8, 4]", "int64 [8]")
bad("images-numpy", lambda _: ImageSet(IMAGES.numpy(), np.zeros(8, int)), V, "images are a ndarray", "numpy",
    "Tensor")
bad("images-labels-numpy", lambda _: ImageSet(IMAGES, np.zeros(8, int)), V, "labels are a ndarray", "torch.as_tensor")
bad("images-list", lambda _: ImageSet([[0]], [0]), V, "images are a list", "Tensor")
bad("images-of-floats", lambda _: image_set([0, 1]).of([0.5]), V, "0.5", "integers")
bad("images-of-negative", lambda _: image_set([0, 1]).of([-1]), V, "[-1]", "0 or more")
bad("images-of-number", lambda _: image_set([0, 1]).of(1), V, "classes are 1", "a list of integers")

# --- recipes and experiments ------------------------------------------------------------------------------------------

for field, value, expected in (
    ("epochs", 0, "above 0"), ("batch_size", 0, "above 0"), ("lr", 0, "above 0"), ("lr", -0.1, "above 0"),
    ("lr", NAN, "above 0"), ("lr", INF, "above 0"), ("backbone_lr", -1, "0 or more"), ("momentum", -0.9, "0 or more"),
    ("weight_decay", INF, "0 or more"), ("warmup", -0.1, "0 or more"), ("warmup", 1, "below 1"),
    ("finish", -1, "0 or more"), ("size", 0, "1 or more"), ("padding", -2, "0 or more"), ("steps", -5, "0 or more"),
    ("evaluations", -1, "0 or more"), ("batch_norm", "on", "'train' or 'eval'"), ("momentum", 0, "Nesterov"),
    ("batch_size", -1, "above 0"),
):
    bad(f"recipe-{field}-{value}", lambda _, k=field, v=value: Recipe(**{k: v}), V, field, str(value), expected)
for field, value, expected in (
    ("epochs", 2.5, "int"), ("epochs", True, "int"), ("lr", "1e-3", "float"), ("flip", 1, "bool"),
    ("size", 8.0, "int | None"), ("batch_norm", True, "str"), ("momentum", None, "float"), ("padding", 1.5, "int"),
    ("steps", "ten", "int | None"), ("size", (32, 32), "int | None"), ("optimizer", None, "str"), ("lr", None, "float"),
):
    bad(f"recipe-{field}-{value}", lambda _, k=field, v=value: Recipe(**{k: v}), T, f"Recipe.{field}", repr(value),
        expected)
bad("recipe-unknown", lambda _: Recipe.of({"learning_rate": 1}), V, "learning_rate", "backbone_lr")
bad("recipe-of-text", lambda _: Recipe.of("lr=0.1"), T, "lr=0.1", "mapping")
bad("recipe-of-number", lambda _: Recipe.of(3), T, "3", "mapping")
bad("optimizer-unknown", lambda _: training.make_optimizer(net(), Recipe(optimizer="sdg")), V, "sdg")

PAIR = "glyphs/print-neon"
bad("method-unknown", lambda _: Experiment(PAIR, method="fine-tune"), V, "'fine-tune'", "finetune", "pretrained")
bad("option-unknown", lambda _: Experiment(PAIR, options={"alpha": 0.5}), V, "alpha", "holdout")
bad("option-of-none", lambda _: Experiment(PAIR, method="adabn", options={"alpha": 0.5}), V, "alpha", "none")
bad("option-lacking", lambda _: Experiment(PAIR, method="fold"), V, "fold", "needs the option")
bad("experiment-recipe", lambda _: Experiment(PAIR, recipe={"lr": 0.1}), T, "{'lr': 0.1}", "Recipe")
bad("experiment-pretraining", lambda _: Experiment(PAIR, pretraining={}), T, "pretraining is {}", "Recipe")
bad("experiment-seed", lambda _: Experiment(PAIR, seed="0"), T, "seed is '0'", "int")
bad("experiment-seed-negative", lambda _: Experiment(PAIR, seed=-1), V, "seed=-1", ">= 0")
bad("experiment-seed-true", lambda _: Experiment(PAIR, seed=True), V, "seed=True", ">= 0")
bad("experiment-data", lambda _: Experiment(PAIR, data="classes"), T, "data is 'classes'", "Mapping")
bad("experiment-model", lambda _: Experiment(PAIR, model="img_size"), T, "model is 'img_size'", "Mapping")
bad("experiment-options", lambda _: Experiment(PAIR, options="holdout"), T, "options is 'holdout'", "Mapping")
bad("experiment-family", lambda _: Experiment("print-neon").key, V, "'print-neon'", "glyphs/…")
bad("experiment-checkpoint", lambda _: Experiment(PAIR, checkpoint="no.pth").key, FileNotFoundError, "no.pth",
    "FTLIB_DATA")
bad("experiment-folder", lambda _: Experiment("folder:gone/a-b").key, FileNotFoundError, "gone", "FTLIB_DATA")
bad("experiment-benchmark", lambda _: Experiment(3), T, "benchmark is 3", "str")
bad("run-a-name", lambda _: run(PAIR), T, f"'{PAIR}'", "Experiment")
bad("run-device", lambda _: run(Experiment(PAIR), device="gpu"), V, "'gpu'", "cuda")
bad("run-store", lambda _: run(Experiment(PAIR), store=3), T, "3", "Store or path")
bad("sweep-store", lambda _: sweep([Experiment(PAIR)], store=3, jobs=1), T, "3", "Store or path")
for value, expected in (
    (0, "from 1 to 3"), (4, "from 1 to 3"), (0.5, "an integer"), ([4], "from 0 to 3"), ("1", "integers"),
):
    bad(f"run-seen-{value}", lambda _, v=value: run(Experiment(PAIR, data={"classes": 4, "seen": v})), V, str(value),
        expected)
    bad(f"sweep-seen-{value}", lambda _, v=value: sweep([Experiment(PAIR, data={"classes": 4, "seen": v})], jobs=1), V,
        str(value), expected)
bad("run-seen-of-all", lambda _: run(Experiment(PAIR, data={"seen": 68})), V, "seen=68", "from 1 to 67")
bad("run-pair", lambda _: run(Experiment("glyphs/print-comic", method="pretrained")), V, "print-comic", "neon")
bad("run-option", lambda _: run(Experiment("glyphs/print", method="pretrain", data={"class": 9})), V, "class",
    "classes")
bad("run-head", lambda _: run(Experiment(PAIR, head="mlp", data={"classes": 2})), V, "'mlp'", "linear, cosine")
bad("run-backbone", lambda _: run(Experiment(PAIR, "resnet19", data={"classes": 2})), V, "'resnet19'", "resnet18")

bad("grid-one-name", lambda _: grid(PAIR, [0], "finetune"), T, f"'{PAIR}'", "list")
bad("grid-one-seed", lambda _: grid([PAIR], 0, "finetune"), T, "seeds is 0", "list")
bad("grid-seeds-text", lambda _: grid([PAIR], "012", "finetune"), T, "'012'", "list")
bad("grid-seed-text", lambda _: grid([PAIR], ["0"], "finetune"), T, "seed is '0'", "int")
bad("grid-twice", lambda _: grid([PAIR], [1, 1], "finetune"), V, "print-neon", "seed 1", "once")
bad("grid-recipe", lambda _: grid([PAIR], [0], "finetune", recipe={"rate": 1}), V, "rate", "lr")
bad("grid-pretraining", lambda _: grid([PAIR], [0], "finetune", pretraining={"epoch": 1}), V, "epoch", "epochs")
bad("grid-method", lambda _: grid([PAIR], [0], "tune"), V, "'tune'", "finetune")
bad("sweep-none", lambda _: sweep([PAIR], jobs=1), T, f"'{PAIR}'", "Experiment")
bad("sweep-one", lambda _: sweep(Experiment(PAIR), jobs=1), T, "a list", "'finetune'")
bad("sweep-jobs-0", lambda _: sweep([], jobs=0), V, "jobs=0", "an integer >= 1")
bad("sweep-jobs-negative", lambda _: sweep([], jobs=-1), V, "jobs=-1", "an integer >= 1")
bad("sweep-jobs-text", lambda _: sweep([], jobs="all"), V, "jobs='all'", "an integer >= 1")
bad("sweep-jobs-half", lambda _: sweep([], jobs=1.5), V, "jobs=1.5", "an integer >= 1")
bad("sweep-two-places", lambda _: sweep([], jobs=2, scheduler="tcp://a:1"), V, "jobs=2", "tcp://a:1", "give one")
bad("sweep-scheduler", lambda _: sweep([Experiment(PAIR)], scheduler="s.json"), FileNotFoundError, "s.json", "dask")
bad("experiment-data-array", lambda _: Experiment(PAIR, data={"seen": np.arange(2)}), T, "array([0, 1])",
    "plain values")
bad("experiment-option-scalar", lambda _: Experiment(PAIR, options={"holdout": np.float32(0.5)}), T, "0.5",
    "plain values")
bad("experiment-checkpoint-path", lambda _: Experiment(PAIR, checkpoint=Path("x.pth")), T, "Path('x.pth')", "str")
bad("experiment-head-none", lambda _: Experiment(PAIR, head=None), T, "head is None", "str")
bad("recipe-numpy", lambda _: Recipe(epochs=np.int64(3)), T, "Recipe.epochs", "int64", "expected int")
bad("grid-seed-float", lambda _: grid([PAIR], [0.0], "finetune"), T, "seed is 0.0", "int")
bad("grid-benchmarks-none", lambda _: grid(None, [0], "finetune"), T, "benchmarks is None", "list")
bad("sweep-scheduler-set", lambda _: in_folder("FTLIB_SCHEDULER", "s.json", lambda: sweep([Experiment(PAIR)])),
    FileNotFoundError, "s.json", "dask")
bad("sweep-mapping", lambda _: sweep({"a": PAIR}, jobs=1), T, f"'{PAIR}'", "Experiment")
bad("sweep-pairs", lambda _: sweep([("a", Experiment(PAIR).method)], jobs=1), T, "('a', 'finetune')", "Experiment")

# --- benchmarks -------------------------------------------------------------------------------------------------------

bad("family-unknown", lambda _: load("imagenet/a-b"), V, "'imagenet/a-b'", "glyphs/…", "folder:ROOT")
bad("family-lacking", lambda _: load("print-neon"), V, "'print-neon'", "glyphs/…")
bad("benchmark-empty", lambda _: load(""), V, "''", "glyphs/…")
bad("benchmark-none", lambda _: load(None), V, "None")
bad("glyphs-one-domain", lambda _: load("glyphs/print"), V, "'print'", "SOURCE-TARGET", "chalk")
bad("glyphs-same", lambda _: load("glyphs/neon-neon"), V, "'neon-neon'", "twice")
bad("glyphs-unknown", lambda _: load("glyphs/print-comic"), V, "'print-comic'", "print, neon, chalk, photo")
bad("glyphs-three", lambda _: load("glyphs/print-neon-chalk"), V, "'print-neon-chalk'", "SOURCE-TARGET")
bad("glyphs-domain", lambda _: load_domain("glyphs/comic"), V, "'comic'", "chalk")
for option, value, expected in (
    ("classes", 1, "2 to 68"), ("classes", 69, "2 to 68"), ("classes", -2, "2 to 68"),
    ("source_per_class", 0, "at least 1"), ("target_per_class", -3, "at least 1"), ("test_per_class", 0, "at least 1"),
    ("stay", 1.5, "shares"), ("stay", -0.1, "shares"), ("stay", NAN, "shares"), ("other", 2, "shares"),
    ("stay_of", "", "all, seen or absent"), ("seen", -1, "from 1 to"), ("seen", [-1], "from 0 to"),
    ("stay_of", "none", "all, seen or absent"), ("seen", 0, "from 1 to"), ("seen", 68, "from 1 to"),
    ("seen", 0.5, "integer"), ("seen", [70], "from 0 to"), ("seen", [0, 0], "once"), ("seed", -1, ">= 0"),
    ("tail", 0, "1 or more"), ("tail", 0.1, "1 or more"), ("tail", NAN, "1 or more"), ("tail", "2", "1 or more"),
    ("seed", 1.5, "integer"), ("seed", "0", "integer"), ("seed", True, "integer"), ("size", 64, "source_per_class"),
):
    bad(f"glyphs-{option}-{value}",
        lambda _, k=option, v=value: load(PAIR, **{"source_per_class": 1, "target_per_class": 1, "classes": 9, k: v}),
        V, {"size": "size", "[0, 0]": "[0]"}.get(str(option if option == "size" else value), str(value)), expected)
bad("glyphs-classes-half", lambda _: load(PAIR, classes=2.5), V, "2.5", "2 to 68")
bad("glyphs-classes-text", lambda _: load(PAIR, classes="ten"), V, "'ten'", "2 to 68")
bad("glyphs-per-class-half", lambda _: load(PAIR, test_per_class=1.5), V, "1.5", "at least 1")
bad("glyphs-stay-text", lambda _: load(PAIR, stay="half"), V, "'half'", "shares")
bad("digits-unknown", lambda _: load("digits/mnist-usps"), V, "'mnist-usps'", "mnist, scan")
bad("digits-of-glyphs", lambda _: load("digits/scan-print"), V, "'scan-print'", "mnist, scan")
bad("glyphs-stay-other", lambda _: load(PAIR, stay=0.6, other=0.7), V, "stay=0.6, other=0.7", "together at most 1")
bad("digits-same", lambda _: load("digits/scan-scan"), V, "'scan-scan'", "twice")
bad("digits-domain", lambda _: load_domain("digits/usps"), V, "'usps'", "mnist, scan")
for value in (0, 1, -0.5, 70, NAN):
    bad(f"digits-fraction-{value}", lambda _, v=value: load_domain("digits/scan", train_fraction=v), V, f"={value}",
        "between 0 and 1")
bad("digits-fraction-text", lambda _: load_domain("digits/scan", train_fraction="most"), V, "'most'",
    "between 0 and 1")
bad("digits-option", lambda _: load_domain("digits/scan", classes=3), V, "classes", "train_fraction")

bad("folder-no-root", lambda _: load("folder:a-b"), V, "'a-b'", "ROOT/SOURCE-TARGET")
bad("folder-empty", lambda _: load("folder:"), V, "''", "ROOT/SOURCE-TARGET")
bad("folder-gone", lambda _: load("folder:gone/a-b"), FileNotFoundError, "'gone'", "FTLIB_DATA")
bad("folder-data-gone", lambda _: in_folder("FTLIB_DATA", "/no/where", lambda: load("folder:gone/a-b")),
    FileNotFoundError, "'gone'", "/no/where", "FTLIB_DATA")
bad("folder-unknown-domain", lambda h: (tree(h, GOOD), load("folder:photos/a-c")), V, "'a-c'", "SOURCE-TARGET of a, b")
bad("folder-one-domain", lambda h: (tree(h, GOOD), load("folder:photos/a")), V, "'a'", "SOURCE-TARGET of a, b")
bad("folder-same", lambda h: (tree(h, GOOD), load("folder:photos/a-a")), V, "'a-a'", "twice")
bad("folder-lone-domain", lambda h: (tree(h, {"a/x": 2, "a/y": 2}), load("folder:photos/a-b")), V, "'a-b'", "of a")
bad("folder-lacks-class", lambda h: load(tree(h, {**GOOD, "a/z": 2})), V, "photos/b", "no class z", "photos/a has")
bad("folder-other-classes", lambda h: load(tree(h, {"a/x": 2, "a/y": 2, "b/v": 2, "b/w": 2})), V, "no class v, w",
    "no class x, y")
bad("folder-one-class", lambda h: load(tree(h, {"a/x": 2, "b/x": 2})), V, "photos/a holds x", "<class>/<image>")
bad("folder-no-classes", lambda h: load(tree(h, {"a": 3, "b": 3})), V, "photos/a holds no folders", "<class>/<image>")
bad("folder-nothing", lambda h: load(tree(h, {"a": 0, "b": 0})), V, "photos/a holds no folders", "<class>/<image>")
bad("folder-one-image", lambda h: load(tree(h, {**GOOD, "b/y": 1})), V, "'y'", "1 image", "two that differ")
bad("folder-copies", lambda h: load(tree(h, {**GOOD, "b/y": 0, "b/y/1.png": PNG, "b/y/2.png": PNG})), V, "'y'",
    "1 of them different", "two")
bad("folder-no-images", lambda h: load(tree(h, {**GOOD, "a/z": 2, "b/z": 2, "b/y": 0, "b/y/1.txt": b"hello"})), V,
    "photos/b", "no class y", "photos/a has")
bad("folder-damaged", lambda h: load(tree(h, {**GOOD, "b/y": 0, "b/y/1.png": PNG[:60]})), V, "class y",
    "damaged images: 1", "y/1.png")
bad("folder-no-image-files", lambda h: load(tree(h, {**GOOD, "b/y": 0, "b/y/1.jpg": b"text"})), V, "class y",
    "not images: 1", "y/1.jpg")
bad("folder-empty-files", lambda h: load(tree(h, {**GOOD, "b/y": 0, "b/y/1.jpg": b""})), V, "class y", "empty files: 1")
bad("folder-pointers", lambda h: load(tree(h, {**GOOD, "b/y": 0, "b/y/1.jpg": LFS})), V, "class y", "git-lfs pointers",
    "y/1.jpg")
bad("folder-web-pages", lambda h: load(tree(h, {**GOOD, "b/y": 0, "b/y/1.jpg": HTML})), V, "class y", "web pages",
    "y/1.jpg")
bad("folder-archive", lambda h: (zipped(h / "photos"), load("folder:photos/a-b")), V, "photos is a file", "unpack it")
bad("folder-archive-named", lambda h: (zipped(h / "p.zip"), load("folder:p.zip/a-b")), V, "p.zip is a file",
    "unpack it")
bad("folder-archive-domain", lambda h: (tree(h, {"a/x": 2}), zipped(h / "photos/b.zip"), load("folder:photos/a-b")), V,
    "'a-b'", "SOURCE-TARGET of a")
bad("folder-layers-and-classes", lambda h: load(tree(h, {"a/train/x": 2, "a/test/x": 2, "a/y/z": 2, "b/x": 2})), V,
    "photos/a holds test, train, y", "{train,val,test}")
bad("folder-size-0", lambda h: load(tree(h, GOOD), size=0), V, "size=0", ">= 1")
bad("folder-size-negative", lambda h: load(tree(h, GOOD), size=-3), V, "size=-3", ">= 1")
bad("folder-size-text", lambda h: load(tree(h, GOOD), size="big"), V, "size='big'", "integer")
bad("folder-fraction-1", lambda h: load(tree(h, GOOD), train_fraction=1), V, "train_fraction=1", "between 0 and 1")
bad("folder-option", lambda h: load(tree(h, GOOD), classes=3), V, "classes", "train_fraction")
bad("folder-seen", lambda h: load(tree(h, GOOD), seen=2), V, "seen=2", "1")
bad("folder-seen-by-name", lambda h: load(tree(h, GOOD), seen=["x"]), V, "'x'", "integers")
bad("folder-seed", lambda h: load(tree(h, GOOD), seed=-1), V, "seed=-1", ">= 0")
bad("folder-identity", lambda _: identity("folder:gone/a-b"), FileNotFoundError, "'gone'", "FTLIB_DATA")
bad("data-gone", lambda _: in_folder("FTLIB_DATA", "/no/where", lambda: find_data("x.pth")), FileNotFoundError,
    "'x.pth'", "/no/where", "FTLIB_DATA")
bad("glyphs-seen-true", lambda _: load(PAIR, seen=True, classes=3, source_per_class=1), V, "seen=True", "from 1 to 2")
bad("glyphs-case", lambda _: load("glyphs/Print-neon"), V, "'Print-neon'", "print, neon")
bad("glyphs-space", lambda _: load("glyphs/print - neon"), V, "'print - neon'", "SOURCE-TARGET")
bad("digits-three", lambda _: load("digits/mnist-scan-mnist"), V, "'mnist-scan-mnist'", "SOURCE-TARGET")
bad("folder-slash", lambda h: (tree(h, GOOD), load("folder:photos/")), V, "'photos/'", "ROOT/SOURCE-TARGET")
bad("folder-case", lambda h: (tree(h, GOOD), load("folder:photos/A-b")), V, "'A-b'", "SOURCE-TARGET of a, b")
bad("folder-pair-as-domain", lambda h: (tree(h, GOOD), load_domain("folder:photos/a-b")), FileNotFoundError, "'a-b'",
    "there are a, b")
bad("folder-ambiguous", lambda h: (tree(h, {"a": 0, "b-c": 0, "a-b": 0, "c": 0}), load("folder:photos/a-b-c")), V,
    "'a-b-c' is ambiguous")
bad("folder-dangling",
    lambda h: (tree(h, {**GOOD, "b/y": 0}), (h / "photos/b/y/1.jpg").symlink_to("gone"), load("folder:photos/a-b")), V,
    "class y", "links that lead nowhere: 1", "y/1.jpg")
bad("folder-annex", lambda h: load(tree(h, {**GOOD, "b/y": 0, "b/y/1.jpg": b"/annex/objects/MD5-s1--9"})), V,
    "class y", "git-annex pointers", "y/1.jpg")
bad("folder-dvc", lambda h: load(tree(h, {**GOOD, "b/y": 0, "b/y/1.jpg.dvc": b"outs:"})), V, "class y", "DVC pointers",
    "y/1.jpg.dvc")
bad("folder-many-damaged", lambda h: load(tree(h, {**GOOD, "b/y": 0, **{f"b/y/{i}.png": b"" for i in range(12)}})), V,
    "empty files: 12", "and 2 more")
bad("folder-class-by-number", lambda h: load(tree(h, GOOD), seen=[2]), V, "[2]", "from 0 to 1")
bad("folder-fraction-percent", lambda h: load(tree(h, GOOD), train_fraction=70), V, "train_fraction=70",
    "between 0 and 1")
bad("folder-size-half", lambda h: load(tree(h, GOOD), size=64.0), V, "size=64.0", "integer")
bad("data-is-a-file", lambda h: in_folder("FTLIB_DATA", str(in_a_file(h).root), lambda: find_data("x.pth")),
    FileNotFoundError, "'x.pth'", "a-file", "FTLIB_DATA")

# --- models and checkpoints -------------------------------------------------------------------------------------------

build = models.build
bad("backbone-unknown", lambda _: build("resnet-50", 4), V, "'resnet-50'", "near: resnet50")
bad("backbone-nothing-near", lambda _: build("???", 4), V, "'???'", "none")
bad("backbone-sums-up", lambda _: build("volo_d1_224", 4, options={"img_size": 224}), V, "volo_d1_224", "off by")
bad("backbone-option", lambda _: build("test_resnet", 4, options={"depth": 9}), V, "test_resnet", "'depth': 9")
bad("backbone-image-size", lambda _: build("test_resnet", 4, options={"img_size": 32}), V, "test_resnet",
    "'img_size': 32")
bad("backbone-without-head", lambda _: build("test_resnet", 0), V, "0")
bad("head-unknown", lambda _: build("test_resnet", 4, head="mlp"), V, "'mlp'", "linear, cosine")
bad("two-origins", lambda _: build("test_resnet", 4, checkpoint="x.pth", pretrained=True), V, "'x.pth'",
    "pretrained=True")
bad("whole-of-nothing", lambda _: build("test_resnet", 4, whole=True), V, "no checkpoint", "train it")
bad("checkpoint-gone", lambda _: build("test_resnet", 4, checkpoint="x.pth"), FileNotFoundError, "'x.pth'",
    "FTLIB_DATA")
bad("checkpoint-folder", lambda h: ((h / "x").mkdir(), build("test_resnet", 4, checkpoint="x")), V, "'x' is a folder",
    "name the file")
bad("checkpoint-pip", lambda _: build("test_resnet", 4, checkpoint="pip:resnet"), V, "'pip:resnet'",
    "efficientnet_lite0")
bad("checkpoint-empty", lambda h: built(h, b""), V, "net.pth", "it is empty")
bad("checkpoint-pointer", lambda h: built(h, LFS), V, "net.pth", "git-lfs pointer", "git lfs pull")
bad("checkpoint-pointer-safetensors", lambda h: built(h, LFS, "n.safetensors"), V, "n.safetensors", "git-lfs pointer")
bad("checkpoint-page", lambda h: built(h, HTML), V, "net.pth", "web page")
bad("checkpoint-text", lambda h: built(h, b"epoch,loss\n1,0.2\n"), V, "net.pth", "not a readable")
bad("checkpoint-cut", lambda h: built(h, cut(h)), V, "net.pth", "not a readable", "cut short")
bad("checkpoint-cut-safetensors",
    lambda h: (saved(h, state(), "n.safetensors"), built(h, (h / "n.safetensors").read_bytes()[:999], "n.safetensors")),
    V, "n.safetensors", "not a readable")
bad("checkpoint-code", lambda h: built(h, pickle.dumps(print, 2)), V, "net.pth", "it holds code", "print",
    "state_dict()")
bad("checkpoint-pickle", lambda h: built(h, pickle.dumps(print)), V, "net.pth", "a pickle", "torch.save")
bad("checkpoint-onnx", lambda h: built(h, b"\x08\x07\x12\x07pytorch\x1a\x052.0.0:\x90", "net.onnx"), V, "net.onnx",
    "ONNX", "the checkpoint that it was made from")
bad("checkpoint-zip", lambda h: (zipped(h / "net.pth"), build("test_resnet", 4, checkpoint="net.pth")), V, "net.pth",
    "a zip archive of a/x/1.png", "unpack it")
bad("checkpoint-torchscript", lambda h: (zipped(h / "net.pt", "net/data.pkl", "net/constants.pkl", "net/version"),
    build("test_resnet", 4, checkpoint="net.pt")), V, "net.pt", "it holds code (TorchScript)", "state_dict()")
bad("checkpoint-two-models", lambda h: built(h, {"epoch": 3, "student": state(), "teacher": state()}), V, "net.pth",
    "student and teacher", "the one that is meant", "checkpoint['student']")
bad("checkpoint-model", lambda h: built(h, nn.Linear(2, 2)), V, "net.pth", "it holds code", "Linear", "state_dict()")
bad("checkpoint-list", lambda h: built(h, [torch.zeros(2)]), V, "net.pth", "a list", "no tensors by name")
bad("checkpoint-tensor", lambda h: built(h, torch.zeros(2)), V, "net.pth", "a Tensor", "no tensors by name")
bad("checkpoint-nothing", lambda h: built(h, {}), V, "net.pth", "it holds nothing", "state_dict")
bad("checkpoint-history", lambda h: built(h, {"epoch": 3, "loss": 0.1}), V, "net.pth", "epoch, loss", "no tensors")
bad("checkpoint-nan", lambda h: built(h, state({"conv1.0.weight": conv() * NAN})), V, "net.pth", "NaN",
    "conv1.0.weight")
bad("checkpoint-inf", lambda h: built(h, state({"conv1.0.weight": conv() + INF})), V, "net.pth", "infinity",
    "conv1.0.weight")
bad("checkpoint-nan-head", lambda h: built(h, state({"fc.bias": torch.full((4,), NAN)})), V, "net.pth", "fc.bias")
bad("checkpoint-lacks", lambda h: built(h, state({"conv1.0.weight": None})), V, "net.pth lacks conv1.0.weight",
    "timm's own")
bad("checkpoint-more", lambda h: built(h, state({"neck.weight": torch.zeros(2)})), V, "net.pth",
    "does not know neck.weight")
bad("checkpoint-shape", lambda h: built(h, state({"conv1.0.weight": conv()[:2]})), V, "net.pth",
    "other shapes for conv1.0.weight")
bad("checkpoint-other", lambda h: built(h, nn.Sequential(nn.Linear(2, 2)).state_dict()), V, "net.pth",
    "does not fit ResNet", "lacks")
bad("checkpoint-other-timm", lambda h: built(h, build("test_vit", 4).state_dict()), V, "net.pth", "does not fit ResNet")
bad("checkpoint-other-head", lambda h: built(h, build("test_resnet", 9).state_dict(), whole=True), V,
    "net.pth has no fc.bias, fc.weight", "train it")
bad("checkpoint-find", lambda _: checkpoints.find("pip:"), V, "'pip:'", "efficientnet_lite0")
bad("images-of-bytes", lambda _: models.features_and_logits(net(), IMAGES), V, "torch.uint8", "floating")
bad("model-without-head", lambda _: models.head(nn.ReLU()), T, "ReLU", "linear layer")
BEYOND = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.Softmax(1))  # gives probabilities, not logits
bad("model-beyond-its-head", lambda _: models.features_and_logits(BEYOND, torch.ones(2, 3, 8, 8)), V, "Sequential",
    "last linear layer")
bad("classes-text", lambda _: build("test_resnet", "four"), V, "'four'", "integer")
bad("classes-negative", lambda _: build("test_resnet", -1), V, "-1", "integer")
bad("backbone-none", lambda _: build(None, 4), V, "None", "timm")
META = nn.Linear(3, 4, device="meta")
bad("meta-features", lambda _: models.features_and_logits(META, torch.ones(2, 3)), V, "device meta", "load them first")
bad("meta-fold", lambda _: fold_gamma(META, 1.0, [1]), V, "device meta", "load them first")

# --- training, and methods before their first step --------------------------------------------------------------------

bad("fit-nothing", lambda _: training.fit(net(), image_set([]), Recipe(), seed=0), V, "no images", "at least one")
bad("fit-label", lambda _: training.fit(net(), image_set([0, 7]), Recipe(), seed=0), V, "0 to 7", "columns 0 to 3")
bad("fit-label-negative", lambda _: training.fit(net(), image_set([-1, 0]), Recipe(), seed=0), V, "-1 to 0",
    "columns 0 to 3")
bad("fit-size", lambda _: training.fit(net(), image_set([0, 1]), Recipe(size=64), seed=0), V, "size 64", "8×8")
bad("fit-finish", lambda _: training.fit(net(), image_set([0, 1]), Recipe(finish=9), seed=0, loss=lambda *_: 0), V,
    "finish is 9", "expected 0")
bad("predict-size", lambda _: training.predict(net(), image_set([0]), 9), V, "size 9", "8×8")
for value in (1, -0.5, 3):
    bad(f"holdout-{value}", lambda _, v=value: methods.finetune(task(), net(), holdout=v), V, f"holdout={value}",
        "from 0 to below 1")
for value in (2, -0.1, NAN):
    bad(f"wise-alpha-{value}", lambda _, v=value: baselines.wise(task(), net(), net(), alpha=v), V, f"alpha={value}",
        "from 0 to 1")
for option, value, expected in (
    ("classes", 0, "(0, 1]"), ("classes", 2, "(0, 1]"), ("distill", -1, "0 or more"), ("copies", 0, ">= 1"),
    ("local_steps", 2.5, "integer"), ("budget", "all", "'total' or 'sequential'"),
):
    bad(f"lolsgd-{option}-{value}", lambda _, k=option, v=value: baselines.lolsgd(task(), net(), **{k: v}), V,
        f"{option}={value!r}", expected)
for method, option, value, expected in (
    (alternatives.lwf, "weight", -1, "0 or more"), (alternatives.l2sp, "weight", NAN, "0 or more"),
    (alternatives.lwf, "temperature", 0, "above 0"), (alternatives.lora, "rank", 0, ">= 1"),
    (alternatives.lp_ft, "head", 1.0, "below 1"), (alternatives.balanced, "absent_count", 0, "above 0"),
):
    bad(f"{method.__name__}-{option}-{value}", lambda _, m=method, k=option, v=value: m(task(), net(), **{k: v}), V,
        f"{option}={value!r}", expected)
bad("fold-few-classes", lambda _: baselines.fold(task(), net(), fold=0), V, "[0, 1]", "at least 4")
bad("fold-negative", lambda _: baselines.pseudo_split(ClassSplit(range(4), [4]), 0, -1), V, "fold=-1", ">= 0")
bad("fold-half", lambda _: baselines.pseudo_split(ClassSplit(range(4), [4]), 0, 0.5), V, "fold=0.5", "integer")

# --- measures ---------------------------------------------------------------------------------------------------------

ARRAYS: dict[str, tuple[Any, Any, ClassSplit, tuple[str, ...]]] = {
    "nan": (damaged(NAN), LABELS, SPLIT, ("1 NaN in 1 of 4 rows", "row 1, column 0", "diverged")),
    "inf": (damaged(INF), LABELS, SPLIT, ("1 infinite", "row 1, column 0", "overflow")),
    "integers": (LOGITS.astype(int), LABELS, SPLIT, ("torch.int64 [4, 4]", "floating [N, D]")),
    "one-row": (LOGITS[0], LABELS[:1], SPLIT, ("[4]", "floating [N, D]")),
    "empty": (LOGITS[:0], LABELS[:0], SPLIT, ("[0, 4]", "not empty")),
    "few-labels": (LOGITS, LABELS[:3], SPLIT, ("[3]", "integers [4]")),
    "float-labels": (LOGITS, LABELS.astype(float), SPLIT, ("torch.float64", "integers")),
    "bool-labels": (LOGITS, LABELS > 1, SPLIT, ("torch.bool", "integers")),
    "one-hot": (LOGITS, np.eye(4, dtype=int), SPLIT, ("[4, 4]", "integers [4]")),
    "label-outside": (LOGITS, LABELS + 1, SPLIT, ("labels [4]", "classes Y = S ∪ U")),
    "label-negative": (LOGITS, LABELS - 1, SPLIT, ("labels [-1]", "classes Y = S ∪ U")),
    "class-outside": (LOGITS, LABELS, ClassSplit([0, 1], [2, 9]), ("class 9", "only 4 columns")),
    "names": (LOGITS, np.array(list("abcd")), SPLIT, ("<U1", "integers")),
    "objects": (LOGITS.astype(object), LABELS, SPLIT, ("object", "floating [N, D]")),
    "ragged": ([[1.0, 2.0], [1.0]], LABELS, SPLIT, ("list", "floating [N, D]")),
}
MEASURES: dict[str, Callable[..., Any]] = {
    "accuracies": metrics.split_accuracies,
    "curve": metrics.seen_unseen_curve,
    "ece": reliability.expected_calibration_error,
    "temperature": reliability.fit_temperature,
}
for measure, function in MEASURES.items():
    for fault, (logits, labels, split, says) in ARRAYS.items():
        bad(f"{measure}-{fault}", lambda _, f=function, a=(logits, labels, split): f(*a), V, *says)
for value, shown in (
    (NAN, "NaN"),
    ("much", "'much'"),
    (None, "None"),
    (np.zeros(2), "array([0., 0.])"),
    (np.zeros(0), "array([]"),
):
    bad(f"accuracies-gamma-{shown}", lambda _, v=value: metrics.split_accuracies(LOGITS, LABELS, SPLIT, v), V, shown,
        "expected")
bad("accuracies-split", lambda _: metrics.split_accuracies(LOGITS, LABELS, ([0], [1])), T, "([0], [1])", "ClassSplit")
bad("curve-one-side", lambda _: metrics.seen_unseen_curve(*TRAIN, SPLIT), V, "no sample of the absent classes",
    "both sides")
bad("curve-other-side", lambda _: metrics.seen_unseen_curve(LOGITS[2:], LABELS[2:], SPLIT), V, "seen class",
    "both sides")
bad("curve-at-nan", lambda _: curve().at(NAN), V, "NaN", "expected")
bad("curve-unreached", lambda _: curve().best_gamma(min_uy=1.5), V, "1.5", "the highest is 1.0")
ncm = metrics.ncm_logits
bad("ncm-nan", lambda _: ncm(damaged(NAN), LABELS, LOGITS, 4), V, "training features hold 1 NaN", "row 1")
bad("ncm-inf", lambda _: ncm(LOGITS, LABELS, damaged(INF), 4), V, "features hold 1 infinite", "row 1")
bad("ncm-dimensions", lambda _: ncm(LOGITS, LABELS, LOGITS[:, :3], 4), V, "4 dimensions", "3")
bad("ncm-labels", lambda _: ncm(LOGITS, LABELS, LOGITS, 3), V, "labels [3]", "0 to 2")
bad("ncm-no-classes", lambda _: ncm(LOGITS, LABELS, LOGITS, 0), V, "num_classes=0", ">= 1")
bad("ncm-half-a-class", lambda _: ncm(LOGITS, LABELS, LOGITS, 4.5), V, "num_classes=4.5", "integer")
bad("accuracies-complex", lambda _: metrics.split_accuracies(LOGITS + 0j, LABELS, SPLIT), V, "complex128", "floating")
bad("accuracies-labels-none", lambda _: metrics.split_accuracies(LOGITS, None, SPLIT), V, "NoneType", "integers")
bad("accuracies-logits-none", lambda _: metrics.split_accuracies(None, LABELS, SPLIT), V, "NoneType", "floating")
bad("accuracies-swapped", lambda _: metrics.split_accuracies(LABELS, LOGITS, SPLIT), V, "torch.int64 [4]",
    "floating [N, D]")
bad("curve-split", lambda _: metrics.seen_unseen_curve(LOGITS, LABELS, None), T, "None", "ClassSplit")
bad("ece-split", lambda _: reliability.expected_calibration_error(LOGITS, LABELS, [0, 1]), T, "[0, 1]", "ClassSplit")
bad("curve-unreached-nan", lambda _: curve().best_gamma(min_uy=NAN), V, "nan", "the highest is 1.0")

# --- γ ----------------------------------------------------------------------------------------------------------------

ESTIMATORS: dict[str, Callable[..., Any]] = {
    "alg": calibration.average_logit_gap,
    "rival": calibration.competitor_gap,
    "share": calibration.rival_share,
    "margin": calibration.margin_quantile,
    "mirrored": lambda logits, labels, split: calibration.mirrored(logits, labels, split, logits),
    "match": repairs.match_rivals,
}
OF_SEEN = {fault: ARRAYS[fault] for fault in ("integers", "one-row", "few-labels", "float-labels", "class-outside")} | {
    "nan": (damaged(NAN)[:2], LABELS[:2], SPLIT, ("1 NaN in 1 of 2 rows", "row 1, column 0", "diverged")),
    "inf": (damaged(INF)[:2], LABELS[:2], SPLIT, ("1 infinite", "row 1, column 0", "overflow")),
    "absent-label": (LOGITS, LABELS, SPLIT, ("labels [2, 3]", "seen classes", "leak")),
    "one-seen-class": (LOGITS, LABELS * 0, ClassSplit([0], [1, 2, 3]), ("class 0 is the only seen", "others")),
}
for estimator, function in ESTIMATORS.items():
    for fault, (logits, labels, split, says) in OF_SEEN.items():
        bad(f"{estimator}-{fault}", lambda _, f=function, a=(logits, labels, split): f(*a), V, *says)
for value in (0, 1, -1, 50, NAN):
    bad(f"margin-loss-{value}", lambda _, v=value: calibration.margin_quantile(*TRAIN, SPLIT, v), V, f"loss={value}",
        "between 0 and 1")
    bad(f"absent-share-{value}", lambda _, v=value: calibration.absent_share(LOGITS, SPLIT, v), V, f"share={value}",
        "between 0 and 1")
    bad(f"mirrored-share-{value}", lambda _, v=value: calibration.mirrored(*TRAIN, SPLIT, TRAIN[0], v), V,
        f"share={value}", "between 0 and 1")
bad("absent-share-inf", lambda _: calibration.absent_share(damaged(INF), SPLIT), V, "1 infinite", "row 1")
bad("mirrored-other-images", lambda _: calibration.mirrored(*TRAIN, SPLIT, LOGITS), V, "4 rows", "2 of the other",
    "same images")
bad("rival-other-images", lambda _: calibration.competitor_gap(*TRAIN, SPLIT, LOGITS), V, "4 rows", "2 of the other")
bad("prior-absent", lambda _: calibration.prior_gamma(LABELS, SPLIT), V, "labels [2, 3]", "seen classes")
bad("prior-floats", lambda _: calibration.prior_gamma(LABELS / 2, SPLIT), V, "torch.float64", "integers")
bad("prior-nothing", lambda _: calibration.prior_gamma(LABELS[:0], SPLIT), V, "0 labels", "at least one")
pcv = calibration.pseudo_cross_validation
bad("pcv-no-folds", lambda _: pcv([], SPLIT), V, "none of 0 pseudo-splits", "fine-tune more gently")
bad("pcv-other-classes", lambda _: pcv([(LOGITS, LOGITS, LABELS, SPLIT)], ClassSplit([0, 1, 2], [3])), V, "fold 0",
    "[0, 1, 2, 3]", "[0, 1, 2]")
bad("oracle-one-side", lambda _: calibration.oracle_gamma(*TRAIN, SPLIT), V, "absent classes", "both sides")

bad("apply-nan", lambda _: apply(LOGITS, NAN, [2]), V, "γ is NaN", "expected")
bad("apply-outside", lambda _: apply(LOGITS, 1.0, [4]), V, "[4]", "from 0 to 3")
bad("apply-negative", lambda _: apply(LOGITS, 1.0, [-1]), V, "[-1]", "from 0 to 3")
bad("apply-floats", lambda _: apply(LOGITS, 1.0, [0.7]), V, "0.7", "integers")
bad("apply-none", lambda _: apply(LOGITS, 1.0, []), V, "empty", "at least one of 4")
bad("apply-mask-long", lambda _: apply(LOGITS, 1.0, [False, True]), V, "a mask of 2", "each of 4")
bad("apply-repeats", lambda _: apply(LOGITS, 1.0, [2, 2]), V, "[2]", "once")
bad("apply-gamma-many", lambda _: apply(LOGITS, torch.zeros(2), [2]), V, "tensor([0., 0.])", "one number")
bad("apply-gamma-text", lambda _: apply(LOGITS, "2 logits", [2]), V, "'2 logits'", "one number")
bad("apply-integers", lambda _: apply(LOGITS.astype(int), 1.5, [2]), V, "int64", "floating")
bad("apply-list", lambda _: apply(LOGITS.tolist(), 1.5, [2]), V, "list", "floating")
bad("apply-other-split", lambda _: apply(LOGITS, calibration.average_logit_gap(*TRAIN, SPLIT), [3]), V,
    "another split", "[2]")
LINEAR = nn.Linear(2, 4)
bad("fold-nan", lambda _: fold_gamma(LINEAR, NAN, [2]), V, "γ is NaN", "expected")
bad("fold-inf", lambda _: fold_gamma(LINEAR, INF, [2]), V, "γ is inf", "finite")
bad("fold-outside", lambda _: fold_gamma(LINEAR, 1.0, [4]), V, "[4]", "from 0 to 3")
bad("fold-floats", lambda _: fold_gamma(LINEAR, 1.0, [2.0]), V, "2.0", "integers")
bad("fold-mask", lambda _: fold_gamma(LINEAR, 1.0, torch.ones(3).bool()), V, "a mask of 3", "each of 4")
bad("fold-nothing", lambda _: fold_gamma(LINEAR, 1.0, [False] * 4), V, "empty", "at least one of 4")
bad("fold-half-precision", lambda _: fold_gamma(nn.Linear(2, 4).half(), 1.0, [2]), V, "torch.float16", "model.float()")
bad("fold-no-head", lambda _: fold_gamma(nn.ReLU(), 1.0, [2]), V, "ReLU", "γ has no place")
bad("fold-no-bias", lambda _: fold_gamma(Weighted(), 1.0, [2]), V, "Weighted", "Linear or 1×1 Conv2d")
bad("fold-other-split", lambda _: fold_gamma(LINEAR, calibration.average_logit_gap(*TRAIN, SPLIT), [1, 2]), V,
    "another split", "[1, 3]")
bad("fold-state", lambda _: fold_gamma(LINEAR.state_dict(), 1.0, [2]), V, "OrderedDict", "Module")
bad("alg-split", lambda _: calibration.average_logit_gap(*TRAIN, ([0, 1], [2, 3])), T, "([0, 1], [2, 3])", "ClassSplit")
bad("absent-share-split", lambda _: calibration.absent_share(LOGITS, [2, 3]), T, "[2, 3]", "ClassSplit")
bad("mirrored-old-nan", lambda _: calibration.mirrored(*TRAIN, SPLIT, damaged(NAN)[:2]), V, "1 NaN", "row 1, column 0")
bad("apply-nothing", lambda _: apply(None, 1.0, [2]), V, "NoneType", "floating")
bad("fold-gammas", lambda _: fold_gamma(LINEAR, np.zeros(2), [2]), V, "array([0., 0.])", "one number")
bad("fold-text", lambda _: fold_gamma(LINEAR, "1,5", [2]), V, "'1,5'", "one number")

# --- analysis, choices and repairs ------------------------------------------------------------------------------------

TENSOR = torch.from_numpy(LOGITS)
bad("lead-one-class", lambda _: analysis.lead(TENSOR, torch.arange(4), (2,)), V, "(2,)", "at least two")
bad("parts-differ", lambda _: analysis.contributions(len, {"a": 1}, {"b": 2}), V, "['a']", "['b']", "same names")
bad("shift-of-nothing", lambda _: analysis.shift_shares(torch.zeros(2, 2)), V, "did not change")
bad("alignment-one-class", lambda _: analysis.alignment(TENSOR, TENSOR, ClassSplit([1], [2, 3])), V, "class 1",
    "only seen class")
bad("separability-one-class",
    lambda _: probes.separability((TENSOR, LABELS), (TENSOR, LABELS), ClassSplit([1], [2, 3])), V,
    "1 seen and 2 absent", "two of each")
bad("separability-label", lambda _: probes.separability((TENSOR, LABELS + 1), (TENSOR, LABELS), SPLIT), V,
    "labels [4]", "split's classes")
bad("softmax-step-label", lambda _: analysis.softmax_step(TENSOR, TENSOR, torch.arange(4) + 1), V, "labels [4]",
    "0 to 3")
bad("class-means-label", lambda _: analysis.class_means(TENSOR, torch.arange(4), 3), V, "labels [3]", "0 to 2")

bad("robustness-nothing", lambda _: choices.robustness(np.array([])), V, "[]", "from 0 upwards")
bad("robustness-negative", lambda _: choices.robustness(np.array([0.5, -1])), V, "-1.0", "from 0 upwards")
bad("choose-all", lambda _: choices.choose_seen(TENSOR, 4, "nearest", 0), V, "number=4", "from 1 to 3")
bad("choose-none", lambda _: choices.choose_seen(TENSOR, 0, "nearest", 0), V, "number=0", "from 1 to 3")
bad("choose-start", lambda _: choices.choose_seen(TENSOR, 2, "nearest", 4), V, "start=4", "from 0 to 3")
bad("choose-how", lambda _: choices.choose_seen(TENSOR, 2, "random", 0), V, "'random'", "'nearest' or 'farthest'")
bad("choose-nan", lambda _: choices.choose_seen(TENSOR * NAN, 2, "nearest", 0), V, "[4, 4]", "finite")
bad("thinned-all", lambda _: choices.thinned(Outputs(TENSOR, TENSOR, torch.arange(4)), SPLIT, 1.0), V, "share=1.0",
    "below 1")
bad("scale-none", lambda _: repairs.best_scale(LOGITS, LABELS, SPLIT, []), V, "no scales", "at least one")
bad("match-flat", lambda _: repairs.match_rivals(LOGITS[:2] * [1, 1, 0, 0], LABELS[:2], SPLIT), V,
    "same on all images", "spread")
bad("norms-outside", lambda _: repairs.align_norms(LOGITS, LOGITS[:3], None, SPLIT), V, "class 3", "only 3 rows")
bad("prior-columns", lambda _: repairs.adjust_for_prior(LOGITS[:, :3], LABELS[:2], SPLIT), V, "class 3",
    "only 3 columns")
bad("prior-float-labels", lambda _: repairs.adjust_for_prior(LOGITS, LABELS / 2, SPLIT), V, "torch.float64", "integers")
bad("rescale-outside", lambda _: repairs.rescale(LOGITS[:, :3], 2.0, SPLIT), V, "class 3", "only 3 columns")
bad("rescale-integers", lambda _: repairs.rescale(LOGITS.astype(int), 2.0, SPLIT), V, "torch.int64", "floating")
bad("choose-half", lambda _: choices.choose_seen(TENSOR, 2.5, "nearest", 0), V, "number=2.5", "an integer")
bad("sizes-numbers", lambda _: choices.sizes_of([3, 0.5], 10), V, "[3]", "below 1")
bad("sizes-nan", lambda _: choices.sizes_of([NAN], 10), V, "[nan]", "above 0")
bad("thinned-percent", lambda _: choices.thinned(Outputs(TENSOR, TENSOR, torch.arange(4)), SPLIT, 10), V, "share=10",
    "below 1")
bad("trajectory-of-nothing", lambda _: analysis.trajectory({"loss": torch.zeros(3)}, torch.arange(4), SPLIT), V,
    "epoch, logits, weight", "Recipe.evaluations")
bad("best-scale-nan", lambda _: repairs.best_scale(LOGITS, LABELS, SPLIT, [NAN]), V, "NaN")

# --- stores and runs --------------------------------------------------------------------------------------------------

bad("store-is-a-file", lambda h: in_a_file(h).prepare(), OSError, "a-file", "FTLIB_STORE")
bad("store-in-a-file", lambda h: Store(in_a_file(h).root / "runs").prepare(), OSError, "a-file/runs", "FTLIB_STORE")
bad("store-read-only", lambda _: Store("/proc/runs").prepare(), OSError, "/proc/runs", "FTLIB_STORE")
bad("store-lock", lambda h: in_a_file(h).lock("key").__enter__(), OSError, "a-file", "FTLIB_STORE")
bad("store-save", lambda h: in_a_file(h).save("key", {}, {}, {}), OSError, "a-file", "FTLIB_STORE")
bad("store-remember", lambda h: in_a_file(h).remember("name", "digest"), OSError, "a-file")
bad("store-of-a-sweep", lambda h: sweep([Experiment(PAIR)], store=in_a_file(h), jobs=1), OSError, "a-file",
    "FTLIB_STORE")
bad("store-of-the-environment",
    lambda h: in_folder("FTLIB_STORE", str(in_a_file(h).root), lambda: run(Experiment(PAIR))), OSError, "a-file",
    "FTLIB_STORE")
bad("write-into-a-file", lambda h: write_atomic(in_a_file(h).root / "x", b""), OSError, "a-file/x", "another folder")
bad("write-over-a-folder", lambda h: ((h / "x").mkdir(), write_atomic(h / "x", b"")), OSError, "/x", "another folder")
bad("run-gone", lambda h: Run(h / "gone").spec, FileNotFoundError, "gone", "no run")
bad("run-gone-log", lambda h: Run(h / "gone").log, FileNotFoundError, "gone", "no run")
bad("run-gone-arrays", lambda h: Run(h / "gone").test, FileNotFoundError, "gone", "no run")
bad("run-gone-text", lambda h: Run("gone").test, FileNotFoundError, "gone", "no run")
bad("run-is-the-store", lambda h: Run(run_of(h).path.parent).spec, FileNotFoundError, "store", "no run")
bad("run-without-test", lambda h: run_of(h, "pretrained").test, V, "'pretrained'", "test")
bad("run-without-train", lambda h: run_of(h, "pretrain").train, V, "'pretrain'", "train")
bad("run-without-before", lambda h: run_of(h).before, V, "'finetune'", "before")
bad("run-without-split", lambda h: run_of(h, "pretrain").split, V, "'pretrain'", "split")
bad("run-without-weights", lambda h: run_of(h, "pretrained").build(), V, "'pretrained'", "experiment.source")
bad("run-without-head", lambda h: run_of(h).old_head(TENSOR), V, "'finetune'", "models.head")

# --- claims, tables and records ---------------------------------------------------------------------------------------

EFFECTS = {"seed 0": 1.0, "seed 1": 2.0}
bad("estimate-nothing", lambda _: estimates.estimate([]), V, "[]", "at least one")
bad("estimate-nan", lambda _: estimates.estimate([1.0, NAN]), V, "nan", "finite")
bad("estimate-inf", lambda _: estimates.estimate([INF]), V, "inf", "finite")
bad("estimate-text", lambda _: estimates.estimate(["many"]), V, "'many'", "numbers")
bad("estimate-none", lambda _: estimates.estimate([None]), V, "None", "numbers")
bad("estimate-number", lambda _: estimates.estimate(57.25), V, "57.25", "one for each independent repetition")
bad("over-seeds-nothing", lambda _: estimates.over_seeds({}), V, "[]", "at least one")
bad("table-row", lambda _: estimates.table(["a", "b"], [[1]]), V, "[1]", "1 cells", "2")
check = claims.check
bad("claim-nothing", lambda _: check("id", "s", {}), V, "'id'", "one for each repetition")
bad("claim-nan", lambda _: check("id", "s", {"seed 0": NAN}), V, "'id'", "seed 0", "nan")
bad("claim-inf", lambda _: check("id", "s", {"seed 0": -INF}), V, "'id'", "-inf")
bad("claim-text", lambda _: check("id", "s", {"seed 0": "much"}), V, "'id'", "'much'")
bad("claim-twice", lambda _: check("id", "s", [("a", 1.0), ("a", 2.0)]), V, "'id'", "['a']")
bad("claim-numbers", lambda _: check("id", "s", [1.0, 2.0]), V, "'id'", "1.0", "label")
bad("claim-number", lambda _: check("id", "s", 1.5), V, "'id'", "1.5", "a number under each label")
bad("claim-words", lambda _: check("id", "s", "much"), V, "'id'", "'m'", "a number under each label")
bad("claim-within-0", lambda _: check("id", "s", EFFECTS, within=0), V, "'id'", "within=0", "positive")
bad("claim-within-nan", lambda _: check("id", "s", EFFECTS, within=NAN), V, "'id'", "within=nan", "positive")
bad("claim-two-bounds", lambda _: check("id", "s", EFFECTS, within=1, at_least=1), V, "within=1", "at_least=1")
bad("claim-at-least-nan", lambda _: check("id", "s", EFFECTS, at_least=NAN), V, "'id'", "at_least=nan")
bad("record-twice",
    lambda _: [r := record.Record("01", "tiny"), r.check("id", "s", EFFECTS), r.check("id", "s", EFFECTS)], V, "01",
    "'id'", "unique")
bad("record-object", lambda h: saved_record(h, {1, 2}), T, "record.values.x", "a set", "plain values")
bad("record-model", lambda h: saved_record(h, LINEAR), T, "record.values.x", "a Linear", "plain values")
bad("record-unwritable", lambda h: record.Record("01", "tiny", in_a_file(h).root).save(), OSError, "a-file")
bad("results-gone", lambda h: record.load_results(h / "gone"), FileNotFoundError, "gone", "execute the chapters")
bad("results-damaged", lambda h: (write_atomic(h / "r/tiny/01.json", b"{"), record.load_results(h / "r")), V,
    "01.json is damaged", "execute chapter 01")
bad("over-seeds-keys", lambda _: estimates.over_seeds({"print-neon": 0.5}), V, "'print-neon'", "(pair, seed)")
bad("by-seed-keys", lambda _: estimates.by_seed({0: 0.5}), V, "under 0", "(pair, seed)")
bad("claim-nested", lambda _: check("id", "s", {"seed 0": [1.0, 2.0]}), V, "'id'", "[1.0, 2.0]",
    "a number under each label")
bad("claim-labels", lambda _: check("id", "s", {("print-neon",): 1.0}), V, "'id'", "('print-neon',)", "label")

# --- what chapters are given ------------------------------------------------------------------------------------------

for name, value in (
    ("benchmarks", PAIR),
    ("benchmarks", []),
    ("benchmarks", [1]),
    ("benchmarks", None),
    ("benchmarks", f'["{PAIR}"]'),
):
    bad(f"study-{name}-{value}", lambda _, v=value: Study("01", "tiny", v, [0]), T, f"benchmarks is {value!r}",
        'such as ["glyphs')
for name, value in (
    ("seeds", 3),
    ("seeds", []),
    ("seeds", ["0"]),
    ("seeds", [0.5]),
    ("seeds", [True]),
    ("seeds", "[0, 1]"),
):
    bad(f"study-{name}-{value}", lambda _, v=value: Study("01", "tiny", [PAIR], v), T, f"seeds is {value!r}",
        "such as [0, 1, 2]")
bad("study-method", lambda _: Study("01", "tiny", [PAIR], [0]).plan("tune"), V, "'tune'", "finetune")
bad("study-common", lambda _: Study("01", "tiny", [PAIR], [0], backbones="x").plan("finetune"), T, "backbones")

for name, profile, says in (
    ("unknown", "parameters: {learning_rate: 0.1}", ("no chapter has a parameter 'learning_rate'", "lr")),
    ("of-chapter", "01-one: {learning_rate: 0.1}", ("01-one has no parameter 'learning_rate'", "profile, lr")),
    ("key", "02-two: {lr: 0.1}", ("unknown key '02-two'", "01-one")),
    ("publish", "publish: all", ("publish is 'all'", "notebooks or results")),
    ("chapter", "chapters: [02-two]", ("no chapter '02-two'", "01-one")),
    ("chapters", "chapters: 01-one", ("chapters is '01-one'", "a list")),
    ("exponent", "parameters: {lr: 1e-3}", ("'lr' is '1e-3'", "write 1.0e-03")),
    ("exponent-within", "parameters: {recipe: {lr: 5e-2}}", ("key 'lr', is '5e-2'", "write 5.0e-02")),
    ("exponent-new", "parameters: {recipe: {decay: 1e-4}}", ("key 'decay', is '1e-4'", "write 1.0e-04")),
    ("text", "parameters: {lr: fast}", ("'lr' is 'fast' (str)", "float, such as 0.1")),
    ("half", "parameters: {epochs: 2.5}", ("'epochs' is 2.5 (float)", "expected int")),
    ("truth", "parameters: {epochs: true}", ("'epochs' is True (bool)", "expected int")),
    ("number-for-truth", "parameters: {fast: 1}", ("'fast' is 1 (int)", "expected bool")),
    ("number-for-list", "parameters: {seeds: 3}", ("'seeds' is 3 (int)", "in brackets, [3]")),
    ("element", "parameters: {seeds: [0, one]}", ("'seeds', element 1, is 'one'", "expected int")),
    ("list", "parameters: [lr]", ("parameters is ['lr']", "NAME: VALUE")),
    ("line", "01-one: lr", ("01-one is 'lr'", "NAME: VALUE")),
    ("no-yaml", "parameters: {lr: 0.1", ("tiny.yml", "not YAML")),
    ("only-text", "fast", ("'fast'", "NAME: VALUE")),
    ("only-a-list", "[lr, seeds]", ("['lr', 'seeds']", "NAME: VALUE")),
    ("none", "parameters: {lr: null}", ("'lr' is None", "expected float")),
):
    bad(f"profile-{name}", lambda h, p=profile: book(h, p), BookError, *says)
for override, says in (
    ("seeds=folder:mine/a-b", ("'seeds' is 'folder:mine/a-b'", "such as [0, 1]")),
    ("seeds", ("-p seeds", "NAME=VALUE")),
    ("profile=cpu", ("-p profile=cpu", "--profile NAME")),
    ("seeds=[0", ("-p seeds=[0", "not YAML")),
    ("speed=1", ("'speed'", "lr")),
    ("lr=1e-3", ("'1e-3'", "1.0e-03")),
    ("lr=", ("'lr' is None", "expected float")),
    ("recipe=0.1", ("'recipe' is 0.1", "expected dict")),
    ("epochs=1.5", ("'epochs' is 1.5", "expected int")),
    ("seeds=[a]", ("element 0, is 'a'", "expected int")),
    ("fast=0", ("'fast' is 0", "expected bool")),
    ("recipe={lr: big}", ("key 'lr', is 'big'", "expected float")),
    ("=3", ("no chapter has a parameter ''", "lr")),
):
    bad(f"override-{override}", lambda h, o=override: book(h, "", o), BookError, *says)
bad("profile-gone", lambda h: (book(h, ""), read_plan(h / "book", "huge")), BookError, "'huge'", "tiny")
bad("profile-latin-1", lambda h: (book(h, ""), (h / "book/profiles/tiny.yml").write_bytes("# é".encode("latin-1")),
    read_plan(h / "book", "tiny")), BookError, "tiny.yml is not UTF-8", "byte 2", "save it")
bad("chapter-gone", lambda h: book(h, "", only=["07"]), BookError, "'07'", "01-one")
bad("chapter-computed", lambda h: book(h, "", cell="lr = 0.1\nn = 2 * lr"), BookError, "01-one.md", "n = 2 * lr",
    "next cell")
bad("chapter-untagged", lambda h: book(h, "", cell="-"), BookError, "01-one.md", "0 cells", "parameters")
