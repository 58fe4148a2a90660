"""The code of the chapters in ruff's hands, as all other code is: each chapter as one notebook, its prose untouched.

    python book/lint.py             report what is wrong, at its line in the chapter, and exit with 1
    python book/lint.py --format    mend and format the code in place

Options and rules are those of pyproject.toml and ruff.toml; one rule more is the length of a cell.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

from nbformat import v4, writes

LONGEST = 25  # lines of a cell
# The fence with the cell's options, as YAML or as :key: lines; the code; before the closing fence.
CELL = re.compile(r"(^```\{code-cell\}.*\n(?:---\n(?:.*\n)*?---\n|(?::.*\n)*)\n*)((?:.*\n)*?)(?=^```$)", re.MULTILINE)


def formatted(text: str, name: str | Path) -> str:
    """The chapter with its cells as ``ruff check --fix`` and ``ruff format`` leave them."""
    cells = [code for _, code in CELL.findall(text)]
    for command in (["check", "--fix-only", "--quiet"], ["format", "--quiet"]):
        cells = ["".join(cell["source"]) for cell in json.loads(_ruff(command, cells, name))["cells"]]
    left = iter(cells)
    return CELL.sub(lambda found: found[1] + next(left).rstrip("\n") + "\n", text)


def faults(text: str, name: str | Path) -> list[tuple[int, str]]:
    """Line and text of what ruff finds, of what it would format, and of cells that are too long."""
    cells = [*CELL.finditer(text)]
    starts = [text.count("\n", 0, cell.start(2)) + 1 for cell in cells]
    checked = json.loads(_ruff(["check", "--output-format", "json"], [cell[2] for cell in cells], name))
    found = [(starts[f["cell"] - 1] + f["location"]["row"] - 1, f"{f['code']} {f['message']}") for f in checked]
    for start, cell, tidy in zip(starts, cells, CELL.finditer(formatted(text, name)), strict=True):
        if cell[2] != tidy[2]:
            found.append((start, "not formatted as the rest: run `make format`"))
        if (lines := cell[2].strip().count("\n") + 1) > LONGEST:
            found.append((start, f"a cell of {lines} lines: at most {LONGEST}, move the plumbing to ftlib.book"))
    return sorted(found)


def _ruff(command: list[str], cells: list[str], name: str | Path) -> str:
    notebook = writes(v4.new_notebook(cells=[v4.new_code_cell(code) for code in cells]))
    call = [sys.executable, "-m", "ruff", *command, "--stdin-filename", str(Path(name).with_suffix(".ipynb")), "-"]
    done = subprocess.run(call, input=notebook, capture_output=True, encoding="utf-8")
    return done.stdout or sys.exit(f"ruff {command[0]} failed on {name}: {done.stderr}")


if __name__ == "__main__":
    chapters = {path: path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("[0-9]*.md"))}
    told = []
    for path, text in chapters.items():
        if "--format" in sys.argv:
            path.write_text(formatted(text, path), encoding="utf-8")
        else:
            told += [f"{path}:{line}: {fault}" for line, fault in faults(text, path)]
    sys.exit("\n".join(told) or None)
