"""ftlib.book.assumptions by hand and against loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fakes import SPLIT, FakeRun, identity

from ftlib.book.assumptions import in_mixes, later, misfit, mix
from ftlib.calibration import mirrored
from ftlib.margins import mirrored_margins
from ftlib.metrics import seen_unseen_curve


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_a_mix_has_its_share_of_absent_images_and_as_many_as_there_are(share):
    mixed = mix(FakeRun(0, images=80).test, SPLIT, share)
    assert float((mixed.labels >= 2).float().mean()) == pytest.approx(share, abs=0.02)
    assert len(mixed.labels) >= 40


def test_in_a_mix_accuracies_are_those_of_images_mixed_so():
    run, head = FakeRun(0, images=400), identity()
    mixes = in_mixes(run, head, [0.0, 0.25])
    found = {name: value for (share, name), value in mixes.items() if share == 0.25}
    curve = seen_unseen_curve(run.test.logits, run.test.labels, SPLIT)
    assert found["no γ"] == pytest.approx(100 * (0.75 * curve.at(0.0).sy + 0.25 * curve.at(0.0).uy))
    assert max(found.values()) == found["γ*"]
    told = mirrored(run.seen_train.logits, run.seen_train.labels, SPLIT, head(run.seen_train.features), share=0.25)
    assert found["mirrored, told"] == pytest.approx(100 * (0.75 * curve.at(told).sy + 0.25 * curve.at(told).uy))


@pytest.mark.parametrize("lag", [0.0, 3.0])
def test_the_regret_of_mirroring_is_below_its_bound_and_both_sides_are_measured(lag):
    run = FakeRun(0, images=400)
    run.test = run.test._replace(
        logits=run.test.logits - lag * (torch.arange(4) >= 2) * (run.test.labels >= 2)[:, None]
    )
    found = misfit(run, identity())
    assert found["seen side"] == pytest.approx(0, abs=1e-9)  # train is test
    assert 0 <= found["regret"] <= found["bound"]
    gammas = np.linspace(-8, 12, 400)
    curve = seen_unseen_curve(run.test.logits, run.test.labels, SPLIT)
    m = mirrored_margins(run.seen_train.logits, run.seen_train.labels, SPLIT, run.seen_train.features)
    far = [abs(curve.at(g).uy - np.mean(m.absent_hit & (m.absent < g))) for g in gammas]
    assert found["absent side"] == pytest.approx(100 * max(far), abs=2)


def test_later_images_that_give_a_gamma_are_seen_ones_and_take_no_part_in_the_judgement():
    run, head, few = FakeRun(0, images=80), identity(), 4
    labels = run.test.labels.tolist()
    number = [labels[:i].count(c) for i, c in enumerate(labels)]
    new = [i for i, c in enumerate(labels) if number[i] < few and c in SPLIT.seen]
    rest = [i for i in range(len(labels)) if number[i] >= few]
    curve = seen_unseen_curve(run.test.logits[rest], run.test.labels[rest], SPLIT)
    given = {
        "before": (run.seen_train.logits, run.seen_train.labels, run.seen_train.features),
        "later": (run.test.logits[new], run.test.labels[new], run.test.features[new]),
    }
    given["both"] = tuple(torch.cat(parts) for parts in zip(*given.values(), strict=True))
    found = later(run, head, few)
    for name, (logits, own, features) in given.items():
        assert found[name] == pytest.approx(100 * curve.at(mirrored(logits, own, SPLIT, head(features))).yy)
    assert found["no γ"] == pytest.approx(100 * curve.at(0.0).yy)
    assert found["γ*"] == pytest.approx(100 * curve.yy.max()) and len(new) == few * len(SPLIT.seen)
