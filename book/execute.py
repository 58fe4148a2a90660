"""Execute chapters of the book with papermill, strictly: a chapter is executed whole or reported, never in between.

    python book/execute.py                                       every chapter, profile cpu, into _build/site
    python book/execute.py --profile office31 --chapters 02 04   some chapters, other parameters (book/profiles/)
    python book/execute.py -p 'seeds=[0, 1]' -p lr=0.1           parameters by hand
    python book/execute.py --publish                             ... then copy notebooks and results into book/
    python book/execute.py --profile ci --prepare DIR            parameters into the committed notebooks, nothing run

A chapter is book/NN-name.md. The stage (_build/site) receives a copy of the book; a chapter runs there, with the
stage's book/ as its working directory, and so writes results/<profile>/NN-name.json beside its notebook. Only
--publish touches book/, and only if every chapter succeeded. What failed is kept in _build/failed/.

What papermill lets pass is an error here: an unknown parameter, a value of another type than the default's, a default
that is computed, a dead kernel, a cell that took too long or never ran, an early exit.
"""

import argparse
import ast
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import jupytext
import nbformat
import papermill
import yaml
from tqdm import tqdm
from traitlets.config import Config

ROOT = Path(__file__).resolve().parent.parent
WIDGET = "application/vnd.jupyter.widget-view+json"
LAST = ("15-scorecard",)  # reads what the others have measured, so it runs when they are done


class BookError(Exception):
    """A mistake in a profile, a parameter or a chapter, told in one message."""


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="cpu", help="a name in book/profiles/")
    parser.add_argument("--chapters", nargs="+", metavar="NN", help="numbers or names; default: all of the profile's")
    parser.add_argument("--stage", type=Path, default=ROOT / "_build/site", help="where the book is executed")
    parser.add_argument("--publish", action="store_true", help="copy what was executed into book/")
    parser.add_argument("--prepare", type=Path, metavar="DIR", help="only put the parameters in, in a copy in DIR")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="chapters at a time")
    parser.add_argument("--timeout", type=int, metavar="S", help="seconds that one cell may take; default: no limit")
    parser.add_argument("-p", action="append", default=[], metavar="NAME=VALUE", help="a parameter, its value as YAML")
    args = parser.parse_args(argv)
    try:
        plan = read_plan(ROOT / "book", args.profile, args.chapters, args.p)
        if args.prepare:
            return prepare(ROOT, args.prepare, plan)
        make_stage(ROOT, args.stage, plan["chapters"], fresh=args.chapters is None)
        failed = execute_all(args.stage, plan, args.jobs, args.timeout)
        if args.publish and not failed:
            publish(args.stage / "book", ROOT / "book", plan)
    except BookError as error:
        failed = [f"error: {error}"]
    print("\n".join(failed), file=sys.stderr)
    return 1 if failed else 0


# --- the plan: which chapters, with which parameters -----------------------------------------------------------------


def read_plan(book, profile, only=None, overrides=()):
    """``{profile, publish, chapters: {name: parameters}}``, every value checked against the chapter's defaults."""
    path = book / "profiles" / f"{profile}.yml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yml")))
        raise BookError(f"there is no profile {profile!r} in {path.parent}; there are {known}")
    spec = yaml.safe_load(path.read_text()) or {}
    defaults = {p.stem: read_defaults(p) for p in sorted(book.glob("[0-9][0-9]-*.md"))}
    if unknown := set(spec) - {"publish", "chapters", "parameters", *defaults}:
        keys = ", ".join(["publish", "chapters", "parameters", *defaults])
        raise BookError(f"{path}: unknown key {min(unknown)!r}; the keys are {keys}")
    if (kept := spec.get("publish", "notebooks")) not in ("notebooks", "results"):
        raise BookError(f"{path}: publish is {kept!r}; write notebooks or results")
    general = dict(spec.get("parameters") or {})
    for override in overrides:
        name, sign, value = override.partition("=")
        if not sign:
            raise BookError(f"-p {override}: write NAME=VALUE")
        general[name] = yaml.safe_load(value)
    for name in general:
        if not any(name in known for known in defaults.values()):
            names = ", ".join(sorted({n for known in defaults.values() for n in known}))
            raise BookError(f"{path}, or -p: no chapter has a parameter {name!r}; the chapters' parameters are {names}")

    listed = spec.get("chapters", "all")
    chapters = {}
    for wanted in only or (defaults if listed == "all" else listed):
        matches = [c for c in defaults if str(wanted) in (c, c[:2], c[:2].lstrip("0"))]
        if not matches:
            raise BookError(f"there is no chapter {wanted!r}; there are {', '.join(defaults)}")
        chapter, known = matches[0], defaults[matches[0]]
        given = {k: v for k, v in general.items() if k in known} | (spec.get(chapter) or {}) | {"profile": profile}
        if unknown := set(given) - set(known):
            raise BookError(f"{path}: {chapter} has no parameter {min(unknown)!r}; it has {', '.join(known)}")
        values = {k: check_value(v, known[k], f"{path}: {chapter}: parameter {k!r}") for k, v in given.items()}
        chapters[chapter] = {k: v for k, v in values.items() if k == "profile" or v != known[k]}
    return {"profile": profile, "publish": kept, "chapters": dict(sorted(chapters.items()))}


def read_defaults(path):
    """The values in the cell tagged `parameters`, as ``{name: value}``."""
    cells = [c for c in read_source(path).cells if "parameters" in c.metadata.get("tags", [])]
    if len(cells) != 1:
        raise BookError(f"{path}: {len(cells)} cells have the tag `parameters`; one is needed")
    defaults = {}
    for line in ast.parse(cells[0].source).body:
        try:
            (target,) = line.targets if isinstance(line, ast.Assign) else (line.target,)
            defaults[target.id] = ast.literal_eval(line.value)
        except (AttributeError, TypeError, ValueError):
            raise BookError(
                f"{path}: `{ast.unparse(line)}` in the parameters cell is not NAME = LITERAL, and would keep its value "
                "when the parameters change: move it into the next cell"
            ) from None
    return defaults


def check_value(value, default, what):
    """The value if its type is the default's; an integer becomes a float, a mapping is laid over the default's."""
    if isinstance(default, list | tuple) and isinstance(value, list | tuple):
        sample = next((d for d in default if isinstance(d, float)), default[0] if default else None)
        return [check_value(v, sample, f"{what}, element {i},") for i, v in enumerate(value)]
    if isinstance(default, dict) and isinstance(value, dict):
        return default | {k: check_value(v, default.get(k), f"{what}, key {k!r},") for k, v in value.items()}
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if not isinstance(default, str) and isinstance(value, str) and re.fullmatch(r"[-+]?[\d.]+[eE][-+]?\d+", value):
        raise BookError(f"{what} is {value!r}, which YAML reads as text; expected float: write {float(value):.1e}")
    if default is not None and type(value) is not type(default):
        kinds = type(value).__name__, type(default).__name__
        raise BookError(f"{what} is {value!r} ({kinds[0]}); expected {kinds[1]}, such as {default!r}")
    return value


# --- one chapter -----------------------------------------------------------------------------------------------------


def read_source(path):
    """The chapter as a notebook; a cell's id stays the same as long as its text does."""
    notebook, seen = jupytext.read(path, fmt="md:myst"), {}
    for cell in notebook.cells:
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
        seen[digest] = seen.get(digest, 0) + 1
        cell["id"] = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def execute_chapter(book, chapter, parameters, failed, timeout=None):
    """Execute book/<chapter>.md to .ipynb; returns the seconds, or raises BookError and leaves all as it was."""
    source, results = book / f"{chapter}.md", book / "results" / parameters["profile"] / f"{chapter}.json"
    partial, start = book / f".{chapter}.partial.ipynb", time.perf_counter()
    before = results.read_bytes() if results.exists() else None
    results.unlink(missing_ok=True)  # so that results found afterwards are this run's
    os.environ.pop("JUPYTER_PATH", None)  # this and the next: the kernel is this environment's own
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # ends a warning that every kernel prints
    with tempfile.TemporaryDirectory(prefix="kernel-", ignore_cleanup_errors=True) as folder:
        # Sockets in a private folder: kernels that start together could be given the same network port.
        sockets = {"transport": "ipc", "ip": f"{folder}/socket"} if os.name == "posix" else {}
        try:
            notebook = papermill.execute_notebook(
                read_source(source),
                partial,
                parameters,
                cwd=book,
                progress_bar=False,
                start_timeout=120,
                execution_timeout=timeout,
                config=Config(KernelManager=sockets),
            )
            problem = find_problem(notebook)
        except Exception as error:  # papermill, nbclient and the kernel's transport each raise their own
            problem = f"{last_cell(partial)}{error or type(error).__name__}"
    if problem:
        problem = re.sub(r"\x1b\[[0-9;]*m", "", f"chapter {chapter}, {problem}")  # the traceback's colours
        failed.mkdir(parents=True, exist_ok=True)
        (failed / f"{chapter}.txt").write_text(problem)
        if partial.exists():
            os.replace(partial, failed / f"{chapter}.ipynb")
        results.unlink(missing_ok=True) if before is None else write(results, before)
        raise BookError(f"{problem}\nkept: {failed / chapter}.ipynb and .txt")
    seconds = time.perf_counter() - start
    clean(notebook, parameters)
    notebook.metadata["ftlib"] = provenance(source, results, parameters["profile"], seconds)
    write(source.with_suffix(".ipynb"), (nbformat.writes(notebook) + "\n").encode())
    partial.unlink(missing_ok=True)
    return seconds


def find_problem(notebook):
    """The first code cell that failed or never ran, in words; None if every one ran."""
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code" and cell.source.strip():
            for output in cell.outputs:
                if output.output_type == "error":  # papermill takes sys.exit(0) for success
                    return f"cell {number} ended early with {output.ename}({output.evalue}):\n{cell.source}"
            if cell.execution_count is None:
                return f"cell {number} never ran:\n{cell.source}"
    return None


def last_cell(partial):
    """The cell that was running when the kernel went away, from the notebook that papermill saves as it goes."""
    cells = nbformat.read(partial, as_version=4).cells if partial.exists() else []
    begun = [n for n, c in enumerate(cells) if c.cell_type == "code" and c.metadata.papermill.get("start_time")]
    return f"cell {begun[-1]}:\n{cells[begun[-1]].source}\n" if begun else "before the first cell: "


def clean(notebook, parameters):
    """Strip what differs between two equal runs or says nothing to a reader: stderr, timings, widgets, paths."""
    for holder in (notebook, *notebook.cells):
        for key in ("papermill", "widgets", "jupytext", "execution"):
            holder.metadata.pop(key, None)
    for cell in notebook.cells:
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell["id"] = "injected-parameters"
            cell.source = cell.source.replace("# Parameters", f"# what profile {parameters['profile']} changes", 1)
            if len(parameters) == 1:  # the profile's name alone is not worth a cell on the page
                cell.metadata["tags"] = ["injected-parameters", "remove-cell"]
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr" and WIDGET not in o.get("data", {})]


def provenance(source, results, profile, seconds):
    """What the page says about its own run, from the chapter's results where it wrote any."""
    found = json.loads(results.read_text()).get("provenance", {}) if results.exists() else {}
    device = found.get("device") or f"{platform.machine()} CPU, {os.cpu_count()} cores"
    packages = {name: importlib.metadata.version(name) for name in ("torch", "timm", "numpy")}
    return {
        "profile": profile,
        "source_sha256": hashlib.sha256(source.read_text().encode()).hexdigest(),
        "seconds": round(seconds, 1),
        "training_seconds": found.get("seconds"),
        "runs": len(found["runs"]) if "runs" in found else None,
        "seeds": found.get("seeds"),
        "device": device if isinstance(device, str) else ", ".join(device),
        "versions": found.get("versions") or {"python": platform.python_version()} | packages,
    }


# --- all chapters: stage, execute, publish ---------------------------------------------------------------------------


def make_stage(root, stage, executed, fresh):
    """Copy the book, less what is about to be executed; unless fresh, what an earlier run left of the rest stays."""
    book = stage / "book"
    if book.exists() and not (stage / ".stage").exists():
        raise BookError(f"--stage {stage} holds a book that is no stage: name an empty folder")
    if fresh:
        shutil.rmtree(book, ignore_errors=True)

    def skip(folder, names):
        staged = book / Path(folder).relative_to(root / "book")
        outputs = [n for n in names if n.endswith((".ipynb", ".json"))]
        return {"__pycache__", *(n for n in outputs if (staged / n).exists()), *(f"{c}.ipynb" for c in executed)}

    shutil.copytree(root / "book", book, ignore=skip, dirs_exist_ok=True)
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(root / name, stage)
    (stage / ".stage").touch()
    for chapter in executed:
        (book / f"{chapter}.ipynb").unlink(missing_ok=True)


def execute_all(stage, plan, jobs, timeout=None):
    """Execute the plan's chapters, several at a time; one message for each that failed."""
    failures = []
    # Processes, since papermill changes the working directory; spawned, since forking below zmq's threads can hang.
    pool = ProcessPoolExecutor(max(jobs, 1), mp_context=get_context("spawn"))
    with pool, tqdm(total=len(plan["chapters"]), unit="chapter", desc=f"profile {plan['profile']}") as bar:
        for last in (False, True):
            running = {}
            for chapter, parameters in plan["chapters"].items():
                task = execute_chapter, stage / "book", chapter, parameters, stage.parent / "failed", timeout
                if (chapter in LAST) == last:
                    running[pool.submit(*task)] = chapter
            for future in as_completed(running):
                chapter, error = running.pop(future), future.exception()
                bar.write(f"{chapter}: " + ("FAILED" if error else f"{future.result():.0f} s"), file=sys.stderr)
                bar.set_postfix_str(", ".join(running.values()), refresh=False)
                bar.update()
                failures += [f"\n{error}"] if error else []
    return failures


def publish(stage_book, book, plan):
    """Copy results, and notebooks and pictures if the profile says so, from the stage into book/."""
    names = [f"results/{plan['profile']}/{chapter}.json" for chapter in plan["chapters"]]
    if plan["publish"] == "notebooks":
        names += [f"{chapter}.ipynb" for chapter in plan["chapters"]]
        pictures = stage_book.glob(f"results/{plan['profile']}/*.png")  # such as the one in the README
        names += [str(picture.relative_to(stage_book)) for picture in pictures]
    for name in names:
        if (stage_book / name).exists():  # the scorecard has no results of its own
            write(book / name, (stage_book / name).read_bytes())


def prepare(root, folder, plan):
    """A stage in `folder` whose committed notebooks have the plan's parameters, not executed: what nbval compares."""
    make_stage(root, folder, (), fresh=True)
    for chapter, parameters in plan["chapters"].items():
        notebook = folder / "book" / f"{chapter}.ipynb"
        if not notebook.exists():
            raise BookError(f"book/{chapter}.ipynb is missing: make it with `make publish`")
        papermill.execute_notebook(notebook, notebook, parameters, prepare_only=True, progress_bar=False)
    return 0


def write(path, content):
    """Write bytes beside the place, then rename into it: whoever looks finds the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    os.replace(temporary, path)


if __name__ == "__main__":
    sys.exit(main())
