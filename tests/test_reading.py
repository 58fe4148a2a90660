"""book/_ext/reading.py: what every chapter's page gets for its readers."""

import importlib
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import SimpleNamespace

import pytest
from docutils import nodes
from PIL import Image, PngImagePlugin

from ftlib.book.claims import check

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


def test_the_claims_of_a_cell_become_one_table_and_those_of_an_unpublished_world_stay():
    def shown(id):
        return nodes.block_quote("", nodes.paragraph("", "", nodes.Text("It holds. "), nodes.literal("", id)))

    claims = {id: {"digits": check(id, "It holds.", {"a": 1.0, "b": 1.1})} for id in ("one", "two")}

    def kinds(world, *ids):
        cell = nodes.container("", *map(shown, ids), classes=["cell_output"])
        reading.gather(nodes.section("", cell), claims, world)
        return [type(child).__name__ for child in cell], cell[0].astext().count('scope="row"')

    assert kinds("digits", "one", "two", "new") == (["raw", "block_quote"], 2)
    assert kinds("mine", "one") == (["block_quote"], 0)


def test_a_pictures_element_tells_its_panels_and_stays_xml(tmp_path):
    told = PngImagePlugin.PngInfo()
    told.add_text("panels", "[[[[0, 0, 0.5, 1]]]]")
    Image.new("1", (2, 1)).save(tmp_path / "a.png", pnginfo=told)
    app = SimpleNamespace(srcdir=tmp_path, builder=SimpleNamespace(images={"a.png": "b.png"}))
    page = {"body": '<p><img alt="x" src="../_images/b.png" /></p>'}
    reading.tell_panels(app, "page", "page.html", page, None)
    assert ElementTree.fromstring(page["body"])[0].attrib["data-panels"] == "[[[[0, 0, 0.5, 1]]]]"
