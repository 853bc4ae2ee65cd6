"""Photos as phones, cameras and old programs save them, through the commands; nothing is left out without a word."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from bright_photos import Command, files, mask_of, overlap, save, vehicle
from hostile_formats import damaged_formats
from hostile_parts import encoded

pillow_heif.register_heif_opener()

SIZE_HW = (120, 180)
# EXIF orientation, by the operation that makes the stored picture of the shown one.
STORED_FROM_SHOWN = {
    1: None,
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def shown() -> Image.Image:
    with Image.open(save("reference.png", vehicle(SIZE_HW))) as image:
        image.load()
    Path("reference.png").unlink()
    return image


def write_photos() -> list[str]:
    """The same photo in 20 formats and orientations, each in its own file; returns their names."""
    image = shown()
    plain = {
        "a.jpg": "JPEG",
        "b.png": "PNG",
        "c.gif": "GIF",
        "d.bmp": "BMP",
        "e.tif": "TIFF",
        "f.webp": "WEBP",
        "g.heic": "HEIF",
        "h.avif": "AVIF",
        "i.jp2": "JPEG2000",
        "j.mpo": "MPO",
        "k.ppm": "PPM",
        "l.tga": "TGA",
    }
    turned = {
        "m3.jpg": ("JPEG", 3),
        "n6.heic": ("HEIF", 6),
        "o7.heif": ("HEIF", 7),
        "p8.avif": ("AVIF", 8),
        "q6.mpo": ("MPO", 6),
        "r8.tif": ("TIFF", 8),
        "s7.webp": ("WEBP", 7),
    }
    for name, (image_format, orientation) in ({key: (value, 1) for key, value in plain.items()} | turned).items():
        turn = STORED_FROM_SHOWN[orientation]
        stored = image if turn is None else image.transpose(turn)
        exif = Image.Exif()
        exif[0x0112] = orientation
        options = {}
        if orientation > 1:
            options["exif"] = stored.info["exif"] = exif.tobytes()
        Path("photos").mkdir(exist_ok=True)
        Path("photos", name).write_bytes(encoded(stored, image_format, **options))
    Path("photos/t.pgm").write_bytes(encoded(image.convert("L"), "PPM"))
    return [*plain, *turned, "t.pgm"]


def test_twenty_formats_and_orientations_give_the_mask_of_the_jpeg(predict: Command) -> None:
    names = write_photos()
    assert len(names) == 20
    assert predict("photos", "masks") == 0, predict.err
    assert {Path(name).stem for name in names} == {Path(name).stem for name in files("masks")}
    reference_HW = mask_of("masks/a.png")
    assert overlap(reference_HW, vehicle(SIZE_HW)) > 0.97
    for name in names:
        assert overlap(mask_of(f"masks/{Path(name).stem}.png"), reference_HW) > 0.98, name


def test_a_background_may_be_in_any_format(predict: Command) -> None:
    save("car.png")
    Path("ground.heic").write_bytes(encoded(Image.new("RGB", (50, 40), (20, 200, 40)), "HEIF"))
    assert predict("car.png", "cut.png", "-k", "cutout", "--background", "ground.heic") == 0
    with Image.open("cut.png") as cut:
        assert np.abs(np.asarray(cut)[3, 3].astype(int) - (20, 200, 40)).max() <= 4


def test_what_is_left_out_is_counted(predict: Command) -> None:
    save("photos/one.jpg")
    for name in ("a.json", "b.json", "sub/c.txt", "d.CR3", "e.nef", "f.psd", "LICENSE"):
        Path("photos", name).parent.mkdir(exist_ok=True)
        Path("photos", name).touch()
    assert predict("photos", "masks", "--json") == 0
    left_out = {".json": 2, ".txt": 1, ".cr3": 1, ".nef": 1, ".psd": 1, "": 1}
    assert json.loads(predict.out.splitlines()[-1])["summary"]["left_out"] == left_out
    assert predict("photos", "masks") == 0
    (line,) = [line for line in predict.out.splitlines() if line.startswith("left out: ")]
    for named in ("2 .json", "1 .txt", "RAW", "1 .cr3", "1 .nef", "JPEG", "1 .psd"):
        assert named in line
    assert predict("photos/*.jpg", "masks") == 0
    assert "left out" not in predict.out
    assert predict("photos", "photos/one.jpg", "others") == 0
    assert "left out" in predict.out
    Path("photos/one.jpg").unlink()
    predict.assert_refused("photos", "masks", naming=("1 .cr3", "RAW"))


def test_frames_that_are_left_out_are_said_of_masks_too(convert: Command) -> None:
    first, second = (Image.fromarray(255 * mask_HW.astype(np.uint8)) for mask_HW in (vehicle(), ~vehicle()))
    Path("masks").mkdir()
    first.save("masks/pages.tif", save_all=True, append_images=[second])
    first.save("masks/alone.tif")
    assert convert("masks", "out", "--json") == 0
    remarks = {Path(line["result"]).stem: line.get("remark") for line in map(json.loads, convert.out.splitlines()[:-1])}
    assert remarks["alone"] is None
    assert remarks["pages"]


# What `wait4` reports of a child counts the process that started it too, which the tests before have made large.
_NOTING_ITS_MEMORY = r"""
import atexit, re, runpy
from pathlib import Path

def note():
    Path("peak.txt").write_text(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])

atexit.register(note)
runpy.run_module("carmask", run_name="__main__")
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measures memory as Linux reports it")
def test_damaged_files_end_in_causes_and_in_bounded_memory(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hostile = list(damaged_formats())
    assert len(hostile) >= 300
    for name, data, _, _ in hostile:
        Path("photos").mkdir(exist_ok=True)
        Path("photos", name).write_bytes(data)
    save("photos/good.jpg")
    command = [sys.executable, "-c", _NOTING_ITS_MEMORY, "predict", "photos", "masks", "--model", str(model)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    said = done.stdout
    assert done.returncode == 2, said
    assert "Traceback" not in said
    with Path("masks/failures.csv").open(newline="") as stream:
        causes = {Path(row["photo"]).name: row["cause"] for row in csv.DictReader(stream)}
    assert all(causes.values())
    assert {name for name, _, _, note in hostile if note != "flipped"} <= set(causes)
    assert int(Path("peak.txt").read_text()) < 1_000_000, "kilobytes"
