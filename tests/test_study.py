"""A chapter's runs as one table: what Study asks for, withholds and writes."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from ftlib.book.study import Runs, Study, bands, nearest_to_mean, of_pairs, over_setups, side_by_side
from ftlib.core import ClassSplit, Outputs
from ftlib.metrics import Point, split_accuracies
from ftlib.sweeps import SweepError

SPLIT = ClassSplit([0, 1], [2, 3])
LABELS = torch.arange(4).repeat(5)


def run(shift: float, method: str = "finetune", right: float = 1.0, key: str = "a"):
    """A run on 20 images: the first ``right`` of them win by one logit, absent classes are ``shift`` higher."""
    logits = torch.nn.functional.one_hot(LABELS, 4).double()
    logits[round(right * len(LABELS)) :] = torch.tensor([1.0, 0, 0, 0]).double()
    logits[:, 2:] += shift
    outputs = Outputs(torch.zeros(20, 2), logits, LABELS)
    log = {"device": "cpu", "seconds": 1.0}
    return SimpleNamespace(
        key=key, test=outputs, train=outputs, split=SPLIT, spec={"method": method}, log=log, shift=shift
    )


def keyed(*shifts: float) -> Runs:
    keys = [(pair, seed) for pair in ("a-b", "a-c") for seed in (0, 1)]
    return Runs({key: run(shift) for key, shift in zip(keys, shifts, strict=True)})


def study(folder, monkeypatch, **parameters) -> Study:
    monkeypatch.chdir(folder)
    values = {"benchmarks": ["glyphs/a-b"], "seeds": [0, 1]} | parameters
    return Study("99-test", "local", **values, backbone="test_resnet")


# --- the table -------------------------------------------------------------------------------------------------------


def test_a_row_of_a_measure_is_what_the_function_says_of_its_run():
    runs = keyed(0.0, -2.0, 0.0, -2.0)
    measured = runs.measure(lambda r: split_accuracies(r.test.logits, r.test.labels, r.split))
    assert list(measured.index) == list(runs) and measured.index.names == ["pair", "seed"]
    assert measured.uy.tolist() == [1, 0, 1, 0] and measured.sy.tolist() == [1, 1, 1, 1]


def test_a_measure_takes_what_stands_beside_a_run_under_its_key():
    runs, others = keyed(1.0, 2.0, 3.0, 4.0), {key: key[1] for key in keyed(0, 0, 0, 0)}
    measured = runs.measure(lambda r, seed: {"both": r.shift + 10 * seed}, others)
    assert measured.both.tolist() == [1, 12, 3, 14]


def test_several_setups_make_one_table_each_with_what_stands_beside_it():
    found = {"b": keyed(1.0, 2.0, 3.0, 4.0), "a": keyed(5.0, 6.0, 7.0, 8.0)}
    ten = {name: dict.fromkeys(runs, 10 * (name == "a")) for name, runs in found.items()}
    measured = over_setups(found, lambda r, more: {"both": r.shift + more}, ten)
    assert measured.index.names == ["setup", "pair", "seed"] and measured.both.tolist() == [1, 2, 3, 4, 15, 16, 17, 18]


def test_named_tuples_give_columns_and_arrays_stay_arrays():
    runs = keyed(1.0, 2.0, 3.0, 4.0)
    assert list(runs.measure(lambda r: Point(r.shift, 0.0, 0.0)).columns) == ["sy", "uy", "yy"]
    path = runs.measure(lambda r: {"path": np.array([0.0, r.shift])}).path
    assert path.iloc[2].tolist() == [0, 3]
    assert bands(path, 100).tolist() == [[0, 200], [0, 300]]  # seed 0 has 1 and 3, seed 1 has 2 and 4


def test_the_run_that_is_shown_is_the_one_nearest_to_the_mean_of_all():
    column = keyed(0.0, 1.0, 2.0, 9.0).measure(lambda r: {"x": r.shift}).x  # mean 3
    assert nearest_to_mean(column) == ("a-c", 0)


def test_pairs_come_apart_in_their_order_with_all_their_seeds():
    column = keyed(1.0, 2.0, 3.0, 4.0).measure(lambda r: {"x": r.shift}).x
    apart = of_pairs(column)
    assert {pair: of.tolist() for pair, of in apart.items()} == {"a-b": [1, 2], "a-c": [3, 4]}
    assert list(apart["a-c"].index) == [("a-c", 0), ("a-c", 1)]


# --- what is asked for -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [("benchmarks", "glyphs/print-neon"), ("seeds", "[0, 1]"), ("seeds", 3), ("seeds", ["0"]), ("seeds", [True])],
)
def test_what_is_no_list_of_its_kind_is_refused_with_the_form_to_write(tmp_path, monkeypatch, name, value):
    with pytest.raises(TypeError, match=rf"{name} is .*, expected a list such as .*papermill takes -y '{name}: …'"):
        study(tmp_path, monkeypatch, **{name: value})


def test_an_empty_list_is_refused(tmp_path, monkeypatch):
    with pytest.raises(TypeError, match="seeds is \\[\\]"):
        study(tmp_path, monkeypatch, seeds=[])


def test_a_plan_shares_what_the_study_has_unless_it_is_given(tmp_path, monkeypatch):
    asked = study(tmp_path, monkeypatch).plan("finetune", seeds=[7], recipe={"lr": 0.5})
    (experiment,) = asked.values()
    assert list(asked) == [("a-b", 7)]
    assert (experiment.backbone, experiment.recipe.lr, experiment.seed) == ("test_resnet", 0.5, 7)


def test_settings_are_tried_on_the_spare_seeds_with_images_held_out(tmp_path, monkeypatch):
    asked = {}

    def computed(plans):
        asked.update(plans)
        return {name: {key: tuned(e.recipe.lr) for key, e in of.items()} for name, of in plans.items()}

    def tuned(lr):  # a high rate loses the held-out images, a low one the absent test images
        made = run(0.0 if lr > 0.1 else -2.0)
        made.held_out = run(2.0 if lr > 0.1 else 0.0).test
        return made

    monkeypatch.setattr("ftlib.book.study.sweep", computed)
    settings = {rate: {"recipe": {"lr": rate}} for rate in (0.01, 0.5)}
    tried = study(tmp_path, monkeypatch).tune(settings, [1000, 1001])
    assert {e.seed for of in asked.values() for e in of.values()} == {1000, 1001}
    assert all(e.options["holdout"] == 0.2 for of in asked.values() for e in of.values())
    assert tried.held_out.idxmax() == 0.01 and tried.oracle.tolist() == [1, 1]  # γ* brings the absent images back


# --- what is said ----------------------------------------------------------------------------------------------------


def test_a_claim_about_a_column_is_judged_by_its_seeds(tmp_path, monkeypatch):
    effects = keyed(1.0, 2.0, 3.0, 4.2).measure(lambda r: {"x": r.shift}).x
    claim = study(tmp_path, monkeypatch).check("some", "Some", effects)
    assert [e["of"] for e in claim.effects] == ["seed 0", "seed 1"]
    assert [e["effect"] for e in claim.effects] == pytest.approx([2, 3.1])


def test_no_verdict_is_given_on_models_that_are_blind_on_the_target(tmp_path, monkeypatch):
    blind, fit = study(tmp_path, monkeypatch), study(tmp_path, monkeypatch)
    blind.used = {"a": run(0.0, "pretrained", right=0.0)}  # a quarter is right, as chance has it
    fit.used = {"a": run(0.0, "pretrained", right=0.5)}
    effects = {("a-b", seed): 10 + 0.01 * seed for seed in range(5)}
    assert fit.check("some", "Some", effects).verdict == "replicates" and not fit.banner()
    assert blind.check("some", "Some", effects).verdict == "reported"
    assert "right on 25.0% of the target's images, chance is 25.0%" in blind.banner()
    assert blind.banner() in blind.setup().data


def test_the_banner_waits_for_pretrained_models(tmp_path, monkeypatch):
    later = study(tmp_path, monkeypatch)
    assert later.banner() == ""
    later.used = {"a": run(0.0, "pretrained", right=0.0)}
    assert later.banner()


def test_the_setup_says_what_parameters_do_not_and_what_was_left_out(tmp_path, monkeypatch):
    assert study(tmp_path, monkeypatch).setup() is None  # and the page shows nothing
    monkeypatch.setattr("ftlib.book.study.families.left_out", lambda name, data: {"not an image": 2})
    assert study(tmp_path, monkeypatch).setup(Epochs=3).data == "Epochs 3. Left out of the images: 2 not an image."


def test_finishing_writes_the_record_with_all_runs_and_glues_the_texts(tmp_path, monkeypatch):
    glued = {}
    monkeypatch.setattr("myst_nb.glue", lambda name, text, display: glued.update({name: text}))
    done = study(tmp_path, monkeypatch)
    done.used = {"a": run(0.0, key="a"), "b": run(0.0, key="b")}
    done.check("some", "Some", pd.Series({("a-b", 0): 1.0, ("a-b", 1): 1.1}))
    done.finish({"text": "so"})
    written = json.loads((tmp_path / "results/local/99-test.json").read_text())
    assert glued == {"text": "so"} and written["values"] == {"text": "so"}
    assert [claim["id"] for claim in written["claims"]] == ["some"]
    assert written["provenance"]["runs"] == ["a", "b"] and written["provenance"]["seeds"] == [0, 1]


def test_what_was_left_out_of_the_images_is_in_the_record(tmp_path, monkeypatch):
    monkeypatch.setattr("myst_nb.glue", lambda *args, **how: None)
    done = study(tmp_path, monkeypatch)
    done.used = {"a": run(0.0, key="a")}
    monkeypatch.setattr("ftlib.book.study.families.left_out", lambda name, data: {"not an image": 2})
    done.finish({})
    written = json.loads((tmp_path / "results/local/99-test.json").read_text())
    assert written["provenance"]["left_out"] == {"not an image": 2}


# --- choices, and what did not come to an end ------------------------------------------------------------------------


def test_the_setting_with_the_best_held_out_accuracy_is_chosen_and_a_single_one_is_not_tried(tmp_path, monkeypatch):
    asked = []

    def sweep(plans):
        asked.extend(plan for of in plans.values() for plan in of.values())
        worse = {name: run(5.0 * (next(iter(of.values())).recipe.lr != 0.03)) for name, of in plans.items()}
        for r in worse.values():
            r.held_out = r.test
        return {name: {key: worse[name] for key in of} for name, of in plans.items()}

    monkeypatch.setattr("ftlib.book.study.sweep", sweep)
    settings = {
        "tried": [{"method": "masked", "recipe": {"lr": lr}} for lr in (0.1, 0.03, 0.01)],
        "alone": [{"method": "finetune"}],
    }
    chosen, scores = study(tmp_path, monkeypatch, benchmarks=["glyphs/a-b", "glyphs/a-c"]).choose(settings, [77])
    assert chosen == {"tried": settings["tried"][1], "alone": settings["alone"][0]}
    assert list(scores.index) == [("tried", 0), ("tried", 1), ("tried", 2)]
    assert {(e.method, e.benchmark, e.seed, e.options["holdout"]) for e in asked} == {("masked", "glyphs/a-b", 77, 0.2)}


def test_runs_that_diverged_are_left_out_and_other_failures_are_not_hidden(tmp_path, monkeypatch):
    mine = study(tmp_path, monkeypatch)
    plan = mine.plan("finetune")
    bad = plan["a-b", 1]
    problem = "FloatingPointError: the loss is nan"

    def sweep(plans):
        if any(e == bad for of in plans.values() for e in of.values()):
            raise SweepError("1 of 2 runs failed", {bad: problem})
        return {name: {key: run(0.0) for key in of} for name, of in plans.items()}

    monkeypatch.setattr("ftlib.book.study.sweep", sweep)
    monkeypatch.setattr("ftlib.book.study._finite", lambda run: True)
    assert list(mine.finished({"all": plan})["all"]) == [("a-b", 0)]
    problem = "OSError: no space left"
    with pytest.raises(SweepError):
        mine.finished({"all": plan})


def test_several_kinds_of_runs_stand_side_by_side_under_their_key():
    ones, twos = keyed(1.0, 1.0, 1.0, 1.0), keyed(2.0, 2.0, 2.0, 2.0)
    beside = side_by_side({"one": ones, "two": twos})
    assert list(beside) == list(ones)
    assert beside["a-c", 1] == {"one": ones["a-c", 1], "two": twos["a-c", 1]}


def test_measures_named_by_pairs_are_columns_in_two_levels():
    measured = keyed(1.0, 2.0, 3.0, 4.0).measure(lambda r: {("plain", "x"): r.shift, ("twice", "x"): 2 * r.shift})
    assert measured.xs("x", axis=1, level=1).twice.tolist() == [2, 4, 6, 8]
