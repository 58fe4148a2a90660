"""ftlib.book.warning by hand and against loops."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from fakes import SPLIT, FakeRun, identity, runs

from ftlib.book.warning import SIGNS, Rule, cka, difference, informed, recorded_rules, rules, signs
from ftlib.metrics import split_accuracies

rng = np.random.default_rng(0)


def test_signs_look_at_no_image_of_an_absent_class():
    run, before = FakeRun(0), FakeRun(1)
    there = signs(run, {"pre-trained": before}, identity())
    assert set(there) == set(SIGNS)
    for of in (run, before):
        absent = of.test.labels >= 2
        of.test.features[absent], of.test.logits[absent] = 7.0, -3.0
    assert signs(run, {"pre-trained": before}, identity()) == there


def test_signs_by_hand():
    run, before, better = FakeRun(0), FakeRun(1, strength=0.5), FakeRun(2, strength=1.0)
    found = signs(run, {"pre-trained": before, "AdaBN": better}, identity())
    x, y = run.test.features[run.test.labels < 2], run.test.labels[run.test.labels < 2]
    assert found["old head"] == pytest.approx(float((x[:, :2].argmax(1) == y).float().mean()))
    own, best = (split_accuracies(of.test.logits, of.test.labels, SPLIT).ss for of in (before, better))
    assert best > own == pytest.approx(found["accuracy"])
    assert found["old head, gain"] == pytest.approx(found["old head"] - own)
    assert found["old head, errors mended"] == pytest.approx((found["old head"] - best) / (1 - best))
    assert (found["seen share"], found["images a class"]) == (0.5, 20)


def test_cka_is_one_for_a_turned_copy_and_small_for_noise():
    x = torch.randn(500, 5, generator=torch.Generator().manual_seed(0))
    turn = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(1)))[0]
    assert cka(x, 3 * x @ turn + 1) == pytest.approx(1)
    assert cka(x, torch.randn(500, 5, generator=torch.Generator().manual_seed(2))) < 0.05


def test_a_threshold_is_the_best_of_all_on_the_sign_s_side():
    table = runs({"old head": rng.normal(size=40)}, seeds=range(20))
    lost = (table["old head"] + rng.normal(size=40)) < 0
    rule = rules(table, lost)["old head"]
    every = [Rule("old head", True, t + 1e-9) for t in table["old head"]]
    assert difference(rule, table, lost) == pytest.approx(max(difference(of, table, lost) for of in every))


def test_a_threshold_lies_in_the_widest_of_equally_good_gaps():
    table = runs({"CKA": [1.0, 2.0, 5.0, 6.0]})
    assert rules(table, pd.Series([True, True, False, False], table.index)) == {"CKA": Rule("CKA", True, 3.5)}
    assert Rule("CKA", True, 3.5).written == "below 3.5"


def test_a_sign_never_warns_on_the_side_that_has_no_reason():
    table = runs({"CKA": [1.0, 2.0, 5.0, 6.0]})
    rule = rules(table, pd.Series([False, False, True, True], table.index))["CKA"]  # all losses where it is large
    assert rule.below and difference(rule, table, pd.Series([False, False, True, True], table.index)) <= 0


def test_the_sign_that_carries_from_pair_to_pair_comes_before_one_that_is_better_within_each():
    keys = [(f"s{i}", pair, 0) for pair in ("p", "q") for i in range(4)]
    index = pd.MultiIndex.from_tuples(keys, names=["setup", "pair", "seed"])
    lost = pd.Series([True, True, False, False] * 2, index)
    within = [1.0, 2, 3, 4, 11, 12, 13, 14]  # tells all apart on each pair, at a threshold of its own
    carried = [1.0, 2, 3, 1.5, 1.0, 2, 3, 4]
    assert list(rules(pd.DataFrame({"CKA": within, "old head": carried}, index), lost)) == ["old head", "CKA"]


def test_recorded_rules_are_those_of_the_other_profile_s_file():
    rule = Rule("CKA", True, 0.5)
    assert recorded_rules({"rules": [rule._asdict()]}) == {"CKA": rule}


def test_effects_of_a_rule_have_its_difference_of_rates_as_their_mean():
    table = runs({"x": rng.normal(size=40)}, seeds=range(10), setups="abcd")
    warned, lost = table.x > 0.3, pd.Series(rng.random(40) < 0.4, table.index)
    effects = informed(warned, lost)
    assert list(effects.index) == [f"seed {i}" for i in range(10)]
    assert effects.mean() == pytest.approx(100 * (warned[lost].mean() - warned[~lost].mean()))


@pytest.mark.parametrize("value", [True, False])
def test_without_both_kinds_there_is_nothing_to_learn_or_judge(value):
    table = runs({"CKA": [1.0, 2.0, 5.0, 6.0]})
    lost = pd.Series(value, table.index)
    with pytest.raises(ValueError, match="a rule needs setups of both kinds"):
        rules(table, lost)
    with pytest.raises(ValueError, match=f"{4 * value} of 4 runs lost"):
        informed(lost, lost)
