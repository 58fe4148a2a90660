"""The doors to the paper's own sets, on miniature trees of the very same layout."""

from __future__ import annotations

import csv
import shutil
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ftlib.benchmarks import (
    domain_names,
    has_source,
    identity,
    iwildcam,
    left_out,
    load,
    load_domain,
    load_target,
    modules_of,
    officehome,
    source_of,
    vtab,
)
from ftlib.experiments import Experiment, Recipe

TINY = {"size": 8, "subset": True}


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("FTLIB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("FTLIB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def picture(path: Path, number: int) -> None:
    """An image of one colour, which is its number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (number % 256, number // 256, 7)).save(path)


def numbers(images) -> list[int]:
    return [int(i[0, 0, 0]) + 256 * int(i[1, 0, 0]) for i in images.images]


def say(call) -> str:
    with pytest.raises(ValueError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- Office-Home ------------------------------------------------------------------------------------------------------


@pytest.fixture
def home(data) -> Path:
    """Art and the real world, three images a class: the first two to train on. One folder has the archive's name."""
    for domain, folder in (("Art", "Art"), ("Real_World", "Real World")):
        lists = {"training": [], "testing": []}
        for label, name in enumerate(officehome.CLASSES):
            for i in range(3):
                picture(data / f"officehome/{folder}/{name}/{i:05}.png", 3 * label + i)
                lists["testing" if i == 2 else "training"].append(f"{domain}/{name}/{i:05}.png {label}\n")
        for side, lines in lists.items():
            path = data / f"officehome/image_list/{domain}_{side}.txt"
            path.parent.mkdir(exist_ok=True)
            path.write_text("".join(lines))
    return data / "officehome"


def test_office_home_has_the_authors_classes_and_split(home):
    benchmark = load("officehome/Art-Real_World", seed=5, **TINY)
    assert benchmark.class_names[:3] == ("Drill", "Exit_Sign", "Bottle") and len(benchmark.class_names) == 65
    assert len(benchmark.split.seen) == 30 and len(benchmark.split.absent) == 35
    assert {2, 58, 46, 63} <= set(benchmark.split.seen)
    assert 14 in load_target("officehome/Real_World-Art", **TINY)[1].seen
    sizes = [len(getattr(benchmark, part)) for part in ("source", "source_test", "target", "target_test")]
    assert sizes == [130, 65, 130, 65]


def test_office_home_is_split_by_the_lists_whatever_the_seed(home):
    for seed in (0, 1):
        domain = load_domain("officehome/Art", seed, **TINY)
        assert numbers(domain.train) == [3 * label + i for label in range(65) for i in (0, 1)]
        assert numbers(domain.test) == [3 * label + 2 for label in range(65)]
        assert domain.test.labels.tolist() == list(range(65))


def test_classes_of_one_s_own_may_be_seen_in_place_of_the_authors(home):
    assert load_target("officehome/Art-Real_World", seen=[4, 1], **TINY)[1].seen == (1, 4)
    assert len(load_target("officehome/Art-Real_World", seen=9, **TINY)[1].seen) == 9
    drawn = {officehome.split(None, seed, None, "Product") for seed in range(3)}
    assert len(drawn) == 3 and {len(split.seen) for split in drawn} == {30}


def test_the_six_pairs_of_the_paper_have_names():
    for source, target in chain(
        *[[(a, b) for b in officehome.IMAGES if b != a] for a in ("Art", "Real_World")],
    ):
        assert domain_names(f"officehome/{source}-{target}") == (source, target)
        assert source_of(f"officehome/{source}-{target}", {"seen": 3}) == (f"officehome/{source}", {})


def test_a_list_is_part_of_what_a_run_is_kept_under(home):
    before = identity("officehome/Art-Real_World")
    path = home / "image_list/Art_testing.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[::-1]))
    assert identity("officehome/Art-Real_World") != before == before


def test_what_office_home_depends_on_is_part_of_a_key():
    assert [m.__name__.rpartition(".")[2] for m in modules_of("officehome/Art-Product")] == [
        "officehome", "published", "decoding",
    ]  # fmt: skip


def swap(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (shutil.rmtree, ("'officehome/Real_World'", "hemanthdv.org", "image_list")),
        (lambda r: shutil.rmtree(r / "image_list"), ("Real_World_training.txt", "OSU-MLB")),
        (lambda r: (r / "Real World/Bed/00001.png").unlink(), ("lacks 1 image", "Bed/00001.png", "hemanthdv.org")),
        (lambda r: swap(r / "image_list/Real_World_testing.txt", " 0\n", " 1\n"), ("line 1", "Drill", "order")),
        (lambda r: swap(r / "image_list/Real_World_testing.txt", " 0\n", "\n"), ("line 1", "PATH COLUMN")),
        (lambda r: swap(r / "image_list/Real_World_testing.txt", "Drill/00002", "Drill/00001"), ("both sides",)),
    ],
)
def test_what_office_home_lacks_is_said_with_how_to_get_it(home, spoil, words):
    spoil(home)
    told = say(lambda: load("officehome/Art-Real_World", **TINY))
    assert all(word in told for word in words), told


def test_a_part_of_office_home_is_refused_unless_it_is_meant(home):
    told = say(lambda: load("officehome/Art-Real_World", size=8))
    assert "195 images of 4,357" in told and "subset=True" in told
    assert say(lambda: load("officehome/Art-Oil", size=8)).startswith("'Art-Oil' is not a pair")


# --- VTAB -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def eurosat(data) -> Path:
    """Two training images and one test image of each class but the last, of which there is no training image."""
    lines = {"train800val200": [], "test": []}
    for label in range(10):
        for i in range(3):
            side = "test" if i == 2 else "train800val200"
            if label < 9 or side == "test":
                picture(data / f"vtab-1k/eurosat/images/{side}/{3 * label + i:06}.png", 3 * label + i)
                lines[side].append(f"images/{side}/{3 * label + i:06}.png {label}")
    for side, own in lines.items():
        (data / f"vtab-1k/eurosat/{side}.txt").write_text("\n".join(own))
    return data / "vtab-1k/eurosat"


@pytest.mark.filterwarnings("ignore:.*classes that one side lacks")
def test_a_set_of_vtab_is_read_by_its_lists(eurosat):
    benchmark = load("vtab/eurosat", **TINY)
    assert not has_source("vtab/eurosat") and domain_names("vtab/eurosat") == ("CLIP", "eurosat")
    assert len(benchmark.source) == 0 and numbers(benchmark.target_test) == [3 * label + 2 for label in range(9)]
    assert numbers(benchmark.target) == [3 * label + i for label in range(9) for i in (0, 1)]
    assert benchmark.split.classes == tuple(range(9)) and len(benchmark.class_names) == 10
    assert left_out("vtab/eurosat", TINY) == {"classes that one side lacks": 1}


def test_classes_have_their_names_if_the_file_is_there(eurosat):
    assert vtab.class_names("eurosat")[1] == "1"
    (eurosat / "classnames.txt").write_text("\n".join(f"name {i}" for i in range(10)) + "\n")
    assert vtab.class_names("eurosat")[1] == "name 1"
    (eurosat / "classnames.txt").write_text("one\ntwo\n")
    assert "2 names" in say(lambda: load("vtab/eurosat", **TINY))


@pytest.mark.parametrize(
    ("name", "spoil", "words"),
    [
        ("dtd", lambda r: None, ("'vtab-1k/dtd'", "OSU-MLB/MLB-VTAB", "licence")),
        ("mnist", lambda r: None, ("'mnist'", "caltech101", "sun397")),
        ("eurosat", lambda r: (r / "test.txt").unlink(), ("vtab-1k/eurosat/test.txt", "OSU-MLB/MLB-VTAB")),
        ("eurosat", lambda r: swap(r / "test.txt", ".png 9", ".png 10"), ("class 10", "0 to 9")),
        ("eurosat", lambda r: (r / "images/test/000002.png").unlink(), ("lacks 1", "000002.png")),
    ],
)
def test_what_a_set_of_vtab_lacks_is_said_with_how_to_get_it(eurosat, name, spoil, words):
    spoil(eurosat)
    told = say(lambda: load(f"vtab/{name}", **TINY))
    assert all(word in told for word in words), told


@pytest.mark.filterwarnings("ignore:.*classes that one side lacks")
def test_a_part_of_vtab_is_refused_unless_it_is_meant(eurosat):
    assert "28 images of 6,400" in say(lambda: load("vtab/eurosat", size=8))


def test_clip_is_part_of_the_key_of_a_run_on_vtab():
    assert "ftlib.clip" in [module.__name__ for module in modules_of("vtab/dtd")]


# --- iWildCam ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def traps(data) -> Path:
    """A source of three classes; location 7 shows four in four sequences of two images, one of them new, one once."""
    rows = [
        (split, 1, label, f"{split}{label}{i}") for split in ("train", "id_test") for label in range(3) for i in "ab"
    ]
    rows += [("test", 7, label, f"s{label}-{i}") for label in (0, 2, 5) for i in "aabbccdd"] + [("test", 7, 1, "once")]
    rows += [("val", 8, label, f"v{label}-{i}") for label in (0, 1) for i in "ab"]
    root = data / "iwildcam_v2.0"
    root.mkdir()
    with open(root / "metadata.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["split", "filename", "y", "location_remapped", "sequence_remapped", "datetime"])
        for number, (split, location, label, sequence) in enumerate(rows):
            picture(root / f"train/{number}.png", number)
            table.writerow([split, f"{number}.png", label, location, sequence, "2020-01-01 00:00:00.000"])
    return root


@pytest.mark.filterwarnings("ignore:.*classes that one side lacks")
def test_a_camera_trap_stands_against_the_rest(traps):
    benchmark = load("iwildcam/7", **TINY)
    assert numbers(benchmark.source) == [*range(6)] and numbers(benchmark.source_test) == [*range(6, 12)]
    assert benchmark.split.classes == (0, 2)  # 5 is not in the source, and 1 was photographed once
    assert sorted(numbers(benchmark.target) + numbers(benchmark.target_test)) == [*range(12, 28)]
    assert len(benchmark.class_names) == 182 and domain_names("iwildcam/7") == ("train", "7")
    assert left_out("iwildcam/7", TINY) == {"classes that one side lacks": 9}


@pytest.mark.filterwarnings("ignore:.*classes that one side lacks")
def test_photographs_of_one_sequence_stay_on_one_side(traps):
    splits = set()
    for seed in range(4):
        target, _ = load_target("iwildcam/7", seed, **TINY)
        assert not {n // 2 for n in numbers(target.train)} & {n // 2 for n in numbers(target.test)}
        splits.add(tuple(numbers(target.test)))
    assert len(splits) > 1


@pytest.mark.filterwarnings("ignore:.*classes that one side lacks")
def test_a_location_may_go_by_its_rank(traps):
    for rank, own in (("top-1", "7"), ("top-2", "8")):
        by = [load_target(f"iwildcam/{name}", **TINY)[0] for name in (rank, own)]
        assert {*numbers(by[0].train), *numbers(by[0].test)} == {*numbers(by[1].train), *numbers(by[1].test)}


def test_every_target_has_the_same_source(traps):
    assert source_of("iwildcam/7", TINY) == source_of("iwildcam/8", TINY) == ("iwildcam/train", TINY)
    few = load_domain("iwildcam/train", **TINY, per_class=2)
    assert len(few.train) == 6
    with open(traps / "metadata.csv", "a", newline="") as file:
        for number in range(100, 109):
            picture(traps / f"train/{number}.png", number)
            csv.writer(file).writerow(["train", f"{number}.png", 0, 1, f"more{number}", ""])
    assert np.bincount(load_domain("iwildcam/train", **TINY, per_class=3).train.labels).tolist() == [3, 2, 2]


@pytest.mark.parametrize(
    ("name", "spoil", "words"),
    [
        ("7", shutil.rmtree, ("iwildcam_v2.0/metadata.csv", "12 GB", "wilds.stanford.edu", "Permissive")),
        ("1", lambda r: None, ("no target '1'", "7, 8", "top-1 to top-2")),
        ("top-3", lambda r: None, ("no target 'top-3'",)),
        ("7", lambda r: swap(r / "metadata.csv", "location_remapped", "place"), ("metadata.csv", "location_remapped")),
        ("7", lambda r: (r / "train/15.png").unlink(), ("lacks 1", "15.png")),
        ("train", lambda r: None, ("source of all", "iwildcam/LOCATION")),
    ],
)
def test_what_iwildcam_lacks_is_said_with_how_to_get_it(traps, name, spoil, words):
    spoil(traps)
    told = say(lambda: load(f"iwildcam/{name}", **TINY))
    assert all(word in told for word in words), told


def test_a_part_of_iwildcam_is_refused_unless_it_is_meant(traps):
    assert "41 images of 203,029" in say(lambda: load("iwildcam/7", size=8))


# --- all of them ------------------------------------------------------------------------------------------------------


def test_numbers_of_images_are_those_that_were_published():
    assert sum(officehome.IMAGES.values()) == 15588
    assert len(vtab.SETS) == 8 and (len(officehome.CLASSES), len(set(officehome.CLASSES))) == (65, 65)
    assert all(len({*own.split()}) == 30 for own in officehome.SEEN.values())
    assert (iwildcam.CLASSES, iwildcam.IMAGES) == (182, 129809 + 14961 + 42791 + 7314 + 8154)


def test_a_set_without_a_source_is_not_pre_trained_on():
    with pytest.raises(ValueError, match=r"vtab/dtd has no source domain.*steps=0"):
        Experiment("vtab/dtd", pretraining=Recipe())
