"""The wheel, as someone installs it who wants no notebook: `make wheel` builds it and tries it alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# What only extras bring, made unfindable; then every module of the library is imported, and γ found in a file.
ALONE = """
import sys
for name in ("IPython", "dask", "distributed", "ipykernel", "jupytext", "mlxtend", "nbformat", "pandas", "papermill",
             "plotly", "psutil", "sphinx", "yaml"):
    sys.modules[name] = None
import ftlib, importlib, pkgutil
assert ftlib.__file__.startswith(sys.argv[1]), ftlib.__file__
for module in pkgutil.walk_packages(ftlib.__path__, "ftlib."):
    if not module.name.startswith("ftlib.book") and module.name != "ftlib.__main__":
        importlib.import_module(module.name)
import numpy as np
from ftlib.__main__ import main
labels = np.repeat(np.arange(10), 20)
logits = np.random.default_rng(0).normal(size=(200, 20)) + 6 * np.eye(20)[labels] + 4 * (np.arange(20) < 10)
np.savez("train.npz", logits=logits, labels=labels)
assert main(["calibrate", "--logits", "train.npz", "--seen", "0-9"]) == 0
main(["--help"])
"""


@pytest.mark.slow
def test_the_wheel_is_built_and_works_without_what_only_notebooks_need(tmp_path):
    source, site = tmp_path / "source", tmp_path / "site"
    shutil.copytree(ROOT / "ftlib", source / "ftlib", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", tmp_path]
    subprocess.run([*map(str, build), str(source)], check=True)
    (wheel,) = tmp_path.glob("ftlib-*-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(site)
        names = file.namelist()
    assert "ftlib/py.typed" in names and not [n for n in names if n.startswith(("tests", "book"))]
    entry = next(site.glob("*.dist-info/entry_points.txt")).read_text(encoding="utf-8")
    assert "ftlib = ftlib.__main__:main" in entry
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(site)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "calibrate" in done.stdout, done.stderr
