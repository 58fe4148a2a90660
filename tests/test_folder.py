"""Photographs in folders: decoded once, kept in a cache, and never trusted."""

from __future__ import annotations

import os
import re
import shutil
import tracemalloc
import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ftlib.benchmarks import decoding, folder, identity, left_out, load, load_domain, source_of

RED = (200, 30, 30)


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (24, 16), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(256, size=(size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("FTLIB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("FTLIB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path) -> Path:
    """Two domains, one with a hyphen, of three classes with ten images each."""
    for d, domain in enumerate(("art", "real-world")):
        for c, name in enumerate(("cup", "fork", "pan")):
            for i in range(10):
                picture(tmp_path / "data/home" / domain / name / f"{i}.png", seed=100 * d + 10 * c + i)
    return tmp_path / "data/home"


def only(path: Path) -> np.ndarray:
    """How a single image is decoded at size 8, [3, 8, 8]."""
    return decoding._decode(path, 8)


def test_a_root_is_found_in_ftlib_data(root):
    benchmark = load("folder:home/art-real-world", size=8)
    assert benchmark.class_names == ("cup", "fork", "pan")
    assert benchmark.source.images.shape == (21, 3, 8, 8)
    assert benchmark.target_test.labels.bincount().tolist() == [3, 3, 3]


def test_a_root_may_be_absolute_or_relative_to_the_working_directory(root, monkeypatch):
    monkeypatch.delenv("FTLIB_DATA")
    monkeypatch.chdir(root.parent)
    assert len(load_domain("folder:home/art", size=8).train) == 21
    assert len(load_domain(f"folder:{root}/art", size=8).train) == 21


def test_a_domain_with_a_hyphen_can_be_the_source(root):
    assert source_of("folder:home/real-world-art", {"size": 8}) == ("folder:home/real-world", {"size": 8})


def test_a_source_can_be_named_without_its_images():
    """A run store is read where the images are not."""
    assert source_of("folder:gone/amazon-dslr", {})[0] == "folder:gone/amazon"


def test_a_second_load_decodes_nothing(root, monkeypatch):
    first = load_domain("folder:home/art", size=8)
    monkeypatch.setattr(decoding, "_decode", lambda *_: pytest.fail("decoded again"))
    second = load_domain("folder:home/art", size=8)
    assert first.train.images.equal(second.train.images) and first.test.labels.equal(second.test.labels)


def test_decoding_takes_the_memory_of_the_images_once(root):
    for i in range(100):
        shutil.copy(root / f"art/cup/{i % 10}.png", root / f"art/cup/more{i}.png")
    listed = folder.listing("home/art")
    tracemalloc.start()
    images, *_ = decoding.decoded(listed, 64)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(images) == 130 and peak < 1.5 * images.nbytes


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_a_damaged_cache_is_made_anew(root, tmp_path, damage):
    before = load_domain("folder:home/art", size=8).train.images
    (cached,) = (tmp_path / "cache").glob("*.npy")
    content = bytearray(cached.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    else:
        content[len(content) // 2] ^= 255
    cached.write_bytes(content)
    with pytest.warns(UserWarning, match="damaged"):
        assert load_domain("folder:home/art", size=8).train.images.equal(before)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_domain("folder:home/art", size=8)


def test_a_changed_image_is_decoded_again(root):
    before = load_domain("folder:home/art", size=8).train.images
    for path in (root / "art/cup").iterdir():
        os.utime(picture(path, seed=999 + int(path.stem)), ns=(1, 1))
    assert not load_domain("folder:home/art", size=8).train.images.equal(before)


def test_the_cache_holds_nothing_half_written_after_a_failed_write(root, tmp_path, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(UserWarning, match="No space left"):
        assert len(load_domain("folder:home/art", size=8).train) == 21
    assert not list((tmp_path / "cache").iterdir())


def test_files_that_are_not_images_are_named_and_counted_in_one_warning(root):
    (root / "art/cup/notes.txt").write_text("not an image")
    (root / "art/pan/torn.jpg").write_bytes(picture(root / "whole.jpg").read_bytes()[:200])
    (root / "art/pan/empty.png").touch()
    (root / "art/pan/.hidden").write_text("not looked at")
    with pytest.warns(UserWarning) as caught:
        domain = load_domain("folder:home/art", size=8)
    assert len(domain.train) == 21 and len(domain.test) == 9
    (message,) = (str(w.message) for w in caught)
    assert message.endswith(
        "files that are not images: 1 (cup/notes.txt); empty files: 1 (pan/empty.png); damaged images: 1 (pan/torn.jpg)"
    )


def test_an_empty_class_is_named_with_its_domain(root):
    for path in (root / "real-world/fork").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"real-world.*fork"):
        load("folder:home/art-real-world", size=8)


def test_a_missing_class_is_named_with_its_domain(root):
    for path in (root / "real-world/fork").iterdir():
        path.unlink()
    (root / "real-world/fork").rmdir()
    with pytest.raises(ValueError, match=r"real-world.*fork"):
        load("folder:home/art-real-world", size=8)


def test_a_missing_domain_is_answered_with_those_that_exist(root):
    for name in ("folder:home/art-clipart", "folder:home/clipart-art"):
        with pytest.raises(ValueError, match=r"clipart.*art, real-world"):
            load(name)


def test_a_missing_root_names_the_places_that_were_searched(root, tmp_path):
    with pytest.raises(ValueError, match=rf"(?s)office.*{re.escape(str(tmp_path / 'data'))}"):
        load("folder:office/amazon-dslr")


def test_an_identity_is_of_names_and_contents_wherever_they_lie(root, tmp_path):
    before = identity("folder:home/art-real-world")
    shutil.copytree(root, tmp_path / "data/elsewhere")  # other times
    assert identity("folder:elsewhere/art-real-world") == before
    assert before.split("+") == [identity("folder:home/art"), identity("folder:home/real-world")]


@pytest.mark.parametrize("change", ["content", "name", "class", "more"])
def test_another_image_is_another_identity(root, change):
    before, path = identity("folder:home/art-real-world"), root / "real-world/cup/3.png"
    if change == "content":
        picture(path, seed=999)
    elif change == "more":
        picture(path.with_name("10.png"))
    else:
        path.rename(path.with_name("x.png") if change == "name" else root / "real-world/pan/x.png")
    assert identity("folder:home/art-real-world") != before


def test_an_identity_reads_no_file_twice(root, monkeypatch):
    before = identity("folder:home/art")
    monkeypatch.setattr(decoding, "_digest", lambda *_: pytest.fail("read again"))
    assert identity("folder:home/art") == before


def test_images_that_are_not_here_have_no_identity(root):
    for name in ("folder:gone/art", "folder:gone/art-real-world", "folder:home/clipart"):
        with pytest.raises(FileNotFoundError):
            identity(name)


def test_drawn_images_need_no_identity():
    assert identity("glyphs/print-neon") == identity("digits/scan") == ""


def counts(name: str) -> dict[str, int]:
    """What is left out, as the second load tells it: from the cache."""
    first = left_out(name, {"size": 8})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "_decode", lambda *_: pytest.fail("decoded again"))
        assert left_out(name, {"size": 8}) == first
    return first


def test_what_was_left_out_is_told_by_every_load(root):
    for path in sorted((root / "art/cup").iterdir())[:4]:
        path.write_bytes(path.read_bytes()[:-200])
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"damaged images: 4 \(cup/0.png, cup/1.png"):
            load_domain("folder:home/art", size=8)
    assert counts("folder:home/art-real-world") == counts("folder:home/art") == {"damaged images": 4}
    assert left_out(["folder:home/art-real-world", "folder:home/real-world-art"], {"size": 8}) == {"damaged images": 4}
    assert decoding.left_out(folder.listing("home/art"), 8) == {"damaged images": [f"cup/{i}.png" for i in range(4)]}


def test_no_more_than_ten_names_are_told(root):
    for i in range(12):
        (root / f"art/cup/{i:02}.txt").write_text("no image")
    with pytest.warns(UserWarning, match=r": 12 \(.*and 2 more\)"):
        load_domain("folder:home/art", size=8)


def test_nothing_is_left_out_of_drawn_images_or_of_those_that_are_not_here():
    assert left_out("glyphs/print-neon") == left_out("folder:gone/art-real-world", {"size": 8}) == {}


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n", "git-lfs pointers without their file"),
        (b"/annex/objects/SHA256E-s9--ab.jpg\n", "git-annex pointers without their file"),
        (b"<!DOCTYPE html><html>404", "web pages instead of images"),
        (b"", "empty files"),
        (b"GIF99", "files that are not images"),
    ],
)
def test_a_file_that_stands_for_an_image_is_called_what_it_is(root, content, what):
    (root / "art/cup/0.png").write_bytes(content)
    assert counts("folder:home/art") == {what: 1}


@pytest.mark.parametrize(
    ("target", "what"),
    [
        ("/nowhere/0.png", "links that lead nowhere"),
        ("0.png", "links that lead nowhere"),  # to itself
        ("../../.git/annex/objects/x/0.png", "git-annex links that lead nowhere"),
        ("../../.dvc/cache/files/md5/ab/cd", "DVC links that lead nowhere"),
    ],
)
def test_a_link_that_leads_nowhere_is_counted(root, target, what):
    (root / "art/cup/0.png").unlink()
    (root / "art/cup/0.png").symlink_to(target)
    (root / "art/plate").symlink_to("/nowhere")  # what would be a class
    assert sum(counts("folder:home/art").values()) == 2 and what in counts("folder:home/art")


def test_a_dvc_pointer_counts_only_without_its_file(root):
    for name in ("cup/0.png", "cup/gone.png", "plate"):
        (root / f"art/{name}.dvc").write_text("outs:\n")
    assert counts("folder:home/art") == {"DVC pointers without their file": 2}


def test_a_class_of_nothing_but_pointers_is_told_what_they_are(root):
    for path in (root / "art/fork").iterdir():
        path.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match=r"no image of class fork; git-lfs pointers without their file: 10 "):
        load("folder:home/art-real-world", size=8)


def test_images_in_sub_folders_of_a_class_are_read(root):
    before = load_domain("folder:home/art", size=8)
    for i in range(4):
        (root / "art/cup" / f"session{i}/deep").mkdir(parents=True)
        (root / f"art/cup/{i}.png").rename(root / f"art/cup/session{i}/deep/{i}.png")
    after = load_domain("folder:home/art", size=8)
    assert {image.numpy().tobytes() for image in after.train.images} == {
        image.numpy().tobytes() for image in before.train.images
    }
    assert not counts("folder:home/art")


def test_a_link_back_up_is_not_followed_for_ever(root):
    (root / "art/cup/loop").symlink_to(root / "art")
    assert len(load_domain("folder:home/art", size=8).train) == 21


def test_a_link_to_a_class_is_followed(root, tmp_path):
    (root / "art/cup").rename(tmp_path / "cup")
    (root / "art/cup").symlink_to(tmp_path / "cup")
    assert len(load_domain("folder:home/art", size=8).train) == 21


def moved(domain: Path, layer) -> None:
    """Put each class of a domain below a folder of its own, ``layer(i)`` for its i-th image."""
    for path in sorted(domain.glob("*/*.png")):
        to = domain / layer(int(path.stem)) / path.parent.name / path.name
        to.parent.mkdir(parents=True, exist_ok=True)
        path.rename(to)
    for folder_ in domain.iterdir():
        if not any(folder_.rglob("*.png")):
            folder_.rmdir()


@pytest.mark.parametrize(
    "layer",
    [lambda i: "images", lambda i: "art/images", lambda i: ("train", "val", "Test")[i % 3], lambda i: "images/train"],
    ids=["official Office-31", "unpacked twice", "train, val, test", "both"],
)
def test_a_layer_between_domain_and_class_is_seen_through(root, layer):
    before = load_domain("folder:home/art", size=8)
    moved(root / "art", layer)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        after = load("folder:home/art-real-world", size=8)
    assert after.class_names == ("cup", "fork", "pan")
    assert sorted(i.numpy().tobytes() for i in after.source.images) == sorted(
        i.numpy().tobytes() for i in before.train.images
    )
    pooled = (root / "art/val").exists() or (root / "art/images/train").exists()
    assert [("layers put together" in str(w.message)) for w in caught] == [True] * pooled
    assert not counts("folder:home/art")  # they take part


def test_images_right_in_train_and_test_are_refused(root):
    picture(root / "photo/train/1.png"), picture(root / "photo/test/2.png")
    with pytest.raises(ValueError, match=r"photo holds test, train: expected"):
        load_domain("folder:home/photo", size=8)


def test_a_class_may_be_called_train(root):
    for domain in ("art", "real-world"):
        (root / domain / "fork").rename(root / domain / "train")
    assert load("folder:home/art-real-world", size=8).class_names == ("cup", "pan", "train")


def test_a_domain_without_two_classes_is_refused(root):
    picture(root / "flat/1.png")
    picture(root / "single/cup/1.png")
    for name, holds in (("flat", "no folders with images"), ("empty", "no folders with images"), ("single", "cup")):
        (root / name).mkdir(exist_ok=True)
        with pytest.raises(ValueError, match=f"{name} holds {holds}"):
            load_domain(f"folder:home/{name}", size=8)


def test_folders_that_take_no_part_are_told(root):
    picture(root / "__MACOSX/art/cup/1.png"), picture(root / ".git/cup/1.png")
    picture(root / "art/@eaDir/1.png"), picture(root / "art/cup/@eaDir/1.png"), picture(root / "art/.cache/1.png")
    for notes in ("docs/html", "art/notes"):
        (root / notes).mkdir(parents=True)
        (root / notes / "index.html").write_text("text")
    picture(root / "art/cover.png")
    assert load("folder:home/art-real-world", size=8).class_names == ("cup", "fork", "pan")
    assert decoding.left_out(folder.listing("home/art"), 8) == {
        "folders that are no domains": ["home/.git", "home/__MACOSX", "home/docs"],
        "hidden or system folders": [".cache", "@eaDir", "cup/@eaDir"],
        "folders without images": ["notes"],
        "images outside of a class": ["cover.png"],
    }


def test_a_third_domain_of_other_classes_disturbs_no_pair(root):
    picture(root / "sketch/knife/1.png"), picture(root / "sketch/spoon/1.png")
    assert load("folder:home/art-real-world", size=8).class_names == ("cup", "fork", "pan")
    with pytest.raises(ValueError, match=r"art has no class knife, spoon.*sketch has no class cup, fork, pan"):
        load("folder:home/art-sketch", size=8)


def test_names_match_across_unicode_forms(root):
    composed, apart = unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")
    (root / "art/cup").rename(root / "art" / composed), (root / "real-world/cup").rename(root / "real-world" / apart)
    (root / "art").rename(root / apart)
    assert load(f"folder:home/{composed}-real-world", size=8).class_names == (composed, "fork", "pan")
    assert source_of(f"folder:home/{apart}-real-world", {})[0] == f"folder:home/{composed}"
    picture(root / "real-world" / composed / "new.png", seed=999)  # one class in two folders
    assert len(load_domain("folder:home/real-world", size=8).train) == 22


def test_a_tilde_is_the_home_folder(root, monkeypatch):
    monkeypatch.setenv("HOME", str(root.parent))
    assert len(load_domain("folder:~/home/art", size=8).train) == 21
    monkeypatch.setenv("FTLIB_DATA", "~")
    assert len(load_domain("folder:home/art", size=8).train) == 21


@pytest.mark.parametrize(
    "name", ["folder:home/art-real-world/", "folder:art-real-world", "folder:home.zip/art-real-world"]
)
def test_a_name_without_a_folder_or_a_domain_is_refused(root, name):
    (root.parent / "home.zip").touch()
    with pytest.raises(ValueError, match=r"expected (a folder )?ROOT/"):
        load(name)


@pytest.mark.parametrize("place", ["/dev/null", "/dev/null/cache"])
def test_a_cache_that_cannot_be_made_is_one_sentence(root, monkeypatch, place):
    monkeypatch.setenv("FTLIB_CACHE", place)
    with pytest.warns(UserWarning) as caught:
        assert len(load_domain("folder:home/art", size=8).train) == 21 and identity("folder:home/art")
    assert {str(w.message).startswith(f"the image cache {place} could not be written") for w in caught} == {True}


def test_what_cannot_be_read_for_now_is_not_taken_for_damage(root, monkeypatch):
    def busy(*_):
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="Too many open files"):
        patch.setattr(decoding.Image, "open", busy)
        load_domain("folder:home/art", size=8)
    assert len(load_domain("folder:home/art", size=8).train) == 21


def test_copies_of_one_image_stay_on_one_side(root):
    for i in range(6):  # the same pixels in other files
        picture(root / f"art/cup/copy{i}.bmp", seed=0)
    for seed in range(10):
        domain = load_domain("folder:home/art", seed, size=8)
        train, test = ({image.numpy().tobytes() for image in s.images} for s in (domain.train, domain.test))
        assert not train & test


def test_a_class_with_a_single_image_cannot_be_split(root):
    for i in range(1, 10):
        (root / f"art/pan/{i}.png").unlink()
    with pytest.raises(ValueError, match="pan"):
        load_domain("folder:home/art", size=8)


def test_the_centre_of_a_wide_image_is_kept(tmp_path):
    image = Image.new("RGB", (40, 8), "black")
    image.paste(RED, (16, 0, 24, 8))
    image.save(tmp_path / "wide.png")
    assert np.array_equal(only(tmp_path / "wide.png"), np.broadcast_to(np.array(RED)[:, None, None], (3, 8, 8)))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_every_colour_mode_becomes_rgb(tmp_path, mode):
    image = Image.new("RGB", (8, 8), RED).convert(mode)
    image.save(tmp_path / f"image.{'jpg' if mode in ('CMYK', 'YCbCr') else 'png'}")
    (path,) = tmp_path.glob("image.*")
    decoded = only(path)
    assert decoded.dtype == np.uint8 and decoded.shape == (3, 8, 8)
    if mode in ("RGB", "RGBA", "CMYK", "YCbCr"):
        assert np.abs(decoded.astype(int).mean((1, 2)) - RED).max() < 6


def test_an_image_that_a_camera_turned_stands_upright(tmp_path):
    image = Image.new("RGB", (8, 8), "black")
    image.paste("white", (0, 0, 4, 8))  # the left half
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise: the left half comes to the top
    image.save(tmp_path / "turned.png", exif=exif)
    decoded = only(tmp_path / "turned.png")
    assert (decoded[:, :3] > 250).all() and (decoded[:, 5:] < 5).all()


RAMP = np.linspace(0, 1, 64).reshape(8, 8)


@pytest.mark.parametrize(
    ("values", "ending"),
    [
        ((RAMP * 65535).astype(np.uint16), "png"),
        ((RAMP * 65535).astype(np.uint16), "tif"),
        ((RAMP * 65535).astype(">u2"), "tif"),
        ((RAMP * 255).astype(np.int32), "tif"),
        ((RAMP * 65535).astype(np.int32), "tif"),
        ((RAMP * (2**31 - 1)).astype(np.int32), "tif"),
        ((RAMP * 1000 - 500).astype(np.int32), "tif"),
        (RAMP.astype(np.float32), "tif"),
        ((RAMP * 7 - 3).astype(np.float32), "tif"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.dtype} {value.min():.0f} to {value.max():.0f}",
)
def test_grey_of_more_than_eight_bits_is_scaled_not_clipped(tmp_path, values, ending):
    Image.fromarray(values).save(tmp_path / f"deep.{ending}")
    assert np.abs(only(tmp_path / f"deep.{ending}") - 255.0 * RAMP).max() <= 1


def test_an_unsigned_image_is_scaled_by_its_range_not_by_its_own_values(tmp_path):
    Image.fromarray((RAMP * 6553.5).astype(np.uint16)).save(tmp_path / "dark.png")
    assert only(tmp_path / "dark.png").max() == 25  # a tenth of white


def test_what_is_not_finite_in_a_float_image_is_black_or_white(tmp_path):
    values = RAMP.astype(np.float32)
    values[0, :3] = np.nan, np.inf, -np.inf
    Image.fromarray(values).save(tmp_path / "float.tif")
    assert only(tmp_path / "float.tif")[0, 0, :3].tolist() == [0, 255, 0]
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(tmp_path / "nan.tif")
    assert not only(tmp_path / "nan.tif").any()


def test_a_transparent_image_lies_on_white(tmp_path):
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "glass.png")
    assert (only(tmp_path / "glass.png") == 255).all()


def test_another_size_is_another_array(root):
    assert load_domain("folder:home/art", size=8).train.images.shape[-1] == 8
    assert load_domain("folder:home/art", size=12).train.images.shape[-1] == 12
