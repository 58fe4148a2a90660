"""ftlib.book.record: a record is written whole or not at all, and read back by profile and chapter."""

from __future__ import annotations

import json
import math
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from ftlib.book.claims import Claim
from ftlib.book.estimates import estimate
from ftlib.book.record import Record, load_results


def seeds(*values):
    return {f"seed {i}": v for i, v in enumerate(values)}


def a_record(root, profile="ci"):
    record = Record("03-what-breaks", profile, root=root)
    record.check("absent-drop", "It falls.", seeds(1 / 3, 2 / 3))
    record.values["accuracy"] = np.float32(0.1)
    return record


def test_a_record_is_small_sorted_and_complete(tmp_path):
    runs = [SimpleNamespace(key=k, log={"device": "a CPU", "seconds": 1.5, "versions": {}}) for k in "bab"]
    path = a_record(tmp_path).save(runs, seeds=[0, 1])
    text = path.read_text()
    content = json.loads(text)
    assert path == tmp_path / "ci" / "03-what-breaks.json" and text.endswith("}\n")
    assert text == json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False) + "\n"
    assert (content["chapter"], content["profile"]) == ("03-what-breaks", "ci")
    assert content["claims"][0]["effects"][0] == {"effect": 0.333333, "of": "seed 0"}
    assert content["values"] == {"accuracy": 0.1}
    provenance = content["provenance"]
    assert provenance["runs"] == ["a", "b"] and provenance["seconds"] == 3.0 and provenance["seeds"] == [0, 1]
    assert provenance["device"] == ["a CPU"]
    assert {"python", "torch", "timm", "numpy", "matplotlib"} <= set(provenance["versions"])


def test_values_become_plain(tmp_path):
    record = Record("c", "ci", root=tmp_path)
    record.values.update(
        a=np.int64(3), b=np.array([1.0, np.nan]), c=torch.tensor([1, 2]), d=math.inf, e=(True, None, "x"),
        f={3: 1.23456789}, g=estimate([1.0]),
    )  # fmt: skip
    record.save()
    assert load_results(tmp_path)["ci"]["c"]["values"] == {
        "a": 3, "b": [1.0, None], "c": [1, 2], "d": None, "e": [True, None, "x"], "f": {"3": 1.23457},
        "g": {"mean": 1.0, "low": None, "high": None, "n": 1},
    }  # fmt: skip


def test_what_is_not_plain_is_named_and_nothing_is_written(tmp_path):
    record = Record("c", "ci", root=tmp_path)
    record.values["models"] = [object()]
    with pytest.raises(TypeError, match=r"values.models\[0\] is a object"):
        record.save()
    assert not list(tmp_path.iterdir())


def test_an_id_is_recorded_once(tmp_path):
    record = a_record(tmp_path)
    with pytest.raises(ValueError, match="'absent-drop' already"):
        record.check("absent-drop", "Again.", seeds(1.0))
    assert len(record.claims) == 1


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_intact(tmp_path, monkeypatch, step):
    path = a_record(tmp_path).save()
    before = path.read_bytes()
    record = a_record(tmp_path)
    record.values["accuracy"] = 0.9

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match=r"03-what-breaks\.json.*No space left.*untouched") as error:
        record.save()
    assert error.value.errno == 28 and path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_of_two_runs_of_a_chapter_at_a_time_the_second_to_end_is_an_error_and_overwrites_nothing(tmp_path):
    first, second = a_record(tmp_path, "local"), a_record(tmp_path, "local")
    before = first.save().read_bytes()
    second.values["accuracy"] = 0.9
    with pytest.raises(FileExistsError, match=r"03-what-breaks\.json was written by another run .* than 'local'"):
        second.save()
    assert first.path.read_bytes() == before


def test_a_run_may_save_twice_and_replaces_what_was_there_when_it_began(tmp_path):
    a_record(tmp_path).save()
    record = a_record(tmp_path)
    record.save()
    record.values["accuracy"] = 0.9
    record.save()
    assert load_results(tmp_path)["ci"]["03-what-breaks"]["values"]["accuracy"] == 0.9


def test_results_are_loaded_by_profile_and_chapter(tmp_path):
    a_record(tmp_path, "ci").save()
    a_record(tmp_path, "cpu").save()
    results = load_results(tmp_path)
    assert {p: list(chapters) for p, chapters in results.items()} == {p: ["03-what-breaks"] for p in ("ci", "cpu")}
    assert Claim.from_json(results["ci"]["03-what-breaks"]["claims"][0]).verdict == "inconclusive"


@pytest.mark.parametrize("damage", [b'{"chapter": ', b"\xff\xfe"])
def test_a_damaged_result_is_named(tmp_path, damage):
    path = a_record(tmp_path).save()
    path.write_bytes(damage)
    with pytest.raises(ValueError, match=r"03-what-breaks\.json is damaged.*execute chapter 03-what-breaks again"):
        load_results(tmp_path)


def test_missing_results_are_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: execute the chapters first"):
        load_results(tmp_path / "nowhere")


def test_a_picture_lies_beside_the_results_and_alone(tmp_path):
    path = Record("04-one", "cpu", root=tmp_path).picture(Figure(), "trade-off")
    assert path == tmp_path / "cpu/trade-off.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    assert list(path.parent.iterdir()) == [path]


def test_a_chapter_finds_what_it_recorded_under_another_profile(tmp_path):
    for chapter, profile in (("05", "cpu"), ("05", "study"), ("06", "gpu")):
        record = Record(chapter, profile, tmp_path)
        record.values["from"] = f"{chapter} {profile}"
        record.save()
    assert Record("05", "cpu", tmp_path).under("study") == {"from": "05 study"}
    for profile in ("gpu", "none"):
        with pytest.raises(FileNotFoundError, match=f"no results of chapter 05 under profile '{profile}': execute it"):
            Record("05", "cpu", tmp_path).under(profile)
