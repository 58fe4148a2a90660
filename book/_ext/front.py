"""The front page from the results alone, and what belongs to the book as a whole.

* `{slider} CHAPTER NAME` shows a moving picture of an executed chapter a second time.
* `{answers}` is a card a chapter: its picture, its question, and the answer that the verdicts choose, of all worlds or,
  for a chapter that is measured in one, its own.
* `{verdicts}` is a sentence for each claim that it names, with the clauses that the verdicts choose from.
* `{fails}` says where a finding of the paper's is contradicted or undecided.
* `{by-world}` is what a chapter recorded in every world that has executed it, as a table.
* The first use of each of the glossary's words on a page leads there and shows its meaning.
* Every page gets a description, a picture for those who share it, and the book's sign.

    python book/_ext/front.py    # writes what holds where into README.md
"""

import ast
import base64
import html
import io
import os
import re
from functools import cache
from pathlib import Path
from typing import ClassVar

import yaml
from docutils import nodes
from docutils.parsers.rst.directives import class_option, unchanged_required
from ftlib.book.record import load_results
from ftlib.book.worlds import NAMES, claims_in, sentences
from measured import notebook_paths, read, table, worlds_in
from PIL import Image
from reading import SCORECARD
from sphinx import addnodes
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[2]
LEAD = ("03-what-breaks", "04-the-features-improve", "05-the-logit-gap", "06-repair")
BEGIN, END = "<!-- what holds where: python book/_ext/front.py -->", "<!-- end -->"
DESCRIPTION = "What a classifier loses when it is fine-tuned on some of its classes, and how far one number repairs it."
WIDTH = 480  # pixels of a card's picture


def setup(app):
    app.add_directive("slider", Slider)
    app.add_directive("answers", Answers)
    app.add_directive("verdicts", Verdicts)
    app.add_directive("fails", Fails)
    app.add_directive("by-world", ByWorld)
    app.connect("doctree-read", explain, priority=700)
    app.connect("html-page-context", describe)
    app.add_css_file("front.css")
    app.add_js_file("front.js", loading_method="defer")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


# --- what the verdicts say -------------------------------------------------------------------------------------------


def answers(book):
    """Chapter to the sentences that its claims' verdicts choose (answers.yml)."""
    told = yaml.safe_load((book / "answers.yml").read_text(encoding="utf-8"))
    claims = claims_in(worlds_in(book / "results"))
    return {chapter: said for chapter, of in told.items() if (said := sentences(of, claims))}


def failing(book):
    """World to (contradicted, undecided, all): statements of the paper's findings, and how many were judged."""
    worlds = worlds_in(book / "results")
    found = {world: ([], [], []) for world in worlds}
    for of in claims_in(worlds).values():
        for world, claim in of.items():
            if claim.paper and claim.verdict in ("replicates", "contradicts", "inconclusive"):
                contradicted, undecided, judged = found[world]
                judged.append(claim.statement)
                {"contradicts": contradicted, "inconclusive": undecided}.get(claim.verdict, []).append(claim.statement)
    return {world: of for world, of in found.items() if of[2]}


def lead(book):
    """What holds where, as Markdown for the README: a line a chapter."""
    return "\n".join(f"* {' '.join(said)}" for name, said in answers(book).items() if name in LEAD)


# --- the front page --------------------------------------------------------------------------------------------------


class Front(SphinxDirective):
    @property
    def book(self):
        book = Path(self.env.srcdir, "book")
        for path in (book / "answers.yml", *sorted(book.glob("results/*/*.json"))):
            self.env.note_dependency(str(path))
        return book


class Slider(Front):
    """``{slider} 05-the-logit-gap gamma-slider``"""

    required_arguments = 2

    def run(self):
        chapter, name = self.arguments
        path = self.book / f"{chapter}.ipynb"
        self.env.note_dependency(str(path))
        for cell in read(path)["cells"]:
            for output in cell.get("outputs", ()):
                text = "".join(output.get("data", {}).get("text/html", ""))
                if f'id="{name}"' in text:
                    return [nodes.raw("", text, format="html")]
        raise self.error(f"{path.name} has no moving picture {name!r}: execute the chapter, or name another")


class Answers(Front):
    """``{answers}``"""

    def run(self):
        told, cards = answers(self.book), nodes.container(classes=["cards"])
        for name, path in notebook_paths(self.env).items():
            said = told.get(path.stem) or own_answer(path)
            if not said or path.stem == SCORECARD:
                continue
            self.env.note_dependency(str(path))
            card = nodes.container(classes=["card"])
            if picture := first_picture(path):
                uri, alt = picture
                card += nodes.image(uri=uri, alt=alt)
            question = addnodes.pending_xref(
                "", nodes.inline("", path.stem), refdomain="std", reftype="doc", reftarget=f"/{name}",
                refexplicit=False, refwarn=True, refdoc=self.env.docname,
            )  # fmt: skip
            card += nodes.paragraph("", "", question, classes=["question"])
            card += nodes.paragraph("", " ".join(said))
            cards += card
        return [cards]


class Verdicts(Front):
    """``{verdicts}`` with ``{id: {holds, fails}}`` as YAML within, and the paragraph's ``:class:``."""

    has_content = True
    option_spec: ClassVar = {"class": class_option}

    def run(self):
        clauses, claims = yaml.safe_load("\n".join(self.content)), claims_in(worlds_in(self.book / "results"))
        return [nodes.paragraph("", " ".join(sentences(clauses, claims)), classes=self.options.get("class", []))]


class Fails(Front):
    """``{fails}``"""

    def run(self):
        shown = nodes.definition_list()
        for world, (contradicted, undecided, judged) in failing(self.book).items():
            text = nodes.definition()
            if contradicted:
                verb = "is" if len(contradicted) == 1 else "are"
                said = f"{len(contradicted)} of the paper's {len(judged)} findings {verb} contradicted:"
                points = (nodes.list_item("", nodes.paragraph("", point)) for point in contradicted)
                text += [nodes.paragraph("", said), nodes.bullet_list("", *points)]
            else:
                text += nodes.paragraph("", f"None of the paper's {len(judged)} findings is contradicted.")
            if undecided:
                text += nodes.paragraph("", f"These repetitions cannot decide {len(undecided)} of them.")
            shown += nodes.definition_list_item("", nodes.term("", f"In {world}"), text)
        return [shown]


class ByWorld(Front):
    """``{by-world} KEY``: a column a world of what the chapter recorded as KEY, mean and worst of each name.

    ``:rows:`` are the names, parted by semicolons; what was recorded of each is by pair or setup, or in words.
    """

    required_arguments = 1
    option_spec: ClassVar = {"rows": unchanged_required}

    def run(self):
        path, (key,) = Path(self.env.doc2path(self.env.docname)), self.arguments
        found = by_world(self.book, path.stem, key, read(path)["metadata"]["ftlib"]["profile"])
        if not found:
            raise self.error(f"no world has recorded {key!r} in chapter {path.stem}: execute it, or name another")
        names = [name.strip() for name in self.options["rows"].split(";")]
        rows = [[name, *(mean_and_worst(values.get(name)) for values in found.values())] for name in names]
        return [table([key, *found], rows)]


def by_world(book, chapter, key, profile):
    """World to what the chapter recorded as ``key``; first the page's own runs, if they are of a trial or a test."""
    worlds = worlds_in(book / "results")
    if NAMES.get(profile, profile) not in worlds:
        worlds = {"these runs": load_results(book / "results").get(profile, {})} | worlds
    found = {world: of[chapter]["values"].get(key) for world, of in worlds.items() if chapter in of}
    return {world: values for world, values in found.items() if values}


def mean_and_worst(values):
    """Of what was recorded by pair or setup, in points; words as they are; None if nothing was recorded."""
    if not values or isinstance(values, str):
        return values
    return f"{sum(values.values()) / len(values):.1f} ({max(values.values()):.1f})"


def own_answer(path):
    """The answer that an executed chapter computed for its own world, in a list; empty if it computed none."""
    for output in (output for cell in read(path)["cells"] for output in cell.get("outputs", ())):
        if output.get("metadata", {}).get("scrapbook", {}).get("name") == "answer":
            (text,) = output["data"].values()
            return [ast.literal_eval("".join(text))]
    return []


@cache
def first_picture(path):
    """The figure of an executed chapter's first screen, or else its first one, small: (data URI, its words)."""
    cells = sorted(read(path)["cells"], key=lambda cell: "lead" not in cell["metadata"].get("tags", ()))
    for cell in cells:
        for output in cell.get("outputs", ()):
            if data := output.get("data", {}).get("image/png"):
                image = Image.open(io.BytesIO(base64.b64decode("".join(data)))).convert("RGB")
                small = image.resize((WIDTH, round(image.height * WIDTH / image.width)), Image.Resampling.LANCZOS)
                written = io.BytesIO()
                small.quantize(64, dither=Image.Dither.NONE).save(written, "PNG", optimize=True)
                alt = cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "").strip()
                return f"data:image/png;base64,{base64.b64encode(written.getvalue()).decode()}", alt
    return None


# --- the book as a whole ---------------------------------------------------------------------------------------------


def describe(app, page, template, context, doctree):
    """A description and a picture for search engines and those who share the page."""
    said = next((p.astext() for p in doctree.findall(nodes.paragraph) if len(p.astext()) > 60), "") if doctree else ""
    said = " ".join((said or DESCRIPTION).split())
    said = html.escape(said if len(said) <= 200 else said[:197].rsplit(" ", 1)[0] + " …")
    title = re.sub(r"<[^>]+>", "", context.get("title", app.config.html_title or ""))
    address = os.environ.get("BOOK_URL", "").rstrip("/")
    tags = {"og:type": "article", "og:title": title, "og:description": said, "og:site_name": app.config.project}
    if address:  # a picture needs a whole address
        tags |= {
            "twitter:card": "summary_large_image",
            "og:image": f"{address}/_static/preview.png",
            "og:url": f"{address}/{page}.html",
        }
    metas = f'<meta name="description" content="{said}" />'
    metas += "".join(f'<meta property="{name}" content="{value}" />' for name, value in tags.items())
    context["metatags"] = context.get("metatags", "") + metas


@cache
def glossary(path):
    """Word to its meaning in plain text."""
    words = re.findall(r"^(\S.*)\n((?:  .+\n)+)", path.read_text(encoding="utf-8").split("```")[1], re.M)
    plain = {word: " ".join(re.sub(r"[${}\\]|_(?=\{)", "", text).split()) for word, text in words}
    return {word: text for word, text in plain.items() if word not in ("{glossary}", "γ", "run", "fold")}


def explain(app, doctree):
    """Lead the first use of each of the glossary's words on a page to its meaning."""
    path = Path(app.srcdir, "book/glossary.md")
    if app.env.docname == "book/glossary" or not path.exists():
        return
    app.env.note_dependency(str(path))
    left = glossary(path)
    aside = (nodes.title, nodes.reference, nodes.literal, addnodes.pending_xref, nodes.raw, nodes.rubric, nodes.caption)
    for paragraph in [*doctree.findall(nodes.paragraph)]:
        for text in [*paragraph.findall(nodes.Text)]:
            if not isinstance(text.parent, nodes.paragraph | nodes.emphasis | nodes.strong):
                continue
            if within(text, (*aside, nodes.table)):
                continue
            words = "|".join(sorted(map(re.escape, left), key=len, reverse=True))
            if left and (found := re.search(rf"(?<![\w-])(?:{words})(?![\w*-])", text)):
                word = found[0]
                link = addnodes.pending_xref(
                    "", nodes.abbreviation("", word, explanation=left[word]), refdomain="std", reftype="term",
                    reftarget=word, refexplicit=True, refwarn=True, refdoc=app.env.docname,
                )  # fmt: skip
                left = {w: t for w, t in left.items() if w != word}
                pieces = nodes.Text(text[: found.start()]), link, nodes.Text(text[found.end() :])
                text.parent.replace(text, [piece for piece in pieces if piece.astext()])


def within(node, kinds):
    """Whether one of a node's ancestors is of the kinds."""
    while node is not None and not isinstance(node, kinds):
        node = node.parent
    return node is not None


def main():
    """Write what holds where into README.md."""
    readme = ROOT / "README.md"
    before, rest = readme.read_text(encoding="utf-8").split(BEGIN)
    text = f"{before}{BEGIN}\n{lead(ROOT / 'book')}\n{END}{rest.split(END)[1]}"
    readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
