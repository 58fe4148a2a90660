"""`make gpu` without one says so; slices go on where the last one stopped."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location("gpu", ROOT / "tests/gpu.py")
gpu = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gpu)
spec = importlib.util.spec_from_file_location("plan", ROOT / "book/plan.py")
plan = importlib.util.module_from_spec(spec)
spec.loader.exec_module(plan)


def says(code: str) -> list[str]:
    return ["-c", code]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_sentence_says_so(capsys):
    assert gpu.main([]) == 1
    told = capsys.readouterr()
    assert told.err.count("\n") == 1 and "no GPU" in told.err and told.out == ""


def test_a_slice_that_is_over_leaves_the_rest_to_the_next(tmp_path, capsys):
    results, mark = tmp_path / "results.json", tmp_path / "mark"
    slow = f"import pathlib, time\np = pathlib.Path({str(mark)!r})\nif not p.exists(): p.touch(); time.sleep(60)"
    todo = {"a": says("print('first')"), "b": says(slow), "c": says("print('last')")}
    assert gpu.run_slice(todo, results, "card", budget=4) == 2
    told = json.loads(results.read_text())["card"]
    assert told["a"]["output"] == ["first"] and told["b"]["returncode"] is None and "c" not in told
    before = told["a"]
    assert gpu.run_slice(todo, results, "card", budget=60) == 0
    told = json.loads(results.read_text())["card"]
    assert told["a"] == before and {step["returncode"] for step in told.values()} == {0}
    assert "3 of 3 steps done, 0 left" in capsys.readouterr().out


def test_what_fails_is_told_and_the_rest_is_done(tmp_path):
    todo = {"a": says("raise SystemExit('broken')"), "b": says("print('fine')")}
    assert gpu.run_slice(todo, tmp_path / "r.json", "card", budget=60) == 1
    told = json.loads((tmp_path / "r.json").read_text())["card"]
    assert told["a"]["output"] == ["broken"] and told["b"]["returncode"] == 0


def test_every_step_names_what_there_is():
    chapters = {path.name[:2] for path in (ROOT / "book").glob("[0-9][0-9]-*.md")}
    assert set(gpu.CHAPTERS) == chapters - {"16", "20"}  # which measure nothing themselves
    assert {path.stem for path in (ROOT / "tests/bench").glob("bench_*.py")} == {
        f"bench_{name}" for name in gpu.BENCHES
    }
    assert [*gpu.steps()][:2] == ["tests", "bench fit"]


@pytest.mark.parametrize(("profile", "size"), [("office31", 243), ("tinyimagenet", 224)])
def test_photographs_that_are_there_are_taken_at_the_size_of_their_weights(tmp_path, monkeypatch, profile, size):
    monkeypatch.setenv("FTLIB_DATA", str(tmp_path))
    before = gpu.steps()
    assert not any(name.startswith(profile) for name in before)
    (tmp_path / profile).mkdir()
    added = {name: command for name, command in gpu.steps().items() if name not in before}
    assert added and {name.split()[0] for name in added} == {profile}
    for command in added.values():  # each can be executed: its chapter has these parameters
        asked = [command[i + 1] for i, part in enumerate(command) if part == "-p"]
        name = command[command.index("--chapters") + 1]
        (values,) = plan.read_plan(ROOT / "book", profile, [name], asked)["chapters"].values()
        assert [values[of]["size"] for of in ("data", "pretraining", "recipe")] == [size, 224, 224]
