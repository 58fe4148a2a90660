"""The examples in docstrings are true, word for word."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
WITH_EXAMPLES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "ftlib").rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


def test_the_modules_that_a_user_meets_first_have_examples():
    assert {f"ftlib.{name}" for name in ("core", "metrics", "calibration", "book.claims")} <= set(WITH_EXAMPLES)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_of_a_module_are_true(name):
    found = doctest.testmod(import_module(name))
    assert found.attempted > 0 and found.failed == 0


def test_an_example_that_is_false_is_found():
    (wrong,) = doctest.DocTestFinder().find("\n>>> 1 + 1\n3\n", "wrong")
    assert doctest.DocTestRunner(verbose=False).run(wrong, out=lambda text: None).failed == 1
