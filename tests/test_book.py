"""The book: sources and executed chapters agree, and a run here measures what was published."""

import importlib.util
import json
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from filelock import FileLock
from scipy.special import stdtrit

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
REFERENCES = sorted(BOOK.glob("results/ci/*.json"))


def seconds_trained(source: Path) -> float:
    reference = BOOK / f"results/ci/{source.stem}.json"
    return json.loads(reference.read_text(encoding="utf-8"))["provenance"]["seconds"] if reference in REFERENCES else 0


SOURCES = sorted(BOOK.glob("[0-9][0-9]-*.md"), key=seconds_trained, reverse=True)  # the longest to execute comes first


def load(path: Path):
    """A module of book/, which is no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


execute = load(BOOK / "execute.py")
measured = load(BOOK / "_ext/measured.py")


def executed(source: Path) -> nbformat.NotebookNode:
    path = source.with_suffix(".ipynb")
    assert path.exists(), f"{path.name} is missing: run `make publish`"
    return nbformat.read(path, as_version=4)


# --- what is committed -----------------------------------------------------------------------------------------------

each_chapter = pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)


@each_chapter
def test_a_notebook_was_executed_whole_from_the_source_beside_it(source):
    assert list(measured.find_faults(source.with_suffix(".ipynb"))) == []
    written = [(c.id, c.source) for c in execute.read_source(source).cells]
    ran = [(c.id, c.source) for c in executed(source).cells if c.id != "injected-parameters"]
    assert ran == written


@each_chapter
def test_every_figure_has_a_caption_and_a_text_for_those_who_cannot_see_it(source):
    for number, cell in enumerate(executed(source).cells):
        if any("image/png" in output.get("data", {}) for output in cell.get("outputs", [])):
            figure = cell.metadata.get("mystnb", {})
            assert figure.get("figure", {}).get("caption"), f"cell {number} has no caption"
            assert figure.get("image", {}).get("alt"), f"cell {number} has no alt text"


def test_a_stage_has_every_file_that_a_page_includes_from_beside_the_book():
    included = {
        name for page in BOOK.glob("*.md") for name in re.findall(r"include\} \.\./(\S+)", page.read_text("utf-8"))
    }
    assert included and included <= set(execute.BESIDE)


@each_chapter
def test_a_notebook_is_small_and_names_no_folder_of_the_machine_it_ran_on(source):
    text = nbformat.writes(executed(source))
    assert len(text) < 1.5e6
    assert str(ROOT) not in text and str(Path.home()) + os.sep not in text


@each_chapter
def test_a_notebook_tells_how_it_was_made(source):
    told = executed(source).metadata.ftlib
    assert told.device and told.versions.python and told.seconds > 0


@each_chapter
def test_a_text_that_is_glued_into_prose_is_no_markdown(source):
    """It would be shown with its marks."""
    result = BOOK / f"results/cpu/{source.stem}.json"
    values = json.loads(result.read_text(encoding="utf-8"))["values"] if result.exists() else {}
    assert {k: v for k, v in values.items() if isinstance(v, str) and re.search(r"\*\*|\*\w[^*]*\w\*|`", v)} == {}


# --- what a run here gives -------------------------------------------------------------------------------------------


class Rerun:
    """The committed notebooks with the parameters of profile ci; each is executed once, by whoever needs it first."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.book, self.store = folder, folder / "book", folder / "store"
        self.results = self.book / "results/ci"

    def prepare(self) -> None:
        few = ["-p", "seeds=[0, 1, 2]"]  # of the dozen that the reference holds
        assert execute.main(["--profile", "ci", *few, "--prepare", str(self.folder)]) == 0, "profile ci is not prepared"
        for path in self.results.glob("*.json"):
            path.unlink()  # so that what is found afterwards is new
        self.store.mkdir()

    def of(self, chapter: str) -> Path:
        """Where a chapter's results are, executed by nbval."""
        with FileLock(self.folder / f"{chapter}.lock"):
            told = self.folder / f"{chapter}.txt"
            if not told.exists():
                done = self._execute(self.book / f"{chapter}.ipynb")
                problem = done.stdout[-8000:] + done.stderr[-2000:] if done.returncode else ""
                told.write_text(problem, encoding="utf-8")
            problem = told.read_text(encoding="utf-8")
            assert not problem, problem
        return self.results / f"{chapter}.json"

    def _execute(self, notebook: Path) -> subprocess.CompletedProcess[str]:
        # -c: this project's own pytest settings are for its unit tests. --nbval-lax: only cells tagged
        # nbval-check-output are compared; they print facts that hold at any scale. --nbval-current-env: the kernel is
        # this Python.
        command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(self.folder)]
        command += ["-p", "no:cacheprovider", "-p", "nbval.plugin", "--nbval-lax", "--nbval-current-env", str(notebook)]
        # A store of its own: a run that was kept would compare the reference with itself. No other plugin is of use.
        own = {"FTLIB_STORE": str(self.store), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""} | ONE_CORE
        environment = os.environ | own
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True)


# Where several processes of pytest keep the cores busy, a chapter trains in its own kernel, on one thread.
SIDE_BY_SIDE = "PYTEST_XDIST_WORKER" in os.environ
ONE_CORE = {"LOKY_MAX_CPU_COUNT": "1", "OMP_NUM_THREADS": "1"} if SIDE_BY_SIDE else {}


@pytest.fixture(scope="session")
def rerun(tmp_path_factory) -> Rerun:
    """The same for all processes of pytest."""
    base = tmp_path_factory.getbasetemp()
    rerun = Rerun((base.parent if SIDE_BY_SIDE else base) / "rerun")
    with FileLock(f"{rerun.folder}.lock"):
        if not rerun.store.exists():
            rerun.prepare()
    return rerun


@each_chapter
def test_checked_cells_have_a_reference(source):
    """nbval passes a cell whose reference was never executed."""
    for cell in executed(source).cells:
        if "nbval-check-output" in cell.metadata.get("tags", []):
            assert cell.outputs, f"nothing to compare with: {cell.source}"


@each_chapter
def test_a_chapter_runs_again_and_its_checked_facts_hold(source, rerun):
    known = {path.stem for path in REFERENCES}
    assert rerun.of(source.stem).exists() == (source.stem in known)
    assert {path.stem for path in rerun.results.glob("*.json")} <= known


@pytest.mark.parametrize("path", REFERENCES, ids=lambda path: path.stem)
def test_a_rerun_is_a_sample_of_what_was_published(path, rerun):
    reference, fresh = claims_of(path), claims_of(rerun.of(path.stem))
    assert fresh.keys() == reference.keys()
    assert {id: told for id, claim in reference.items() if (told := differs(claim, fresh[id]))} == {}


# A fault, as Python that runs before a chapter does (in its workers too), and the claims that it must make fail.
MUTANTS = {
    "γ with the wrong sign": (
        "from ftlib.metrics import Curve; best = Curve.best_gamma; Curve.best_gamma = lambda *a, **k: -best(*a, **k)",
        {"05-the-logit-gap": ["threshold-shifts", "absent-better-than-before"]},
    ),
    "NCM from the wrong features": (
        "import ftlib.runs as r; right = r.Run.train.func\n"
        "wrong = lambda run: right(run)._replace(features=right(run).features.flip(1))\n"
        "r.Run.train = property(lambda run: (wrong if run.spec['method'] == 'finetune' else right)(run))",
        {"04-the-features-improve": ["ncm-absent-gain", "ncm-seen-gain"]},
    ),
    "absent rows trained": (
        "import ftlib.methods as m; adapt = m.adapt\n"
        "m.adapt = lambda task, model, images, **how: adapt(task, model, task.domain.train, **how)",
        {"03-what-breaks": ["absent-drop", "absent-taken-by-seen"]},
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_fault_of_the_method_is_no_such_sample(mutant, rerun, tmp_path):
    code, chapters = MUTANTS[mutant]
    (tmp_path / "sitecustomize.py").write_text(code, encoding="utf-8")
    for chapter in chapters:
        rerun.of(chapter)
    for run in rerun.store.glob("[!.]*/spec.json"):  # whole, whatever other chapters are writing; never written again
        shutil.copytree(run.parent, tmp_path / "store" / run.parent.name, copy_function=os.link)
    if "adapt" in code:  # it is in the training: what is trained anew is what fine-tuning gave
        for spec in tmp_path.glob("store/*/spec.json"):
            if json.loads(spec.read_text(encoding="utf-8"))["method"] == "finetune":
                shutil.rmtree(spec.parent)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"FTLIB_STORE": str(tmp_path / "store"), "PYTHONPATH": path} | ONE_CORE
    (tmp_path / "results").symlink_to(rerun.results.parent)  # the mutant's own go beside those of the rerun
    for chapter, ids in chapters.items():
        notebook = nbformat.read(rerun.book / f"{chapter}.ipynb", as_version=4)
        (given,) = [cell for cell in notebook.cells if "injected-parameters" in cell.metadata.get("tags", [])]
        given.source += '\nprofile = "mutant"'
        nbformat.write(notebook, tmp_path / "mutant.ipynb")
        command = [sys.executable, "-m", "papermill", "--no-progress-bar", "--cwd", str(tmp_path)]
        command += ["--start-timeout", "300"]  # its kernel imports torch before it answers
        command += [str(tmp_path / "mutant.ipynb"), os.devnull]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        fresh = claims_of(rerun.results.parent / "mutant" / f"{chapter}.json")
        assert [id for id in ids if not differs(claims_of(BOOK / f"results/ci/{chapter}.json")[id], fresh[id])] == []


def claims_of(path: Path) -> dict[str, dict]:
    return {claim["id"]: claim for claim in json.loads(path.read_text(encoding="utf-8"))["claims"]}


def differs(reference: dict, fresh: dict, false_alarms: float = 1e-3) -> str | None:
    """How a claim is no sample of the published one; None if it may well be.

    Another processor adds floating-point numbers in another order, and training amplifies that until two runs of one
    seed differ as much as two seeds do. So what can be compared is samples. The published effects, one for each of N
    seeds, have mean m and standard deviation s; the mean of k others is then within t(N - 1)·s·√(1/k + 1/N) of m. The
    quantile t is taken such that all claims of the book together give a false alarm in fewer than one rerun of a
    thousand (Bonferroni). An effect farther than that from zero keeps its sign in a rerun that passes. Published
    effects that are all equal, such as a share of a few mistakes, tell of no spread: of them only the sign is asked.
    """
    published, k = [repetition["effect"] for repetition in reference["effects"]], len(fresh["effects"])
    quantile = stdtrit(len(published) - 1, 1 - false_alarms / sum(map(len, map(claims_of, REFERENCES))) / 2)
    deviation = statistics.stdev(published) if len(published) > 1 else math.inf
    bound = quantile * deviation * math.sqrt(1 / k + 1 / len(published))
    bound = max(bound, 0.5 if reference["unit"] == "points" else 0.005)  # what a single test image may tip
    bound = bound if deviation else max(bound, abs(reference["mean"]))
    if abs(fresh["mean"] - reference["mean"]) <= bound:
        return None
    return f"{fresh['mean']:.3g}, published {reference['mean']:.3g} from {len(published)}: off by more than {bound:.3g}"
