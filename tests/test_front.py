"""book/_ext/front.py: the front page says what the results say."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from docutils import nodes
from fakes import SphinxEnv
from pybtex.database import parse_file
from scipy.stats import spearmanr

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
    claims = front.claims_in(front.worlds_in(book / "results"))
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
    assert front.mean_and_worst(None) is None and front.mean_and_worst("3 of 4") == "3 of 4"


def test_what_pages_show_by_world_was_recorded_under_these_names():
    for path in (ROOT / "book").glob("[0-9][0-9]-*.md"):
        for key, rows in re.findall(r"\{by-world\} (\S+)\n(?::rows: (.+))?", path.read_text(encoding="utf-8")):
            found = front.by_world(ROOT / "book", path.stem, key, "cpu")["drawn characters"]
            assert {name.strip() for name in rows.split(";") if rows} <= set(found), (path.stem, key)


def test_between_worlds_mirroring_leaves_the_more_the_worse_mirror_images_fit():
    """What chapter 7 says in words of its table."""
    found = front.by_world(ROOT / "book", "07-finding-gamma", "fit", "cpu").values()
    rows = "regret of mirroring", "mirror images against absent ones", "features turned (1 − CKA)"
    regret, misfit, turned = ([sum(of[row].values()) / len(of[row]) for of in found] for row in rows)
    assert len(regret) >= 5 and np.argsort(misfit).tolist() == np.argsort(regret).tolist()
    assert abs(spearmanr(turned, regret).statistic) < 0.5


def test_the_readme_says_what_the_published_results_say():
    shown = (ROOT / "README.md").read_text(encoding="utf-8").split(front.BEGIN)[1].split(front.END)[0]
    assert shown.strip() == front.lead(ROOT / "book"), "run `python book/_ext/front.py`"


def test_every_word_of_the_glossary_has_a_meaning_in_plain_text():
    words = front.glossary(ROOT / "book/glossary.md")
    assert words["source"] == "The domain that the model was pre-trained on."
    assert len(words) >= 30 and not any(set("$`{}") & set(text) for text in words.values())


class App:
    srcdir, env = ROOT, SphinxEnv()


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


def test_the_readme_says_of_the_masked_loss_what_chapter_6_found():
    """A better start for γ wherever it can be told."""
    verdicts = [
        {claim["id"]: claim["verdict"] for claim in json.loads(path.read_text(encoding="utf-8"))["claims"]}
        for path in (ROOT / "book/results").glob("*/06-repair.json")
    ]
    of = {id: [found[id] for found in verdicts] for id in ("masked-loss-trades-better", "masked-loss-beats-best-gamma")}
    assert all("replicates" in said and "contradicts" not in said for said in of.values())
    backbones = json.loads((ROOT / "book/results/cpu/18-other-backbones.json").read_text(encoding="utf-8"))["claims"]
    (every,) = (claim["verdict"] for claim in backbones if claim["id"] == "masked-loss-in-every-backbone")
    assert every != "replicates"


def test_the_readme_says_of_heads_what_chapter_14_found():
    """Levelled old rows are put back since that is better, and harm nowhere; the whole old head is better or worse."""
    results = {
        path.parent.name: {claim["id"]: claim for claim in json.loads(path.read_text(encoding="utf-8"))["claims"]}
        for path in (ROOT / "book/results").glob("*/14-when-it-is-not-fine.json")
    }
    old = {world: found["old-head-adds"]["verdict"] for world, found in results.items()}
    assert old["cpu"] == old["digits"] == "replicates" and old["chars74k"] == old["office31"] == "contradicts"
    assert all(found["head-by-seen-images-adds"]["verdict"] != "contradicts" for found in results.values())
    for id in ("levelled-rows-add", "levelled-rows-harm-nowhere"):
        said = [found[id]["verdict"] for found in results.values()]
        assert "replicates" in said and "contradicts" not in said
