"""The examples in docstrings are true, word for word."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest

PURE = ["core", "checks", "metrics", "calibration", "reliability", "analysis", "book.estimates", "book.claims"]


@pytest.mark.parametrize("name", PURE)
def test_the_examples_of_a_module_are_true(name):
    found = doctest.testmod(import_module(f"ftlib.{name}"))
    assert found.failed == 0
    if name.startswith("book."):
        assert found.attempted > 0


def test_an_example_that_is_false_would_be_found():
    (wrong,) = doctest.DocTestFinder().find("\n>>> 1 + 1\n3\n", "wrong")
    assert doctest.DocTestRunner(verbose=False).run(wrong, out=lambda text: None).failed == 1
