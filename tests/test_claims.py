"""Intervals by hand, the truth table of verdicts, and a record that is written whole or not at all."""

from __future__ import annotations

import json
import math
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from scipy import stats

from ftlib.book.claims import Claim, check
from ftlib.book.estimates import by_seed, estimate, over_seeds, percent, table
from ftlib.book.record import Record, load_results


def seeds(*values):
    return {f"seed {i}": v for i, v in enumerate(values)}


def test_interval_by_hand():
    e = estimate([1.0, 2.0, 3.0])  # s = 1, t(0.975, 2) = 4.3027
    assert (e.mean, e.n) == (2.0, 3)
    assert e.high - e.mean == pytest.approx(4.302653 / math.sqrt(3)) == pytest.approx(e.mean - e.low)


def test_interval_equals_scipy():
    values = np.random.default_rng(0).normal(size=7)
    e = estimate(values)
    assert (e.low, e.high) == pytest.approx(stats.t.interval(0.95, 6, values.mean(), stats.sem(values)))


def test_one_repetition_has_no_interval():
    e = estimate([4.0])
    assert (e.low, e.high) == (-math.inf, math.inf) and str(e) == "4.0 (n = 1)"


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_an_estimate_needs_finite_values(values):
    with pytest.raises(ValueError, match="at least one, all finite"):
        estimate(values)


def test_how_numbers_are_written():
    e = estimate([0.56, 0.58])
    assert str(estimate([56.0, 57, 58])) == "57.0 ± 2.5" and f"{e:.2f}" == "0.57 ± 0.13"
    assert percent(0.5712) == "57.1 %" and percent(e) == "57.0 ± 12.7 %" and percent(0.5, 0) == "50 %"
    assert percent(estimate([0.5])) == "50.0 % (n = 1)"


def test_over_seeds_averages_the_pairs_of_a_seed_first():
    values = {("a-b", 0): 1.0, ("b-a", 0): 3.0, ("a-b", 1): 4.0, ("b-a", 1): 6.0}
    assert by_seed(values) == {0: 2.0, 1: 5.0}
    assert over_seeds(values) == estimate([2.0, 5.0])


def test_table_is_markdown():
    assert table(["a", "b"], [["x|y", 1]])._repr_markdown_() == "| a | b |\n| :-- | --: |\n| x\\|y | 1 |"
    with pytest.raises(ValueError, match="1 cells, the header has 2"):
        table(["a", "b"], [["x"]])


@pytest.mark.parametrize(
    ("effects", "bounds", "verdict"),
    [
        ([9, 10, 11], {}, "replicates"),
        ([-9, -10, -11], {}, "contradicts"),
        ([-1, 0, 2], {}, "inconclusive"),
        ([5], {}, "inconclusive"),
        ([0, 0, 0], {}, "inconclusive"),  # not above, not below
        ([9, 10, 11], {"at_least": 10}, "inconclusive"),
        ([9, 10, 11], {"at_least": 20}, "contradicts"),
        ([9, 10, 11], {"at_least": -20}, "replicates"),
        ([0.01, 0, -0.01], {"within": 0.1}, "replicates"),
        ([0.01, 0, -0.01], {"within": 0.02}, "inconclusive"),
        ([1.01, 1, 0.99], {"within": 0.1}, "contradicts"),
        ([-1.01, -1, -0.99], {"within": 0.1}, "contradicts"),
        ([0.01], {"within": 0.1}, "inconclusive"),
        ([9, 10, 11], {"judged": False}, "reported"),
    ],
)
def test_verdict(effects, bounds, verdict):
    assert check("id", "It holds.", seeds(*effects), **bounds).verdict == verdict


def test_effects_of_one_group_are_one_repetition():
    effects = {"a-b, seed 0": 1.0, "b-a, seed 0": 3.0, "a-b, seed 1": 4.0}
    groups = {"a-b, seed 0": "seed 0", "b-a, seed 0": "seed 0", "a-b, seed 1": "seed 1"}
    claim = check("id", "It holds.", effects, groups=groups)
    plain = check("id", "It holds.", {"seed 0": 2.0, "seed 1": 4.0})
    assert (claim.n, claim.mean, claim.low, claim.high) == (2, plain.mean, plain.low, plain.high)
    assert [(e["of"], e["effect"]) for e in claim.effects] == [("seed 0", 2.0), ("seed 1", 4.0)]
    assert claim.effects[0]["parts"] == {"a-b, seed 0": 1.0, "b-a, seed 0": 3.0}
    assert check("id", "It holds.", effects, groups=["seed 0", "seed 0", "seed 1"]) == claim


def test_labels_of_pair_and_seed_are_grouped_by_seed():
    claim = check("id", "It holds.", {("a-b", 0): 1.0, ("b-a", 0): 3.0, ("a-b", 1): 4.0})
    assert claim.n == 2 and claim.effects[0]["parts"] == {"a-b, seed 0": 1.0, "b-a, seed 0": 3.0}


def test_effects_keep_their_labels_where_no_group_has_two():
    claim = check("id", "It holds.", {("a-b", 0): 1.0, ("a-b", 1): 3.0})
    assert claim.effects == [{"effect": 1.0, "of": "a-b, seed 0"}, {"effect": 3.0, "of": "a-b, seed 1"}]


@pytest.mark.parametrize(
    ("effects", "options", "message"),
    [
        ({}, {}, "'id' has no effects"),
        ([("a", 1.0), ("b", 2.0), ("a", 3.0)], {}, r"repeats the labels \['a'\]"),
        ({"a": 1.0, "b": math.nan, "c": math.inf}, {}, r"not finite: \{'b': nan, 'c': inf\}"),
        ({"a": 1.0}, {"groups": {"b": 0}}, r"no group for \['a'\]"),
        ({"a": 1.0}, {"groups": [0, 1]}, "1 effects, but 2 groups"),
        ({"a": 1.0}, {"within": 0.1, "at_least": 1.0}, "excludes at_least=1.0"),
        ({"a": 1.0}, {"within": 0.0}, "must be positive"),
    ],
)
def test_bad_effects_are_named(effects, options, message):
    with pytest.raises(ValueError, match=message):
        check("id", "It holds.", effects, **options)


@pytest.mark.parametrize("effects", [[9, 10, 11], [5]])
def test_a_claim_survives_json(effects):
    claim = check("id", "It holds.", seeds(*effects), within=0.5)
    text = json.dumps(claim.to_json(), allow_nan=False)
    assert Claim.from_json(json.loads(text)) == claim
    assert (json.loads(text)["low"] is None) == (len(effects) == 1)


def test_a_claim_on_the_page():
    claim = check("absent-drop", "Absent accuracy falls.", seeds(12.0, 12.5, 13.0))
    assert claim.fact() == "absent-drop: replicates"
    assert claim._repr_markdown_() == (
        "> **✓ replicates** — Absent accuracy falls.  \n"
        "> 12.5 points, 95 % interval [11.3, 13.7], n = 3 · expected above 0 · `absent-drop`"
    )
    assert "no interval, n = 1" in check("a", "b", {"c": 1.0})._repr_markdown_()


# The record ------------------------------------------------------------------------------------------------------


def a_record(root, profile="ci"):
    record = Record("02-what-breaks", profile, root=root)
    record.check("absent-drop", "It falls.", seeds(1 / 3, 2 / 3))
    record.values["accuracy"] = np.float32(0.1)
    return record


def test_a_record_is_small_sorted_and_complete(tmp_path):
    runs = [SimpleNamespace(key=k, log={"device": "a CPU", "seconds": 1.5, "versions": {}}) for k in "bab"]
    path = a_record(tmp_path).save(runs, seeds=[0, 1])
    text = path.read_text()
    content = json.loads(text)
    assert path == tmp_path / "ci" / "02-what-breaks.json" and text.endswith("}\n")
    assert text == json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False) + "\n"
    assert (content["chapter"], content["profile"]) == ("02-what-breaks", "ci")
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
    with pytest.raises(OSError, match=r"02-what-breaks\.json.*No space left.*untouched") as error:
        record.save()
    assert error.value.errno == 28 and path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_results_are_loaded_by_profile_and_chapter(tmp_path):
    a_record(tmp_path, "ci").save()
    a_record(tmp_path, "cpu").save()
    results = load_results(tmp_path)
    assert {p: list(chapters) for p, chapters in results.items()} == {p: ["02-what-breaks"] for p in ("ci", "cpu")}
    assert Claim.from_json(results["ci"]["02-what-breaks"]["claims"][0]).verdict == "inconclusive"


@pytest.mark.parametrize("damage", [b'{"chapter": ', b"\xff\xfe"])
def test_a_damaged_result_is_named(tmp_path, damage):
    path = a_record(tmp_path).save()
    path.write_bytes(damage)
    with pytest.raises(ValueError, match=r"02-what-breaks\.json is damaged.*execute chapter 02-what-breaks again"):
        load_results(tmp_path)


def test_missing_results_are_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: execute the chapters first"):
        load_results(tmp_path / "nowhere")


def test_a_picture_lies_beside_the_results_and_alone(tmp_path):
    path = Record("04-one", "cpu", root=tmp_path).picture(Figure(), "trade-off")
    assert path == tmp_path / "cpu/trade-off.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    assert list(path.parent.iterdir()) == [path]


def test_a_chapter_finds_what_it_recorded_under_other_profiles_for_readers(tmp_path):
    for chapter, profile in (("05", "cpu"), ("05", "study"), ("05", "ci"), ("05", "local"), ("06", "gpu")):
        record = Record(chapter, profile, tmp_path)
        record.values["from"] = f"{chapter} {profile}"
        record.save()
    assert Record("05", "cpu", tmp_path).elsewhere() == {"study": {"from": "05 study"}}
