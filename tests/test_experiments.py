"""ftlib.experiments: an Experiment is computed once, under a name that says all it depends on."""

from __future__ import annotations

import ast
import inspect
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from ftlib import benchmarks, core, experiments, models, training
from ftlib import store as store_module
from ftlib.benchmarks import drawing, glyphs
from ftlib.experiments import Experiment, grid, pair_of, run, sweep
from ftlib.store import Store
from ftlib.training import Recipe

DATA = {"classes": 8, "source_per_class": 8, "target_per_class": 6, "test_per_class": 4}
TINY = Recipe(epochs=1, batch_size=8)
BASE = Experiment("glyphs/print-neon", "test_byobnet", "finetune", TINY, pretraining=TINY, data=DATA)
OTHERS = [replace(BASE, benchmark="glyphs/print-chalk"), replace(BASE, method="pretrained")]  # of the same source


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Store:
    """A store that holds BASE, for tests that only read."""
    store = Store(tmp_path_factory.mktemp("shared"))
    run(BASE, store=store)
    return store


def fresh(experiment: Experiment) -> Experiment:
    """The same experiment, its key not yet computed."""
    return replace(experiment)


# ---------------------------------------------------------------------------------------- the key

CHANGED = {
    "benchmark": "glyphs/print-chalk",
    "backbone": "test_resnet",
    "method": "pretrained",
    "recipe": replace(TINY, lr=0.02),
    "seed": 1,
    "pretraining": replace(TINY, lr=0.02),
    "data": DATA | {"target_per_class": 7},
    "model": {"drop_rate": 0.1},
    "checkpoint": "a.safetensors",
    "head": "cosine",
    "options": {"holdout": 0.25},
}


@pytest.mark.parametrize("method", ["pretrain", "pretrained", "adabn"])
def test_a_method_that_fine_tunes_nothing_is_one_experiment_whatever_the_recipe_of_fine_tuning(method):
    recipes = TINY, replace(TINY, lr=0.5, epochs=3)
    assert len({replace(BASE, method=method, recipe=recipe).key for recipe in recipes}) == 1


@pytest.fixture
def a_checkpoint(tmp_path, monkeypatch) -> None:
    """A file of the name in CHANGED, which a key reads and does not understand."""
    (tmp_path / "a.safetensors").write_bytes(b"weights")
    monkeypatch.setenv("FTLIB_DATA", str(tmp_path))


@pytest.mark.usefixtures("a_checkpoint")
@pytest.mark.parametrize("name", [field.name for field in fields(Experiment)])
def test_the_key_changes_with_every_field(name):
    assert replace(BASE, **{name: CHANGED[name]}).key != BASE.key


@pytest.mark.parametrize("name", [field.name for field in fields(Recipe)])
def test_the_key_changes_with_every_value_of_the_recipe(name):
    others = {"optimizer": "adam", "flip": True, "compile": True, "size": 20, "warmup": 0.5, "batch_norm": "eval"}
    others |= {"loss": "sigmoid", "label_smoothing": 0.1}
    assert replace(BASE, recipe=replace(TINY, **{name: others.get(name, 7)})).key != BASE.key


def test_the_key_does_not_depend_on_the_order_of_options():
    assert replace(BASE, data=dict(reversed(DATA.items()))).key == BASE.key


def test_the_key_is_the_same_in_another_process():
    program = f"from ftlib.experiments import *; print({BASE!r}.key)"
    environment = os.environ | {"PYTHONHASHSEED": "12345"}
    assert subprocess.check_output([sys.executable, "-c", program], env=environment, text=True).strip() == BASE.key


@pytest.mark.parametrize(
    ("method", "options"),
    [("finetune", {"holdout": 0}), ("finetune", {"holdout": 0.0}), ("lolsgd", {"copies": 4, "distill": 0})],
)
def test_a_default_that_is_written_out_is_no_other_experiment(method, options):
    plain = replace(BASE, method=method)
    assert replace(plain, options=options).key == plain.key


def test_an_option_without_a_default_must_be_given():
    with pytest.raises(ValueError, match="fold needs the option fold"):
        replace(BASE, method="fold")


def test_an_experiment_is_its_key():
    assert {BASE: 1}[fresh(BASE)] == 1


@pytest.fixture
def edited(monkeypatch):
    """Read another source for one module, as if its file had been edited before Python was started."""
    read = inspect.getsource

    def edit(module, pattern: str, replacement: str) -> None:
        changed, n = re.subn(pattern, replacement, read(module), count=1)
        assert n == 1
        monkeypatch.setattr(inspect, "getsource", lambda m: changed if m is module else read(m))
        store_module._hash_of.cache_clear()

    yield edit
    store_module._hash_of.cache_clear()


def test_a_change_of_a_baseline_changes_the_keys_of_baselines_alone(edited):
    masked = replace(BASE, method="masked")
    keys = masked.key, BASE.key
    edited(experiments.baselines, r"logits\[:, seen\]", "logits[:, seen] + 1")
    assert fresh(masked).key != keys[0]
    assert fresh(BASE).key == keys[1]


def test_comments_docstrings_and_layout_do_not_change_the_key(edited):
    key = BASE.key
    edited(training, r'^"""', '# a remark\n\n\n"""Other words. ')
    assert fresh(BASE).key == key
    edited(training, r"Train a model in place", "Train a model in its place")
    assert fresh(BASE).key == key


@pytest.mark.parametrize(
    ("module", "pattern", "replacement"),
    [
        (training, r"zero_grad\(\)", "zero_grad(set_to_none=False)"),
        (training, r"0\.5 \* \(1", "0.6 * (1"),
        (experiments.batches, r"2 \* padding - size", "2 * padding - size - 0"),
        (models, r"255 \* std", "256 * std"),
        (experiments.methods, r"torch\.tensor\(task\.split\.seen\)", "train.labels"),
        (experiments._task, r"split_classes", "split_images"),
        (benchmarks, r"OF_TARGET = ", "OF_TARGETS = "),
        (drawing, r"SIZE = 32", "SIZE = 33"),
        (glyphs, r"BATCH = 256", "BATCH = 255"),
        (core, r"__len__", "__size__"),
    ],
)
def test_a_change_of_the_code_behind_a_result_changes_the_key(edited, module, pattern, replacement):
    key = BASE.key
    edited(module, pattern, replacement)
    assert fresh(BASE).key != key


def test_an_edit_while_python_runs_does_not_change_the_key(monkeypatch):
    """The code in memory is still the old one, and its results must not be found under the new one's name."""
    key = fresh(BASE).key
    monkeypatch.setattr(inspect, "getsource", lambda _: "x = 1")
    assert fresh(BASE).key == key


def test_the_code_reads_the_same_in_a_python_whose_syntax_has_more_fields():
    """Python 3.12 gave functions a list of type parameters, and a store outlives an interpreter."""
    tree = ast.parse("def f(x): return x")
    before = store_module._plain(tree)
    function = tree.body[0]
    function._fields = (*function._fields, "type_parameters")
    function.type_parameters = []
    assert store_module._plain(tree) == before


# ---------------------------------------------------------------------------------------- what its names stand for


def paint(folder: Path, grey: int = 0) -> None:
    """Two domains of three classes with four images each, every one different."""
    shades = iter(range(grey, 256))
    for name in (f"{domain}/{c}/{i}.png" for domain in "ab" for c in ("cup", "mug", "pen") for i in range(4)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (next(shades), 90, 10)).save(folder / name)


@pytest.fixture
def photographs(tmp_path, monkeypatch) -> Path:
    paint(tmp_path / "data/set")
    monkeypatch.setenv("FTLIB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("FTLIB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "data/set"


OF_PHOTOGRAPHS = replace(BASE, benchmark="folder:set/a-b", data={"size": 32})


def key_now(experiment: Experiment = OF_PHOTOGRAPHS) -> str:
    """A look at the files is remembered for a second."""
    experiments._looked_at.cache_clear()
    return fresh(experiment).key


def overwrite(folder: Path) -> None:
    """Another image in a file of the same name, size and time."""
    path, other = folder / "b/cup/0.png", folder / "b/mug/3.png"
    times = path.stat()
    content = other.read_bytes()
    assert len(content) == times.st_size
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns + 1))


@pytest.mark.parametrize(
    "change",
    [
        overwrite,
        lambda folder: (folder / "b/cup/0.png").unlink(),
        lambda folder: (folder / "b/cup/0.png").rename(folder / "b/mug/9.png"),
        lambda folder: paint(folder, grey=1),
        lambda folder: (folder / "a/cup/0.png").write_bytes((folder / "a/cup/1.png").read_bytes()),  # of the source
    ],
)
def test_other_images_under_the_same_names_are_another_experiment(photographs, change):
    before = key_now()
    change(photographs)
    assert key_now() != before


def test_the_same_images_elsewhere_and_later_are_the_same_experiment(photographs, tmp_path, monkeypatch):
    before = key_now()
    (photographs / "b/cup/0.png").touch()
    assert key_now() == before
    shutil.copytree(photographs, tmp_path / "moved/set")
    monkeypatch.setenv("FTLIB_DATA", str(tmp_path / "moved"))
    assert key_now() == before
    paint(tmp_path / "moved/set", grey=100)
    assert key_now() != before


def test_a_sweep_does_not_look_through_a_folder_for_every_run(photographs, monkeypatch):
    looked, identity = [], benchmarks.identity
    monkeypatch.setattr(benchmarks, "identity", lambda name: looked.append(name) or identity(name))
    monkeypatch.setattr(experiments, "time", SimpleNamespace(monotonic=lambda: 5.3))
    experiments._looked_at.cache_clear()
    keys = {replace(OF_PHOTOGRAPHS, seed=seed).key for seed in range(20)}
    assert (len(keys), looked) == (20, ["folder:set/a-b"])


def test_another_checkpoint_under_the_same_name_is_another_experiment(tmp_path, monkeypatch):
    monkeypatch.setenv("FTLIB_DATA", str(tmp_path))
    experiment, path = replace(BASE, checkpoint="best.pth"), tmp_path / "best.pth"
    torch.save(models.build("test_byobnet", 8, seed=1).state_dict(), path)
    before = fresh(experiment).key
    os.utime(path, ns=(1, 1))
    assert fresh(experiment).key == before
    assert fresh(experiment).content.keys() == {"best.pth"}
    torch.save(models.build("test_byobnet", 8, seed=2).state_dict(), path)
    assert fresh(experiment).key != before


def test_runs_of_images_and_a_checkpoint_are_found_where_neither_is(photographs, monkeypatch, trainings):
    experiment = replace(OF_PHOTOGRAPHS, checkpoint="best.pth")
    torch.save(models.build("test_byobnet", 3, seed=1).state_dict(), photographs.parent / "best.pth")
    key_now(experiment)
    there = run(experiment)
    assert there.log["content"] == experiment.content
    shutil.rmtree(photographs.parent)
    trainings.clear()
    experiments._looked_at.cache_clear()
    here = run(fresh(experiment))
    assert (here.path, trainings) == (there.path, [])
    assert run(fresh(experiment).source).test.logits.shape[1] == 3
    monkeypatch.setenv("FTLIB_STORE", str(photographs.parent.parent / "other"))
    with pytest.raises(
        FileNotFoundError, match=r"no 'set' in .*FTLIB_DATA.* and no run in .*/other was computed with it"
    ):
        _ = fresh(experiment).key


# ---------------------------------------------------------------------------------------- the source


def test_targets_and_methods_of_a_source_share_its_pretraining():
    more_images = replace(BASE, data=DATA | {"target_per_class": 9}, recipe=Recipe())
    assert len({e.source.key for e in (BASE, *OTHERS, more_images)}) == 1


@pytest.mark.usefixtures("a_checkpoint")
@pytest.mark.parametrize("name", ["backbone", "seed", "pretraining", "model", "checkpoint", "head"])
def test_what_bears_on_pretraining_gives_another_source(name):
    assert replace(BASE, **{name: CHANGED[name]}).source.key != BASE.source.key


def test_any_choice_of_seen_classes_and_any_option_of_a_method_shares_the_pretraining():
    others = [replace(BASE, data=DATA | {"seen": seen}) for seen in (3, [0, 1, 2], [7, 6])]
    others += [replace(BASE, options={"holdout": 0.2}), replace(BASE, method="lolsgd", options={"copies": 2})]
    assert {other.source.key for other in others} == {BASE.source.key}
    assert len({other.key for other in (BASE, *others)}) == 6


def test_pretraining_starts_from_nothing_and_a_method_from_the_pretraining():
    assert BASE.source.parents == ()
    for method in ("pretrained", "finetune", "oracle", "masked", "frozen_head", "linear_probe", "lolsgd"):
        assert replace(BASE, method=method).parents == (BASE.source,)
    assert replace(BASE, method="fold", options={"fold": 0}).parents == (BASE.source,)


def test_interpolation_starts_from_the_pretrained_and_the_plainly_fine_tuned():
    wise = replace(BASE, method="wise", options={"alpha": 0.3})
    assert wise.parents == (BASE.source, BASE)
    assert wise.parents[1].key == BASE.key


def test_the_parents_are_computed_once_and_in_their_order(trainings, shared):
    wise = replace(BASE, method="wise", options={"alpha": 1.0})
    assert torch.allclose(run(wise).test.logits, run(BASE, store=shared).test.logits, atol=1e-4)
    assert len(trainings) == 2
    run(replace(wise, options={"alpha": 0.5}))
    assert len(trainings) == 2


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("finetune", {"alpha": 1}, r"finetune has no option alpha; it has holdout"),
        ("lolsgd", {"copy": 2}, r"lolsgd has no option copy; it has copies, classes, .*, budget, holdout"),
        ("oracle", {"holdout": 0.1}, r"oracle has no option holdout; it has none"),
        ("fold", {"holdout": 0.1, "model": 3}, r"fold has no option model; it has fold, holdout"),
    ],
)
def test_an_option_that_a_method_lacks_is_answered_with_those_it_has(method, options, message):
    with pytest.raises(ValueError, match=message):
        replace(BASE, method=method, options=options)


def test_an_option_changed_by_the_caller_does_not_reach_the_experiment():
    options = {"holdout": 0.25}
    experiment = replace(BASE, options=options)
    options["holdout"] = 0.5
    assert experiment.options == {"holdout": 0.25}


def test_pretraining_takes_place_once(trainings):
    for experiment in (BASE, *OTHERS):
        run(experiment)
    assert len(trainings) == 3  # the source, neon and chalk; the third only looks


# ---------------------------------------------------------------------------------------- run


def test_a_run_in_the_store_is_not_computed(shared, trainings):
    assert run(fresh(BASE), store=shared).test.logits.shape == (8 * 4, 8)
    assert trainings == []


def test_a_store_may_be_named_by_its_folder(shared, trainings):
    for root in (shared.root, str(shared.root)):
        assert run(fresh(BASE), store=root).path == sweep([fresh(BASE)], store=root)[0].path == shared.root / BASE.key
    assert trainings == []


def test_a_run_gives_the_same_bits_in_another_store(shared):
    torch.manual_seed(99)
    first, again = run(BASE, store=shared), run(BASE)
    assert again.path != first.path
    assert torch.equal(again.test.logits, first.test.logits)
    assert all(torch.equal(value, first.state[name]) for name, value in again.state.items())


def test_a_truncated_run_is_computed_again(shared, trainings):
    path = run(BASE).path / "arrays.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    trainings.clear()
    with pytest.warns(UserWarning, match=rf"run {BASE.key} was damaged"):
        again = run(BASE)
    assert trainings == [0]  # not the source
    assert torch.equal(again.test.logits, run(BASE, store=shared).test.logits)


def test_two_that_ask_at_the_same_time_get_one_run(trainings):
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(run, [BASE, fresh(BASE)])
    assert first.path == second.path
    assert len(trainings) == 2  # the source and the target


def test_a_run_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="unknown backbone 'test_resnett'"):
        run(replace(BASE, backbone="test_resnett"), store=Store(tmp_path / "s"))
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["locks"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"method": "finetuning"}, r"unknown method 'finetuning': expected one of pretrain, pretrained, adabn, fine"),
        ({"benchmark": "glyph/print-neon"}, r"unknown benchmark 'glyph/print-neon'"),
        ({"benchmark": "glyphs/print-oil"}, "oil"),
        ({"data": {"clases": 3}}, "clases"),
    ],
)
def test_what_does_not_exist_is_named(values, message):
    with pytest.raises(ValueError, match=message):
        run(replace(BASE, **values))


# ---------------------------------------------------------------------------------------- what a Run holds


def test_the_outputs_are_those_of_the_benchmark(shared):
    result, benchmark = run(BASE, store=shared), benchmarks.load(BASE.benchmark, seed=0, **DATA)
    assert torch.equal(result.test.labels, benchmark.target_test.labels)
    assert torch.equal(result.train.labels, benchmark.target.labels)
    assert result.split == benchmark.split


def test_the_built_classifier_gives_the_runs_logits(shared):
    result = run(BASE, store=shared)
    target, _ = benchmarks.load_target(BASE.benchmark, 0, **DATA)
    outputs = training.predict(result.build(), target.test)
    torch.testing.assert_close(outputs.logits, result.test.logits)
    torch.testing.assert_close(outputs.features, result.test.features)


def test_a_run_that_trains_nothing_says_that_it_has_no_classifier(shared):
    with pytest.raises(ValueError, match=r"'pretrained' keeps no weights.*source"):
        run(replace(BASE, method="pretrained"), store=shared).build()


def test_the_training_outputs_for_methods_are_of_seen_classes_only(shared):
    result = run(BASE, store=shared)
    assert sorted(set(result.seen_train.labels.tolist())) == list(result.split.seen)
    assert len(result.seen_train.logits) == len(result.seen_train.features) == 4 * 6
    assert sorted(set(result.train.labels.tolist())) == list(range(8))


def test_absent_images_do_not_reach_fine_tuning(monkeypatch):
    labels, fit = [], training.fit
    monkeypatch.setattr(training, "fit", lambda m, data, *a, **k: labels.append(data.labels) or fit(m, data, *a, **k))
    result = run(BASE)
    assert sorted(set(labels[0].tolist())) == list(range(8))
    assert sorted(set(labels[1].tolist())) == list(result.split.seen)


def test_the_history_begins_with_the_pretrained_and_ends_with_the_fine_tuned(shared):
    result, before = run(BASE, store=shared), run(replace(BASE, method="pretrained"), store=shared)
    history = result.history
    assert history["epoch"].tolist() == sorted(set(history["epoch"].tolist()))
    assert (history["epoch"][0], history["epoch"][-1]) == (0, 1)
    torch.testing.assert_close(history["logits"][0], before.test.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(history["logits"][-1], result.test.logits)
    assert torch.equal(history["weight"][-1], models.head(result.build()).weight)
    assert not torch.equal(history["weight"][0], history["weight"][-1])
    assert len(history["loss"]) == 4 * 6 // 8


def test_the_log_says_where_and_how_long(shared):
    log = run(BASE, store=shared).log
    assert log["device"]
    assert log["versions"]["torch"] == torch.__version__
    assert log["seconds"] > 0 < log["images_per_second"]


# ---------------------------------------------------------------------------------------- grid


@pytest.mark.parametrize(
    "name", ["glyphs/print-neon", "folder:photos/print-neon", "imagenet:data/print-neon", "imagenet:print-neon"]
)
def test_a_pair_is_named_without_family_and_folder(name):
    assert pair_of(name) == "print-neon"


def test_a_grid_has_every_pair_and_seed():
    made = grid(["glyphs/print-neon", "glyphs/chalk-photo"], [0, 1], "finetune", recipe={"epochs": 3}, data=DATA)
    assert list(made) == [("print-neon", 0), ("print-neon", 1), ("chalk-photo", 0), ("chalk-photo", 1)]
    expected = Experiment("glyphs/chalk-photo", method="finetune", recipe=Recipe(epochs=3), seed=1, data=DATA)
    assert made["chalk-photo", 1] == expected


def test_a_grid_that_repeats_itself_is_an_error():
    with pytest.raises(ValueError, match=r"'print-neon' with seed 0 is there twice"):
        grid(["glyphs/print-neon"], [0, 0], "finetune")


# ------------------------------------------------------------------------- weights from elsewhere


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Trained weights in a file of $FTLIB_DATA, and an experiment that leaves them as they are."""
    model = models.build("test_byobnet", 8, seed=7)
    torch.save(model.state_dict(), tmp_path / "trained.pth")
    monkeypatch.setenv("FTLIB_DATA", str(tmp_path))
    return model, replace(BASE, checkpoint="trained.pth", pretraining=replace(TINY, steps=0))


def test_a_checkpoint_that_is_trained_already_is_the_pretrained_model(elsewhere):
    model, experiment = elsewhere
    before = run(experiment.source)
    assert all(torch.equal(value, before.state[name]) for name, value in model.state_dict().items())
    assert before.log["images_per_second"] == 0


def test_a_checkpoint_that_is_trained_already_needs_its_head(elsewhere, tmp_path):
    model, experiment = elsewhere
    headless = {name: value for name, value in model.state_dict().items() if "head.fc" not in name}
    torch.save(headless, tmp_path / "trained.pth")
    with pytest.raises(ValueError, match=r"trained\.pth has no head\.fc\.bias, .* what is not trained needs them"):
        run(experiment.source)


def test_no_training_without_a_checkpoint_is_an_error():
    with pytest.raises(ValueError, match="no checkpoint with a head for these classes"):
        run(replace(BASE, pretraining=replace(TINY, steps=0)).source)


def test_the_hub_is_asked_for_timms_own_weights(monkeypatch):
    asked = []
    build = models.build
    monkeypatch.setattr(models, "build", lambda *a, **k: asked.append(k.pop("pretrained")) or build(*a, **k))
    run(replace(BASE, checkpoint="hub").source)
    assert asked == [True]
