"""ftlib.book.claims: the truth table of verdicts, a claim's words, and many claims at once."""

from __future__ import annotations

import json
import math
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from ftlib.book.claims import Claim, check, holm, p_value
from ftlib.book.estimates import estimate


def seeds(*values):
    return {f"seed {i}": v for i, v in enumerate(values)}


@pytest.mark.parametrize(
    ("effects", "bounds", "verdict"),
    [
        ([9, 10, 11], {}, "replicates"),
        ([-9, -10, -11], {}, "contradicts"),
        ([-1, 0, 2], {}, "inconclusive"),
        ([5], {}, "reported"),  # one repetition is no sample
        ([0, 0, 0], {}, "inconclusive"),  # not above, not below
        ([9, 10, 11], {"at_least": 10}, "inconclusive"),
        ([9, 10, 11], {"at_least": 20}, "contradicts"),
        ([9, 10, 11], {"at_least": -20}, "replicates"),
        ([0.01, 0, -0.01], {"within": 0.1}, "replicates"),
        ([0.01, 0, -0.01], {"within": 0.02}, "inconclusive"),
        ([1.01, 1, 0.99], {"within": 0.1}, "contradicts"),
        ([-1.01, -1, -0.99], {"within": 0.1}, "contradicts"),
        ([0.01], {"within": 0.1}, "reported"),
        ([9, 10, 11], {"judged": False}, "reported"),
    ],
)
def test_verdict(effects, bounds, verdict):
    assert check("id", "It holds.", seeds(*effects), **bounds).verdict == verdict


def test_effects_of_one_seed_are_one_repetition():
    claim = check("id", "It holds.", {("a-b", 0): 1.0, ("b-a", 0): 3.0, ("a-b", 1): 4.0})
    plain = check("id", "It holds.", {"seed 0": 2.0, "seed 1": 4.0})
    assert (claim.n, claim.mean, claim.low, claim.high) == (2, plain.mean, plain.low, plain.high)
    assert [(e["of"], e["effect"]) for e in claim.effects] == [("seed 0", 2.0), ("seed 1", 4.0)]
    assert claim.effects[0]["parts"] == {"a-b, seed 0": 1.0, "b-a, seed 0": 3.0}


def test_effects_keep_their_labels_where_no_group_has_two():
    claim = check("id", "It holds.", {("a-b", 0): 1.0, ("a-b", 1): 3.0})
    assert claim.effects == [{"effect": 1.0, "of": "a-b, seed 0"}, {"effect": 3.0, "of": "a-b, seed 1"}]


@pytest.mark.parametrize(
    ("effects", "options", "message"),
    [
        ({}, {}, "'id' has no effects"),
        ([("a", 1.0), ("b", 2.0), ("a", 3.0)], {}, r"repeats the labels \['a'\]"),
        ({"a": 1.0, "b": math.nan, "c": math.inf}, {}, r"not finite: \{'b': nan, 'c': inf\}"),
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
    assert claim._repr_markdown_() == (
        "> **✓ replicates** — Absent accuracy falls.  \n"
        "> 12.5 points, 95 % interval [11.3, 13.7], n = 3 · expected above 0 · `absent-drop`"
    )
    assert "1.0 points, no interval, n = 1 · `a`" in check("a", "b", {"c": 1.0})._repr_markdown_()


@pytest.mark.parametrize(
    ("bound", "words"),
    [
        ({}, "expected above 0 ·"),
        ({"at_least": 10}, "expected above 10 ·"),
        ({"at_least": -1.0}, "expected no worse than by 1 ·"),
        ({"within": 0.02}, "expected within ±0.02 ·"),
        ({"judged": False}, "n = 3 · `a`"),
    ],
)
def test_a_claim_says_what_was_expected(bound, words):
    assert words in check("a", "b", seeds(1.0, 2.0, 3.0), **bound)._repr_markdown_()


@pytest.mark.parametrize(
    ("effects", "unit", "line"),
    [
        ((-1.0, -2.0, -3.0), "points", "−2.0 points, 95 % interval [−4.5, 0.5]"),
        ((0.01, -0.02, 0.0), "points", "0.0 points, 95 % interval [0.0, 0.0]"),
        ((0.4321, 0.4456, 0.4213), "AUSUC", "0.433 AUSUC, 95 % interval [0.403, 0.463]"),
        ((1234.0, 1434.0, 1034.0), "images/s", "1234 images/s, 95 % interval [737, 1731]"),
        ((0.5, 0.5), "cosine", "0.50 cosine, 95 % interval [0.50, 0.50]"),
    ],
)
def test_a_number_has_the_digits_that_its_interval_can_tell(effects, unit, line):
    assert f"> {line}, n = " in check("a", "b", seeds(*effects), unit=unit)._repr_markdown_()


def test_the_papers_findings_are_told_from_our_own():
    papers = {id: check(id, "", seeds(1.0)).paper for id in ("absent-drop", "cosine-equals-fc", "mirrored-beats-alg")}
    assert papers == {"absent-drop": True, "cosine-equals-fc": True, "mirrored-beats-alg": False}


# Many at once -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("effects", [(9.0, 10.5, 11.0), (-1.0, 0.0, 2.0, 0.5), (-9.0, -10.0, -12.0)])
@pytest.mark.parametrize("at_least", [0.0, -1.0, 2.0])
def test_a_p_value_is_that_of_the_t_test_against_the_bound(effects, at_least):
    claim = check("a", "b", seeds(*effects), at_least=at_least)
    assert p_value(claim) == pytest.approx(stats.ttest_1samp(effects, at_least).pvalue)


def test_the_p_value_of_an_equivalence_is_that_of_two_one_sided_tests():
    effects = (0.01, 0.03, -0.02, 0.0)
    sides = [
        stats.ttest_1samp(effects, bound, alternative=way).pvalue for bound, way in ((-0.1, "greater"), (0.1, "less"))
    ]
    assert p_value(check("a", "b", seeds(*effects), within=0.1)) == pytest.approx(2 * max(sides))


@pytest.mark.parametrize("bound", [{}, {"at_least": -0.3}, {"within": 0.4}])
def test_the_interval_lies_on_one_side_exactly_where_p_is_below_five_percent(bound):
    rng = np.random.default_rng(0)
    claims = [check("a", "b", seeds(*rng.normal(mean, 0.3, size=4)), **bound) for mean in np.linspace(-2, 2, 60)]
    assert {claim.verdict for claim in claims} == {"replicates", "contradicts", "inconclusive"}
    edges = [bound.get("at_least", 0.0)] if "within" not in bound else [-0.4, 0.4]
    clear = [not any(c.low <= edge <= c.high for edge in edges) for c in claims]
    assert [p_value(c) < 0.05 for c in claims] == clear
    assert all(is_clear for c, is_clear in zip(claims, clear, strict=True) if c.verdict != "inconclusive")


def test_a_verdict_that_one_more_repetition_could_tip_is_none():
    narrow = seeds(0.1, 0.9, 1.2, 1.9, 1.4)  # the interval is above zero, and with −0.2 beside it no longer
    assert estimate(narrow.values()).low > 0.25 > estimate([*narrow.values(), -0.23]).low
    assert check("a", "b", narrow, at_least=0.25).verdict == "inconclusive"
    assert check("a", "b", narrow, at_least=-0.5).verdict == "replicates"


@pytest.mark.parametrize(("effects", "p"), [((2.0, 2.0), 0.0), ((0.0, 0.0), 1.0), ((-2.0, -2.0), 0.0)])
def test_effects_without_any_spread_are_certain(effects, p):
    assert p_value(check("a", "b", seeds(*effects))) == p


@pytest.mark.parametrize("seed", range(5))
def test_holm_is_the_closed_test(seed):
    """By its definition: a verdict stands if every set of claims that holds it has a p-value of at most 0.05/size."""
    rng = np.random.default_rng(seed)
    claims = [check(f"c{i}", "b", seeds(*rng.normal(mean, 1, size=5))) for i, mean in enumerate([0, 0.5, 1.5, 2, 3, 9])]
    sets = [s for size in range(1, 7) for s in combinations(claims, size)]
    stands = {c.id for c in claims if all(min(map(p_value, s)) <= 0.05 / len(s) for s in sets if c in s)}
    assert {c.id for c in holm(claims)} == stands
    assert 0 < len(stands) < len(claims)


def test_a_claim_that_is_not_judged_is_none_of_the_many():
    strong = check("a", "b", seeds(1.0, 1.2, 1.3))
    others = [check(f"c{i}", "b", seeds(1.0, -1.0), judged=False) for i in range(9)]
    assert 0.05 / 10 < p_value(strong) <= 0.05
    assert holm([strong, *others, check("d", "e", seeds(3.0))]) == [strong]
    assert holm([]) == []
