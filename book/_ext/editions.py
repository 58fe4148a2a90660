"""The book's other forms: a PDF and an ePub to take along, and what an ePub can show.

* What $BOOK_FILES names, the book as a PDF and as an ePub, is put beside the pages; `{files}` and each page's foot lead
  there. Nothing does where it names none, as in `make html`: what lies in _build may be of an earlier text.
* In an ePub, which runs no scripts and is XML, formulas are pictures, moving ones a sentence, and code is left out.
"""

import base64
import html
import importlib.metadata
import io
import os
import re
import shutil
from functools import cache
from pathlib import Path

from docutils import nodes
from matplotlib.font_manager import FontProperties
from matplotlib.mathtext import MathTextParser, math_to_image
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

NAME = "fine-tuning-calibrated"  # of the files that readers take along, since a book.pdf is lost among others
FORMS = {".pdf": "PDF", ".epub": "ePub"}
TEX = {  # what matplotlib does not know, and what it does
    r"\bigl": "", r"\bigr": "", r"\lVert": r"\Vert", r"\rVert": r"\Vert", r"\le ": r"\leq ", r"\ge ": r"\geq ",
    r"\text{": r"\mathrm{", r"\mathbb{1}": r"\mathbf{1}",
}  # fmt: skip


def setup(app):
    app.add_directive("files", Files)
    app.connect("config-inited", tell_version)
    app.connect("doctree-read", still, priority=800)  # after what the other extensions add
    app.connect("html-page-context", offer)
    app.connect("build-finished", copy_files)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


# --- files beside the pages ------------------------------------------------------------------------------------------


class Files(SphinxDirective):
    """``{files}``"""

    def run(self):
        if not (shown := links(files(self.env.app), "../" * self.env.docname.count("/"))):
            return []
        return [nodes.raw("", f'<p class="files">The whole book to take along: {shown}.</p>', format="html")]


def files(app):
    """``{path: name on the site}`` of the book's other forms; a name in $BOOK_FILES that leads nowhere is an error."""
    paths = [Path(name) for name in os.environ.get("BOOK_FILES", "").split()] if app.builder.name == "html" else []
    for path in paths:
        if path.suffix not in FORMS or not path.is_file():
            raise ExtensionError(
                f"BOOK_FILES names {path}, expected a file {' or '.join(FORMS)}: `make site` makes both"
            )
    return {path: NAME + path.suffix for path in paths}


def links(found, up):
    """Links to them, for a page from which ``up`` leads to the site's root, with what they weigh."""
    sizes = {path: f"{path.stat().st_size / 1e6:.1f} MB" for path in found}
    return ", ".join(f'<a href="{up}{name}">{FORMS[path.suffix]}</a> ({sizes[path]})' for path, name in found.items())


def offer(app, page, template, context, doctree):
    """The links in the foot of every page."""
    if shown := links(files(app), "../" * page.count("/")):
        context["theme_extra_footer"] = f'<p class="files">The whole book: {shown}</p>'


def copy_files(app, failure):
    """Put them beside the pages."""
    for path, name in () if failure else files(app).items():
        shutil.copyfile(path, Path(app.outdir, name))


# --- an ePub ---------------------------------------------------------------------------------------------------------


def tell_version(app, config):
    """An ePub has to say which version of the book it is."""
    config.version = config.version or importlib.metadata.version("ftlib")


def still(app, doctree):
    """What an ePub, which runs no scripts and is XML, can show: formulas as pictures, moving ones in words, no code."""
    if app.builder.name != "epub":
        return
    for part in [*doctree.findall(nodes.container)]:
        tags = {*part["classes"], *part.parent.get("classes", ())}
        if "redo" in tags or ("tag_solution" not in tags and {"cell_input", "tag_hide-cell"} & {*part["classes"]}):
            part.parent.remove(part)
    for math in [*doctree.findall(lambda node: isinstance(node, nodes.math | nodes.math_block))]:
        if shown := drawn(math.astext()):
            inline = isinstance(math, nodes.math)
            math.replace_self(nodes.raw("", shown if inline else f"<p>{shown}</p>", format="html"))
    for raw in [*doctree.findall(nodes.raw)]:
        text = raw.astext()
        if "<script" in text:
            raw.replace_self(nodes.paragraph("", "Here a picture moves in the book's web edition.", classes=["still"]))
        else:
            text = text.replace("<br>", "<br/>").replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ')
            text = re.sub(r'href="([\w-]+)\.html', r'href="\1.xhtml', text)
            raw.replace_self(nodes.raw("", text, format=raw["format"]))


@cache
def drawn(tex):
    """A formula as a picture on the line of the text, if it has nothing that matplotlib does not know."""
    for name, known in TEX.items():
        tex = tex.replace(name, known)
    formula, written, size = f"${' '.join(tex.split())}$", io.BytesIO(), 10
    try:
        _, height, depth, *_ = MathTextParser("path").parse(formula, prop=FontProperties(size=size))
        math_to_image(formula, written, prop=FontProperties(size=size), format="svg")
    except ValueError:
        return None
    style = f"height: {height / size:.2f}em; vertical-align: {-depth / size:.2f}em"
    source = base64.b64encode(written.getvalue()).decode()
    return f'<img src="data:image/svg+xml;base64,{source}" alt="{html.escape(tex)}" style="{style}"/>'
