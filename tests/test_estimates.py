"""ftlib.book.estimates: intervals by hand, and how numbers are written for people."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ftlib.book.estimates import by_seed, estimate, number, over_seeds, percent, table


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
    assert over_seeds(pd.Series(values)) == estimate([2.0, 5.0])  # a column, which iterates over its values


def test_table_is_markdown():
    assert table(["a", "b"], [["x|y", 1]])._repr_markdown_() == "| a | b |\n| :-- | --: |\n| x\\|y | 1 |"
    with pytest.raises(ValueError, match="1 cells, the header has 2"):
        table(["a", "b"], [["x"]])


@pytest.mark.parametrize(
    ("value", "spec", "written"),
    [
        (-1.25, ".2f", "−1.25"),
        (-0.04, ".1f", "0.0"),
        (-0.04, "+.1f", "0.0"),
        (0.04, "+.1f", "0.0"),
        (0.0, "+.0f", "0"),
        (-0.04, "+.2f", "−0.04"),
        (10.0, "+.1f", "+10.0"),
        (-math.inf, ".1f", "−inf"),
        (-1e-5, ".1e", "−1.0e-05"),
    ],
)
def test_a_number_has_a_real_minus_and_a_zero_no_sign(value, spec, written):
    assert number(value, spec) == written


def test_an_estimate_has_one_sign():
    e = estimate([-8.0, -9.0, -7.0])
    assert (f"{e:+.1f}", f"{e}", percent(estimate([-0.08]))) == ("−8.0 ± 2.5", "−8.0 ± 2.5", "−8.0 % (n = 1)")
    assert f"{estimate([0.01, -0.03]):+.1f}" == "0.0 ± 0.3" and percent(-0.0004) == "0.0 %"
    assert f"{estimate([8.0, 9.0, 7.0]):+.1f}" == "+8.0 ± 2.5"


def test_a_table_writes_numbers_as_sentences_do_and_leaves_names_alone():
    row = ["print-neon, seed-1", "-0.0 ± 1.0", "-1.5", "`lr` 1e-3", "[-2.0, -0.05]"]
    cells = table(list("abcde"), [row])._repr_markdown_().splitlines()[-1]
    assert (
        cells
        == "| print-neon, seed-1 | 0.0\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}1.0 | −1.5 | `lr` 1e-3 | [−2.0, −0.05] |"
    )
