"""ftlib.runs: what a Run says of held-out images, of a fold, and of another head."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from ftlib import benchmarks, models, training
from ftlib.calibration import apply, fold_gamma
from ftlib.experiments import Experiment, run
from ftlib.runs import Run
from ftlib.store import Store
from ftlib.training import Recipe, predict

DATA = {"classes": 8, "source_per_class": 8, "target_per_class": 8, "test_per_class": 2}
TINY = Recipe(epochs=1, batch_size=8, lr=0.05, backbone_lr=1.0, evaluations=1)
BASE = Experiment("glyphs/print-neon", "test_byobnet", "finetune", TINY, pretraining=TINY, data=DATA)
HELD = replace(BASE, options={"holdout": 0.25})
FOLD = replace(BASE, method="fold", options={"fold": 1, "holdout": 0.25})
COSINE = replace(BASE, head="cosine")
TARGET, SPLIT = benchmarks.load_target(BASE.benchmark, BASE.seed, **DATA)


@pytest.fixture(scope="module")
def get(tmp_path_factory) -> Callable[[Experiment], Run]:
    """`run` with a store that the tests of this file share."""
    store = Store(tmp_path_factory.mktemp("runs"))
    return lambda experiment: run(experiment, store=store)


def per_class(labels: torch.Tensor) -> dict[int, int]:
    return {c: n for c, n in enumerate(labels.bincount().tolist()) if n}


# ---------------------------------------------------------------------------------------- images that were held out


def test_a_share_of_every_seen_class_is_held_out(get):
    assert per_class(get(HELD).held_out.labels) == dict.fromkeys(SPLIT.seen, 2)


def test_what_training_saw_is_the_rest_of_the_seen_classes(get):
    result = get(HELD)
    held_out = torch.zeros(len(TARGET.train), dtype=torch.bool)
    held_out[result._held_out] = True
    of_seen = torch.isin(TARGET.train.labels, torch.tensor(SPLIT.seen))
    assert torch.equal(result.seen_images | held_out, of_seen)
    assert not (result.seen_images & held_out).any()
    assert per_class(result.seen_train.labels) == dict.fromkeys(SPLIT.seen, 6)


def test_held_out_images_are_not_trained_on_and_all_others_are(get, monkeypatch):
    get(HELD.source)
    trained, fit = [], training.fit
    monkeypatch.setattr(training, "fit", lambda m, data, *a, **k: trained.append(data) or fit(m, data, *a, **k))
    result = run(HELD)
    images = TARGET.train.images[result.seen_images]
    assert torch.equal(trained[-1].images, images)
    held_out = TARGET.train.images[result._held_out]
    assert not (held_out[:, None] == trained[-1].images).flatten(2).all(2).any()


def test_held_out_outputs_are_those_of_the_held_out_images(get):
    result = get(HELD)
    images = benchmarks.ImageSet(TARGET.train.images[result._held_out], TARGET.train.labels[result._held_out])
    again = predict(result.build(), images)
    assert torch.equal(result.held_out.labels, again.labels)
    torch.testing.assert_close(result.held_out.logits, again.logits, rtol=1e-4, atol=1e-4)


def test_nothing_is_held_out_unless_asked_for(get):
    result = get(BASE)
    assert [len(part) for part in result.held_out] == [0, 0, 0]
    assert per_class(result.seen_train.labels) == dict.fromkeys(SPLIT.seen, 8)


def test_fine_tuning_and_every_fold_hold_out_the_same_images(get):
    folds = [get(replace(FOLD, options=FOLD.options | {"fold": fold})) for fold in (0, 1)]
    of_seen = torch.isin(TARGET.train.labels, torch.tensor(SPLIT.seen)).nonzero()[:, 0]
    for fold in folds:
        assert torch.equal(of_seen[fold._held_out], get(HELD)._held_out)


def test_a_class_of_one_image_has_none_to_hold_out():
    with pytest.raises(ValueError, match=rf"class 'class {SPLIT.seen[0]}' has 1 image"):
        run(replace(HELD, data=DATA | {"target_per_class": 1}))


# ---------------------------------------------------------------------------------------- the head of before


def test_the_old_head_is_that_of_the_pretrained_model(get):
    result = get(BASE)
    expected = models.head(get(BASE.source).build())(result.test.features).detach()
    torch.testing.assert_close(result.old_head(result.test.features), expected)
    assert not torch.allclose(expected, result.test.logits, atol=0.1)


@pytest.mark.parametrize("experiment", [BASE.source, BASE, COSINE], ids=["pretrain", "finetune", "cosine"])
def test_the_head_alone_is_that_of_the_built_model(get, experiment):
    result = get(experiment)
    head, built = result.head(), models.head(result.build())
    assert type(head) is type(built) and head.state_dict().keys() == built.state_dict().keys()
    assert all(torch.equal(value, built.state_dict()[name]) for name, value in head.state_dict().items())


def test_a_layer_of_the_heads_shape_that_is_not_the_head_is_passed_over(get, monkeypatch):
    result, rows = get(BASE), get(BASE).state["head.fc.weight"]
    state = {"aux.weight": torch.zeros_like(rows)} | result.state  # before the head in the order of names
    monkeypatch.setattr(Run, "state", state)
    assert torch.equal(result.head().weight, rows)


@pytest.mark.parametrize("experiment", [COSINE, replace(BASE, recipe=replace(TINY, evaluations=0))])
def test_without_a_linear_head_in_the_history_there_is_no_old_one(get, experiment):
    with pytest.raises(ValueError, match="has no linear head of before in its history"):
        get(experiment).old_head(torch.zeros(1, 1))


# ---------------------------------------------------------------------------------------- a fold


def test_a_fold_is_split_into_pseudo_seen_and_pseudo_absent(get):
    split = get(FOLD).split
    assert split.classes == SPLIT.seen
    assert (len(split.seen), len(split.absent)) == (2, 2)


def test_what_a_fold_saw_is_pseudo_seen_and_not_held_out(get):
    result = get(FOLD)
    assert per_class(result.seen_train.labels) == dict.fromkeys(result.split.seen, 6)
    assert not result.seen_images[result._held_out].any()


def test_a_fold_answers_on_its_held_out_images_before_and_after(get):
    result = get(FOLD)
    assert per_class(result.before.labels) == dict.fromkeys(SPLIT.seen, 2)
    assert torch.equal(result.before.labels, result.held_out.labels)
    assert result.before.logits.shape == result.held_out.logits.shape == (8, 8)
    assert not torch.allclose(result.before.logits, result.held_out.logits, atol=0.1)


# ---------------------------------------------------------------------------------------- the cosine head


@pytest.mark.parametrize("experiment", [COSINE.source, COSINE], ids=["pretrain", "finetune"])
def test_a_built_cosine_classifier_gives_the_runs_logits(get, experiment):
    result = get(experiment)
    test = benchmarks.load(BASE.benchmark, 0, **DATA).source_test if experiment.method == "pretrain" else TARGET.test
    model = result.build()
    assert isinstance(models.head(model), models.CosineHead)
    torch.testing.assert_close(predict(model, test).logits, result.test.logits, rtol=1e-4, atol=1e-4)


def test_a_cosine_runs_logits_are_cosines_of_its_features(get):
    result = get(COSINE)
    rows = torch.nn.functional.normalize(result.state["head.fc.weight"])
    cosines = torch.nn.functional.normalize(result.test.features) @ rows.T
    scale = result.state["head.fc.scale"]
    torch.testing.assert_close(result.test.logits, scale * cosines, rtol=1e-4, atol=1e-4)
    assert scale != get(COSINE.source).state["head.fc.scale"] != 10  # it is learnt in both trainings


def test_the_history_of_a_cosine_head_has_no_bias(get):
    assert sorted(get(COSINE).history) == ["epoch", "logits", "loss", "weight"]


def test_gamma_is_folded_into_a_cosine_classifier(get):
    result = get(COSINE)
    served = predict(fold_gamma(result.build(), 3.0, SPLIT.absent), TARGET.test).logits
    expected = apply(result.test.logits, 3.0, SPLIT.absent)
    torch.testing.assert_close(served, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(served.argmax(1), expected.argmax(1))
    assert not torch.equal(served.argmax(1), result.test.logits.argmax(1))


# ---------------------------------------------------------------------------------------- a folder alone


def test_a_run_opens_from_its_folder_after_the_code_that_wrote_it_has_changed(get, tmp_path):
    """In a process that has neither experiments nor methods, from a copy outside of any store."""
    result = get(HELD)
    copy = shutil.copytree(result.path, tmp_path / "given-to-a-friend")
    program = f"""if 1:
        import sys
        gone = ("experiments", "methods", "baselines", "sweeps", "pools", "benchmarks")
        sys.modules |= dict.fromkeys(("ftlib." + name for name in gone), None)
        from pathlib import Path
        from ftlib.runs import Run
        run = Run(Path({str(copy)!r}))
        print(run.key, run.spec["method"], run.log["seconds"] > 0, len(run.held_out.logits), run.split.seen)
        print(run.build().num_classes, sorted(run.history), run.old_head(run.test.features).shape[1])
    """
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == [
        f"given-to-a-friend finetune True 8 {SPLIT.seen}",
        "8 ['bias', 'epoch', 'logits', 'loss', 'weight'] 8",
    ]
