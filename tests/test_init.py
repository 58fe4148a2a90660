"""Importing ftlib prepares torch and timm, its modules import in one direction, and the pure wing imports no model."""

import ast
import importlib.util
import os
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import ftlib

missing = importlib.util.find_spec("torchvision") is None
needs_torchvision = pytest.mark.skipif(missing, reason="no torchvision installed")


def python(code: str, **environment: str) -> str:
    """What a fresh interpreter prints, since an import happens only once in a process."""
    env = {k: v for k, v in os.environ.items() if k != "CUBLAS_WORKSPACE_CONFIG"} | environment
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_timm_model_is_built_after_importing_ftlib():
    assert python("import ftlib, timm; print(type(timm.create_model('test_resnet')).__name__)") == "ResNet"


@needs_torchvision
def test_importing_ftlib_leaves_torchvision_unimported_and_importable():
    code = "import sys, ftlib; print('torchvision' in sys.modules)\nimport torchvision; print('works')"
    assert python(code).split() == ["False", "works"]


@needs_torchvision
def test_schemas_are_defined_exactly_where_the_compiled_operators_are_missing():
    alone = "import torchvision; print('works')"
    works = subprocess.run([sys.executable, "-c", alone], capture_output=True).returncode == 0
    assert python("import ftlib; print(ftlib._torchvision_schemas is None)") == str(works)


def test_the_cublas_workspace_is_fixed_unless_the_user_chose_one():
    code = "import os, ftlib; print(os.environ['CUBLAS_WORKSPACE_CONFIG'])"
    assert python(code) == ":4096:8"
    assert python(code, CUBLAS_WORKSPACE_CONFIG=":16:8") == ":16:8"


# ---------------------------------------------------------------------------------------- who imports whom

ROOT = Path(ftlib.__file__).parent
LEFT = {  # a module to all that it may import, besides what those may
    "core": (), "checks": ("core",), "margins": ("checks",), "metrics": ("margins",),
    "heads": ("checks",), "calibration": ("metrics", "heads"),
    "analysis": ("metrics",), "reliability": ("metrics",), "probes": ("checks",),
    "evidence": ("calibration",), "advice": ("evidence",), "recommend": ("advice",), "files": (),
    "checkpoints": ("core",), "models": ("checkpoints", "clip"), "batches": ("models",), "training": ("batches",),
    "own": ("models", "calibration", "store"), "methods": ("training",), "baselines": ("methods",),
    "alternatives": ("methods",), "mislabelled": ("methods",),
    "clip": (), "benchmarks": ("core", "store", "clip"), "store": ("core",),
    "runs": ("store", "models"), "pools": ("store",),
    "sweeps": ("pools",), "experiments": ("benchmarks", "baselines", "alternatives", "mislabelled", "runs", "sweeps"),
}  # fmt: skip


def modules() -> dict[str, Path]:
    """Every module of ftlib under its dotted name."""
    parts = {path: path.relative_to(ROOT.parent).with_suffix("").parts for path in ROOT.rglob("*.py")}
    return {".".join(p for p in names if p != "__init__"): path for path, names in parts.items()}


def imported(name: str, known: dict[str, Path]) -> set[str]:
    """The modules of ftlib that a module imports, in functions and for types alone too."""
    found, package = set(), name if known[name].name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(known[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parent = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*parent, *([node.module] if node.module else [])])
            parts = {f"{base}.{alias.name}" for alias in node.names}
            found |= (parts & known.keys()) | ({base} if parts - known.keys() else set())
    return found & known.keys() - {name, "ftlib"}


def test_modules_import_in_no_circle():
    known = modules()
    assert len(known) > 30
    order = list(TopologicalSorter({name: imported(name, known) for name in known}).static_order())  # or CycleError
    assert order.index("ftlib.core") < order.index("ftlib.methods") < order.index("ftlib.experiments")


def test_arrows_point_left_and_never_into_the_book():
    known = modules()
    reach: dict[str, set[str]] = {}
    for name, nexts in ((n, LEFT[n]) for n in TopologicalSorter(LEFT).static_order()):
        reach[name] = set(nexts).union(*(reach[n] for n in nexts))
    for name in known:
        room = name.split(".")[1] if "." in name else ""
        if room in LEFT:
            rooms = {other.split(".")[1] for other in imported(name, known)} - {room}
            assert rooms <= reach[room], f"{name} imports {rooms - reach[room]}"
        elif room != "book":
            assert not {other for other in imported(name, known) if other.startswith("ftlib.book")}, name


def test_the_pure_wing_loads_no_image_model_or_plotting_library():
    code = """
import sys
from importlib import import_module
pure = "metrics heads calibration advice recommend files reliability analysis book.claims book.estimates".split()
for name in pure:
    import_module(f"ftlib.{name}")
    heavy = "timm", "matplotlib", "PIL", "sklearn", "torchvision", "pandas"
    print(*(f"{name} loads {module}" for module in heavy if module in sys.modules), end="")
"""
    assert python(code) == ""
