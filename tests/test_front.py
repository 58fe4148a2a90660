"""book/_ext/front.py: the front page says what the results say."""

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from docutils import nodes
from pybtex.database import parse_file
from sphinx.errors import ExtensionError

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book/_ext"))
spec = importlib.util.spec_from_file_location("front", ROOT / "book/_ext/front.py")
front = importlib.util.module_from_spec(spec)
spec.loader.exec_module(front)


def claim(id, verdict, statement="It is so"):
    effect = {"replicates": 2.0, "contradicts": -2.0, "inconclusive": 0.1}[verdict]
    told = {"id": id, "statement": statement, "unit": "points", "verdict": verdict, "mean": effect, "n": 2}
    return (
        told
        | {"effects": [{"effect": effect, "of": "seed 0"}] * 2, "low": effect - 1, "high": effect + 1}
        | {
            "at_least": 0.0,
            "within": None,
        }
    )


@pytest.fixture
def book(tmp_path):
    """Two worlds and one chapter: the paper's finding holds in one, the book's own claim in none."""
    for world, verdict in (("cpu", "replicates"), ("office31", "contradicts")):
        folder = tmp_path / "results" / world
        folder.mkdir(parents=True)
        claims = [claim("absent-drop", verdict, "They lose"), claim("own-idea", "contradicts")]
        record = {"chapter": "03-what-breaks", "claims": claims, "values": {}, "provenance": {}}
        (folder / "03-what-breaks.json").write_text(json.dumps(record), encoding="utf-8")
    told = "03-what-breaks: {absent-drop: {effect: loss, holds: they lose, fails: they gain}}\n"
    (tmp_path / "answers.yml").write_text(told, encoding="utf-8")
    return tmp_path


def test_a_card_says_where_the_answer_holds_and_where_not(book):
    assert front.answers(book) == {"03-what-breaks": ["They lose in drawn characters; they gain in Office-31."]}
    assert front.lead(book) == "* They lose in drawn characters; they gain in Office-31."


def test_a_claim_that_no_world_has_measured_gives_no_sentence(book):
    clauses = {id: {"holds": "they lose", "fails": "they gain"} for id in ("absent-drop", "unheard-of")}
    claims = front.claims_in(front.read_worlds(book / "results"))
    assert front.sentences(clauses, claims) == ["They lose in drawn characters; they gain in Office-31."]


def test_what_fails_are_the_papers_findings_by_world(book):
    assert front.failing(book) == {
        "drawn characters": ([], [], ["They lose"]),
        "Office-31": (["They lose"], [], ["They lose"]),
    }


def test_a_page_shows_what_its_chapter_recorded_in_every_world_and_its_own_trial_first(book):
    for profile, values in (
        ("cpu", {"left": {"ALG": {"a": 1.0, "b": 4.0}}}),
        ("ci", {"left": 1}),
        ("quick", {"left": 2}),
    ):
        path = book / "results" / profile / "06-repair.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"chapter": "06-repair", "claims": [], "values": values}), encoding="utf-8")
    drawn = {"drawn characters": {"ALG": {"a": 1.0, "b": 4.0}}}
    assert front.by_world(book, "06-repair", "left", "cpu") == drawn
    assert list(front.by_world(book, "06-repair", "left", "quick").items()) == [("these runs", 2), *drawn.items()]
    assert front.by_world(book, "06-repair", "right", "cpu") == {}
    assert front.mean_and_worst(drawn["drawn characters"]["ALG"]) == "2.5 (4.0)"
    assert front.mean_and_worst(None) is None


def test_what_pages_show_by_world_was_recorded_under_these_names():
    for path in (ROOT / "book").glob("[0-9][0-9]-*.md"):
        for key, columns in re.findall(r"\{by-world\} (\S+)\n(?::columns: (.+))?", path.read_text(encoding="utf-8")):
            found = front.by_world(ROOT / "book", path.stem, key, "cpu")["drawn characters"]
            assert {name.strip() for name in columns.split(";") if columns} <= set(found), (path.stem, key)


def test_the_readme_says_what_the_published_results_say():
    shown = (ROOT / "README.md").read_text(encoding="utf-8").split(front.BEGIN)[1].split(front.END)[0]
    assert shown.strip() == front.lead(ROOT / "book"), "run `python book/_ext/front.py`"


def test_every_word_of_the_glossary_has_a_meaning_in_plain_text():
    words = front.glossary(ROOT / "book/glossary.md")
    assert words["source"] == "The domain that the model was pre-trained on."
    assert len(words) >= 30 and not any(set("$`{}") & set(text) for text in words.values())


class Env:
    docname = "book/03-what-breaks"

    def note_dependency(self, path):
        pass


class App:
    srcdir, env = ROOT, Env()


def test_the_first_use_of_a_word_leads_to_its_meaning_and_no_later_one():
    page = nodes.document(None, None)
    page += [
        nodes.title("", "A source"),
        nodes.paragraph("", "From the source, a source-like source."),
        nodes.paragraph("", "The source."),
    ]
    front.explain(App, page)
    links = [link for link in page.findall() if link.__class__.__name__ == "pending_xref"]
    assert [link["reftarget"] for link in links] == ["source"] and links[0].parent.astext().startswith(
        "From the source,"
    )
    assert links[0].astext() == "source" and page.astext().count("source") == 5


def test_an_epub_says_in_words_that_a_picture_moves_and_closes_line_breaks():
    page = nodes.document(None, None)
    page += [nodes.raw("", text, format="html") for text in ("<div><script>1</script></div>", "a<br>b", "<hr/>")]
    front.still(type("A", (), {"builder": type("B", (), {"name": "epub"})}), page)
    assert [child.astext() for child in page] == ["Here a picture moves in the book's web edition.", "a<br/>b", "<hr/>"]


def test_an_epub_leads_to_its_own_pages_draws_formulas_and_leaves_code_out():
    page = nodes.document(None, None)
    cell = nodes.container("", nodes.container("", nodes.Text("code"), classes=["cell_input"]), classes=["cell"])
    page += [nodes.raw("", '<a href="20-scorecard.html#x"><svg /></a>', format="html"), cell]
    page += nodes.paragraph("", "", nodes.math("", r"a_{U/Y} \le b"), nodes.math("", r"\underbrace{a}_b"))
    front.still(type("A", (), {"builder": type("B", (), {"name": "epub"})}), page)
    link, code, (drawn, unknown) = page
    assert link.astext() == '<a href="20-scorecard.xhtml#x"><svg xmlns="http://www.w3.org/2000/svg" /></a>'
    assert not code.astext() and drawn.astext().startswith("<img ") and isinstance(unknown, nodes.math)


def test_every_work_that_is_cited_is_in_the_bibliography():
    """The whole file is read: a brace that is not closed would fail here, before the pages are built."""
    known = parse_file(str(ROOT / "book/references.bib")).entries
    pages = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "book").glob("*.md"))
    cited = {key.strip() for keys in re.findall(r"{cite:\w+}`([^`]+)`", pages) for key in keys.split(",")}
    assert len(cited) > 20
    assert cited - set(known) == set()


def test_a_chapter_of_one_world_has_the_answer_and_the_picture_of_its_own_first_screen():
    path = ROOT / "book/11-the-toy.ipynb"
    (said,) = front.own_answer(path)
    assert "features" in said and front.first_picture(path)[1].startswith("Four panels of the plane")


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A builder of pages, and a PDF and an ePub that BOOK_FILES names."""
    for name, size in (("book.pdf", 5_100_000), ("book.epub", 3_240_000)):
        (tmp_path / name).write_bytes(bytes(size))
    monkeypatch.setenv("BOOK_FILES", f"{tmp_path / 'book.pdf'} {tmp_path / 'book.epub'}")
    (tmp_path / "html").mkdir()
    return SimpleNamespace(builder=SimpleNamespace(name="html"), outdir=tmp_path / "html")


LINKS = f'<a href="../{front.NAME}.pdf">PDF</a> (5.1 MB), <a href="../{front.NAME}.epub">ePub</a> (3.2 MB)'


def test_the_files_that_are_named_stand_beside_the_pages_and_each_pages_foot_leads_there(site):
    foots = {}
    for page in ("book/01-x", "genindex"):
        front.offer(site, page, "page.html", foots.setdefault(page, {}), None)
    assert LINKS in foots["book/01-x"]["theme_extra_footer"]
    assert f'href="{front.NAME}.pdf"' in foots["genindex"]["theme_extra_footer"]
    front.copy_files(site, None)
    assert (site.outdir / f"{front.NAME}.epub").stat().st_size == 3_240_000
    assert {path.name for path in site.outdir.iterdir()} == {f"{front.NAME}.pdf", f"{front.NAME}.epub"}


def front_page(site):
    directive = front.Files.__new__(front.Files)
    directive.state = SimpleNamespace(document=SimpleNamespace(settings=SimpleNamespace(env=Env())))
    directive.env.app = site
    return directive.run()


def test_the_front_page_leads_to_the_files(site):
    assert LINKS in front_page(site)[0].astext()


@pytest.mark.parametrize(("builder", "named"), [("html", ""), ("epub", None), ("singlehtml", None)])
def test_where_no_files_are_named_or_in_those_files_themselves_nothing_leads_there(site, builder, named, monkeypatch):
    if named is not None:
        monkeypatch.setenv("BOOK_FILES", named)
    site.builder.name, foot = builder, {}
    front.offer(site, "book/01-x", "page.html", foot, None)
    front.copy_files(site, None)
    assert foot == {} and front_page(site) == [] and not [*site.outdir.iterdir()]


@pytest.mark.parametrize("name", ["gone.pdf", "html"])
def test_a_file_that_is_not_there_is_an_error_and_no_dead_link(site, name, monkeypatch):
    monkeypatch.setenv("BOOK_FILES", str(site.outdir.parent / name))
    with pytest.raises(ExtensionError, match=f"{name}, expected a file .pdf or .epub: `make site`"):
        front.files(site)
