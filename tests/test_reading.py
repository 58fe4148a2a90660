"""book/_ext/reading.py: what every chapter's page gets for its readers."""

import importlib
import re
import sys
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from docutils import nodes
from PIL import Image, PngImagePlugin

from ftlib.book.claims import check

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book/_ext"))
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


@pytest.mark.parametrize(
    "told", [{}, {"panels": "[]"}, {"panels": "[[[[0, 0, 0.5, 1]]]]"}, {"panels": "[[[[0, 0, 1, 1]]]]", "text": "8.5"}]
)
def test_a_pictures_element_tells_its_panels_and_how_small_its_text_is_and_stays_xml(tmp_path, told):
    info = PngImagePlugin.PngInfo()
    for key, value in told.items():
        info.add_text(key, value)
    Image.new("1", (2, 1)).save(tmp_path / "a.png", pnginfo=info)
    app = SimpleNamespace(srcdir=tmp_path, builder=SimpleNamespace(images={"a.png": "b.png"}))
    page = {"body": '<p><img alt="x" src="../_images/b.png" /></p>'}
    reading.tell_panels(app, "page", "page.html", page, None)
    shown = ElementTree.fromstring(page["body"])[0].attrib
    expected = {f"data-{key}": value for key, value in told.items() if value != "[]"}
    assert {key: value for key, value in shown.items() if key.startswith("data-")} == expected


def opened(**theme):
    """The foot's words, its links and its code, for the notebook of chapter 3."""
    shown = nodes.container("", *reading.opening(Path("book/03-what-breaks.ipynb"), theme))
    links = {link.astext(): link["refuri"] for link in shown.findall(nodes.reference)}
    return shown[0].astext(), links, [block.astext() for block in shown.findall(nodes.literal_block)]


@pytest.mark.parametrize("theme", [{}, {"repository_url": "", "repository_branch": "main"}])
def test_without_a_repositorys_address_a_chapter_opens_on_the_readers_machine_alone(theme):
    said, links, code = opened(**theme)
    assert said == "To change it cell by cell: make lab opens a copy of all chapters in JupyterLab, set to few images."
    assert not links and not code


@pytest.mark.parametrize(
    "url", ["https://github.com/ann/book", "https://github.com/ann/book.git", "https://github.com/ann/book/"]
)
def test_with_a_repository_on_github_a_chapter_opens_in_colab_and_binder_too(url):
    said, links, code = opened(repository_url=url, repository_branch="v2")
    assert said.endswith(
        "few images; as published it opens in Colab and Binder. Colab needs this cell before all others:"
    )
    assert links == {
        "Colab": "https://colab.research.google.com/github/ann/book/blob/v2/book/03-what-breaks.ipynb",
        "Binder": "https://mybinder.org/v2/gh/ann/book/v2?urlpath=lab/tree/book/03-what-breaks.ipynb",
    }
    assert code == [
        f'!git clone --quiet --depth 1 --branch v2 {url}\n%pip install --quiet "./book[chapters]"\n%cd book/book'
    ]


def test_with_a_repository_elsewhere_a_chapter_opens_in_binder_alone():
    said, links, code = opened(repository_url="https://git.example.org/ann/book")
    where = "git/https%3A%2F%2Fgit.example.org%2Fann%2Fbook/main"
    assert links == {"Binder": f"https://mybinder.org/v2/{where}?urlpath=lab/tree/book/03-what-breaks.ipynb"}
    assert said.endswith("few images; as published it opens in Binder.") and not code


def test_the_repositorys_address_is_asked_for_where_the_pages_look_for_it():
    """Options of the theme's own replace Jupyter Book's `repository:` as a whole, which would say it to nobody."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    assert {"repository_url", "repository_branch"} <= {*config["sphinx"]["config"]["html_theme_options"]}
    assert "repository" not in config


def test_what_binder_and_colab_install_is_what_chapters_import():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    assert "ftlib[cluster,data]" in extras["chapters"]
    assert "'.[chapters]'" in (ROOT / ".binder/postBuild").read_text(encoding="utf-8")
    asked = [*project["dependencies"], *extras["chapters"], *extras["cluster"]]
    known = {re.split(r"[\[><=]", name)[0].replace("-", "_") for name in asked}
    known |= {"IPython", "PIL", "distributed", "ftlib", "sklearn", "yaml"}  # under another name, or below one of these
    found = set()
    for path in (*ROOT.glob("book/[0-9]*.md"), *ROOT.glob("ftlib/book/**/*.py")):
        text = path.read_text(encoding="utf-8")
        found |= {*re.findall(r"^(?:import|from) (\w+)[\w.]*(?: import| as|$)", text, re.M)}
    assert {"dask", "myst_nb", "plotly"} <= found and found - known - {*sys.stdlib_module_names} == set()
