"""The runner is strict: what is asked is done, a chapter is executed whole or reported, and nothing outlives it."""

import ast
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import psutil
import pytest

ROOT = Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location("execute", ROOT / "book/execute.py")
execute = importlib.util.module_from_spec(spec)
spec.loader.exec_module(execute)

PARAMETERS = 'profile = "none"\nlr = 0.1\nepochs = 3\nfast = True\nseeds = [0, 1]\nrecipe = {"lr": 0.5, "epochs": 2}'


def write_book(folder: Path, profile: str, cells: tuple[str, ...] = ()) -> Path:
    """A book of one chapter and one profile, both with letters beyond ASCII."""
    head = "---\njupytext: {text_representation: {extension: .md, format_name: myst}}\n"
    head += "kernelspec: {display_name: Python 3, language: python, name: python3}\n---\n\n# What γ does\n"
    blocks = [f":tags: [parameters]\n\n{PARAMETERS}", *cells]
    (folder / "profiles").mkdir(parents=True)
    (folder / "profiles/tiny.yml").write_text(f"# γ\n{profile}", encoding="utf-8")
    text = head + "".join(f"\n```{{code-cell}} ipython3\n{b}\n```\n" for b in blocks)
    (folder / "01-one.md").write_text(text, encoding="utf-8")
    return folder


DEFAULTS = {
    "profile": "none", "lr": 0.1, "epochs": 3, "fast": True, "seeds": [0, 1], "recipe": {"lr": 0.5, "epochs": 2},
}  # fmt: skip


def plan(tmp_path: Path, profile: str, **kwargs) -> dict:
    return execute.read_plan(write_book(tmp_path / "book", profile), "tiny", **kwargs)["chapters"]["01-one"]


def test_the_plan_has_every_parameter_the_chapters_defaults_included(tmp_path):
    assert plan(tmp_path, "parameters: {epochs: 4}") == DEFAULTS | {"epochs": 4, "profile": "tiny"}


def test_integers_become_floats_and_mappings_are_laid_over_the_defaults(tmp_path):
    given = plan(tmp_path, "parameters: {lr: 1, recipe: {epochs: 9}}")
    assert given["lr"] == 1.0 and isinstance(given["lr"], float)
    assert given["recipe"] == {"lr": 0.5, "epochs": 9}


def test_a_mapping_in_a_list_is_itself_and_not_laid_over_the_defaults_first(tmp_path):
    """An empty trial of a profile is the profile's recipe, not the chapter's first trial."""
    book = write_book(tmp_path / "book", "parameters: {trials: [{}, {lr: 1}, {decay: 2}]}")
    chapter = (book / "01-one.md").read_text(encoding="utf-8")
    (book / "01-one.md").write_text(chapter.replace("fast = True", 'fast = True\ntrials = [{"lr": 0.1, "decay": 0.5}]'))
    given = execute.read_plan(book, "tiny")["chapters"]["01-one"]["trials"]
    assert given == [{}, {"lr": 1.0}, {"decay": 2.0}]
    assert all(isinstance(v, float) for trial in given for v in trial.values())


def test_a_parameter_by_hand_beats_the_profile_and_its_section_for_the_chapter(tmp_path):
    profile = "parameters: {epochs: 4, lr: 0.2}\n01-one: {seeds: [5], lr: 0.3, recipe: {epochs: 9}}"
    given = plan(tmp_path, profile, overrides=["seeds=[4]", "lr=0.7", "epochs=5", "recipe={lr: 0.1}"])
    assert [given[name] for name in ("seeds", "lr", "epochs")] == [[4], 0.7, 5]
    assert given["recipe"] == {"lr": 0.1, "epochs": 9}  # the profile's other values stay


def test_parameters_by_hand_reach_every_chapter_of_the_published_profile():
    asked = ['benchmarks=["folder:mine/studio-street"]', "seeds=[7]", "recipe={lr: 0.5}"]
    for chapter, given in execute.read_plan(ROOT / "book", "cpu", None, asked)["chapters"].items():
        assert given.get("benchmarks", ["folder:mine/studio-street"]) == ["folder:mine/studio-street"], chapter
        assert given.get("seeds", [7]) == [7], chapter
        assert given.get("recipe", {}).get("lr", 0.5) == 0.5, chapter


def test_a_profile_is_laid_over_the_one_that_it_extends(tmp_path):
    book = write_book(tmp_path / "book", "extends: below\nparameters: {epochs: 5}\n01-one: {recipe: {lr: 0.1}}")
    below = "publish: results\nparameters: {epochs: 4, lr: 0.2}\n01-one: {seeds: [7]}"
    (book / "profiles/below.yml").write_text(below)
    given = execute.read_plan(book, "tiny")
    assert given["publish"] == "results"
    own = {"profile": "tiny", "epochs": 5, "lr": 0.2, "seeds": [7], "recipe": {"lr": 0.1, "epochs": 2}}
    assert given["chapters"]["01-one"] == DEFAULTS | own


@pytest.mark.parametrize(("base", "message"), [("none", "there is no profile 'none'"), ("tiny", "extends is 'tiny'")])
def test_a_profile_that_extends_none_or_itself_is_refused(tmp_path, base, message):
    with pytest.raises(execute.BookError, match=message):
        plan(tmp_path, f"extends: {base}")


def test_brackets_are_proposed_only_around_what_a_list_may_hold(tmp_path):
    with pytest.raises(execute.BookError, match=r"expected list, such as \[0, 1\]: write it in brackets, \[3\]$"):
        plan(tmp_path / "a", "parameters: {seeds: 3}")
    with pytest.raises(execute.BookError, match=r"'0\.\.3' \(str\); expected list, such as \[0, 1\]$"):
        plan(tmp_path / "b", "parameters: {seeds: 0..3}")


def test_what_is_printed_at_the_start_names_each_value_and_who_has_another():
    chapters = {"01-one": {"lr": 0.1, "seeds": [0, 1]}, "02-two": {"lr": 0.1, "seeds": [3]}}
    told = execute.describe({"profile": "tiny", "chapters": chapters}).splitlines()
    assert told[1:] == ["  lr = 0.1", "  seeds = [0, 1]  (01)", "  seeds = [3]  (02)"]


@pytest.mark.parametrize(
    ("cell", "timeout", "message"),
    [
        ("raise RuntimeError('out of luck')", None, "out of luck"),
        ("import sys; sys.exit(0)", None, "ended early with SystemExit"),
        ("import os; os._exit(0)", None, "os._exit"),
        ("import time; time.sleep(30)", 1, "time.sleep"),
    ],
    ids=["error", "early exit", "dead kernel", "time-out"],
)
def test_a_chapter_that_fails_is_reported_and_changes_nothing(tmp_path, cell, timeout, message):
    writes = "import pathlib\npathlib.Path('results/tiny/01-one.json').write_text('half')"
    book = write_book(tmp_path / "book", "", cells=(writes, cell))
    results = book / "results/tiny/01-one.json"
    results.parent.mkdir(parents=True)
    results.write_text("whole")
    with pytest.raises(execute.BookError, match="chapter 01-one, ") as error:
        execute.execute_chapter(book, "01-one", {"profile": "tiny"}, tmp_path / "failed", timeout)
    assert message in str(error.value)
    assert results.read_text() == "whole"
    assert not (book / "01-one.ipynb").exists()
    assert {path.name for path in (tmp_path / "failed").iterdir()} == {"01-one.ipynb", "01-one.txt"}


def test_an_executed_chapter_is_clean_and_knows_its_source(tmp_path):
    cells = ("import sys\nprint('shown')\nprint('hidden', file=sys.stderr)", "print(lr, recipe)")
    book = write_book(tmp_path / "book", "", cells=cells)
    execute.execute_chapter(book, "01-one", {"profile": "tiny", "lr": 0.2}, tmp_path / "failed")
    notebook = nbformat.read(book / "01-one.ipynb", as_version=4)
    printed = [output.text for cell in notebook.cells for output in cell.get("outputs", [])]
    assert printed == ["shown\n", "0.2 {'lr': 0.5, 'epochs': 2}\n"]
    assert str(tmp_path) not in nbformat.writes(notebook) and "papermill" not in notebook.metadata
    assert {cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code"} == {False}
    assert sorted(path.name for path in book.iterdir()) == ["01-one.ipynb", "01-one.md", "profiles"]


def test_a_page_shows_every_parameter_as_it_was_executed(tmp_path):
    book = write_book(tmp_path / "book", "")
    given = execute.read_plan(book, "tiny")["chapters"]["01-one"]
    execute.execute_chapter(book, "01-one", given, tmp_path / "failed")
    cells = {cell.id: cell for cell in nbformat.read(book / "01-one.ipynb", as_version=4).cells}
    shown, values = cells["injected-parameters"], {}
    exec(shown.source, values)
    assert {name: values[name] for name in DEFAULTS} == DEFAULTS | {"profile": "tiny"}
    assert shown.metadata.tags == ["injected-parameters"]


def test_the_message_of_a_failure_is_cut_and_kept_whole_beside(tmp_path):
    cell = "raise RuntimeError('36 of 36 runs failed:\\n' + '\\n'.join(f'- run {n}' * 100 for n in range(36)))"
    book = write_book(tmp_path / "book", "", cells=(cell,))
    with pytest.raises(execute.BookError, match="RuntimeError: 36 of 36 runs failed:\n- run 0") as error:
        execute.execute_chapter(book, "01-one", {"profile": "tiny"}, tmp_path / "failed")
    assert "... and 25 more lines\n" in str(error.value) and len(str(error.value)) < 8000
    assert "- run 35" in (tmp_path / "failed/01-one.txt").read_text(encoding="utf-8")


def test_a_kernel_starts_below_a_temporary_folder_with_a_long_name(tmp_path, monkeypatch):
    folder = tmp_path / ("long" * 25)
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    book = write_book(tmp_path / "book", "")
    assert execute.execute_chapter(book, "01-one", {"profile": "tiny"}, tmp_path / "failed") > 0


# --- the whole runner, in a process of its own -----------------------------------------------------------------------


def make_project(folder: Path) -> Path:
    """A folder with a runner and a book of one chapter, which sleeps if asked to and tells who it is."""
    cell = """import os, subprocess, sys, time, warnings
from pathlib import Path
Path("told.txt").write_text(" ".join(os.environ.get(f"FTLIB_{n}", "-") for n in ("DATA", "STORE", "CACHE")))
warnings.warn("two files were skipped")
if epochs > 3:
    worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(99)"])
    Path("pids.tmp").write_text(f"{os.getpid()} {os.getppid()} {worker.pid}")
    os.replace("pids.tmp", "pids")
    print("runs:  25%|##   | 1/4 [00:10<00:30, 10.0s/run]", file=sys.stderr, end="", flush=True)
    time.sleep(99)"""
    write_book(folder / "book", "", cells=(cell,))
    for name in ("execute.py", "plan.py"):
        shutil.copy(ROOT / "book" / name, folder / "book")
    for name in ("_config.yml", "_toc.yml"):
        (folder / name).touch()
    return folder


@pytest.fixture
def project(tmp_path) -> Path:
    return make_project(tmp_path)


@pytest.fixture(scope="module")
def executed(tmp_path_factory) -> tuple[Path, str]:
    """A project that was executed, with folders of its user's own, and what was said."""
    project = make_project(tmp_path_factory.mktemp("executed"))
    own = {"FTLIB_STORE": "./runs", "FTLIB_CACHE": "~/images", "HOME": str(project / "home")}
    code, told = finish(start(project, **own))
    assert code == 0, told
    return project, told


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """A project that was executed and published: not to be changed."""
    project = make_project(tmp_path_factory.mktemp("published"))
    code, told = finish(start(project, "--publish"))
    assert code == 0, told
    return project


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A temporary folder with a short name, as most have."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="t-") as folder:
        yield Path(folder)


def start(project: Path, *arguments: str, **environment: str) -> subprocess.Popen:
    """The runner with its profile, in a folder `here` of its own."""
    here = project / "here"
    here.mkdir(exist_ok=True)
    command = [sys.executable, "../book/execute.py", "--profile", "tiny", *arguments]
    own = os.environ | {f"FTLIB_{name}": "" for name in ("DATA", "STORE", "CACHE")} | environment
    return subprocess.Popen(command, cwd=here, env=own, stderr=subprocess.PIPE, text=True, encoding="utf-8")


def finish(process: subprocess.Popen) -> tuple[int, str]:
    _, told = process.communicate(timeout=180)
    return process.returncode, told


def wait_for(condition, seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


@pytest.mark.parametrize(("given", "expected"), [({}, os.cpu_count() // 2), ({"OMP_NUM_THREADS": "3"}, 3)])
def test_chapters_side_by_side_share_the_cores_unless_threads_are_given(project, monkeypatch, given, expected):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cell = 'import os; from pathlib import Path; Path("threads.txt").write_text(os.environ["OMP_NUM_THREADS"])'
    one = project / "book/01-one.md"
    text = one.read_text(encoding="utf-8") + f"\n```{{code-cell}}\n{cell}\n```\n"
    for chapter in (one, project / "book/02-two.md"):
        chapter.write_text(text.replace("threads.txt", f"{chapter.stem}.txt"), encoding="utf-8")
    code, told = finish(start(project, "--jobs", "2", **given))
    assert code == 0, told
    book = project / "_build/site/book"
    assert {(book / f"{name}.txt").read_text() for name in ("01-one", "02-two")} == {str(max(1, expected))}


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGHUP", "SIGINT"])
def test_a_runner_that_is_killed_takes_all_that_it_started_with_it_and_leaves_nothing(project, scratch, name):
    runner = start(project, "-p", "epochs=9", TMPDIR=str(scratch))
    book = project / "_build/site/book"
    wait_for((book / "pids").exists)
    pids = [int(word) for word in (book / "pids").read_text().split()]
    runner.send_signal(getattr(signal, name))
    code, told = finish(runner)
    assert code == (-signal.SIGKILL if name == "SIGKILL" else 128 + getattr(signal, name))
    assert "Traceback" not in told
    assert name == "SIGKILL" or f"stopped by {name}: finished runs are in the store" in told
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in pids), 5)
    wait_for(lambda: not any(scratch.iterdir()), 5)
    assert {p.name for p in book.iterdir()} - {"pids", "told.txt"} == {p.name for p in (project / "book").iterdir()}


def test_papermill_alone_that_is_killed_takes_its_kernel_and_a_sweeps_processes_with_it(tmp_path, scratch):
    """By SIGKILL, which lets it do nothing more: the others leave it no less."""
    cell = """import os, time
from pathlib import Path
from ftlib import pools
worker = pools._process((0, ())).submit(os.getpid).result()
Path("pids.tmp").write_text(f"{os.getpid()} {worker}")
os.replace("pids.tmp", "pids")
time.sleep(99)"""
    book = write_book(tmp_path / "book", "", cells=(cell,))
    nbformat.write(execute.read_source(book / "01-one.md"), book / "01-one.ipynb")
    command = [sys.executable, "-m", "papermill", "--cwd", book, book / "01-one.ipynb", tmp_path / "out.ipynb"]
    with subprocess.Popen(command, env=os.environ | {"TMPDIR": str(scratch)}, stderr=subprocess.DEVNULL) as alone:
        wait_for((book / "pids").exists)
        alone.kill()
    pids = [int(word) for word in (book / "pids").read_text().split()]
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in pids), 20)


def test_a_second_start_on_a_stage_is_refused_and_touches_nothing(project):
    first = start(project, "-p", "epochs=9")
    book = project / "_build/site/book"
    wait_for((book / "pids").exists)
    before = {path: path.stat().st_mtime_ns for path in book.rglob("*")}
    code, told = finish(start(project))
    assert code == 1
    assert f"_build/site is in use by process {first.pid} on " in told and "name another folder" in told
    assert {path: path.stat().st_mtime_ns for path in book.rglob("*")} == before
    first.terminate()
    assert finish(first)[0] == 128 + signal.SIGTERM
    assert finish(start(project))[0] == 0  # the stage is free again


def test_folders_are_meant_from_where_the_user_stands(executed):
    project, told = executed
    seen = (project / "_build/site/book/told.txt").read_text().split()
    assert seen == [str(project / "here"), str(project / "here/runs"), str(project / "home/images")]
    assert f"store      {project}/here/runs\n" in told
    assert f"results    {project}/_build/site/book/results/tiny\n" in told


def test_what_a_chapter_warns_of_is_said_in_the_terminal_and_not_on_the_page(executed):
    project, told = executed
    assert "\nUserWarning: two files were skipped\n" in told
    notebook = nbformat.read(project / "_build/site/book/01-one.ipynb", as_version=4)
    assert [cell.outputs for cell in notebook.cells if cell.cell_type == "code"] == [[], [], []]


def test_what_has_not_changed_is_not_executed_again(project):
    stage, source = project / "_build/site", project / "book/01-one.md"

    def stamp(*arguments):
        code, told = finish(start(project, "--changed", *arguments))
        assert code == 0, told
        return (stage / "book/01-one.ipynb").stat().st_mtime_ns, "unchanged: 01-one" in told

    first, second = stamp(), stamp()
    assert not first[1] and second == (first[0], True)
    last = first[0]
    (project / "ftlib").mkdir()
    changes = {
        "text": lambda: source.write_text(source.read_text(encoding="utf-8") + "\nMore.\n", encoding="utf-8"),
        "code": lambda: (project / "ftlib/core.py").write_text("x = 1\n"),
        "what was made": (stage / "book/01-one.ipynb").unlink,
        "what is committed": lambda: shutil.copy(stage / "book/01-one.ipynb", project / "book"),
    }
    for what, change in changes.items():
        change()
        made, kept = stamp()
        assert made > last and not kept, what
        last = made
    assert stamp("-p", "lr=0.5")[0] > last


def test_a_store_in_the_stage_is_refused_before_it_is_deleted(project):
    store = project / "_build/site/book/runs"
    store.mkdir(parents=True)
    code, told = finish(start(project, FTLIB_STORE=str(store)))
    assert (code, store.exists()) == (1, True)
    assert f"FTLIB_STORE={store} is in" in told and "put it elsewhere" in told


def test_publishing_with_parameters_by_hand_is_refused(project):
    code, told = finish(start(project, "--publish", "-p", "lr=0.5"))
    assert code == 1 and "write a profile of your own" in told
    assert not (project / "_build").exists() and not (project / "book/01-one.ipynb").exists()


def test_what_is_published_is_the_executed_chapter(published):
    notebook = published / "book/01-one.ipynb"
    assert notebook.read_bytes() == (published / "_build/site/book/01-one.ipynb").read_bytes()


def test_changed_prose_is_taken_over_and_changed_code_is_refused(published, tmp_path):
    project = shutil.copytree(published, tmp_path / "own")
    source, path = project / "book/01-one.md", project / "book/01-one.ipynb"
    before, text = nbformat.read(path, as_version=4), source.read_text(encoding="utf-8")
    source.write_text(
        text.replace("# What γ does\n", "# What γ does now\n\nMore.\n\n+++\n\nAnd more.\n"), encoding="utf-8"
    )
    assert finish(start(project, "--prose"))[0] == 0
    after = nbformat.read(path, as_version=4)
    assert [c.source for c in after.cells if c.cell_type == "markdown"] == ["# What γ does now\n\nMore.", "And more."]
    assert [c for c in after.cells if c.cell_type == "code"] == [c for c in before.cells if c.cell_type == "code"]
    assert after.metadata.ftlib.source_sha256 != before.metadata.ftlib.source_sha256
    kept = path.read_bytes()
    source.write_text(text.replace("two files", "three files"), encoding="utf-8")
    code, told = finish(start(project, "--prose"))
    assert code == 1 and "never ran" in told and "three files" in told
    assert path.read_bytes() == kept


def test_the_runner_reads_and_writes_utf_8_whatever_the_machine_prefers(project):
    ascii = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    code, told = finish(start(project, **ascii))
    assert code == 0, told
    notebook = json.loads((project / "_build/site/book/01-one.ipynb").read_text(encoding="utf-8"))
    assert "".join(notebook["cells"][0]["source"]) == "# What γ does"


def test_how_far_a_chapter_is_comes_from_its_progress_bars(tmp_path):
    bars = "runs:   0%|   | 0/4 [00:00<?, ?run/s]\rruns:  25%|#  | 1/4 [00:10<00:30, 10.0s/run]\r"
    bars += "training:  50%|##  | 9/18 [00:04<00:04,  2.1step/s]\rdecoding webcam: 100%|##| 9/9 [00:01<00:00, 9.0/s]"
    (tmp_path / "02-two.log").write_text(bars, encoding="utf-8")
    assert execute.how_far(tmp_path, "02-two") == "02 runs 25% (00:30 left) training 50% (00:04 left)"
    assert execute.how_far(tmp_path, "03-three") == "03"


def test_the_longest_chapter_begins_first_and_before_all_one_that_nobody_has_timed(tmp_path):
    for name, ran in {"01-short": {"seconds": 2.5}, "02-long": {"seconds": 90.0}, "03-never": {}}.items():
        nbformat.write(nbformat.v4.new_notebook(metadata={"ftlib": ran}), tmp_path / f"{name}.ipynb")
    order = execute.longest_first(tmp_path, {"01-short": {"a": 1}, "02-long": {}, "03-never": {}, "04-new": {}})
    assert [name for name, _ in order] == ["03-never", "04-new", "02-long", "01-short"] and order[3][1] == {"a": 1}


def test_a_stage_is_never_made_over_a_book_that_is_none(tmp_path):
    (tmp_path / "book").mkdir()
    (tmp_path / "book/precious.txt").touch()
    with pytest.raises(execute.BookError, match="no stage"):
        execute.make_stage(ROOT, tmp_path, (), fresh=True)
    assert (tmp_path / "book/precious.txt").exists()


def test_every_text_file_is_read_and_written_as_utf_8():
    """Also where a machine prefers another encoding, as Windows does."""
    silent = []
    for path in [*ROOT.glob("ftlib/**/*.py"), *ROOT.glob("book/**/*.py")]:
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and "encoding" not in {keyword.arg for keyword in call.keywords}:
                method = getattr(call.func, "attr", None) in ("read_text", "write_text")
                mode = call.args[1].value if len(call.args) > 1 and isinstance(call.args[1], ast.Constant) else "r"
                if method or (getattr(call.func, "id", None) == "open" and "b" not in mode):
                    silent.append(f"{path.name}: {ast.unparse(call)}")
    assert silent == []


@pytest.mark.parametrize("path", sorted(ROOT.glob("book/profiles/*.yml")), ids=lambda path: path.stem)
def test_every_profile_of_the_book_is_right(path):
    assert execute.read_plan(ROOT / "book", path.stem)["chapters"]
