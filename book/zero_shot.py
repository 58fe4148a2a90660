"""Checkpoints of CLIP ViT-B/32 for the sets of VTAB, whose head are its embeddings of the class names: CLIP zero-shot.

    python book/zero_shot.py                                     every set below $FTLIB_DATA/vtab-1k
    python book/zero_shot.py dtd eurosat --tower FILE            some of them, with the image tower from a file
    python book/zero_shot.py dtd --head FILE                     embeddings [classes, 512] from a .safetensors file

Each becomes $FTLIB_DATA/clip/<set>.safetensors, as profile vtab reads it. The image tower is timm's, from its hub or a
file. Embeddings take open_clip (pip install open_clip_torch), the set's classnames.txt and its
zeroshot_classification_templates.txt, both from its data set of clip-benchmark on Hugging Face.
"""

import argparse
import sys

import ftlib  # first of all that imports timm
import timm
from ftlib import checkpoints, clip
from ftlib.benchmarks import vtab
from ftlib.core import find_data
from ftlib.store import write_atomic
from safetensors.torch import save


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", metavar="SET", help=", ".join(vtab.SETS))
    parser.add_argument("--tower", help="timm's weights of the image tower, in place of its hub's")
    parser.add_argument("--head", help="embeddings of one set's classes, in place of open_clip's")
    args = parser.parse_args(argv)
    try:
        data = find_data("vtab-1k").parent
        sets = args.sets or [name for name in vtab.SETS if (data / "vtab-1k" / name).is_dir()]
        if not sets or (args.head and len(sets) > 1):
            raise ValueError(f"{len(sets)} sets of VTAB in {data}: name those you mean, one alone with --head")
        heads = {name: embeddings(name, args.head) for name in sets}
        tower = read_tower(args.tower)
        for name, head in heads.items():
            path = data / "clip" / f"{name}.safetensors"
            write_atomic(path, save({k: v.contiguous() for k, v in clip.weights(tower, head).items()}))
            print(path)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        print(f"zero_shot: {error}", file=sys.stderr)
        return 1
    return 0


def embeddings(name, head):
    """A set's embeddings [classes, width], from a file or by open_clip."""
    classes = len(vtab.class_names(name))
    if head:
        found = clip.read_head(checkpoints.find(head))
        if len(found) != classes:
            raise ValueError(f"{head} has embeddings of {len(found)} classes: {name} has {classes}")
        return found
    folder = find_data(f"vtab-1k/{name}")
    files = [folder / file for file in ("classnames.txt", "zeroshot_classification_templates.txt")]
    if missing := [file.name for file in files if not file.is_file()]:
        raise ValueError(
            f"{folder} has no {' and no '.join(missing)}: take them from its data set of clip-benchmark on "
            "Hugging Face, such as wds_vtab-eurosat and wds_sun397, or give embeddings with --head"
        )
    templates = [line.strip() for line in files[1].read_text(encoding="utf-8").splitlines() if line.strip()]
    return clip.embed(vtab.class_names(name), templates)


def read_tower(file):
    """The image tower's weights, from a file or timm's hub."""
    if file:
        return checkpoints.read(checkpoints.find(file))
    try:
        return timm.create_model(f"{clip.TOWER}.openai", pretrained=True, num_classes=512).state_dict()
    except Exception as error:
        raise RuntimeError(
            f"the image tower could not be fetched ({type(error).__name__}): download model.safetensors of "
            f"timm/{clip.TOWER}.openai on a machine that can reach the hub, and name it with --tower"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
