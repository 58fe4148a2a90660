"""Photographs in folders: decoded once, kept in a cache, and never trusted."""

from __future__ import annotations

import os
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ftlib.benchmarks import folder, identity, load, load_domain, source_of

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
    return folder._decode(path, 8)


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
    monkeypatch.setattr(folder, "_decode", lambda *_: pytest.fail("decoded again"))
    second = load_domain("folder:home/art", size=8)
    assert first.train.images.equal(second.train.images) and first.test.labels.equal(second.test.labels)


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
    monkeypatch.setattr(folder, "_digest", lambda *_: pytest.fail("read again"))
    assert identity("folder:home/art") == before


def test_images_that_are_not_here_have_no_identity(root):
    for name in ("folder:gone/art", "folder:gone/art-real-world", "folder:home/clipart"):
        with pytest.raises(FileNotFoundError):
            identity(name)


def test_drawn_images_need_no_identity():
    assert identity("glyphs/print-neon", {"classes": 5}) == identity("digits/scan") == ""


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


def test_a_transparent_image_lies_on_white(tmp_path):
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "glass.png")
    assert (only(tmp_path / "glass.png") == 255).all()


def test_another_size_is_another_array(root):
    assert load_domain("folder:home/art", size=8).train.images.shape[-1] == 8
    assert load_domain("folder:home/art", size=12).train.images.shape[-1] == 12


@pytest.mark.parametrize("size", [0, -3, "big"])
def test_a_size_that_is_none_is_refused(root, size):
    with pytest.raises(ValueError, match=f"{size}"):
        load_domain("folder:home/art", size=size)
