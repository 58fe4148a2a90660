"""ftlib.baselines: what each alternative trains, what it leaves alone, and which images it looks at."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ftlib import benchmarks, experiments, models, training
from ftlib.baselines import pseudo_split
from ftlib.core import ClassSplit, Domain, ImageSet, Outputs, seeded
from ftlib.experiments import METHODS, Experiment, run
from ftlib.runs import Run
from ftlib.store import Store
from ftlib.training import Recipe, fit, predict

DATA = {"classes": 8, "source_per_class": 8, "target_per_class": 8, "test_per_class": 2}
TINY = Recipe(epochs=1, batch_size=8)
HOT = Recipe(steps=4, batch_size=8, lr=0.05, backbone_lr=0.5, weight_decay=0.01, evaluations=1)
FULL = Recipe(steps=1, batch_size=64, lr=0.02, backbone_lr=0.5, weight_decay=0.01, padding=0, evaluations=0)
BASE = Experiment("glyphs/print-neon", "test_byobnet", "finetune", HOT, pretraining=TINY, data=DATA)
COSINE = replace(BASE, head="cosine")
TARGET, SPLIT = benchmarks.load_target(BASE.benchmark, BASE.seed, **DATA)
SEEN, ABSENT = list(SPLIT.seen), list(SPLIT.absent)


@pytest.fixture(scope="module")
def get(tmp_path_factory) -> Callable[[Experiment], Run]:
    """`run` with a store that the tests of this file share."""
    store = Store(tmp_path_factory.mktemp("baselines"))
    run(BASE.source, store=store)  # now, where no test counts trainings
    return lambda experiment: run(experiment, store=store)


@pytest.fixture
def compute(get) -> Callable[[Experiment], dict[str, Tensor]]:
    """A method's arrays, computed anew from the parents in the store."""

    def arrays(experiment: Experiment) -> dict[str, Tensor]:
        parents = [get(parent).build() for parent in experiment.parents]
        return METHODS[experiment.method](experiments._task(experiment), *parents, **experiment.options)[0]

    return arrays


@pytest.fixture
def fits(monkeypatch) -> list[tuple[ImageSet, Tensor]]:
    """The images of every training that takes place, and its losses."""
    found, plain = [], training.fit

    def spied(model, data, *arguments, **options):
        log = plain(model, data, *arguments, **options)
        found.append((data, log.losses))
        return log

    monkeypatch.setattr(training, "fit", spied)
    return found


def of(method: str, base: Experiment = BASE, **options) -> Experiment:
    return replace(base, method=method, options=options)


def weights(arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("model/"): value for name, value in arrays.items() if name.startswith("model/")}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def prints(images: ImageSet) -> list[str]:
    return [hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in images.images]


def normalised(images: ImageSet) -> Tensor:
    """[N, 3, 32, 32], as a training without padding and flips sees them, in the set's order."""
    scale, shift = models.normalisation(models.build("test_byobnet", 8), torch.device("cpu"))
    return (images.images * scale + shift).contiguous(memory_format=torch.channels_last)


def nesterov(model: nn.Module, velocity: dict[str, Tensor], recipe: Recipe, rate: float) -> None:
    """One step by hand: v ← m·v + g, w ← w − lr·(g + m·v), where g has the weight decay."""
    of_head = {id(p) for p in models.head(model).parameters()}
    with torch.no_grad():
        for name, p in model.named_parameters():
            lr = recipe.lr * rate * (1.0 if id(p) in of_head else recipe.backbone_lr)
            gradient = p.grad + recipe.weight_decay * p
            velocity[name] = recipe.momentum * velocity.get(name, 0.0) + gradient
            p -= lr * (gradient + recipe.momentum * velocity[name])
            p.grad = None


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], atol: float = 2e-5) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=atol, msg=lambda text, n=name: f"{n}: {text}")


# ---------------------------------------------------------------------------------------- what they look at


def poisoned(kind: str) -> Callable[..., tuple[Domain, ClassSplit]]:
    """`load_target` with other images in place of those of absent classes."""
    generator, load = torch.Generator().manual_seed(0), benchmarks.load_target

    def poison(images: ImageSet) -> ImageSet:
        absent = torch.isin(images.labels, torch.tensor(ABSENT))
        noise = torch.randint(0, 256, images.images.shape, generator=generator, dtype=torch.uint8)
        other = noise if kind == "noise" else torch.zeros_like(noise)
        return ImageSet(torch.where(absent[:, None, None, None], other, images.images), images.labels)

    def load_target(*arguments, **options):
        target, split = load(*arguments, **options)
        return Domain(target.class_names, poison(target.train), poison(target.test)), split

    return load_target


DEPLOYABLE = [
    of("finetune"),
    of("finetune", holdout=0.25),
    of("masked"),
    of("frozen_head"),
    of("linear_probe"),
    of("lolsgd", copies=2, local_steps=1, distill=1.0),
    *map(of, ("lwf", "l2sp", "ldifs", "bias_only", "norm_only", "lora", "lp_ft", "balanced")),
]


@pytest.mark.parametrize("kind", ["noise", "zeros"])
@pytest.mark.parametrize("experiment", DEPLOYABLE, ids=lambda e: e.method + ", held out" * ("holdout" in e.options))
def test_what_absent_images_show_does_not_reach_the_weights(get, compute, monkeypatch, experiment, kind):
    expected = get(experiment).state
    monkeypatch.setattr(benchmarks, "load_target", poisoned(kind))
    assert same(weights(compute(experiment)), expected)


@pytest.mark.parametrize("kind", ["noise", "zeros"])
def test_what_absent_images_show_reaches_nothing_that_a_fold_keeps(compute, monkeypatch, kind):
    expected = compute(of("fold", fold=0))
    monkeypatch.setattr(benchmarks, "load_target", poisoned(kind))
    assert same(compute(of("fold", fold=0)), expected)


@pytest.mark.parametrize("kind", ["noise", "zeros"])
def test_what_absent_images_show_reaches_the_weights_of_the_oracle(get, compute, monkeypatch, kind):
    expected = get(of("oracle")).state
    monkeypatch.setattr(benchmarks, "load_target", poisoned(kind))
    assert not same(weights(compute(of("oracle"))), expected)


@pytest.mark.parametrize("holdout", [-0.1, 1.0, float("nan")])
def test_a_share_to_hold_out_that_is_none_is_named(compute, holdout):
    with pytest.raises(ValueError, match=rf"holdout={holdout}: expected a share"):
        compute(of("finetune", holdout=holdout))


def test_the_oracle_takes_as_many_steps_as_fine_tuning(get):
    assert len(get(of("oracle")).history["loss"]) == len(get(of("finetune")).history["loss"])


def test_the_oracle_trains_on_every_target_image(compute, fits):
    compute(of("oracle"))
    assert [prints(images) for images, _ in fits] == [prints(TARGET.train)]


@pytest.mark.parametrize("experiment", DEPLOYABLE, ids=lambda e: e.method + ", held out" * ("holdout" in e.options))
def test_all_others_train_on_seen_classes_alone(compute, fits, experiment):
    compute(experiment)
    assert len(fits) > 0
    assert {label for images, _ in fits for label in images.labels.tolist()} <= set(SEEN)


TRAINING = [*DEPLOYABLE[1:], of("oracle"), of("wise"), of("masked", COSINE), of("frozen_head", COSINE)]


@pytest.mark.parametrize("experiment", TRAINING, ids=lambda e: f"{e.method} {e.head}")
def test_the_kept_weights_give_the_kept_outputs(get, experiment):
    result = get(experiment)
    for part, images in ((result.test, TARGET.test), (result.train, TARGET.train)):
        again = predict(result.build(), images)
        torch.testing.assert_close(part.logits, again.logits, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(part.features, again.features, rtol=1e-4, atol=1e-4)
        assert torch.equal(part.labels, images.labels)
    assert result.split == SPLIT


# ---------------------------------------------------------------------------------------- masked


@pytest.mark.parametrize("base", [BASE, COSINE], ids=["linear", "cosine"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_masked_training_moves_the_seen_rows_of_the_head_alone(get, base, optimizer):
    masked = replace(of("masked", base), recipe=replace(HOT, optimizer=optimizer, lr=0.01, weight_decay=0.1))
    before, after = get(base.source).state, get(masked).state
    rows = [name for name in before if name.startswith("head.fc.") and before[name].ndim]
    assert rows == (["head.fc.bias", "head.fc.weight"] if base is BASE else ["head.fc.weight"])
    for name in rows:
        assert torch.equal(after[name][ABSENT], before[name][ABSENT])
        assert (after[name][SEEN] != before[name][SEEN]).view(len(SEEN), -1).any(1).all()


def test_one_masked_step_is_that_of_a_plain_loop(get):
    """Cross-entropy by hand over the seen classes' logits; the whole set is one batch, so its order is nothing."""
    source = get(BASE.source).build()
    before = {name: p.detach().clone() for name, p in source.named_parameters()}
    images = TARGET.train.of(SEEN)
    answers = source.train().to(memory_format=torch.channels_last)(normalised(images))
    labelled = zip(answers, images.labels.tolist(), strict=True)
    loss = sum(torch.log(sum(row[c].exp() for c in SEEN)) - row[label] for row, label in labelled) / len(images)
    loss.backward()
    nesterov(source, {}, FULL, rate=0.5)  # the middle of the schedule
    with torch.no_grad():
        for name in ("head.fc.weight", "head.fc.bias"):
            source.get_parameter(name)[ABSENT] = before[name][ABSENT]
    found = get(replace(of("masked"), recipe=FULL))
    assert_close(found.state, source.state_dict())
    torch.testing.assert_close(found.history["loss"][0], loss.detach(), rtol=1e-4, atol=0)


def test_the_readme_has_the_masked_loss_in_one_line():
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    line = next(line for line in readme.splitlines() if line.startswith("loss = cross_entropy(logits.index"))
    logits = torch.randn(8, len(SEEN) + len(ABSENT), generator=torch.Generator().manual_seed(0), requires_grad=True)
    place = torch.arange(8) % len(SEEN)
    names = {"logits": logits, "absent": torch.tensor(ABSENT), "labels": torch.tensor(SEEN)[place]}
    names["cross_entropy"] = torch.nn.functional.cross_entropy
    exec(line, names)
    names["loss"].backward()
    torch.testing.assert_close(names["loss"], torch.nn.functional.cross_entropy(logits[:, SEEN], place))
    assert (logits.grad[:, ABSENT] == 0).all() and (logits.grad[:, SEEN] != 0).all()


def test_masked_training_does_not_see_the_absent_rows(get):
    """Other absent rows, and all else is trained to the same bits."""
    masked, source = of("masked"), get(BASE.source).build()
    with torch.no_grad():
        models.head(source).weight[ABSENT] += 5.0
        models.head(source).bias[ABSENT] -= 50.0
    found, expected = weights(METHODS["masked"](experiments._task(masked), source)[0]), get(masked).state
    for name, value in expected.items():
        rows = SEEN if name.startswith("head.fc.") else slice(None)
        assert torch.equal(found[name][rows] if value.ndim else found[name], value[rows] if value.ndim else value)


# ---------------------------------------------------------------------------------------- frozen head, linear probe


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> tuple[set[str], set[str]]:
    """Names of what moved in the head and below it."""
    names = {name for name in before if not torch.equal(before[name], after[name])}
    in_head = {name for name in names if name.startswith("head.fc.")}
    return in_head, names - in_head


@pytest.mark.parametrize("base", [BASE, COSINE], ids=["linear", "cosine"])
def test_a_frozen_head_stays_and_the_backbone_moves(get, base):
    head, below = moved(get(base.source).state, get(of("frozen_head", base)).state)
    assert head == set()
    assert {"stem.conv.weight", "stem.bn.bias", "stem.bn.running_mean"} <= below


@pytest.mark.parametrize("base", [BASE, COSINE], ids=["linear", "cosine"])
def test_a_linear_probe_moves_the_head_alone(get, base):
    """Not even batch norm's statistics."""
    head, below = moved(get(base.source).state, get(of("linear_probe", base)).state)
    assert head == {"head.fc.weight", "head.fc.bias" if base is BASE else "head.fc.scale"}
    assert below == set()


def test_a_linear_probe_keeps_the_pretrained_features(get):
    probe, before = get(of("linear_probe")), get(of("pretrained"))
    for part in ("train", "test"):
        found, expected = getattr(probe, part).features, getattr(before, part).features
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------------------------------- wise


@pytest.mark.parametrize(("alpha", "end"), [(0.0, "pretrained"), (1.0, "finetune")])
def test_the_ends_of_an_interpolation_are_what_it_lies_between(get, alpha, end):
    found, expected = get(of("wise", alpha=alpha)), get(of(end))
    other = get(of("finetune" if end == "pretrained" else "pretrained"))
    torch.testing.assert_close(found.test.logits, expected.test.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.train.features, expected.train.features, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(found.test.logits, other.test.logits, atol=0.1)


@pytest.mark.parametrize("alpha", [0.5, 0.2])
def test_an_interpolation_is_the_weighted_mean_of_weights_and_statistics(get, alpha):
    before, after, found = get(BASE.source).state, get(BASE).state, get(of("wise", alpha=alpha)).state
    assert found.keys() == before.keys()
    for name, value in found.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, (1 - alpha) * before[name] + alpha * after[name], rtol=1e-5, atol=1e-7)
    assert not torch.equal(before["stem.bn.running_mean"], after["stem.bn.running_mean"])


def test_an_interpolation_is_half_way_unless_told_otherwise(get):
    assert same(get(of("wise")).state, get(of("wise", alpha=0.5)).state)


@pytest.mark.parametrize("alpha", [-0.1, 1.5, math.nan])
def test_an_extrapolation_is_refused(compute, alpha):
    with pytest.raises(ValueError, match=rf"alpha={alpha}: expected a share of the fine-tuned weights, from 0 to 1"):
        compute(of("wise", alpha=alpha))


# ---------------------------------------------------------------------------------------- lolsgd


def test_one_copy_with_all_classes_in_one_round_is_plain_training(get):
    """Under the seed that the round draws, which is not the experiment's own."""
    source, rng = get(BASE.source).build(), seeded(BASE.seed, "lolsgd")
    rng.choice(SEEN, 4, replace=False)
    log = fit(source, TARGET.train.of(SEEN), HOT, seed=int(rng.integers(2**31)))
    found = get(of("lolsgd", copies=1, classes=1.0, local_steps=4))
    assert same(found.state, source.state_dict())
    assert torch.equal(found.history["loss"], log.losses)


@pytest.mark.parametrize("distill", [0.0, 2.0])
def test_rounds_of_copies_are_those_of_a_plain_loop(get, compute, fits, distill):
    """Each batch holds all images of its classes, so that nothing but these classes is drawn."""
    recipe, copies, local, rounds = replace(FULL, steps=12), 2, 2, 3
    options = {"copies": copies, "classes": 0.5, "local_steps": local, "distill": distill}
    found = weights(compute(replace(of("lolsgd", **options), recipe=recipe)))
    subsets = [sorted(set(images.labels.tolist())) for images, _ in fits]

    model, teacher = (get(BASE.source).build().to(memory_format=torch.channels_last) for _ in range(2))
    for r in range(rounds):
        start, ends = {n: v.clone() for n, v in model.state_dict().items()}, []
        for k in range(copies):
            model.load_state_dict(start)
            model.train()
            velocity: dict[str, Tensor] = {}
            data = TARGET.train.of(subsets[copies * r + k])
            images = normalised(data)
            for step in range(local):
                answers = model(images)
                loss = -torch.stack([row[y] - row.logsumexp(0) for row, y in zip(answers, data.labels, strict=True)])
                with torch.no_grad():
                    told = [row[ABSENT].softmax(0) for row in teacher(images)]
                own = [row[ABSENT] - row[ABSENT].logsumexp(0) for row in answers]
                distance = -torch.stack([(p * q).sum() for p, q in zip(told, own, strict=True)])
                (loss.mean() + distill * distance.mean()).backward()
                done = (r * local + step + 0.5) / (rounds * local)
                nesterov(model, velocity, recipe, rate=0.5 * (1 + math.cos(math.pi * done)))
            ends.append({n: v.clone() for n, v in model.state_dict().items()})
        mean = {n: sum(end[n] for end in ends) / copies for n, v in start.items() if v.is_floating_point()}
        model.load_state_dict(start | mean)
    expected = {n: v for n, v in model.state_dict().items() if v.is_floating_point()}
    assert_close({n: found[n] for n in expected}, expected, atol=2e-4)
    assert float((found["head.fc.weight"] - get(BASE.source).state["head.fc.weight"]).abs().max()) > 0.01


def test_distillation_is_cross_entropy_to_the_pretrained_softmax_over_the_absent_logits(get, compute, fits):
    """The first loss by hand, image by image; batch norm in training mode for the one that learns."""
    for distill in (0.0, 3.0):
        compute(replace(of("lolsgd", copies=1, classes=1.0, local_steps=1, distill=distill), recipe=FULL))
    images = TARGET.train.of(SEEN)
    with torch.no_grad():
        told = get(BASE.source).build()(normalised(images)).double().numpy()
        own = get(BASE.source).build().train()(normalised(images)).double().numpy()
    total = 0.0
    for teacher, student in zip(told, own, strict=True):
        p, q = (np.exp(row[ABSENT]) / np.exp(row[ABSENT]).sum() for row in (teacher, student))
        total -= (p * np.log(q)).sum()
    plain, distilled = (float(losses[0]) for _, losses in fits)
    assert distilled - plain == pytest.approx(3.0 * total / len(images), rel=1e-4)


def test_every_copy_and_round_draws_its_own_share_of_the_seen_classes(compute, fits):
    compute(replace(of("lolsgd", copies=4, classes=0.5, local_steps=1), recipe=replace(HOT, steps=16)))
    drawn = [tuple(sorted(set(images.labels.tolist()))) for images, _ in fits]
    assert {len(classes) for classes in drawn} == {2}
    assert len(set(drawn)) > 3
    assert len(set(drawn[:4])) > 1


@pytest.mark.parametrize(
    ("recipe", "copies", "local_steps", "expected"),
    [
        (replace(HOT, steps=24), 3, 4, 24),
        (replace(HOT, steps=None, epochs=3), 2, 3, 12),  # three epochs of 4·8 images in batches of 8
        (replace(HOT, steps=8), 1, 1, 8),
        (replace(HOT, steps=9), 2, 2, 8),  # the nearest number of whole rounds
        (replace(HOT, steps=2), 4, 2, 8),  # at least one round
    ],
)
def test_all_steps_of_all_copies_add_up_to_those_of_fine_tuning(get, recipe, copies, local_steps, expected):
    found = get(replace(of("lolsgd", copies=copies, local_steps=local_steps), recipe=recipe))
    assert len(found.history["loss"]) == expected


def test_with_a_sequential_budget_every_copy_takes_the_steps_of_fine_tuning(get):
    recipe, options = replace(HOT, steps=8), {"copies": 3, "local_steps": 4, "budget": "sequential"}
    assert len(get(replace(of("lolsgd", **options), recipe=recipe)).history["loss"]) == 3 * 8


@pytest.mark.parametrize("method", ["masked", "frozen_head", "linear_probe", "lolsgd"])
def test_what_is_held_out_is_not_trained_on_whatever_the_method(compute, fits, method):
    arrays = compute(of(method, holdout=0.25))
    held_out = {image.numpy().tobytes() for image in TARGET.train.images[arrays["split/held_out"]]}
    assert held_out
    assert not any(image.numpy().tobytes() in held_out for images, _ in fits for image in images.images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"copies": 0}, r"copies=0: expected an integer >= 1"),
        ({"copies": 2.0}, r"copies=2\.0: expected an integer"),
        ({"local_steps": 0}, r"local_steps=0: expected an integer >= 1"),
        ({"classes": 0.0}, r"classes=0\.0, .*: expected a share in \(0, 1\]"),
        ({"classes": 1.5}, r"classes=1\.5, .*: expected a share in \(0, 1\]"),
        ({"distill": -1.0}, r"distill=-1\.0: .*a weight of 0 or more"),
        ({"budget": "all"}, r"budget='all': expected 'total' or 'sequential'"),
    ],
)
def test_what_leave_out_local_sgd_cannot_do_is_named(compute, options, message):
    with pytest.raises(ValueError, match=message):
        compute(of("lolsgd", **options))


# ---------------------------------------------------------------------------------------- folds of PCV


@pytest.mark.parametrize("n", [4, 5, 6, 9, 30])
def test_a_pseudo_split_halves_the_seen_classes_the_larger_half_seen(n):
    split = ClassSplit(range(0, 2 * n, 2), range(1, 2 * n, 2))
    for fold in range(5):
        pseudo = pseudo_split(split, 0, fold)
        assert pseudo.classes == split.seen
        assert (len(pseudo.seen), len(pseudo.absent)) == ((n + 1) // 2, n // 2)


def test_folds_and_seeds_differ_and_repeat():
    split = ClassSplit(range(20), [20])
    drawn = [pseudo_split(split, seed, fold) for seed in range(5) for fold in range(5)]
    assert len({pseudo.seen for pseudo in drawn}) == 25
    assert drawn == [pseudo_split(split, seed, fold) for seed in range(5) for fold in range(5)]


def test_fewer_than_four_seen_classes_are_named(compute):
    with pytest.raises(ValueError, match=r"3 seen classes \[1, 4, 6\]: PCV halves them and needs at least 4"):
        compute(replace(of("fold", fold=0), data=DATA | {"seen": [6, 1, 4]}))


@pytest.mark.parametrize("fold", [-1, 0.5])
def test_a_fold_is_counted_from_zero(fold):
    with pytest.raises(ValueError, match=rf"fold={fold}: expected an integer >= 0"):
        pseudo_split(SPLIT, 0, fold)


@pytest.mark.parametrize("fold", [0, 1])
def test_a_fold_trains_on_what_is_pseudo_seen_and_not_held_out(compute, fits, fold):
    arrays = compute(of("fold", fold=fold, holdout=0.25))
    ((trained, _),) = fits
    images, pseudo = TARGET.train.of(SEEN), pseudo_split(SPLIT, BASE.seed, fold)
    held_out = set(arrays["split/held_out"].tolist())
    expected = [i for i, y in enumerate(images.labels.tolist()) if y in pseudo.seen and i not in held_out]
    assert prints(trained) == [prints(images)[i] for i in expected]
    assert arrays["split/seen"].tolist() == list(pseudo.seen)
    assert arrays["split/absent"].tolist() == list(pseudo.absent)


def test_a_fold_holds_out_a_share_of_every_seen_class(compute):
    arrays = compute(of("fold", fold=0, holdout=0.25))
    labels = TARGET.train.of(SEEN).labels[arrays["split/held_out"]]
    assert labels.bincount(minlength=8).tolist() == [2 if c in SEEN else 0 for c in range(8)]


def test_copies_of_an_image_are_on_one_side_of_a_fold(compute, fits, monkeypatch):
    """Every image is there three times."""
    once = [i for c in range(8) for i in (TARGET.train.labels == c).nonzero()[:4, 0].tolist()]
    images = ImageSet(TARGET.train.images[once].repeat(3, 1, 1, 1), TARGET.train.labels[once].repeat(3))
    monkeypatch.setattr(
        benchmarks, "load_target", lambda *_, **__: (Domain(TARGET.class_names, images, TARGET.test), SPLIT)
    )
    held_out = compute(of("fold", fold=0, holdout=0.3))["split/held_out"]
    trained, _ = fits[-1]
    names = np.array(prints(images.of(SEEN)))[held_out.numpy()].tolist()
    assert not set(names) & set(prints(trained))
    assert {names.count(name) for name in names} == {3}


def test_before_is_the_pretrained_model_on_what_a_fold_held_out(get, compute):
    arrays = compute(of("fold", fold=0))
    train = get(of("pretrained")).train
    of_seen = torch.isin(train.labels, torch.tensor(SEEN))
    expected = Outputs(*(part[of_seen][arrays["split/held_out"]] for part in train))
    assert torch.equal(arrays["before/labels"], expected.labels)
    torch.testing.assert_close(arrays["before/logits"], expected.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(arrays["before/features"], expected.features, rtol=1e-4, atol=1e-4)


def test_a_fold_keeps_outputs_of_seen_classes_alone(compute):
    arrays = compute(of("fold", fold=0))
    assert torch.equal(arrays["train/labels"], TARGET.train.of(SEEN).labels)
    assert not [name for name in arrays if name.startswith(("test/", "model/"))]


def test_a_fold_fine_tunes(get, compute):
    """Its outputs are those of a plain training on the same images."""
    arrays = compute(of("fold", fold=0))
    images, held_out = TARGET.train.of(SEEN), set(arrays["split/held_out"].tolist())
    kept = [i for i in range(len(images)) if i not in held_out]
    data = ImageSet(images.images[kept], images.labels[kept]).of(arrays["split/seen"].tolist())
    model = get(BASE.source).build()
    fit(model, data, HOT, seed=BASE.seed)
    torch.testing.assert_close(arrays["train/logits"], predict(model, images).logits)
