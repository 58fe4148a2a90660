"""What every chapter's page gets for its readers, from the results alone: no chapter has to ask for it.

* Its number stands in its title, on the page and wherever the title is shown.
* Below the title stands the answer (book/answers.yml), in place of the one that the page itself computed for its own
  world; then the picture of all worlds, and a chip for each world in which the chapter was measured: how many of the
  paper's findings hold there, in the colour of the worst verdict. It leads to the scorecard. A chapter that is not in
  answers.yml keeps its own answer; its picture is that of the cell tagged `lead`.
* Claims stand in small tables with every world side by side; the record of the page's own world is below each of them.
* Code, parameters, records, hidden cells and long tables stand behind one switch, "show how": off, remembered; without
  JavaScript it is on.
* A picture of several panels tells where they are, so that a phone can show them one below another; a new one tells how
  small its text is too, so that a phone makes it as wide as that takes and no wider.
* At the foot: the command that redoes the chapter on the reader's images, its parameters, the notebook to download, and
  where to open it: `make lab`, and, once _config.yml has a `repository_url`, Colab and Binder.

A new folder of results is on every page with the next build; nothing has to be executed for it.
"""

import html
import json
import re
from pathlib import Path
from urllib.parse import quote

import yaml
from docutils import nodes
from ftlib.book.claims import PAPER
from ftlib.book.worlds import NAMES, claims_in, measured_in, panel, rows_with_records, sentences
from measured import place_of, worlds_in
from PIL import Image
from sphinx import addnodes

SCORECARD = "20-scorecard"
WORDS = {"replicates": "hold", "contradicts": "contradicted", "inconclusive": "cannot tell"}
KEY = "Dots are means, lines 95 % intervals over n seeds. Right of the rule, or of a dashed one, the finding holds."


def setup(app):
    app.connect("doctree-read", number, priority=400)  # before Sphinx collects the titles
    app.connect("doctree-read", dress, priority=600)  # after measured.py's box
    app.connect("config-inited", drop_thebe, priority=900)
    app.connect("html-page-context", unlist)
    app.connect("html-page-context", tell_panels)
    app.add_css_file("reading.css")
    app.add_js_file("reading.js", loading_method="defer")
    app.config.html_static_path.append(str(Path(__file__).parent / "static"))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def unlist(app, name, template, context, doctree):
    """Citations are no list: docutils calls them one, and gives its entries roles that a list may not hold."""
    context["body"] = context.get("body", "").replace(
        '<div role="list" class="citation-list">', '<div class="citation-list">'
    )


def tell_panels(app, name, template, context, doctree):
    """What `ftlib.book.figures` wrote into a picture, of its panels and its text, on the picture's element."""
    sources = {file: source for source, file in app.builder.images.items()}

    def tell(found):
        with Image.open(Path(app.srcdir, sources[found[1]])) as picture:
            said = getattr(picture, "text", {})
        panels, text = said.get("panels", "[]"), said.get("text")
        told = f"data-panels='{panels}' " if panels != "[]" else ""
        return found[0] + told + (f'data-text="{text}" ' if text else "")

    context["body"] = re.sub(r'<img (?=[^>]*src="[./]*_images/([^"]+\.png)")', tell, context.get("body", ""))


def drop_thebe(app, config):
    """Jupyter Book always loads sphinx-thebe, whose script asks the network on every page and throws."""
    for listeners in app.events.listeners.values():
        listeners[:] = [one for one in listeners if not one.handler.__module__.startswith("sphinx_thebe")]
    app.registry.css_files[:] = [entry for entry in app.registry.css_files if "thebe" not in entry[0]]


def number(app, doctree):
    """Lead a chapter's title by the number in the name of its file."""
    source = Path(app.env.doc2path(app.env.docname))
    if source.suffix == ".ipynb" and (title := next(doctree.findall(nodes.title), None)):
        title.insert(0, nodes.Text(f"{source.stem[:2].lstrip('0')}\u2002"))


def dress(app, doctree):
    """Answer, picture and chips below the title and a foot, on the page of an executed chapter."""
    source = Path(app.env.doc2path(app.env.docname))
    section = next(doctree.findall(nodes.section), None)
    if source.suffix != ".ipynb" or section is None:
        return
    book = Path(app.srcdir, "book")
    for path in (book / "answers.yml", *sorted(book.glob("results/*/*.json"))):
        app.env.note_dependency(str(path))
    worlds = worlds_in(book / "results")
    told = yaml.safe_load((book / "answers.yml").read_text(encoding="utf-8")).get(source.stem, {})
    profile = json.loads(source.read_text(encoding="utf-8"))["metadata"]["ftlib"]["profile"]
    gather(section, claims_in(worlds), NAMES.get(profile, profile))
    own = next((child for child in section if isinstance(child, nodes.paragraph) and is_glued(child)), None)
    first = [*first_screen(told, claims_in(worlds))]
    if own is not None:
        section.remove(own)
        own["classes"].append("answer")
        first = first or [own, *lead(section)]
    if source.stem != SCORECARD:
        first += chips(source.stem, worlds)
    section[1:1] = first
    if "parameters" in source.read_text(encoding="utf-8") and source.stem != SCORECARD:
        section.extend(foot(app.env, source, app.config.html_theme_options))


def gather(section, claims, own):
    """The claims that a cell shows, in place, as one table; those of a world that is not published stay."""
    for cell in section.findall(lambda node: "cell_output" in getattr(node, "attributes", {}).get("classes", ())):
        quotes = [q for q in cell.findall(nodes.block_quote) if own in claims.get(id_of(q), {})]
        if quotes:
            found = {id: claims[id] for quote in quotes if (id := id_of(quote))}
            quotes[0].parent.insert(0, nodes.raw("", rows_with_records(found, own), format="html"))
            for quote in quotes:
                quote.parent.remove(quote)


def id_of(node):
    """The claim that a block of a page shows: what stands last in it, as code."""
    last = [*node.findall(nodes.literal)][-1:] if isinstance(node, nodes.block_quote) else []
    return last[0].astext() if last else None


def is_glued(paragraph):
    """Whether a paragraph is one pasted text and nothing else, such as the answer that the page computed."""
    (only, *more) = paragraph.children or [None]
    return not more and isinstance(only, nodes.Element) and "pasted-text" in only["classes"]


def lead(section):
    """The picture of the cell tagged `lead`, taken from its place."""
    for cell in section.findall(nodes.container):
        if "tag_lead" in cell["classes"] and (picture := next(cell.findall(nodes.figure), None)):
            picture.parent.remove(picture)
            yield picture
            return


def first_screen(told, claims):
    """The answer in as many sentences as it has claims, and a panel for each of them."""
    found = {id: claims[id] for id in told if id in claims}
    if not found:
        return
    every = measured_in(found.values(), claims)
    yield nodes.paragraph("", " ".join(sentences(told, claims)), classes=["answer"])
    panels = ""
    for id, of in found.items():
        unit = next(iter(of.values())).unit
        effect = f"{html.escape(told[id]['effect'])} <small>({unit})</small>"
        panels += f'<div class="panel"><p class="effect">{effect}</p>{panel(of, every)}</div>'
    yield nodes.raw(
        "",
        f'<figure class="worlds"><div class="panels">{panels}</div><figcaption>{KEY}</figcaption></figure>',
        format="html",
    )


def chips(chapter, worlds):
    """A paragraph with a link to the scorecard for each world, of the paper's findings, or else of all claims."""
    judged = {
        world: [claim for claim in of[chapter]["claims"] if claim["verdict"] in WORDS]
        for world, of in worlds.items()
        if chapter in of
    }
    of_paper = any(claim["id"] in PAPER for claims in judged.values() for claim in claims)
    links, anchor = [], f"{'paper' if of_paper else 'own'}-{chapter[:2]}"
    for world, claims in judged.items():
        own = [claim["verdict"] for claim in claims if not of_paper or claim["id"] in PAPER]
        if own:
            worst = next(v for v in ("contradicts", "inconclusive", "replicates") if v in own)
            where = place_of(worlds[world][chapter]["provenance"], world)
            text = f"{where}: {own.count('replicates')} of {len(own)}"
            said = ", ".join(f"{own.count(v)} {WORDS[v]}" for v in WORDS if v in own)
            links.append(f'<a class="chip {worst}" href="{SCORECARD}.html#{anchor}" title="{said}">{text}</a>')
    if links:
        what = "The paper's findings that hold" if of_paper else "The claims that hold"
        yield nodes.raw("", f'<p class="worlds">{what}: {" ".join(links)}</p>', format="html")


def foot(env, source, theme):
    """How to redo the chapter, its parameters, and where its notebook is and opens."""
    cells = json.loads(source.read_text(encoding="utf-8"))["cells"]
    parameters = next("".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", ()))
    ours = "\nbenchmarks = " in parameters
    command = f".venv/bin/python book/execute.py --profile {'photographs' if ours else 'cpu'}"
    command += f" --chapters {source.stem[:2]} \\\n"
    command += "    -p 'benchmarks=[\"folder:ROOT/SOURCE-TARGET\"]'" if ours else "    -p NAME=VALUE"
    said = nodes.paragraph("", "")
    if ours:
        said += [nodes.Text("The images lie as "), nodes.literal("", "$FTLIB_DATA/ROOT/DOMAIN/CLASS/*.jpg")]
        said += nodes.Text(", and SOURCE and TARGET are two of the domains. ")
    said += [nodes.Text("Every parameter can be set by "), nodes.literal("", "-p NAME=VALUE"), nodes.Text(". ")]
    download = addnodes.download_reference("", "", reftarget=source.name, classes=["download"])
    # Sphinx has collected the page's downloads before this event reaches us.
    download["filename"] = env.dlfiles.add_file(env.docname, f"book/{source.name}").replace("\\", "/")
    download += nodes.inline("", "Download this chapter as a notebook")
    said += [download, nodes.Text(".")]
    rubric = nodes.rubric("", f"Redo this chapter {'on your images' if ours else 'with other parameters'}")
    begin, end = ("<details><summary>The parameters and their defaults</summary>", "</details>")
    shown = nodes.literal_block(parameters, parameters, language="python")
    folded = [nodes.raw("", begin, format="html"), shown, nodes.raw("", end, format="html")]
    shown = [nodes.literal_block(command, command, language="bash"), said, *opening(source, theme), *folded]
    return [nodes.container("", rubric, *shown, classes=["redo"])]


def opening(source, theme):
    """Where the notebook can be changed cell by cell, in words, and what Colab has to be told first."""
    url, branch = theme.get("repository_url", ""), theme.get("repository_branch") or "main"
    said = [nodes.Text("To change it cell by cell: "), nodes.literal("", "make lab")]
    said += [nodes.Text(" opens a copy of all chapters in JupyterLab, set to few images")]
    places = launches(url, branch, f"book/{source.name}")
    for word, (place, address) in zip(("; as published it opens in ", " and "), places.items(), strict=False):
        said += [nodes.Text(word), nodes.reference("", place, refuri=address, internal=False)]
    if "Colab" not in places:
        return [nodes.paragraph("", "", *said, nodes.Text("."))]
    name = url.rstrip("/").removesuffix(".git").rpartition("/")[2]
    cell = f"!git clone --quiet --depth 1 --branch {branch} {url}\n"
    cell += f'%pip install --quiet "./{name}[chapters]"\n%cd {name}/book'
    said += [nodes.Text(". Colab needs this cell before all others:")]
    return [nodes.paragraph("", "", *said), nodes.literal_block(cell, cell, language="ipython")]


def launches(url, branch, path):
    """Service to the address at which it opens a file of a repository; empty where that has none."""
    if not (url := url.rstrip("/").removesuffix(".git")):
        return {}
    _, hub, on_github = url.partition("://github.com/")
    where = f"gh/{on_github}" if hub else f"git/{quote(url, safe='')}"
    binder = f"https://mybinder.org/v2/{where}/{quote(branch, safe='')}?urlpath=lab/tree/{path}"
    colab = {"Colab": f"https://colab.research.google.com/github/{on_github}/blob/{branch}/{path}"} if hub else {}
    return colab | {"Binder": binder}
