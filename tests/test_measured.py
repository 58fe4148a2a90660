"""The book's Sphinx extension: it refuses pages that are not whole runs of the text beside them."""

import hashlib
import importlib.util
import json
import sys
from pathlib import Path

import nbformat
import pytest

from ftlib.book.record import UNPUBLISHED

ROOT = Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location("measured", ROOT / "book/_ext/measured.py")
measured = importlib.util.module_from_spec(spec)
spec.loader.exec_module(measured)


@pytest.fixture
def page(tmp_path) -> Path:
    """An executed chapter of two cells, as the runner writes it, beside its source."""
    source = "# Does γ help?\n"
    (tmp_path / "01-one.md").write_text(source, encoding="utf-8")
    cells = [nbformat.v4.new_code_cell(code, execution_count=n + 1) for n, code in enumerate(("x = 1", "y = 2"))]
    told = {"profile": "tiny", "source_sha256": hashlib.sha256(source.encode()).hexdigest()}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"ftlib": told})
    nbformat.write(notebook, tmp_path / "01-one.ipynb")
    measured.read.cache_clear()
    return tmp_path / "01-one.ipynb"


def change(page: Path, edit) -> None:
    notebook = json.loads(page.read_text(encoding="utf-8"))
    edit(notebook)
    page.write_text(json.dumps(notebook), encoding="utf-8")
    measured.read.cache_clear()


def test_a_whole_run_of_the_text_beside_it_has_no_fault(page):
    assert list(measured.find_faults(page)) == []


def test_a_page_whose_source_has_changed_is_refused(page):
    with open(page.with_suffix(".md"), "a", encoding="utf-8") as source:
        source.write("\nA later thought.\n")
    (fault,) = measured.find_faults(page)
    assert fault.startswith("01-one.md has changed since it was executed")


def test_a_page_whose_source_is_gone_is_refused(page):
    page.with_suffix(".md").unlink()
    assert list(measured.find_faults(page)) == ["its source 01-one.md is missing"]


def test_a_page_that_the_runner_has_not_written_is_refused(page):
    change(page, lambda notebook: notebook["metadata"].clear())
    (fault,) = measured.find_faults(page)
    assert fault.startswith("it was not written by book/execute.py")


def test_a_page_with_a_cell_that_failed_is_refused(page):
    failure = {"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": []}
    change(page, lambda notebook: notebook["cells"][0]["outputs"].append(failure))
    assert list(measured.find_faults(page)) == ["cell 0 (`x = 1`) failed with ValueError: no"]


def test_a_page_with_a_cell_that_never_ran_is_refused(page):
    change(page, lambda notebook: notebook["cells"][1].update(execution_count=None))
    (fault,) = measured.find_faults(page)
    assert fault.startswith("cell 1 (`y = 2`) never ran")


def test_a_page_with_images_of_several_worlds_is_of_none():
    mixed = {"benchmarks": ["digits/mnist-scan", "glyphs/print-neon"]}
    assert [measured.place_of(told, "cpu") for told in (mixed, {})] == ["this page"] * 2
    assert measured.place_of({"benchmarks": ["glyphs/print-neon", "glyphs/print-chalk"]}, "cpu") == "drawn characters"
    assert measured.place_of({"benchmarks": ["folder:office31/amazon-dslr"]}, "office31") == "Office-31"


def test_seeds_and_times_are_told_in_few_words():
    assert measured.listing([0, 1, 2, 3]) == "0–3" and measured.listing([0, 2]) == "0, 2"
    assert [measured.duration(s) for s in (None, 99, 120, 7200)] == [None, "99 s", "2 min", "2.0 h"]


def quoting(page: Path, text: str, **results: str) -> None:
    """Have the chapter say ``text`` and be executed with these results, profile to content."""
    page.with_suffix(".md").write_text(text, encoding="utf-8")
    for profile, content in results.items():
        path = page.parent / f"results/{profile}/01-one.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    told = {"source_sha256": hashlib.sha256(text.encode()).hexdigest()}
    told["quotes"] = measured.quoted(page.parent, "01-one", "tiny")
    change(page, lambda notebook: notebook["metadata"]["ftlib"].update(told))


@pytest.mark.parametrize("call", ["load_results()", "read_worlds()"])
def test_a_page_older_than_what_it_quotes_is_refused_and_told_what_to_execute(page, call):
    quoting(page, call, tiny="1", other="2", gone="3", ci="4")
    assert list(measured.find_faults(page)) == []
    results = page.parent / "results"
    (results / "other/01-one.json").write_text("5")
    (results / "ci/01-one.json").write_text("6")  # which no page shows
    (results / "gone/01-one.json").unlink()
    (results / "new").mkdir()
    (results / "new/01-one.json").write_text("7")
    assert list(measured.find_faults(page)) == [
        "it is older than the results that it quotes: gone/01-one.json is gone, new/01-one.json is new, "
        "other/01-one.json has changed; run `python book/execute.py --chapters 01 --profile tiny --publish`"
    ]


def test_a_page_that_quotes_nobody_is_held_against_its_own_results_alone(page):
    quoting(page, "# One", tiny="1", other="2")
    (page.parent / "results/other/01-one.json").write_text("3")
    assert list(measured.find_faults(page)) == []
    (page.parent / "results/tiny/01-one.json").write_text("4")
    (fault,) = measured.find_faults(page)
    assert fault.startswith("it is older than the results that it quotes: tiny/01-one.json has changed; run")


def test_the_runner_and_the_pages_leave_out_the_same_profiles():
    assert sys.modules["plan"].UNPUBLISHED == UNPUBLISHED
