"""Which photos a source means."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bright_photos import Command, files, mask_of, overlap, save, vehicle
from carmask.pipeline.photo_list import PhotoList, SourceError
from carmask.pipeline.sources import find_photos, find_photos_of_all


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Photos in three folders, with the working folder above them."""
    monkeypatch.chdir(tmp_path)
    for name in ("cars/a.jpg", "cars/b.png", "cars/2024/c.jpg", "cars/2025/d.JPG", "cars/2025/notes.txt", "e.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def listed(source: str, stdin: bytes = b"") -> tuple[str, list[str]]:
    photos = find_photos(Path(source), results=None, read_stdin=lambda: stdin)
    return photos.root.as_posix(), list(photos.names)


@pytest.mark.usefixtures("tree")
def test_folders_patterns_and_single_photos() -> None:
    assert listed("cars") == ("cars", ["2024/c.jpg", "2025/d.JPG", "a.jpg", "b.png"])
    assert listed("cars/a.jpg") == ("cars", ["a.jpg"])
    assert listed("cars/*.jpg") == ("cars", ["a.jpg"])
    assert listed("cars/**/*.[jJ][pP][gG]") == ("cars", ["2024/c.jpg", "2025/d.JPG", "a.jpg"])
    assert listed("cars/**") == ("cars", ["2024/c.jpg", "2025/d.JPG", "a.jpg", "b.png"])
    assert listed("c?rs/2025/*") == (".", ["cars/2025/d.JPG"])
    # Folders that match are taken with all that is in them.
    assert listed("cars/202?") == ("cars", ["2024/c.jpg", "2025/d.JPG"])
    # Before `**` only they match.
    assert listed("cars/[2a]*/**/*.jpg") == ("cars", ["2024/c.jpg"])
    assert listed(str(Path.cwd() / "*.jpg")) == (Path.cwd().as_posix(), ["e.jpg"])
    with pytest.raises(SourceError, match=r"cars/\*\.bmp"):
        listed("cars/*.bmp")


@pytest.mark.skipif(os.name != "posix", reason="needs links")
@pytest.mark.usefixtures("tree")
def test_patterns_and_lists_take_what_the_folder_takes_and_each_photo_once() -> None:
    """Links to a folder above, thumbnails of a NAS, and what macOS puts into archives."""
    for link in ("cars/again", "cars/2024/more", "cars/2025/up"):
        Path(link).symlink_to(Path("cars").absolute())
    for name in ("@eaDir/a.jpg/THUMB_M.jpg", "$RECYCLE.BIN/a.jpg", "__MACOSX/b.png", "2024/._c.jpg", ".hidden/e.jpg"):
        Path("cars", name).parent.mkdir(parents=True, exist_ok=True)
        Path("cars", name).touch()
    whole = listed("cars")
    assert whole == ("cars", ["2024/c.jpg", "2025/d.JPG", "a.jpg", "b.png"])
    for pattern in ("cars/**", "cars/**/*", "cars/*", "cars/**/*.[jp][pn]g", "cars/**/**/*.*", "cars/[!.]*"):
        found = listed(pattern)
        assert found == (whole if "*.[" not in pattern else ("cars", ["2024/c.jpg", "a.jpg", "b.png"])), pattern
    assert listed("cars/**/2024/*.jpg") == ("cars", ["2024/c.jpg"])
    assert listed("cars/.h*/*") == ("cars", [".hidden/e.jpg"])
    assert listed("cars/@eaDir/**") == ("cars/@eaDir", ["a.jpg/THUMB_M.jpg"])
    paths = [str(path) for path in Path("cars").rglob("*.[jp][pn]g") if ".hidden" not in path.parts]
    # Of several ways to a photo the shortest is its name, wherever it stands in the list.
    Path("list.txt").write_text("\n".join(["cars/again/2024/more/b.png", *paths, "cars/2025/up/a.jpg"]))
    assert listed("list.txt")[1][0] == "b.png"
    assert sorted(listed("list.txt")[1]) == ["2024/c.jpg", "a.jpg", "b.png"]
    shell = [Path(path) for path in (*paths, "cars/again/a.jpg", "cars/2024/more/b.png")]
    assert sorted(find_photos_of_all(shell, results=None).names) == ["2024/c.jpg", "a.jpg", "b.png"]


@pytest.mark.usefixtures("tree")
def test_the_home_folder_is_found_in_quotes(monkeypatch: pytest.MonkeyPatch, predict: Command) -> None:
    home = Path.cwd().as_posix()
    monkeypatch.setenv("HOME", home)
    monkeypatch.setenv("USERPROFILE", home)
    assert listed("~/cars/*.jpg") == (f"{home}/cars", ["a.jpg"])
    Path("list.txt").write_text("~/e.jpg\n~/cars/a.jpg\n")
    assert listed("list.txt") == (home, ["e.jpg", "cars/a.jpg"])
    save("photos/a.png")
    assert predict("~/photos/**/*.png", "~/out") == 0
    assert files("out") == {"a.png"}
    Path("~").mkdir()
    assert predict("photos", "~/out") == 0
    assert files("~") == set()


@pytest.mark.usefixtures("tree")
def test_what_is_there_is_meant_before_a_pattern() -> None:
    Path("[cars]").mkdir()
    Path("[cars]/x.jpg").touch()
    assert listed("[cars]") == ("[cars]", ["x.jpg"])
    assert listed("[cars]/*.jpg") == ("[cars]", ["x.jpg"])
    with pytest.raises(SourceError):
        listed("[cars]/gone.jpg")


@pytest.mark.usefixtures("tree")
def test_lists_keep_their_order_and_are_seen_from_here_or_from_beside_them() -> None:
    text = "# a comment\r\ncars/b.png\r\n\r\n  cars/2024/c.jpg\ncars/a.jpg\ncars/../cars/b.png\ncars/gone.jpg\n"
    Path("list.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert listed("list.txt") == ("cars", ["b.png", "2024/c.jpg", "a.jpg", "gone.jpg"])
    Path("cars/beside.TXT").write_text("a.jpg\n2024/c.jpg\n")
    assert listed("cars/beside.TXT") == ("cars", ["a.jpg", "2024/c.jpg"])
    absolute = "\n".join(str(Path.cwd() / name) for name in ("e.jpg", "cars/a.jpg"))
    Path("list.txt").write_text(absolute)
    assert listed("list.txt") == (Path.cwd().as_posix(), ["e.jpg", "cars/a.jpg"])
    Path("list.txt").write_bytes("cars/a.jpg\ncars/b.png\n".encode("utf-16"))  # as PowerShell writes it
    assert listed("list.txt") == ("cars", ["a.jpg", "b.png"])
    Path("list.txt").write_text("# nothing\n")
    with pytest.raises(SourceError, match=r"list\.txt"):
        listed("list.txt")


@pytest.mark.usefixtures("tree")
def test_a_list_on_standard_input_may_be_ended_by_nul() -> None:
    assert listed("-", b"cars/a.jpg\ncars/2024/c.jpg\n") == ("cars", ["a.jpg", "2024/c.jpg"])
    assert listed("-", b"cars/a.jpg\0two\nlines.jpg\0") == (".", ["cars/a.jpg", "two\nlines.jpg"])
    assert listed("-", b"BM/a.jpg\0GIF89a.jpg\0") == (".", ["BM/a.jpg", "GIF89a.jpg"])
    assert listed("-", os.fsencode("ünï.jpg") + b"\n\xff.jpg") == (".", ["ünï.jpg", os.fsdecode(b"\xff.jpg")])
    with pytest.raises(SourceError, match="standard input"):
        listed("-", b"")


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("size", [(1, 1), (300, 200)])
def test_a_picture_on_standard_input_is_told_from_a_list(image_format: str, size: tuple[int, int]) -> None:
    for level in (0, 255):
        stream = io.BytesIO()
        Image.new("L", size, level).save(stream, image_format)
        photos = find_photos(Path("-"), results=None, read_stdin=stream.getvalue)
        assert photos == PhotoList(Path(), ("standard input",), alone=True, data=stream.getvalue())


def test_a_list_in_any_order_is_done_and_what_is_gone_is_a_failure(predict: Command) -> None:
    save("photos/b.png")
    save("photos/sub/a.png")
    Path("list.txt").write_text("photos/b.png\nphotos/gone.png\nphotos/sub/a.png\nphotos/b.png\nphotos/sub\n")
    assert predict("list.txt", "out") == 2
    assert files("out") == {"b.png", "sub/a.png", "failures.csv"}
    assert "photos/gone.png: " in predict.out
    assert "photos/sub: " in predict.out
    assert predict.written == (2, 4)


def test_through_a_pipe_and_out_again(model: Path, tmp_path: Path) -> None:
    photo = save(tmp_path / "car.png")
    command = [sys.executable, "-m", "carmask", "predict", "-", "-", "-m", str(model), "--engine", "onnxruntime"]
    with photo.open("rb") as stream:
        done = subprocess.run(command, stdin=stream, capture_output=True, check=True, timeout=60)
    with Image.open(io.BytesIO(done.stdout)) as result:
        assert overlap(np.asarray(result), vehicle()) > 0.97
    assert b"onnxruntime on cpu" in done.stderr
    broken = subprocess.run(command, input=b"%PDF-1.7\n\x01", capture_output=True, check=False, timeout=60)
    assert (broken.returncode, broken.stdout) == (2, b"")
    assert b"standard input: " in broken.stderr
    assert b"PDF" in broken.stderr


def test_a_photo_without_a_name_needs_one_for_its_result(predict: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    data = save("car.png").read_bytes()
    for destination, options, part in (("out", (), "standard input"), ("a.json", ("-k", "labelme"), "labelme")):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        predict.assert_refused("-", destination, *options, naming=(part,))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"car.png\n")))
    assert predict("-", "out") == 0
    assert mask_of("out/car.png").any()


def test_several_photos_and_folders_as_a_shell_gives_them(predict: Command) -> None:
    save("photos/a.png")
    save("photos/sub/b.png")
    save("c.png")
    save("out/c.png")
    assert predict("photos", "c.png", "photos/a.png", "out") == 1
    assert "out: c.png" in predict.err
    assert predict("photos", "c.png", "photos/a.png", "masks") == 0
    assert files("masks") == {"photos/a.png", "photos/sub/b.png", "c.png"}
    assert predict("photos/a.png", "photos/sub/b.png", "out.csv") == 0
    predict.assert_refused("photos", "c.png", "photos", naming=("photos",))
    assert predict("photos/a.png", "photos/b.png", "two") == 2
    assert "photos/b.png: " in predict.out


def test_what_is_not_there_is_refused(predict: Command) -> None:
    Path("none").mkdir()
    Path("none/notes.md").touch()
    predict.assert_refused("nowhere", "out", naming=("nowhere",))
    predict.assert_refused("none", "out", naming=("none", "JPEG", ".md"))
    predict.assert_refused("x" * 300, "out", naming=("x" * 300,))
    assert not Path("out").exists()
