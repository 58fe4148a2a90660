"""The book's own Sphinx extension: a page shows only what was measured, says how, and needs no network.

* The build fails, naming page and cell, when a notebook in the table of contents has a code cell that failed or never
  ran, was not written by book/execute.py, or was executed from another text than the source beside it, or with other
  results than those that it quotes.
* Below each executed page's title stands a quiet box: pairs, seeds, backbone, recipe; within, device and versions, and
  what the other worlds were measured on.
* `{run-statistics}` is a table of the same facts for every page, `{run-statistics} results` for every other profile
  under book/results/.
* plotly.min.js and MathJax are copied from the installed packages, so that the book opens from disk, offline.
"""

import html
import importlib.metadata
import json
import shutil
import sys
from functools import cache
from pathlib import Path

import plotly
from docutils import nodes
from ftlib.book.worlds import NAMES, read_worlds
from sphinx import addnodes
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from plan import digest, literals, quoted  # noqa: E402


def setup(app):
    app.add_directive("run-statistics", RunStatistics)
    app.connect("env-before-read-docs", check_notebooks)
    app.connect("doctree-read", insert_box)
    app.connect("build-finished", copy_assets)
    app.add_css_file("measured.css")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


# --- no page without a whole run -------------------------------------------------------------------------------------


def check_notebooks(app, env, docnames):
    """Raise with every fault of every notebook in the book, so that one build shows them all."""
    faults = [f"{path.name}: {fault}" for path in notebook_paths(env).values() for fault in find_faults(path)]
    if faults:
        raise ExtensionError("the book shows only whole runs of the current text:\n  " + "\n  ".join(faults))


def notebook_paths(env):
    """``{docname: path}`` of the executed chapters, in the order of their numbers."""
    paths = {name: Path(env.doc2path(name)) for name in sorted(env.found_docs)}
    return {name: path for name, path in paths.items() if path.suffix == ".ipynb"}


def find_faults(path):
    """What keeps an executed notebook from being shown, in words."""
    notebook, source = read(path), path.with_suffix(".md")
    remedy = "run `make book`, or `make publish` for the committed notebooks"
    told = notebook["metadata"].get("ftlib")
    if told is None:
        yield f"it was not written by book/execute.py; {remedy}"
    elif not source.exists():
        yield f"its source {source.name} is missing"
    elif told["source_sha256"] != digest(source):
        yield f"{source.name} has changed since it was executed; {remedy}"
    else:
        yield from older_than_what_it_quotes(path, told)
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] != "code" or not "".join(cell["source"]).strip():
            continue
        first = "".join(cell["source"]).strip().splitlines()[0]
        for output in cell["outputs"]:
            if output["output_type"] == "error":
                yield f"cell {number} (`{first}`) failed with {output['ename']}: {output['evalue']}"
        if cell["execution_count"] is None:
            yield f"cell {number} (`{first}`) never ran; {remedy}"


def older_than_what_it_quotes(path, told):
    """Which of the results that a page shows are not those that it was executed with, in words."""
    if "quotes" not in told:
        return
    before, now = told["quotes"], quoted(path.parent, path.stem, told["profile"])
    others = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    if others:
        words = [f"{n} {'is gone' if n not in now else 'has changed' if n in before else 'is new'}" for n in others]
        again = f"python book/execute.py --chapters {path.stem[:2]} --profile {told['profile']} --publish"
        yield f"it is older than the results that it quotes: {', '.join(words)}; run `{again}`"


@cache
def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


@cache
def worlds_in(results):
    """`read_worlds`, once in a build: every page asks, and no page changes what is there."""
    return read_worlds(results)


# --- what a page says about its run ----------------------------------------------------------------------------------


def insert_box(app, doctree):
    """Put the box below the title of an executed chapter: what was measured, and what on the other worlds."""
    path = notebook_paths(app.env).get(app.env.docname)
    section = next(doctree.findall(nodes.section), None)
    if path is None or section is None:
        return
    notebook = read(path)
    run = notebook["metadata"]["ftlib"]
    rows = facts(run, ["profile", "device", "seconds", "training_seconds", "runs", "seeds", "versions"])
    own, others = NAMES.get(run["profile"], run["profile"]), {}
    for world, chapters in worlds_in(Path(app.srcdir, "book", "results")).items():
        if world != own and path.stem in chapters:
            others[f"In {world}"] = ", ".join(protocol(chapters[path.stem]["provenance"]))
    told = parameters(notebook, path)
    line = ["Executed" if (place := place_of(told, run["profile"])) == "this page" else f"In {place}"]
    line += [*protocol(told), f"{duration(run['seconds'])} on {short(run['device'])}"]
    table = "".join(
        f"<dt>{html.escape(key)}</dt><dd>{html.escape(str(value))}</dd>"
        for key, value in (others | rows).items()
        if value not in (None, "")
    )
    summary = "".join(f"<span>{html.escape(part)}</span>" for part in line)
    box = f'<details class="measured"><summary>{summary}</summary><dl>{table}</dl></details>'
    section.insert(1, nodes.raw("", box, format="html"))


def place_of(told, world):
    """The world that a page's images are of; "this page" where it has none, or those of several worlds."""
    families = {name.partition("/")[0].partition(":")[0] for name in told.get("benchmarks") or ()}
    return NAMES.get(world, world) if len(families) == 1 else "this page"


def protocol(told):
    """What a chapter measured on, in words, from its parameters or its record's provenance."""
    for name, word in (("benchmarks", "pair"), ("seeds", "seed")):
        if count := len(told.get(name) or ()):
            yield f"{count} {word}{'s' * (count > 1)}{' of domains' * (name == 'benchmarks')}"
    if told.get("backbone"):
        yield told["backbone"]
    words = [f"{name} {value:g}" for name, value in told.get("recipe", {}).items() if isinstance(value, int | float)]
    if words:
        yield ", ".join(words)


def parameters(notebook, path):
    """``{name: value}`` as the chapter was executed."""
    found = {}
    for cell in notebook["cells"]:
        if {"parameters", "injected-parameters"} & {*cell["metadata"].get("tags", ())}:
            found |= literals("".join(cell["source"]), path)
    return found


class RunStatistics(SphinxDirective):
    """``{run-statistics}``: one row for each page; with the argument ``results``, for each other profile's results."""

    optional_arguments = 1

    def run(self):
        pages = {name: (path, read(path)["metadata"]["ftlib"]) for name, path in notebook_paths(self.env).items()}
        if self.arguments == ["results"]:
            head, rows, shown = ["Profile", "Chapter"], [], {run["profile"] for _, run in pages.values()}
            for path in sorted(Path(self.env.srcdir, "book", "results").glob("*/*.json")):
                self.env.note_dependency(str(path))
                told = json.loads(path.read_text(encoding="utf-8")).get("provenance", {})
                if told and path.parent.name not in shown:
                    run = told | {"training_seconds": told.get("seconds"), "runs": len(told.get("runs", []))}
                    rows.append(([path.parent.name, path.stem], run))
        else:
            head, rows = ["Chapter", "Profile", "Page"], []
            for name, (path, run) in pages.items():
                self.env.note_dependency(str(path))
                title = addnodes.pending_xref(
                    "",
                    nodes.inline("", path.stem),
                    refdomain="std",
                    reftype="doc",
                    reftarget=f"/{name}",
                    refexplicit=False,
                    refwarn=True,
                    refdoc=self.env.docname,
                )
                rows.append(([title, run["profile"], duration(run["seconds"])], run))
        if not rows:
            return [nodes.paragraph("", "No other profile has been published yet.")]
        common = ["device", "training_seconds", "runs", "seeds"]
        body = [[*first, *facts(run, common).values()] for first, run in rows]
        used = dict.fromkeys(facts(run, ["versions"])["Versions"] for _, run in rows)
        notes = [nodes.paragraph("", f"Versions: {line}.", classes=["versions"]) for line in used]
        return [table([*head, *facts({}, common)], body), *notes]


def facts(run, keys):
    """The named facts of a run as ``{heading: text}``."""
    device = run.get("device") or ""
    versions = run.get("versions") or {}
    names = sorted(versions, key=lambda name: (name != "python", name))
    told = {
        "profile": ("Profile", run.get("profile")),
        "device": ("Device", device if isinstance(device, str) else ", ".join(device)),
        "seconds": ("Time for the page", duration(run.get("seconds"))),
        "training_seconds": ("Training", duration(run.get("training_seconds"))),
        "runs": ("Runs", run.get("runs") or None),
        "seeds": ("Seeds", listing(run.get("seeds"))),
        "versions": ("Versions", ", ".join(f"{n} {versions[n]}" for n in names)),
    }
    return dict(told[key] for key in keys)


def table(head, body):
    """A docutils table from rows of texts and nodes."""
    group = nodes.tgroup(cols=len(head))
    group += [nodes.colspec(colwidth=1) for _ in head]
    for kind, rows in ((nodes.thead(), [head]), (nodes.tbody(), body)):
        for row in rows:
            entries = []
            for value in row:
                if not isinstance(value, nodes.Node):
                    value = nodes.Text("–" if value in (None, "") else str(value))
                entries.append(nodes.entry("", nodes.paragraph("", "", value)))
            kind += nodes.row("", *entries)
        group += kind
    return nodes.table("", group, classes=["run-statistics"])


def duration(seconds):
    if seconds is None:
        return None
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def listing(values):
    """Seeds in few words: 0–4 rather than 0, 1, 2, 3, 4."""
    if not values:
        return None
    if len(values) > 2 and values == list(range(values[0], values[-1] + 1)):
        return f"{values[0]}–{values[-1]}"
    return ", ".join(map(str, values))


def short(device):
    return device if len(device) <= 42 else device[:40].rsplit(" ", 1)[0] + " …"


# --- nothing from the network ----------------------------------------------------------------------------------------


def copy_assets(app, failure):
    """Put plotly and MathJax where the pages look for them."""
    if failure or app.builder.format != "html":
        return
    mathjax = [f for f in importlib.metadata.files("sphinx-mathjax-offline") or () if f.name == "tex-svg.js"]
    sources = [Path(plotly.__file__).parent / "package_data/plotly.min.js", mathjax[0].locate()]
    for source in sources:
        shutil.copyfile(source, Path(app.outdir, "_static", Path(source).name))
