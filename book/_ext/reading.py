"""What every chapter's page gets for its readers, from the results alone: no chapter has to ask for it.

* Below the title stands a chip for each world in which the chapter was measured: how many of the paper's findings hold
  there, in the colour of the worst verdict. It leads to the scorecard.
* Code, parameters and hidden cells stand behind one switch, "show how": off, remembered, without JavaScript on.
* At the foot: the command that redoes the chapter on the reader's images, and the notebook to download.
"""

import json
from pathlib import Path

from docutils import nodes
from ftlib.book.claims import PAPER
from sphinx import addnodes

SCORECARD = "15-scorecard"
WORDS = {"replicates": "hold", "contradicts": "contradicted", "inconclusive": "cannot tell"}


def setup(app):
    app.connect("doctree-read", dress, priority=600)  # after measured.py's box
    app.connect("config-inited", drop_thebe, priority=900)
    app.add_css_file("reading.css")
    app.add_js_file("reading.js", loading_method="defer")
    app.config.html_static_path.append(str(Path(__file__).parent / "static"))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def drop_thebe(app, config):
    """Jupyter Book always loads sphinx-thebe, whose script asks the network on every page and throws."""
    for listeners in app.events.listeners.values():
        listeners[:] = [one for one in listeners if not one.handler.__module__.startswith("sphinx_thebe")]


def dress(app, doctree):
    """Chips below the title and a foot, on the page of an executed chapter."""
    source = Path(app.env.doc2path(app.env.docname))
    section = next(doctree.findall(nodes.section), None)
    if source.suffix != ".ipynb" or section is None:
        return
    worlds = read_worlds(app, source.stem)
    if worlds and source.stem != SCORECARD:
        section.insert(1, nodes.paragraph("", "", *chips(worlds), classes=["worlds"]))
    if "parameters" in source.read_text(encoding="utf-8") and source.stem != SCORECARD:
        section.extend(foot(source.stem))


def read_worlds(app, chapter):
    """World to verdict to the number of the paper's findings (else of all claims), for a chapter's results."""
    worlds = {}
    for path in sorted(Path(app.srcdir, "book", "results").glob(f"*/{chapter}.json")):
        if path.parent.name in ("ci", "local"):
            continue
        app.env.note_dependency(str(path))
        claims = json.loads(path.read_text(encoding="utf-8"))["claims"]
        judged = [claim for claim in claims if claim["verdict"] in WORDS]
        own = [claim for claim in judged if claim["id"] in PAPER] or judged
        if own:
            worlds[path.parent.name] = {v: sum(claim["verdict"] == v for claim in own) for v in WORDS}
    return worlds


def chips(worlds):
    """A link to the scorecard for each world, such as "cpu: 3 of 4 hold"."""
    for world, counts in worlds.items():
        worst = next(v for v in ("contradicts", "inconclusive", "replicates") if counts[v])
        told = f"{world}: {counts['replicates']} of {sum(counts.values())} hold"
        told += "".join(f", {counts[v]} {WORDS[v]}" for v in ("contradicts", "inconclusive") if counts[v])
        yield nodes.raw("", f'<a class="chip {worst}" href="{SCORECARD}.html">{told}</a> ', format="html")


def foot(chapter):
    """How to redo the chapter, and where its notebook is."""
    command = f"""python book/execute.py --profile photographs --chapters {chapter[:2]} \\
    -p 'benchmarks=["folder:ROOT/SOURCE-TARGET"]'"""
    block = nodes.literal_block(command, command, language="bash")
    said = nodes.paragraph("", "Every parameter above can be set by ")
    said += [nodes.literal("", "-p NAME=VALUE"), nodes.Text(" or in a profile. ")]
    download = addnodes.download_reference("", "", reftarget=f"{chapter}.ipynb", classes=["download"])
    download += nodes.inline("", "Download this chapter as a notebook")
    said += [download, nodes.Text(".")]
    rubric = nodes.rubric("", "Redo this chapter on your images")
    return [nodes.container("", rubric, block, said, classes=["redo"])]
