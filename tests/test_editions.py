"""book/_ext/editions.py: the book as a PDF and as an ePub."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from docutils import nodes
from fakes import SphinxEnv
from sphinx.errors import ExtensionError

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book/_ext"))
spec = importlib.util.spec_from_file_location("editions", ROOT / "book/_ext/editions.py")
editions = importlib.util.module_from_spec(spec)
spec.loader.exec_module(editions)


def test_an_epub_says_in_words_that_a_picture_moves_and_closes_line_breaks():
    page = nodes.document(None, None)
    page += [nodes.raw("", text, format="html") for text in ("<div><script>1</script></div>", "a<br>b", "<hr/>")]
    editions.still(type("A", (), {"builder": type("B", (), {"name": "epub"})}), page)
    assert [child.astext() for child in page] == ["Here a picture moves in the book's web edition.", "a<br/>b", "<hr/>"]


def test_an_epub_leads_to_its_own_pages_draws_formulas_and_leaves_code_out():
    page = nodes.document(None, None)
    cell = nodes.container("", nodes.container("", nodes.Text("code"), classes=["cell_input"]), classes=["cell"])
    page += [nodes.raw("", '<a href="20-scorecard.html#x"><svg /></a>', format="html"), cell]
    page += nodes.paragraph("", "", nodes.math("", r"a_{U/Y} \le b"), nodes.math("", r"\underbrace{a}_b"))
    editions.still(type("A", (), {"builder": type("B", (), {"name": "epub"})}), page)
    link, code, (drawn, unknown) = page
    assert link.astext() == '<a href="20-scorecard.xhtml#x"><svg xmlns="http://www.w3.org/2000/svg" /></a>'
    assert not code.astext() and drawn.astext().startswith("<img ") and isinstance(unknown, nodes.math)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A builder of pages, and a PDF and an ePub that BOOK_FILES names."""
    for name, size in (("book.pdf", 5_100_000), ("book.epub", 3_240_000)):
        (tmp_path / name).write_bytes(bytes(size))
    monkeypatch.setenv("BOOK_FILES", f"{tmp_path / 'book.pdf'} {tmp_path / 'book.epub'}")
    (tmp_path / "html").mkdir()
    return SimpleNamespace(builder=SimpleNamespace(name="html"), outdir=tmp_path / "html")


LINKS = f'<a href="../{editions.NAME}.pdf">PDF</a> (5.1 MB), <a href="../{editions.NAME}.epub">ePub</a> (3.2 MB)'


def test_the_files_that_are_named_stand_beside_the_pages_and_each_pages_foot_leads_there(site):
    foots = {}
    for page in ("book/01-x", "genindex"):
        editions.offer(site, page, "page.html", foots.setdefault(page, {}), None)
    assert LINKS in foots["book/01-x"]["theme_extra_footer"]
    assert f'href="{editions.NAME}.pdf"' in foots["genindex"]["theme_extra_footer"]
    editions.copy_files(site, None)
    assert (site.outdir / f"{editions.NAME}.epub").stat().st_size == 3_240_000
    assert {path.name for path in site.outdir.iterdir()} == {f"{editions.NAME}.pdf", f"{editions.NAME}.epub"}


def front_page(site):
    directive = editions.Files.__new__(editions.Files)
    directive.state = SimpleNamespace(document=SimpleNamespace(settings=SimpleNamespace(env=SphinxEnv())))
    directive.env.app = site
    return directive.run()


def test_the_front_page_leads_to_the_files(site):
    assert LINKS in front_page(site)[0].astext()


@pytest.mark.parametrize(("builder", "named"), [("html", ""), ("epub", None), ("singlehtml", None)])
def test_where_no_files_are_named_or_in_those_files_themselves_nothing_leads_there(site, builder, named, monkeypatch):
    if named is not None:
        monkeypatch.setenv("BOOK_FILES", named)
    site.builder.name, foot = builder, {}
    editions.offer(site, "book/01-x", "page.html", foot, None)
    editions.copy_files(site, None)
    assert foot == {} and front_page(site) == [] and not [*site.outdir.iterdir()]


@pytest.mark.parametrize("name", ["gone.pdf", "html"])
def test_a_file_that_is_not_there_is_an_error_and_no_dead_link(site, name, monkeypatch):
    monkeypatch.setenv("BOOK_FILES", str(site.outdir.parent / name))
    with pytest.raises(ExtensionError, match=f"{name}, expected a file .pdf or .epub: `make site`"):
        editions.files(site)
