"""Importing ftlib prepares torch and timm, and keeps its hands off what works already."""

import importlib.util
import os
import subprocess
import sys

import pytest

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
