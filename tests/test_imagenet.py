"""A head that is given: ImageNet's classes in a folder of wnids, on miniature trees, from the images to a run."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ftlib import training
from ftlib.benchmarks import domain_names, has_source, identity, imagenet, left_out, load, load_domain, load_target
from ftlib.experiments import Experiment, Recipe, grid, run
from ftlib.metrics import split_accuracies
from ftlib.models import build
from ftlib.store import Store

WNIDS = {"n01440764": 0, "n01443537": 1, "n02123045": 281, "n02123159": 282, "n04522168": 883, "n15075141": 999}


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch) -> Path:
    """Six classes of ImageNet with ten images each."""
    monkeypatch.setenv("FTLIB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("FTLIB_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for wnid in WNIDS:
        (tmp_path / "data/mini" / wnid).mkdir(parents=True)
        for i in range(10):
            pixels = rng.integers(256, size=(16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data/mini" / wnid / f"{wnid}_{i}.JPEG")
    return tmp_path / "data/mini"


def write_list(root: Path, name: str, numbers, prefix: str = "imagenet-r/", column=None) -> str:
    lines = [f"{prefix}{w}/{w}_{i}.JPEG {c if column is None else column}\n" for w, c in WNIDS.items() for i in numbers]
    (root.parent / name).write_text("".join(lines))
    return name


@pytest.fixture
def lists(root) -> dict[str, str]:
    return {"train_list": write_list(root, "train.txt", range(7)), "test_list": write_list(root, "test.txt", (8, 9))}


# --- images and classes -----------------------------------------------------------------------------------------------


def test_a_label_is_the_column_of_its_wnid_in_imagenet():
    target, split = load_target("imagenet:mini", size=8)
    assert len(target.class_names) == 1000 and all(target.class_names[c] == w for w, c in WNIDS.items())
    assert split.classes == tuple(WNIDS.values())
    for side, number in ((target.train, 8), (target.test, 2)):
        assert side.images.shape == (6 * number, 3, 8, 8)
        assert {int(c): int(n) for c, n in zip(*side.labels.unique(return_counts=True), strict=True)} == dict.fromkeys(
            WNIDS.values(), number
        )


def test_an_image_has_the_label_of_its_folder(root):
    target, _ = load_target("imagenet:mini", size=16)
    for wnid, column in WNIDS.items():
        files = {np.asarray(Image.open(p)).transpose(2, 0, 1).tobytes() for p in (root / wnid).iterdir()}
        assert {i.numpy().tobytes() for side in (target.train, target.test) for i in side.of([column]).images} == files


def test_half_of_the_classes_that_are_there_are_seen():
    splits = {load_target("imagenet:mini", seed, size=8)[1] for seed in range(8)}
    assert {len(split.seen) for split in splits} == {3} and len(splits) > 1
    assert len(load_target("imagenet:mini", seen=2, size=8)[1].seen) == 2


def test_chosen_classes_are_columns():
    _, split = load_target("imagenet:mini", seen=[999, 281], size=8)
    assert (split.seen, split.absent) == ((281, 999), (0, 1, 282, 883))


def test_there_is_no_source():
    benchmark = load("imagenet:mini", size=8)
    assert len(benchmark.source) == len(benchmark.source_test) == 0 < len(benchmark.target_test)
    assert not has_source("imagenet:mini") and has_source("glyphs/print-neon")
    assert domain_names("imagenet:a/mini/") == ("ImageNet", "mini")


def test_no_more_images_of_a_class_are_taken_than_asked_for():
    few = [load_domain("imagenet:mini", seed, size=8, per_class=5) for seed in (0, 0, 1)]
    assert [len(of.train) + len(of.test) for of in few] == [30, 30, 30]
    assert torch.equal(few[0].train.images, few[1].train.images)
    assert not torch.equal(few[0].train.images, few[2].train.images)
    every = load_domain("imagenet:mini", size=8, per_class=99)
    assert len(every.train) + len(every.test) == 60


def test_the_layout_of_tiny_imagenet_s_train_folder_is_read_too(root):
    for wnid in WNIDS:
        (root / wnid / "images").mkdir()
        for path in (root / wnid).glob("*.JPEG"):
            path.rename(path.parent / "images" / path.name)
        (root / wnid / f"{wnid}_boxes.txt").write_text("a.JPEG 0 0 9 9")
    with pytest.warns(UserWarning, match="files that are not images: 6"):
        assert len(load_domain("imagenet:mini", size=8).test) == 12
    assert left_out("imagenet:mini", {"size": 8}) == {"files that are not images": 6}


def test_an_identity_is_of_contents_wherever_they_lie(root):
    before = identity("imagenet:mini")
    root.rename(root.parent / "other")
    assert identity("imagenet:other") == before
    (root.parent / "other/n01440764/n01440764_3.JPEG").unlink()
    assert identity("imagenet:other") != before


# --- published lists --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["imagenet-r/", "", "./", "/data/imagenet r/"])
def test_published_lists_are_taken_as_they_are(root, prefix):
    for name, numbers in (("train.txt", range(7)), ("test.txt", (8, 9))):
        write_list(root, name, numbers, prefix)
    domain = load_domain("imagenet:mini", 5, size=16, train_list="train.txt", test_list="test.txt")
    assert (len(domain.train), len(domain.test)) == (42, 12)
    wanted = {np.asarray(Image.open(p)).transpose(2, 0, 1).tobytes() for p in root.glob("*/*_[89].JPEG")}
    assert {image.numpy().tobytes() for image in domain.test.images} == wanted


def test_classes_that_no_list_names_are_not_in_y(root, lists):
    lines = (root.parent / "train.txt").read_text().splitlines(), (root.parent / "test.txt").read_text().splitlines()
    for name, kept in zip(("train.txt", "test.txt"), lines, strict=True):
        (root.parent / name).write_text("\n".join(line for line in kept if "n01440764" not in line))
    assert load_target("imagenet:mini", size=8, **lists)[1].classes == (1, 281, 282, 883, 999)


def test_another_list_of_the_same_name_is_another_experiment(root, lists):
    experiment = Experiment("imagenet:mini", pretraining=Recipe(steps=0), data={"size": 8} | lists)
    before = experiment.key
    write_list(root, "test.txt", [9])
    assert Experiment("imagenet:mini", pretraining=Recipe(steps=0), data={"size": 8} | lists).key != before


# --- what is refused --------------------------------------------------------------------------------------------------


def swap(root: Path, name: str, old: str, new: str) -> None:
    text = (root.parent / name).read_text()
    assert old in text
    (root.parent / name).write_text(text.replace(old, new))


SAY = {
    "unknown wnid": (lambda r: (r / "n01440764").rename(r / "n00000001"), ("n00000001", "1,000", "n01440764")),
    "names in words": (lambda r: (r / "n02123045").rename(r / "tabby"), ("tabby", "wnid")),
    "no root": (lambda r: shutil.rmtree(r), ("'mini'", "FTLIB_DATA")),
    "an archive": (lambda r: (shutil.rmtree(r), r.write_bytes(b"PK")), ("is a file", "unpack")),
    "one class": (lambda r: [shutil.rmtree(r / w) for w in [*WNIDS][1:]], ("n01440764", "<class>/<image>")),
    "one image": (lambda r: [p.unlink() for p in (r / "n02123045").glob("*_[1-9]*")], ("n02123045", "1 image", "two")),
    "no image": (lambda r: [p.write_bytes(b"no") for p in (r / "n02123045").iterdir()], ("n02123045", "0 image")),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", SAY)
def test_a_folder_that_does_not_serve_is_answered_in_a_sentence(root, case):
    spoil, words = SAY[case]
    spoil(root)
    with pytest.raises(ValueError) as caught:
        load("imagenet:mini", size=8)
    assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seen": [0, 5]}, ("[5]", "6 other columns")),
        ({"seen": [1000]}, ("[1000]", "0 to 999")),
        ({"seen": 6}, ("seen=6", "1 to 5")),
        ({"size": 0}, ("size=0", ">= 1")),
        ({"per_class": 1}, ("per_class=1", ">= 2")),
        ({"per_class": "all"}, ("'all'", "integer")),
        ({"train_fraction": 8}, ("train_fraction=8", "between 0 and 1")),
        ({"stay": 0.5}, ("stay", "per_class")),
        ({"train_list": "gone.txt", "test_list": "gone.txt"}, ("'gone.txt'", "FTLIB_DATA")),
        ({"train_list": "mini", "test_list": "mini"}, ("'mini'", "PATH COLUMN")),
        ({"train_list": 3, "test_list": 3}, ("3", "PATH COLUMN")),
    ],
)
def test_an_option_out_of_range_is_answered_in_a_sentence(options, words):
    with pytest.raises(ValueError) as caught:
        load("imagenet:mini", **{"size": 8} | options)
    assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value)


def test_a_benchmark_needs_a_root():
    with pytest.raises(ValueError, match="expected imagenet:ROOT"):
        load("imagenet:")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda r: swap(r, "test.txt", "_9.", "_77."), ("test.txt", "6 image(s)", "n01440764_77.JPEG", "lacks")),
        (lambda r: swap(r, "test.txt", " 281", " 5"), ("test.txt, line 5", "column 5", "n02123045", "281")),
        (lambda r: swap(r, "test.txt", " 281", ""), ("test.txt, line 5", "PATH COLUMN")),
        (lambda r: swap(r, "test.txt", "_9.", "_8."), ("test.txt", "twice")),
        (lambda r: swap(r, "test.txt", "_9.", "_1."), ("n01440764_1.JPEG", "train.txt", "test.txt")),
        (lambda r: (r.parent / "test.txt").write_text("\n"), ("test.txt", "no image")),
        (lambda r: (r.parent / "test.txt").write_bytes(b"\xff\xd8\xff"), ("test.txt", "no text")),
        (
            lambda r: (r.parent / "test.txt").write_text("n01440764/n01440764_9.JPEG 0"),
            ("only one", "n01443537", "both"),
        ),
        (lambda r: [p.write_bytes(b"no") for p in r.glob("*/*_9.JPEG")], ("test.txt", "6 image(s)", "lacks")),
    ],
    ids=["missing", "another column", "no column", "twice", "on both sides", "empty", "no text", "one side", "damaged"],
)
@pytest.mark.filterwarnings("ignore")
def test_a_list_that_does_not_serve_is_answered_in_a_sentence(root, lists, spoil, words):
    spoil(root)
    with pytest.raises(ValueError) as caught:
        load("imagenet:mini", size=8, **lists)
    assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value)


def test_one_list_alone_is_refused(lists):
    with pytest.raises(ValueError, match="'' is no list"):
        load("imagenet:mini", size=8, train_list="train.txt")


# --- a run ------------------------------------------------------------------------------------------------------------


def given(classes: int = 1000, **changes) -> Experiment:
    """An experiment on a model that somebody trained on ImageNet, here by nobody."""
    path = Path(imagenet.find_data("mini")).parent / "net.pth"
    torch.save(build("test_resnet", classes, seed=3).state_dict(), path)
    values = {
        "backbone": "test_resnet",
        "checkpoint": "net.pth",
        "method": "pretrained",
        "pretraining": Recipe(steps=0),
        "recipe": Recipe(steps=2, batch_size=8, evaluations=1),
        "data": {"size": 16},
    }
    return Experiment("imagenet:mini", **values | changes)


def test_before_fine_tuning_the_classifier_is_the_one_that_was_given(tmp_path):
    store = Store(tmp_path / "store")
    before = run(given(), store=store)
    target, split = load_target("imagenet:mini", size=16)
    model = build("test_resnet", 1000, seed=3)
    logits = training.predict(model, target.test).logits
    assert torch.equal(before.test.logits, logits) and before.split == split
    assert before.test.labels.max() == 999
    home = run(given().source, store=store)
    assert all(torch.equal(v, home.build().state_dict()[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("method", ["adabn", "finetune", "masked", "frozen_head", "oracle"])
def test_every_method_judges_the_classes_that_are_there_alone(tmp_path, method):
    after = run(given(method=method), store=Store(tmp_path / "store"))
    logits = after.test.logits
    assert logits.shape == (12, 1000) and after.build().num_classes == 1000
    columns = list(after.split.classes)
    only = torch.full_like(logits, -torch.inf)
    only[:, columns] = logits[:, columns]
    right = (only.argmax(1) == after.test.labels).double().mean()
    assert split_accuracies(logits, after.test.labels, after.split).yy == pytest.approx(float(right))


def test_a_world_without_pairs_goes_by_the_name_of_its_folder():
    plans = grid(["imagenet:a/mini", "imagenet:other"], [3], "pretrained", pretraining={"steps": 0})
    assert [*plans] == [("mini", 3), ("other", 3)]


def test_pre_training_has_nothing_to_train_on():
    with pytest.raises(ValueError, match=r"imagenet:mini has no source domain.*steps=0, not None"):
        given(pretraining=Recipe())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"checkpoint": ""}, ("no checkpoint with a head",)),
        ({"classes": 34}, ("net.pth", "head")),
        ({"head": "cosine"}, ("net.pth", "head")),
    ],
    ids=["no weights", "34 classes", "cosine"],
)
def test_a_head_that_is_not_imagenet_s_is_refused_and_nothing_is_written(tmp_path, changes, words):
    with pytest.raises(ValueError) as caught:
        run(given(**changes), store=Store(tmp_path / "store"))
    assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value)
    assert not [p for p in (tmp_path / "store").rglob("*") if p.suffix in (".json", ".safetensors")]
