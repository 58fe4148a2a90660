"""``python -m ftlib calibrate``, or ``ftlib calibrate``: from files to γ, and to a calibrated checkpoint."""

from __future__ import annotations

import argparse
import html
import io
import json
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import ftlib
from ftlib import files
from ftlib.core import ClassSplit
from ftlib.heads import HEADS, levels, read_by
from ftlib.metrics import seen_unseen_curve
from ftlib.recommend import Calibrated, choose_head
from ftlib.store import usable, write_atomic

EXAMPLES = """\
examples:
  ftlib calibrate --logits train.npz --seen 0-49
      train.npz: logits [N, C] and labels [N] of the images that were fine-tuned on; perhaps old_head [N, C], what the
      pre-trained head says to the same features, and unlabelled [M, C], logits of images as they come in use
  ftlib calibrate --logits train.csv --seen cat,dog,horse --report report
      a column "label", and a column of logits for each class, named after it
  ftlib calibrate --model resnet50 --before a.pth --after b.pth --images photos --seen seen.txt --output c.safetensors
      photos: a folder a class; those of seen classes are read. torchvision:resnet50 and mine.models:make serve as well;
      fine-tuned at another size than timm knows: --options '{"pretrained_cfg_overlay": {"input_size": [3, 96, 96]}}'
  ftlib calibrate --logits train.npz --seen 0-49 --min-sy 0.9

exit code: 0 done; 1 γ is not advised, and no checkpoint is written without --force; 2 something given is wrong
"""

SERVES = {
    "new": "",
    "restored": ", for the pre-trained rows of absent classes in the fine-tuned head",
    "levelled": ", for the pre-trained rows of absent classes, levelled, in the fine-tuned head",
    "old": ", for the pre-trained head",
    "both": ", for the sum of both heads",
}


def parser() -> argparse.ArgumentParser:
    main = argparse.ArgumentParser("ftlib", description=(ftlib.__doc__ or "").partition("\n")[0])
    main.add_argument("--version", action="version", version=f"ftlib {ftlib.__version__}")
    own = main.add_subparsers(dest="command", required=True).add_parser(
        "calibrate",
        help="find γ for a classifier that was fine-tuned on some of its classes",
        description="Find γ, what to add to the logits of the classes that fine-tuning did not see.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = own.add_argument
    add("--seen", required=True, metavar="IDS|NAMES|FILE", help="the classes fine-tuned on: 0-4,7 or cat,dog or a file")
    add("--absent", metavar="IDS|NAMES|FILE", help="the classes that were not; all others if not given")
    add("--classes", type=Path, metavar="FILE", help="names of all classes in the head's order, one a line")
    add("--logits", type=Path, metavar="FILE", help=".npz, .safetensors, .csv or .parquet with logits and labels")
    add("--model", metavar="NAME", help="of timm, or torchvision:NAME, or module:function")
    add("--options", type=_json, default={}, metavar="JSON", help="keywords for the model: '{\"img_size\": 128}'")
    add("--before", type=Path, metavar="FILE", help="the checkpoint before fine-tuning")
    add("--after", type=Path, metavar="FILE", help="the checkpoint after it")
    add("--images", type=Path, metavar="DIR", help="images that were fine-tuned on, or better others of these classes")
    add(
        "--head",
        choices=(*HEADS, "best"),
        help="to serve: the fine-tuned one, the same with the pre-trained rows of absent classes restored, "
        "these levelled (none stands out on images of seen ones), the pre-trained one, the sum of both, or what does "
        "best on these images; levelled for checkpoints, else new",
    )
    add("--device", help="where the model runs: cpu, cuda, …")
    add("--test", type=Path, metavar="FILE", help="logits of all classes: unlabelled, or labelled to hear the best γ")
    add(
        "--share",
        type=_share,
        metavar="NUMBER|unlabelled",
        help="of absent images in use; 'unlabelled' estimates it on --test",
    )
    add("--weight", type=float, help="what an absent image counts if a seen one counts 1")
    add("--min-sy", type=float, metavar="ACC", help="seen accuracy to keep")
    add("--min-uy", type=float, metavar="ACC", help="absent accuracy that mirror images reach; real ones reach less")
    add("--output", type=Path, metavar="FILE", help="calibrated checkpoint: .safetensors, same keys, another head")
    add("--report", type=Path, metavar="STEM", help="writes STEM.json and STEM.html")
    add("--force", action="store_true", help="overwrite files; write a checkpoint that is not advised")
    return main


def main(arguments: Sequence[str] | None = None) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal may have no γ
    args = parser().parse_args(arguments)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Those that reach this module are of the files given: which of two models in a checkpoint is taken.
            warnings.filterwarnings("once", category=UserWarning, module=r"(ftlib\.)?__main__$")
            warnings.showwarning = lambda text, *_, **__: print(f"ftlib: {text}", file=sys.stderr)
            return _calibrate(args)
    except Exception as error:  # 1 means that γ is not advised, so that nothing else may end with it
        kind = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
        print(f"ftlib: {kind}{' '.join(str(error).split())}", file=sys.stderr)
        return 2


def _calibrate(args: argparse.Namespace) -> int:
    written = [args.output, *(Path(f"{args.report}{end}") for end in (".json", ".html") if args.report)]
    if args.output and args.output.suffix != ".safetensors":
        raise ValueError(f"--output {args.output}: expected a name that ends in .safetensors")
    for path in filter(None, written):
        _writable(path, args.force)
    names = files.names_in(args.classes) if args.classes else None
    checkpoint, given = None, (args.model, args.before, args.after, args.images)
    if args.logits is not None and not any(given):
        if args.output:
            raise ValueError("--output needs a checkpoint: give --model, --before, --after and --images, not --logits")
        arrays = files.read_arrays(args.logits)
        names, total = names or arrays.get("names"), arrays["logits"].shape[-1]
        split = _split(args, names, total)
    elif args.logits is None and all(given):
        from ftlib import own  # and timm with it, which takes seconds

        checkpoint = own.Checkpoints(args.model, args.before, args.after, args.options, writes=bool(args.output))
        split, arrays = _collected(args, own, checkpoint, names)
    else:
        raise ValueError("expected either --logits, or all of --model, --before, --after and --images")
    test = files.read_arrays(args.test, labelled=False) if args.test else {}
    for path, of in ((args.logits, arrays), (args.test, test)):
        columns = of.get("names", [])
        if names and columns != names and not all(column.isdigit() for column in columns):
            told = f"{', '.join(names[:3])}, …"
            raise ValueError(f"the columns of {path} are not the classes {told}: give them these names, in this order")
    prefer = {n: v for n in ("share", "weight", "min_sy", "min_uy") if (v := getattr(args, n)) is not None}
    mixed = test.get("logits", test.get("unlabelled", arrays.get("unlabelled")))
    unlabelled = None if mixed is None else (mixed, test.get("old_head") if "logits" in test else None)
    unread = unlabelled is not None and unlabelled[1] is None
    asked = args.head or ("levelled" if checkpoint and not unread else "new")
    if asked != "new" and unread:
        raise ValueError(f"--head {asked} needs old_head beside the logits of other images: give --test both")
    heads = HEADS if asked == "best" else (asked,)
    given = arrays["logits"], arrays.get("old_head")
    head, found = choose_head(given[0], arrays["labels"], split, given[1], unlabelled, prefer, heads)
    if "logits" in test:
        test["logits"] = read_by(head, test["logits"], split, test.get("old_head"), given)[0]
    report = _report(found, test) | {"head": head}
    print(text := _text(report))
    if args.report:
        write_atomic(written[1], json.dumps(report, indent=1, ensure_ascii=False).encode() + b"\n")
        write_atomic(written[2], _page(text).encode())
    if checkpoint and args.output:
        if not found.advised and not args.force:
            print(f"{args.output} is not written, since γ is not advised; --force writes it")
        else:
            level = levels(read_by("restored", given[0], split, given[1])[0], split) if head == "levelled" else 0.0
            checkpoint.write(args.output, found.gamma, head, level, estimator=found.estimator, ftlib=ftlib.__version__)
            print(f"{args.output} is written: the checkpoint with γ in its bias{SERVES[head]}")
    return 0 if found.advised else 1


def _collected(args: argparse.Namespace, own: Any, checkpoint: Any, names: list[str] | None) -> tuple[ClassSplit, Any]:
    """The split, and the arrays that the two checkpoints give to the images of seen classes."""
    from torch.utils.data import DataLoader
    from tqdm import tqdm

    from ftlib import models

    device = usable(args.device)
    images, total = own.image_folder(args.images, checkpoint.model), checkpoint.classes
    every = names or images.classes
    if len(every) != total:
        how = "give --classes FILE, all names in the head's order"
        raise ValueError(f"{len(every)} class names ({', '.join(every[:3])}, …) for a head of {total}: {how}")
    if unknown := [f for f in images.classes if f not in every]:
        raise ValueError(f"the folder {unknown[0]!r} of {args.images} is none of the class names in {args.classes}")
    split, ids = _split(args, every, total), [every.index(f) for f in images.classes]
    images.samples = [(file, ids[c]) for file, c in images.samples if ids[c] in split.seen]
    if not images.samples:
        raise ValueError(f"{args.images} has no image in a folder of a seen class, such as {every[split.seen[0]]}")
    with tqdm(DataLoader(images, batch_size=32), "images", unit="batch") as batches:
        features, logits, labels = own.collect(checkpoint.model, batches, device)
    with torch.no_grad():
        old_head = models.head(checkpoint.old)(features)
    return split, {"logits": logits, "labels": labels, "old_head": old_head}


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r} is no JSON: expected the like of {{"img_size": 128}}') from None


def _share(text: str) -> float | str:
    try:
        return text if text == "unlabelled" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number or the word unlabelled") from None


def _split(args: argparse.Namespace, names: Sequence[str] | None, total: int) -> ClassSplit:
    if names and len(names) != total:
        raise ValueError(f"{len(names)} class names for {total} columns of logits: name every class, in their order")
    seen = files.class_columns(args.seen, names, total, "--seen")
    rest = [c for c in range(total) if c not in set(seen)]
    return ClassSplit(seen, files.class_columns(args.absent, names, total, "--absent") if args.absent else rest)


def _writable(path: Path, force: bool) -> None:
    """Before anything is computed: the file may be written."""
    if path.exists() and not force:
        raise ValueError(f"{path} exists: name another file, or overwrite it with --force")
    folder = next(p for p in path.absolute().parents if p.exists())
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ValueError(f"{path} cannot be written: name a file in a folder that can")


# --- what is said -----------------------------------------------------------------------------------------------------


def _report(found: Calibrated, test: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values; unknown accuracies are None."""
    split = found.gamma.split
    report: dict[str, Any] = {
        "gamma": float(found.gamma), "estimator": found.estimator, "interval": found.interval, "spread": found.spread,
        "by_estimator": {name: float(gamma) for name, gamma in found.by_estimator.items()},
        "without": found.without._asdict(), "with_gamma": found.with_gamma._asdict(), "share": found.share,
        "advised": found.advised, "advice": [a._asdict() for a in found.advice],
        "seen": split.seen, "absent": split.absent, "ftlib": ftlib.__version__,
    }  # fmt: skip
    if {"logits", "labels"} <= test.keys():  # of as many columns: calibrate has looked
        curve = seen_unseen_curve(test["logits"], test["labels"], split)
        gammas = {"0": 0.0, "gamma": float(found.gamma), "best": curve.best_gamma()}
        report["test"] = {"ausuc": curve.ausuc, "best_gamma": gammas["best"]}
        report["test"] |= {name: curve.at(gamma)._asdict() for name, gamma in gammas.items()}
    return json.loads(json.dumps(report), parse_constant=lambda name: None)


def _text(report: Mapping[str, Any]) -> str:
    low, high = (_n(end) for end in report["interval"])
    without, with_gamma = report["without"], report["with_gamma"]
    serves = SERVES[report["head"]]
    most, turns = with_gamma["absent_at_most"], "rises" if report["gamma"] > 0 else "falls"
    lines = [
        f"γ = {_n(report['gamma'])} by {report['estimator']}{serves}; resampled images and classes: {low} to {high}",
        "all estimators: " + ", ".join(f"{name} {_n(gamma)}" for name, gamma in report["by_estimator"].items()),
        _change("seen accuracy on these images", without["seen"], with_gamma["seen"]),
        f"absent accuracy: {turns}; how far only images of absent classes can tell"
        + (f", and mirror images of these bound it: at most {100 * most:.1f} % with γ" if most is not None else ""),
    ]
    if test := report.get("test"):
        lines += [
            _change(f"test: {what} accuracy", test["0"][key], test["gamma"][key])
            for key, what in (("yy", "overall"), ("sy", "seen"), ("uy", "absent"))
        ]
        lines.append(f"test: the best γ is {_n(test['best_gamma'])}, overall accuracy {100 * test['best']['yy']:.1f} %")
    lines += [f"{a['level']}: {a['text']}" for a in report["advice"]]
    return "\n".join(lines + ([] if report["advised"] else ["γ is not advised"]))


def _n(value: float, form: str = ".2f") -> str:
    return f"{value:{form}}".replace("-", "−")


def _change(what: str, a: float, b: float) -> str:
    return f"{what}: {100 * a:.1f} % without γ, {100 * b:.1f} % with it ({_n(100 * (b - a), '+.1f')} points)"


def _page(text: str) -> str:
    rows = "".join(f"<p>{html.escape(line)}</p>" for line in text.splitlines())
    style = "body{font:16px sans-serif;max-width:44em;margin:2em auto;padding:0 1em}"
    return f'<!doctype html><html lang="en"><meta charset="utf-8"><title>γ</title><style>{style}</style>{rows}'


if __name__ == "__main__":
    sys.exit(main())
