"""Execute chapters of the book with papermill, strictly: a chapter is executed whole or reported, never in between.

    python book/execute.py                                       every chapter, profile cpu, into _build/site
    python book/execute.py --profile office31 --chapters 03 05   some chapters, other parameters (book/profiles/)
    python book/execute.py -p 'seeds=[0, 1]' -p lr=0.1           parameters by hand, in place of the profile's
    python book/execute.py --publish                             ... then copy notebooks and results into book/
    python book/execute.py --profile ci --prepare DIR            parameters into the committed notebooks, nothing run
    python book/execute.py --prose --chapters 03                 changed text into a committed notebook, nothing run

A chapter is book/NN-name.md. The stage (_build/site) receives a copy of the book; a chapter runs there, with the
stage's book/ as its working directory, and so writes results/<profile>/NN-name.json beside its notebook. Only
--publish touches book/, and only if every chapter succeeded. What failed is kept in the stage's failed/. A stage serves
one start at a time, and however that ends, its kernels end with it.

With `--changed` only those chapters are executed whose text, parameters or code, or the packages or folders that they
use, are not those of an execution that the stage still has. Images that changed in their place are not noticed.

Where no code has changed since a notebook was executed, `--prose` takes over text, captions and tags from the source
and leaves parameters and outputs; where code has, it refuses.

What papermill lets pass is an error here: a wrong parameter (plan.py), a dead kernel, a cell that took too long or
never ran, an early exit. Relative paths in FTLIB_DATA (by default the folder that you stand in), FTLIB_STORE and
FTLIB_CACHE are meant from where you stand.
"""

import argparse
import importlib.metadata
import json
import math
import multiprocessing
import os
import platform
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from pathlib import Path

import nbformat
import papermill
import psutil
from filelock import FileLock, Timeout
from papermill.exceptions import PapermillExecutionError
from tqdm import tqdm
from traitlets.config import Config

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book"))  # for those who load this file by its path
from plan import BookError, describe, digest, quoted, read_plan, read_source  # noqa: E402

WIDGET = "application/vnd.jupyter.widget-view+json"
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
BESIDE = ("_config.yml", "_toc.yml", "CITATION.cff")  # what building the pages needs beside book/
LAST = ("16-real-photographs", "20-scorecard")  # read what the others have measured, so they run when these are done


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="cpu", help="a name in book/profiles/")
    parser.add_argument("--chapters", nargs="+", metavar="NN", help="numbers or names; default: all of the profile's")
    parser.add_argument("--stage", type=Path, default=ROOT / "_build/site", help="where the book is executed")
    parser.add_argument("--changed", action="store_true", help="... less chapters that it has as they would be again")
    parser.add_argument("--publish", action="store_true", help="copy what was executed into book/")
    parser.add_argument("--prepare", type=Path, metavar="DIR", help="only put the parameters in, in a copy in DIR")
    parser.add_argument("--prose", action="store_true", help="take over changed text into the committed notebooks")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="chapters at a time")
    parser.add_argument("--timeout", type=int, metavar="S", help="seconds that one cell may take; default: no limit")
    parser.add_argument("-p", action="append", default=[], metavar="NAME=VALUE", help="a parameter, its value as YAML")
    args = parser.parse_args(argv)
    stage = (args.prepare or args.stage).absolute()
    try:
        plan = read_plan(ROOT / "book", args.profile, args.chapters, args.p)
        if args.publish and args.p:
            raise BookError(
                f"--publish keeps what profile {args.profile} says, and -p says otherwise: write a profile of your "
                "own, book/profiles/NAME.yml, with these parameters"
            )
        if args.prepare:
            return prepare(ROOT, stage, plan)
        if args.prose:
            return take_over_prose(ROOT / "book", plan["chapters"])
        places, prints = set_places(stage), fingerprints(ROOT, plan["chapters"])
        kept = unchanged(ROOT, stage, args.profile, prints) if args.changed else []
        todo = plan | {"chapters": {name: of for name, of in plan["chapters"].items() if name not in kept}}
        with make_stage(ROOT, stage, todo["chapters"], fresh=args.chapters is None and not kept):
            print("\n".join([describe(plan), *[f"  unchanged: {', '.join(kept)}"] * bool(kept)]), file=sys.stderr)
            failed = execute_all(stage, todo, prints, args.jobs, args.timeout)
            if args.publish and not failed:
                publish(stage / "book", ROOT / "book", plan)
        at = ROOT / "book" if args.publish and not failed and plan["publish"] == "notebooks" else stage / "book"
        places |= {"notebooks": at, "results": at / "results" / args.profile}
    except BookError as error:
        failed, places = [f"error: {error}"], {}
    except KeyboardInterrupt as stop:
        number = signal.Signals(stop.args[0] if stop.args else signal.SIGINT)
        print(f"\nstopped by {number.name}: finished runs are in the store; start again to go on", file=sys.stderr)
        return 128 + number
    print("\n".join([*(f"{name:10} {place}" for name, place in places.items()), *failed]), file=sys.stderr)
    return 1 if failed else 0


def set_places(stage):
    """Make the folders that chapters are told of absolute, since a kernel stands in the stage; ``{what: folder}``."""
    places = {}
    if (scheduler := os.environ.get("FTLIB_SCHEDULER", "")).endswith(".json"):
        os.environ["FTLIB_SCHEDULER"] = str(Path(scheduler).expanduser().absolute())
    for name, default in {"DATA": ".", "STORE": "~/.cache/ftlib/runs", "CACHE": "~/.cache/ftlib/images"}.items():
        given = os.environ.get(f"FTLIB_{name}") or default
        places[name.lower()] = place = Path(given).expanduser().absolute()
        os.environ[f"FTLIB_{name}"] = str(place)
        if place.resolve().is_relative_to((stage / "book").resolve()):
            raise BookError(f"FTLIB_{name}={given} is in {stage / 'book'}, which a start makes anew: put it elsewhere")
    return places


# --- one chapter -----------------------------------------------------------------------------------------------------


def execute_chapter(book, chapter, parameters, failed, timeout=None, log: str | Path = os.devnull):
    """Execute book/<chapter>.md to .ipynb; returns the seconds, or raises BookError and leaves all as it was."""
    source, results = book / f"{chapter}.md", book / "results" / parameters["profile"] / f"{chapter}.json"
    start = time.perf_counter()
    before = results.read_bytes() if results.exists() else None
    results.unlink(missing_ok=True)  # so that results found afterwards are this run's
    os.environ.pop("JUPYTER_PATH", None)  # this and the next: the kernel is this environment's own
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # ends a warning that every kernel prints
    with scratch_folder() as folder, open(log, "a", encoding="utf-8") as stderr:
        partial, told = Path(folder, "partial.ipynb"), None
        connection = {"connection_file": f"{folder}/kernel.json"}
        if os.name == "posix":  # sockets in a private folder: kernels that start together could get the same port
            connection |= {"transport": "ipc", "ip": f"{folder}/socket"}
        try:
            notebook = papermill.execute_notebook(
                read_source(source),
                partial,
                parameters,
                cwd=book,
                progress_bar=False,
                stderr_file=stderr,
                start_timeout=120,
                execution_timeout=timeout,
                config=Config(KernelManager=connection),
            )
            problem = find_problem(notebook)
        except PapermillExecutionError as error:
            problem = str(error)  # with the traceback; a terminal is told what ends it
            told = f"cell {error.cell_index}:\n{error.source}\n{shorten(f'{error.ename}: {error.evalue}')}"
        except Exception as error:  # papermill, nbclient and the kernel's transport each raise their own
            problem = f"{last_cell(partial)}{error or type(error).__name__}"
        if problem:
            problem, told = (re.sub(r"\x1b\[[0-9;]*m", "", p) for p in (problem, told or problem))  # without colours
            write(failed / f"{chapter}.txt", f"chapter {chapter}, {problem}".encode())
            if partial.exists():
                write(failed / f"{chapter}.ipynb", partial.read_bytes())
            results.unlink(missing_ok=True) if before is None else write(results, before)
            raise BookError(f"chapter {chapter}, {told}\nkept, with the traceback: {failed / chapter}.ipynb and .txt")
    seconds = time.perf_counter() - start
    clean(notebook, parameters)
    notebook.metadata["ftlib"] = provenance(source, results, parameters["profile"], seconds)
    write(source.with_suffix(".ipynb"), (nbformat.writes(notebook) + "\n").encode())
    return seconds


def scratch_folder():
    """A temporary folder whose path is short enough for the name of a socket (107 characters)."""
    return tempfile.TemporaryDirectory(
        prefix="ftlib-", dir="/tmp" if len(tempfile.gettempdir()) > 60 else None, ignore_cleanup_errors=True
    )


def shorten(message, lines=12, width=500):
    """The beginning of a message, such as that of a sweep of which every run failed."""
    head = message.splitlines()
    more = [f"... and {len(head) - lines} more lines"] if len(head) > lines else []
    return "\n".join([line if len(line) <= width else line[:width] + " ..." for line in head[:lines]] + more)


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
            cell.source = cell.source.replace("# Parameters", f"# as executed, profile {parameters['profile']}", 1)
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr" and WIDGET not in o.get("data", {})]


def provenance(source, results, profile, seconds):
    """What the page says about its own run, from the chapter's results where it wrote any."""
    found = json.loads(results.read_text(encoding="utf-8")).get("provenance", {}) if results.exists() else {}
    device = found.get("device") or f"{platform.machine()} CPU, {os.cpu_count()} cores"
    packages = {name: importlib.metadata.version(name) for name in ("torch", "timm", "numpy")}
    return {
        "profile": profile,
        "source_sha256": digest(source),
        "quotes": quoted(source.parent, source.stem, profile),
        "seconds": round(seconds, 1),
        "training_seconds": found.get("seconds"),
        "runs": len(found["runs"]) if "runs" in found else None,
        "seeds": found.get("seeds"),
        "device": device if isinstance(device, str) else ", ".join(device),
        "versions": found.get("versions") or {"python": platform.python_version()} | packages,
    }


# --- all chapters: stage, execute, publish ---------------------------------------------------------------------------


def fingerprints(root, chapters):
    """Of what executions depend on but for the images: text, parameters, code, packages, folders, quoted results."""
    code = [digest(path) for path in sorted((root / "ftlib").rglob("*.py"))]
    packages = sorted(f"{of.name} {of.version}" for of in importlib.metadata.distributions())
    folders = {name: place for name, place in os.environ.items() if name.startswith("FTLIB_")}
    results = [digest(path) for path in sorted((root / "book/results").glob("*/*.json"))]

    def own(chapter, parameters):
        return [digest(root / f"book/{chapter}.md"), parameters, results if chapter in LAST else []]

    shared = code, packages, folders
    return {name: json.dumps([*own(name, of), *shared], sort_keys=True) for name, of in chapters.items()}


def unchanged(root, stage, profile, prints):
    """The chapters that the stage has as executing them would make them; those in `LAST` if all the others are."""

    def has(chapter):
        made = stage / f"book/{chapter}.ipynb", stage / f"prints/{chapter}.json"
        if not all(path.exists() for path in made) or made[1].read_text(encoding="utf-8") != prints[chapter]:
            return False
        committed = f"book/{chapter}.ipynb", f"book/results/{profile}/{chapter}.json"
        return all(newer(stage / path, root / path) for path in committed if (root / path).exists())

    kept = [chapter for chapter in prints if has(chapter)]
    return kept if len(kept) == len(prints) else [chapter for chapter in kept if chapter not in LAST]


def make_stage(root, stage, executed, fresh):
    """Copy the book, less what is about to be executed; unless fresh, what an earlier run left of the rest stays.

    Returns a context that holds the stage: as long as it does, or its process lives, nobody else makes this one anew.
    """
    book, holder = stage / "book", stage / ".stage"
    if book.exists() and not holder.exists():
        raise BookError(f"--stage {stage} holds a book that is no stage: name an empty folder")
    stage.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(stage / ".lock").acquire(timeout=0)
    except Timeout:
        who = holder.read_text(encoding="utf-8") if holder.exists() else "another process"
        raise BookError(f"--stage {stage} is in use by {who}: wait for it, or name another folder") from None
    holder.write_text(f"process {os.getpid()} on {platform.node()} since {time.strftime('%F %T')}", encoding="utf-8")
    if fresh:
        shutil.rmtree(book, ignore_errors=True)

    def skip(folder, names):
        staged = book / Path(folder).relative_to(root / "book")
        kept = {n for n in names if n.endswith((".ipynb", ".json")) and newer(staged / n, Path(folder, n))}
        return {"__pycache__", *kept, *(f"{c}.ipynb" for c in executed)}

    shutil.copytree(root / "book", book, ignore=skip, dirs_exist_ok=True)
    for name in BESIDE:
        if (root / name).exists():
            shutil.copy(root / name, stage)
    for chapter in executed:
        for folder in (book, stage / "failed", stage / "prints"):
            for old in (folder / f"{chapter}.{end}" for end in ("ipynb", "txt", "json")):
                old.unlink(missing_ok=True)
    return held


def newer(staged, committed):
    """Whether the stage has a file, and has it from a run of its own: one published since then is to be quoted."""
    return staged.exists() and staged.stat().st_mtime_ns > committed.stat().st_mtime_ns


def execute_all(stage, plan, prints, jobs, timeout=None):
    """Execute the plan's chapters, several at a time, and keep their fingerprints; a message for each that failed."""
    failures, warned, order = [], set(), longest_first(ROOT / "book", plan["chapters"])
    pause = 1 if sys.stderr.isatty() else 60  # seconds between two looks at how far the chapters are
    with scratch_folder() as scratch:
        # Processes, since papermill changes the working directory; spawned, since forking below zmq's threads can hang.
        jobs = max(1, min(jobs, len(order)))
        told = scratch, max(1, (os.cpu_count() or 1) // jobs)
        pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=follow_runner, initargs=told)
        with pool, tqdm(total=len(plan["chapters"]), unit="chapter", desc=f"profile {plan['profile']}") as bar:
            try:
                for last in (False, True):
                    running = {}
                    for chapter, parameters in order:
                        task = execute_aside, stage / "book", chapter, parameters, stage / "failed", timeout
                        if (chapter in LAST) == last:
                            running[pool.submit(*task, Path(scratch, f"{chapter}.log"))] = chapter
                    while running:
                        for future in wait(running, pause, FIRST_COMPLETED).done:
                            chapter, error = running.pop(future), future.exception()
                            done = "FAILED" if error else f"{future.result():.0f} s"
                            warnings = {*re.findall(r"\b(?!Tqdm)\w*Warning: .*", said(Path(scratch), chapter))} - warned
                            bar.write("\n".join([f"{chapter}: {done}", *sorted(warnings)]), file=sys.stderr)
                            warned |= warnings
                            bar.update()
                            failures += [f"\n{error}"] if error else []
                            if not error:
                                write(stage / f"prints/{chapter}.json", prints[chapter].encode())
                        bar.set_postfix_str(", ".join(how_far(Path(scratch), c) for c in running.values()))
            except BaseException:
                kill_children()
                raise
    return failures


def longest_first(book, chapters):
    """The chapters and their parameters by how long committed notebooks took, so that the last to end is short."""

    def seconds(chapter):
        if not (path := book / f"{chapter}.ipynb").exists():
            return math.inf
        return nbformat.read(path, as_version=4).metadata.get("ftlib", {}).get("seconds", math.inf)

    return sorted(chapters.items(), key=lambda of: -seconds(of[0]))


def execute_aside(book, chapter, parameters, failed, timeout, log):
    """Execute a chapter, and keep what it and its processes say on the way in a file."""
    with open(log, "a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 2)
    return execute_chapter(book, chapter, parameters, failed, timeout, log)


def said(scratch, chapter):
    log = scratch / f"{chapter}.log"
    return log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""


def how_far(scratch, chapter):
    """The chapter's number, and share and time left of what its progress bars showed last."""
    text = said(scratch, chapter)[-4000:]
    bars = {name: rest for name, *rest in re.findall(r"(\w[\w ]*): +(\d+%)\|[^\r\n]*<([\d:]+|\?)", text)}
    running = [f"{name} {share} ({left} left)" for name, (share, left) in bars.items() if share != "100%"]
    return " ".join([chapter[:2], *running])


def follow_runner(scratch, threads):
    """Have this process end, with all that it has started, when the runner is gone, in whatever way it went.

    A kernel gets its share of the cores: two that take all of them wait for each other longer than they compute.
    """
    tempfile.tempdir = scratch
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    if os.name == "posix":
        os.setsid()  # Ctrl-C and the end of a terminal are for the runner

    runner = multiprocessing.parent_process()

    def watch():
        if runner:
            runner.join()
        kill_children()
        shutil.rmtree(scratch, ignore_errors=True)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def kill_children():
    """End all that this process has started. What tracks their semaphores ends by itself, after removing those."""
    for process in psutil.Process().children(recursive=True):
        try:
            if not any("resource_tracker" in word for word in process.cmdline()):
                process.kill()
        except psutil.Error:  # it is gone
            continue


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
    with make_stage(root, folder, (), fresh=True):
        for chapter, parameters in plan["chapters"].items():
            notebook = published(folder / "book", chapter)
            papermill.execute_notebook(notebook, notebook, parameters, prepare_only=True, progress_bar=False)
    return 0


def published(book, chapter):
    """Where a chapter's committed notebook lies."""
    if not (path := book / f"{chapter}.ipynb").exists():
        raise BookError(f"book/{path.name} is missing: make it with `make publish`")
    return path


def take_over_prose(book, chapters):
    """Put text, captions and tags around what the committed notebooks' code gave, if it is the same code."""
    for chapter, parameters in chapters.items():
        source, path = book / f"{chapter}.md", published(book, chapter)
        notebook, text = nbformat.read(path, as_version=4), read_source(source)
        injected = [cell for cell in notebook.cells if cell.id == "injected-parameters"]
        ran = [cell for cell in notebook.cells if cell.cell_type == "code" and cell not in injected]
        asked = [cell for cell in text.cells if cell.cell_type == "code"]
        if [cell.source for cell in ran] != [cell.source for cell in asked]:
            known = {cell.source for cell in ran}
            new = next((cell.source for cell in asked if cell.source not in known), "(one is gone or has moved)")
            raise BookError(f"{source.name} has code that {path.name} never ran, so execute it:\n{new}")
        for cell, old in zip(asked, ran, strict=True):
            cell.outputs, cell.execution_count = old.outputs, old.execution_count
        at = 1 + next(n for n, cell in enumerate(text.cells) if "parameters" in cell.metadata.get("tags", []))
        notebook.cells = [*text.cells[:at], *injected, *text.cells[at:]]
        clean(notebook, parameters)
        notebook.metadata["ftlib"]["source_sha256"] = digest(source)
        write(path, (nbformat.writes(notebook) + "\n").encode())
    return 0


def write(path, content):
    """Write bytes beside the place, then rename into it: whoever looks finds the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def interrupt(number, frame):
    """End by KeyboardInterrupt on whatever signal asks for an end, and be deaf to the next: cleaning up is quick."""
    for name in SIGNALS:
        signal.signal(name, signal.SIG_IGN)
    raise KeyboardInterrupt(number)


if __name__ == "__main__":
    for name in SIGNALS:
        signal.signal(name, interrupt)
    sys.exit(main())
