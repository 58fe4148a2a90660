"""book/_ext/reading.py: what every chapter's page gets for its readers."""

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from docutils import nodes

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "book/_ext"))
reading = importlib.import_module("reading")


@pytest.mark.parametrize(("page", "title"), [("book/07-x.ipynb", "7\u2002Why?"), ("book/api.md", "Why?")])
def test_a_chapters_title_begins_with_its_number(page, title):
    doctree = nodes.document(None, None)
    doctree += nodes.section("", nodes.title("", "Why?"))
    reading.number(SimpleNamespace(env=SimpleNamespace(docname="x", doc2path=lambda name: page)), doctree)
    assert doctree[0][0].astext() == title


def test_the_picture_of_the_first_screen_is_taken_from_its_cell():
    pictures = [nodes.figure("", nodes.caption("", name)) for name in ("first", "second")]
    cells = [nodes.container("", picture, classes=["cell"]) for picture in pictures]
    cells[1]["classes"].append("tag_lead")
    section = nodes.section("", *cells)
    assert [picture.astext() for picture in reading.lead(section)] == ["second"]
    assert [len(cell) for cell in cells] == [1, 0]
