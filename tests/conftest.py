"""What all tests share: one thread, which is quickest for small models, and a run store of each test's own."""

from __future__ import annotations

import os
import sys

os.environ["MPLBACKEND"] = "Agg"  # pictures are drawn and looked at, never shown

import ftlib  # isort: skip  # before torch: it fixes cuBLAS's workspace and stands in for what torchvision may lack

import pytest
import torch

from ftlib import training
from ftlib.core import ImageSet
from ftlib.store import Store

assert ftlib.__version__


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Chapters come first and short files last, so that no process is left alone with something long."""
    order = "test_book", "test_pools", "test_training", "test_execute", "test_main"
    items.sort(key=lambda item: order.index(item.path.stem) if item.path.stem in order else len(order))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """What a process of `pytest -n 2` gets at a time: a file, whose tests share what they have made, or a chapter."""
    from xdist.scheduler import LoadScopeScheduling

    class Turns(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file, _, test = nodeid.partition("::")
            return test[test.index("[") :] if file.endswith("test_book.py") and "[" in test else file

    config.option.loadscopereorder = False  # else those with most tests would come first
    return Turns(config, log)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def own_store(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("FTLIB_STORE", str(tmp_path / "runs"))


@pytest.fixture(autouse=True)
def no_open_figures():
    """Figures are closed, and the style that a test has set does not reach the next."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")
        pyplot.rcdefaults()


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def blobs() -> ImageSet:
    """96 noisy images of 4 classes that differ in colour and place: learnt in a few steps."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(96) % 4
    images = torch.randint(0, 90, (96, 3, 32, 32), generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[label % 3, 8 * label : 8 * label + 8] += 150
    return ImageSet(images.to(torch.uint8), labels)


@pytest.fixture
def trainings(monkeypatch) -> list[int]:
    """The seed of every training that takes place in this process."""
    seeds, fit = [], training.fit
    monkeypatch.setattr(training, "fit", lambda *a, **k: seeds.append(k["seed"]) or fit(*a, **k))
    return seeds
