"""book/lay_out.py: published archives, in miniature, become the folders that the chapters read; whole or not at all."""

import importlib.util
import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from PIL import Image

spec = importlib.util.spec_from_file_location("lay_out", Path(__file__).parent.parent / "book/lay_out.py")
lay_out = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lay_out)


def picture(size=(20, 30), kind="PNG") -> bytes:
    data = io.BytesIO()
    Image.new("RGB", size, "teal").save(data, kind)
    return data.getvalue()


def tar(path: Path, files: dict[str, bytes], link: str | None = None) -> Path:
    with tarfile.open(path, "w:gz") as opened:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            opened.addfile(entry, io.BytesIO(data))
        if link:
            entry = tarfile.TarInfo(link)
            entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
            opened.addfile(entry)
    return path


def packed(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as opened:
        for name, data in files.items():
            opened.writestr(name, data)
    return path


def found(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


@pytest.fixture
def characters(tmp_path) -> list[Path]:
    """The three archives with two images a class, and what is left out: small letters, I and O, other fonts."""
    fonts, street, hand = {}, {}, {}
    for number in range(1, 63):
        for image in (8, 15, 16):
            fonts[f"English/Fnt/Sample{number:03}/img{number:03}-{image:05}.png"] = picture()
        for kind in ("GoodImg", "BadImag"):
            street[f"English/Img/{kind}/Bmp/Sample{number:03}/img{number:03}-00001.png"] = picture()
            street[f"English/Img/{kind}/Msk/Sample{number:03}/img{number:03}-00001.png"] = picture()
        letter = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"[number - 1]
        hand[f"V0.3/data/{number - 1}/{letter} (7).png"] = picture()
        hand[f"V0.3/data-bin/{number - 1}/{letter} (7).png"] = picture()
    return [
        tar(tmp_path / "EnglishFnt.tgz", fonts),
        tar(tmp_path / "EnglishImg.tgz", street),
        packed(tmp_path / "V0.3.zip", hand),
    ]


def test_characters_are_34_classes_in_three_domains_at_48_pixels(characters, tmp_path):
    counts = lay_out.lay_out("chars74k", characters, tmp_path / "laid")
    assert len(counts) == 3 * 34 and {name[-1] for name in counts} == set(lay_out.READABLE)
    assert {counts["font/A"], counts["scene/A"]} == {2} and counts["hand/A"] == 1
    assert {"font/A/img011-00008.jpg", "font/A/img011-00016.jpg"} <= {*found(tmp_path / "laid")}
    assert {"scene/Z/img036-00001.jpg", "scene/Z/bimg036-00001.jpg", "hand/Z/7.jpg"} <= {*found(tmp_path / "laid")}
    with Image.open(tmp_path / "laid/scene/Z/img036-00001.jpg") as image:
        assert (image.size, image.mode) == ((48, 48), "RGB")


def test_of_tiny_imagenet_the_training_images_0_to_149_are_copied_as_they_are(tmp_path):
    data = picture(kind="JPEG")
    names = [f"train/n01443537/images/n01443537_{n}.JPEG" for n in (0, 149, 150)]
    names += ["val/images/val_0.JPEG", "train/n01443537/n01443537_boxes.txt"]
    archive = packed(tmp_path / "tiny.zip", {f"tiny-imagenet-200/{name}": data for name in names})
    lay_out.lay_out("tinyimagenet", [archive], tmp_path / "laid")
    assert found(tmp_path / "laid") == ["n01443537/n01443537_0.JPEG", "n01443537/n01443537_149.JPEG"]
    assert (tmp_path / "laid/n01443537/n01443537_0.JPEG").read_bytes() == data


@pytest.mark.parametrize("above", ["", "domain_adaptation_images/"])
def test_office_31_loses_the_folder_images(tmp_path, above):
    names = [f"{above}{domain}/images/bike/frame_0001.jpg" for domain in ("amazon", "dslr", "webcam")]
    archive = tar(tmp_path / "office.tar.gz", dict.fromkeys(names, b"kept as it is"))
    lay_out.lay_out("office31", [archive], tmp_path / "laid")
    assert found(tmp_path / "laid") == [f"{d}/bike/frame_0001.jpg" for d in ("amazon", "dslr", "webcam")]


def test_no_path_of_an_archive_leads_out_of_the_folder(tmp_path):
    good = {f"{domain}/images/bike/frame_0001.jpg": b"x" for domain in ("amazon", "dslr", "webcam")}
    bad = {"../../amazon/images/bike/frame_0002.jpg": b"x", "amazon/images/../frame_0003.jpg": b"x"}
    archive = tar(tmp_path / "office.tar.gz", good | bad, link="amazon/images/bike/frame_0004.jpg")
    lay_out.lay_out("office31", [archive], tmp_path / "in/laid")
    assert found(tmp_path / "in") == [
        "laid/amazon/bike/frame_0001.jpg", "laid/amazon/bike/frame_0002.jpg", "laid/dslr/bike/frame_0001.jpg",
        "laid/webcam/bike/frame_0001.jpg",
    ]  # fmt: skip


def test_a_folder_that_is_there_is_left_alone(tmp_path, capsys):
    (tmp_path / "laid").mkdir()
    archive = tar(tmp_path / "office.tar.gz", {"amazon/images/bike/frame_0001.jpg": b"x"})
    assert lay_out.main(["office31", str(archive), "--to", str(tmp_path / "laid")]) == 1
    assert "laid is there already: move it away" in capsys.readouterr().err and not found(tmp_path / "laid")


def broken(tmp_path: Path) -> Path:
    whole = tar(tmp_path / "whole.tar.gz", {f"amazon/images/bike/frame_{n:04}.jpg": bytes(9000) for n in range(99)})
    (tmp_path / "cut.tar.gz").write_bytes(whole.read_bytes()[:-200])
    return tmp_path / "cut.tar.gz"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p: p / "none.zip", "none.zip is no file: it is published as Office-31"),
        (lambda p: (p / "a.txt").write_text("no") and p / "a.txt", "is no zip or tar archive"),
        (lambda p: tar(p / "a.tar", {"readme": b""}), "has no image of office31"),
        (lambda p: tar(p / "a.tar", {"amazon/images/bike/frame_0001.jpg": b"x"}), "no image for dslr, webcam"),
        (broken, "is damaged"),
    ],
)
def test_an_archive_that_will_not_do_is_told_in_a_line_and_leaves_nothing(tmp_path, capsys, make, said):
    assert lay_out.main(["office31", str(make(tmp_path)), "--to", str(tmp_path / "in/laid")]) == 1
    assert said in capsys.readouterr().err
    assert not list(tmp_path.glob("in/*")) and not list(tmp_path.glob("in/.*"))


def test_a_picture_that_cannot_be_read_names_itself(tmp_path, characters):
    bad = tar(tmp_path / "bad.tgz", {"English/Fnt/Sample001/img001-00008.png": b"no picture"})
    with pytest.raises(ValueError, match=r"img001-00008.png in .*bad.tgz cannot be read as an image"):
        lay_out.lay_out("chars74k", [bad, *characters], tmp_path / "laid")
    assert not (tmp_path / "laid").exists()


def test_it_says_source_licence_size_and_counts(tmp_path, capsys):
    names = [f"{domain}/images/bike/frame_0001.jpg" for domain in ("amazon", "dslr", "webcam")]
    archive = tar(tmp_path / "office.tar.gz", dict.fromkeys(names, b"x"))
    assert lay_out.main(["office31", str(archive), "--to", str(tmp_path / "laid")]) == 0
    said = capsys.readouterr().out
    assert "source:  Office-31" in said and "licence: none is stated" in said and "size:    3 images" in said
    assert "amazon: 1 classes of 1 to 1 images" in said
