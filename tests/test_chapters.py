"""Code of chapters: book/lint.py tells faults at their line and leaves the prose alone; nothing is 0/0."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pandas as pd
import pytest

BOOK = Path(__file__).resolve().parent.parent / "book"
spec = importlib.util.spec_from_file_location("lint", BOOK / "lint.py")
lint = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lint)

CHAPTER = """---
kernelspec: {name: python3}
---

# A title with  two  spaces

```{code-cell}
:tags: [parameters]

seeds = [0]
```

```{code-cell} ipython3
---
tags: [hide-input]
mystnb:
  figure:
    caption: >-
      A caption that   is left as it stands.
---
for seed in seeds:
    print(seed)
```

```python
not   code  of the chapter
```
"""


def with_cell(code: str) -> str:
    return CHAPTER + f"\nAnd\n\n```{{code-cell}}\n:tags: [a]\n\n{code}\n```\n"


def found(code: str) -> list[tuple[int, str]]:
    return lint.faults(with_cell(code), BOOK / "01-one.md")


def test_good_code_has_no_faults_and_stays():
    good = with_cell("import ftlib\nimport numpy as np\n\ndisplay(np.zeros(3))\nnp.zeros(3)\nseeds.sort();")
    assert lint.faults(good, BOOK / "01-one.md") == []
    assert lint.formatted(good, BOOK / "01-one.md") == good


@pytest.mark.parametrize(
    ("code", "line", "message"),
    [
        ("x = 1\nprint(seed, y)", 1, "F821 Undefined name `y`"),
        ("import json", 0, "F401 `json` imported but unused"),
        (f'x = "{"a" * 130}"', 0, "E501 Line too long (136 > 120)"),
        ("x  =  1", 0, "not formatted as the rest: run `make format`"),
        ("\n".join(f"x{i} = {i}" for i in range(26)), 0, "a cell of 26 lines: at most 25, move the plumbing"),
    ],
)
def test_a_fault_is_told_at_its_line_of_the_chapter(code, line, message):
    told, fault = found(code)[0]
    assert fault.startswith(message)
    assert with_cell(code).splitlines()[told - 1] == code.splitlines()[line]


def test_formatting_changes_code_and_nothing_else():
    messy = with_cell("x = {  'a':1}").replace("print(seed)", "print( seed )")
    assert lint.formatted(messy, BOOK / "01-one.md") == with_cell('x = {"a": 1}')


def test_names_carry_over_from_cell_to_cell():
    assert found("print(seeds)") == []
    assert [fault for _, fault in found("print(seedz)")] == ["F821 Undefined name `seedz`"]


@pytest.mark.parametrize(
    ("before", "after"),
    [((0.6, 0.8), (0.0, 0.7)), ((0.6, 0.8), (0.0, 0.0)), ((0.0, 0.0), (0.3, 0.4)), ((0, 0), (0, 0))],
)
def test_the_two_forces_of_chapter_3_add_up_where_no_absent_image_is_right(before, after):
    cells = re.findall(r"```{code-cell}\n(.*?)```", (BOOK / "03-what-breaks.md").read_text(encoding="utf-8"), re.DOTALL)
    names = {"pre": before, "fine": after}
    names = {name: pd.DataFrame([pair], columns=["uy", "uu"], dtype=float) for name, pair in names.items()}
    exec(next(cell for cell in cells if cell.startswith("kept")), names)
    assert (names["gained"] - names["lost"])[0] == pytest.approx(100 * (after[0] - before[0]))
