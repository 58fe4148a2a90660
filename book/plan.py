"""What is to be executed: a profile, parameters by hand and the chapters' defaults make a plan, every value checked.

A chapter is book/NN-name.md, whose cell tagged `parameters` holds NAME = LITERAL lines; a profile is
book/profiles/NAME.yml. What papermill would let pass is an error here: an unknown parameter, a value of another type
than the default's, a default that is computed.
"""

import ast
import hashlib
import json
import re

import jupytext
import yaml

# What a chapter calls to read results that are not its own, all of which it then shows. What a page says of its own
# chapter's other worlds is drawn when the site is built (`{by-world}` in _ext/front.py), and is never too old.
QUOTING = "load_results()", "read_worlds()"

# As in ftlib.book.record, whose import would load torch before `--help` is shown.
UNPUBLISHED = ("ci", "quick", "local", "mutant")


class BookError(Exception):
    """A mistake in a profile, a parameter or a chapter, told in one message."""


def read_plan(book, profile, only=None, overrides=()):
    """``{profile, publish, chapters: {name: parameters}}``, every value checked against the chapter's defaults."""
    path = book / "profiles" / f"{profile}.yml"
    defaults = {p.stem: read_defaults(p) for p in sorted(book.glob("[0-9][0-9]-*.md"))}
    spec = read_profile(path, defaults)
    listed = spec.get("chapters", "all")
    if (kept := spec.get("publish", "notebooks")) not in ("notebooks", "results"):
        raise BookError(f"{path}: publish is {kept!r}; write notebooks or results")
    general, by_hand = dict(spec.get("parameters") or {}), {}
    for override in overrides:
        name, sign, value = override.partition("=")
        if not sign or name == "profile":
            raise BookError(f"-p {override}: write NAME=VALUE, and --profile NAME for a profile")
        by_hand[name] = read_yaml(value, f"-p {override}")

    chapters = {}
    for wanted in only or (defaults if listed == "all" else listed):
        matches = [c for c in defaults if str(wanted) in (c, c[:2], c[:2].lstrip("0"))]
        if not matches:
            raise BookError(f"there is no chapter {wanted!r}; there are {', '.join(defaults)}")
        chapter, known = matches[0], defaults[matches[0]]
        given = {k: v for k, v in general.items() if k in known} | (spec.get(chapter) or {}) | {"profile": profile}
        if unknown := set(given) - set(known):
            raise BookError(f"{path}: {chapter} has no parameter {min(unknown)!r}; it has {', '.join(known)}")
        values = known | {k: check_value(v, known[k], f"{path}: {chapter}: parameter {k!r}") for k, v in given.items()}
        for name in by_hand.keys() & known.keys():  # last, and a mapping is laid over the profile's
            default = values[name] if isinstance(known[name], dict) else known[name]
            values[name] = check_value(by_hand[name], default, f"-p: {chapter}: parameter {name!r}")
        chapters[chapter] = values
    for names, asked, where in ((general, defaults, path), (by_hand, chapters, "-p")):
        for name in names:
            if not any(name in asked[chapter] for chapter in asked):
                there = ", ".join(sorted({n for chapter in asked for n in asked[chapter]}))
                raise BookError(f"{where}: no chapter has a parameter {name!r}; the chapters' parameters are {there}")
    return {"profile": profile, "publish": kept, "chapters": dict(sorted(chapters.items()))}


def read_profile(path, defaults, above=()):
    """What a profile says, its form checked, laid over the profile that it `extends` if it does."""
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yml")))
        raise BookError(f"there is no profile {path.stem!r} in {path.parent}; there are {known}")
    try:
        spec = read_yaml(path.read_text(encoding="utf-8"), path) or {}
    except UnicodeDecodeError as error:
        raise BookError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8") from None
    if not isinstance(spec, dict):
        raise BookError(f"{path} is {spec!r}; write NAME: VALUE lines")
    keys = ["publish", "chapters", "extends", "parameters", *defaults]
    if unknown := set(spec) - {*keys}:
        raise BookError(f"{path}: unknown key {min(unknown)!r}; the keys are {', '.join(keys)}")
    if (listed := spec.get("chapters", "all")) != "all" and not isinstance(listed, list):
        raise BookError(f"{path}: chapters is {listed!r}; write all, or a list of names in brackets")
    for key in {"parameters", *defaults} & spec.keys():
        if not isinstance(spec[key] or {}, dict):
            raise BookError(f"{path}: {key} is {spec[key]!r}; write NAME: VALUE lines below it")
    if (base := spec.pop("extends", None)) is None:
        return spec
    if base in (above := (*above, path.stem)):
        raise BookError(f"{path}: extends is {base!r}, which extends this profile in turn: {' > '.join(above)}")
    below = read_profile(path.with_name(f"{base}.yml"), defaults, above)
    laid = {key: (below.get(key) or {}) | (spec.get(key) or {}) for key in {*below, *spec} - {"publish", "chapters"}}
    return below | spec | laid


def read_yaml(text, where):
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BookError(f"{where}: this is not YAML: {' '.join(str(error).split())}") from None


def quoted(book, chapter, profile):
    """``{path in results: sha256}`` of what a chapter's page shows: its own results, and those that it reads."""
    text = (book / f"{chapter}.md").read_text(encoding="utf-8")
    asked = [f"{profile}/{chapter}.json"]
    asked += ["*/*.json"] * any(call in text for call in QUOTING)
    found = {path for pattern in asked for path in (book / "results").glob(pattern)}
    return {
        f"{path.parent.name}/{path.name}": digest(path)
        for path in sorted(found)
        if path.parent.name == profile or path.parent.name not in UNPUBLISHED
    }


def digest(path):
    """Of a file's text, whatever the line ends that git has given it."""
    return hashlib.sha256(path.read_text(encoding="utf-8").encode()).hexdigest()


def describe(plan):
    """Each parameter with its value, and with the chapters' numbers where they differ."""
    lines = [f"profile {plan['profile']}: {', '.join(plan['chapters'])}"]
    for name in dict.fromkeys(name for values in plan["chapters"].values() for name in values if name != "profile"):
        told = {}
        for chapter, values in plan["chapters"].items():
            if name in values:
                told.setdefault(dump(values[name]), []).append(chapter[:2])
        for value, chapters in told.items():
            lines.append(f"  {name} = {value}" + (f"  ({' '.join(chapters)})" if len(told) > 1 else ""))
    return "\n".join(lines)


def read_defaults(path):
    """The values in the cell tagged `parameters`, as ``{name: value}``."""
    cells = [c for c in read_source(path).cells if "parameters" in c.metadata.get("tags", [])]
    if len(cells) != 1:
        raise BookError(f"{path}: {len(cells)} cells have the tag `parameters`; one is needed")
    return literals(cells[0].source, path)


def literals(source, path):
    """``{name: value}`` of a cell's NAME = LITERAL lines."""
    found = {}
    for line in ast.parse(source).body:
        try:
            match line:
                case ast.Assign([ast.Name(name)], value) | ast.AnnAssign(ast.Name(name), _, ast.expr() as value):
                    found[name] = ast.literal_eval(value)
                case _:
                    raise ValueError(line)
        except (TypeError, ValueError):
            raise BookError(
                f"{path}: `{ast.unparse(line)}` in the parameters cell is not NAME = LITERAL, and would keep its value "
                "when the parameters change: move it into the next cell"
            ) from None
    return found


def check_value(value, default, what):
    """The value if its type is the default's; an integer becomes a float, a mapping is laid over the default's.

    In a list, whose elements replace the default's, a mapping stands for itself.
    """
    if isinstance(default, list | tuple) and isinstance(value, list | tuple):
        sample = next((d for d in default if isinstance(d, float)), default[0] if default else None)
        checked = [check_value(v, sample, f"{what}, element {i},") for i, v in enumerate(value)]
        return [{k: c[k] for k in v} if isinstance(v, dict) else c for v, c in zip(value, checked, strict=True)]
    if isinstance(default, dict) and isinstance(value, dict):
        return default | {k: check_value(v, default.get(k), f"{what}, key {k!r},") for k, v in value.items()}
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if not isinstance(default, str) and isinstance(value, str) and re.fullmatch(r"[-+]?[\d.]+[eE][-+]?\d+", value):
        raise BookError(f"{what} is {value!r}, which YAML reads as text; expected float: write {float(value):.1e}")
    if default is not None and type(value) is not type(default):
        kinds = type(value).__name__, type(default).__name__
        alone = isinstance(default, list) and (not default or type(value) is type(default[0]))
        form = f": write it in brackets, {dump([value])}" if alone else ""
        raise BookError(f"{what} is {value!r} ({kinds[0]}); expected {kinds[1]}, such as {default!r}{form}")
    return value


def dump(value):
    return json.dumps(value, ensure_ascii=False, default=str)


def read_source(path):
    """The chapter as a notebook; a cell's id stays the same as long as its text does."""
    notebook, seen = jupytext.read(path, fmt="md:myst"), {}
    for cell in notebook.cells:
        mark = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
        seen[mark] = seen.get(mark, 0) + 1
        cell["id"] = mark if seen[mark] == 1 else f"{mark}-{seen[mark]}"
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook
