"""Every public name of ftlib is of use outside its tests: to ftlib, the chapters, the book's tools, or a reader."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted((ROOT / "ftlib").rglob("*.py"))
PAGES = [ROOT / "README.md", *(ROOT / "book").glob("*.md")]
BLOCK = re.compile(r"^```(?:\{code-cell\}|python).*\n((?:.*\n)*?)^```$", re.MULTILINE)


def defined(tree: ast.Module) -> set[str]:
    """Public functions, classes, their methods, and constants."""
    names = set()
    for node in [*tree.body, *(n for of in ast.walk(tree) if isinstance(of, ast.ClassDef) for n in of.body)]:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign) and node in tree.body:
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return {name for name in names if not name.startswith("_")}


def used(tree: ast.Module) -> set[str]:
    """Names that are read, and words in quotes, such as what is looked up in a table; an import alone is no use."""
    found = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    found |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    return found | {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}


@pytest.fixture(scope="module")
def uses() -> set[str]:
    tools = [*(ROOT / "book").glob("*.py"), *(ROOT / "book/_ext").glob("*.py")]
    found = set().union(*(used(ast.parse(path.read_text(encoding="utf-8"))) for path in [*MODULES, *tools]))
    for text in [path.read_text(encoding="utf-8") for path in [*PAGES, *(ROOT / "book/profiles").glob("*.yml")]]:
        found |= {word for code in [*BLOCK.findall(text), *re.findall(r"^ *backbone: .*", text, re.M)]
                  for word in re.findall(r"\w+", code)}  # fmt: skip
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_public_name_is_used(path, uses):
    assert defined(ast.parse(path.read_text(encoding="utf-8"))) <= uses


def test_a_name_that_is_only_defined_and_imported_is_found():
    tree = ast.parse(
        "from a import kept, idle\nLIMIT = 3\ndef idle(): ...\ndef kept(): ...\nclass C:\n def m(self): kept()"
    )
    assert defined(tree) - used(tree) == {"LIMIT", "idle", "C", "m"}
