"""The reference page: docstrings as this project writes them, in the hands of sphinx."""

import importlib
import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location("reference", ROOT / "book/_ext/reference.py")
reference = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reference)


def test_names_become_code_bars_and_stars_stay_and_examples_are_left_alone():
    lines = ["`mirrored`, |U| / |Y|, *.json", "* ``a|b`` of a list", ">>> f(`x` | y)", "a | b", "", "a | b"]
    reference.to_rst(None, "function", "f", None, None, lines)
    assert lines == [
        r"``mirrored``, \|U\| / \|Y\|, \*.json", "* ``a|b`` of a list", ">>> f(`x` | y)", "a | b", "", r"a \| b"
    ]  # fmt: skip


def test_every_name_on_the_page_is_there_with_a_docstring():
    page = (ROOT / "book/api.md").read_text(encoding="utf-8")
    names = re.findall(r"auto(?:function|class):: ([\w.]+)", page)
    assert len(names) > 30
    for name in names:
        module, _, own = name.rpartition(".")
        assert getattr(importlib.import_module(module), own).__doc__, name
