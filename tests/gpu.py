"""What a GPU alone can tell, in slices of less than ten minutes: `make gpu`, again and again until all of it is done.

In order of what it tells: the tests on CUDA, what `make bench` promises, the chapters of profile gpu, and, where
$FTLIB_DATA has their images, Office-31 and Tiny-ImageNet at the size that their weights were made for. A slice ends by
itself; the next one goes on where it stopped: finished runs are in the store of $FTLIB_STORE, finished steps in
_build/gpu/results.json, with the device's name, seconds and what each had to say in the end.
"""

import argparse
import json
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import torch
import yaml

from ftlib.core import find_data
from ftlib.store import write_atomic

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = ["03", "04", "05", "10", "09", "06", "07", "01", "02", "08", "13", "12", "14", "15", "18", "19", "17", "11"]
BENCHES = ["fit", "curve", "calibrate", "sweep", "glyphs"]
SIZE = 224  # pixels, of photographs at full size
TAIL = 60  # lines of a step's output that are kept


def steps() -> dict[str, list[str]]:
    """Name to command, in order."""
    found = {"tests": ["-m", "pytest", "tests/test_cuda.py"]}
    found |= {f"bench {name}": ["-m", "tests.bench", name] for name in BENCHES}
    found |= {f"chapter {nn}": chapter("gpu", nn) for nn in CHAPTERS}
    for profile in ("office31", "tinyimagenet"):
        with suppress(FileNotFoundError):
            find_data(profile)
            found |= full_size(profile)
    return found


def full_size(profile: str) -> dict[str, list[str]]:
    """A profile's chapters, with all that says how large images are, in mappings that are laid over its own."""
    of = yaml.safe_load((ROOT / f"book/profiles/{profile}.yml").read_text(encoding="utf-8"))
    own = {name: of["parameters"][name]["size"] for name in ("data", "pretraining", "recipe")}
    more = [part for n, size in own.items() for part in ("-p", f"{n}={{size: {round(size * SIZE / own['recipe'])}}}")]
    return {f"{profile} {name[:2]}": [*chapter(profile, name), *more] for name in of["chapters"]}


def chapter(profile: str, name: str) -> list[str]:
    stage = str(ROOT / "_build/gpu" / profile)  # one for each profile
    return ["book/execute.py", "--profile", profile, "--chapters", name, "--stage", stage]


def run_slice(todo: dict[str, list[str]], results: Path, device: str, budget: float) -> int:
    """Do what is not done yet, for ``budget`` seconds; 0 if all is done, 2 if more is to do, 1 if a step failed."""
    told = json.loads(results.read_text(encoding="utf-8")) if results.exists() else {}
    done = told.setdefault(device, {})
    end = time.monotonic() + budget
    for name, command in todo.items():
        if done.get(name, {}).get("returncode") == 0:
            continue
        if (left := end - time.monotonic()) < min(30, budget / 2):
            break
        start, timed_out = time.monotonic(), False
        child = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            output = child.communicate(timeout=left)[0]
        except subprocess.TimeoutExpired:
            child.terminate()  # execute.py ends its kernels, and the store keeps what is finished
            output, timed_out = child.communicate()[0], True
        spent = round(done.get(name, {}).get("seconds", 0) + time.monotonic() - start, 1)
        code = None if timed_out else child.returncode
        done[name] = {"returncode": code, "seconds": spent, "output": output.splitlines()[-TAIL:]}
        write_atomic(results, (json.dumps(told, indent=1, sort_keys=True) + "\n").encode())
        print(f"{name}: {'to be continued' if timed_out else 'done' if code == 0 else 'FAILED'}, {spent:.0f} s so far")
        if timed_out:
            break
    codes = [done.get(name, {}).get("returncode") for name in todo]
    left = sum(code is None for code in codes)
    print(f"{device}: {codes.count(0)} of {len(todo)} steps done, {left} left; {results}")
    return 2 if left else int(any(codes))


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=540, help="of a slice; default: nine minutes")
    parser.add_argument("--results", type=Path, default=ROOT / "_build/gpu/results.json")
    args = parser.parse_args(argv)
    if not torch.cuda.is_available():
        print(
            "make gpu: torch sees no GPU on this machine, so there is nothing here that only a GPU can tell.",
            file=sys.stderr,
        )
        return 1
    return run_slice(steps(), args.results, torch.cuda.get_device_name(), args.seconds)


if __name__ == "__main__":
    sys.exit(main())
