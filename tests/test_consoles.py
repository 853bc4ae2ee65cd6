"""Consoles that cannot show every character: what they cannot show is escaped, and the work is done."""

import io
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from carmask.cli import main
from noise_pairs import make_pair

NAMES = ("\u8eca na\u00efve", "\u043f\u0443\u0441\u0442\u043e", "kaputt_\u00e9", "plain")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "caf\u00e9 \u8eca"
    for name in NAMES:
        make_pair(root, name)
    (root / "images" / "broken \u8eca.jpg").write_bytes(b"no picture")
    (root / "table-\u8eca.csv").write_text("img,rle_mask\n\u8eca.jpg,1 1\n", encoding="utf-8")
    clip = cv2.VideoWriter(str(root / "clip-\u8eca.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for level in (20, 200):
        clip.write(np.full((48, 64, 3), level, np.uint8))
    clip.release()
    return root


@pytest.mark.parametrize(
    "command",
    [
        "--help",
        "train --help",
        "check DATA",
        "split DATA --out OUT/split.json --fraction 0.5",
        "predict DATA/images OUT/masks --model small",
        "predict DATA/images OUT/masks --json --model small",
        "predict DATA/images OUT/table.csv --model small",
        "convert DATA/masks OUT/masks.csv",
        "evaluate DATA --out OUT/report --model small",
        "train DATA --epochs 1 --batch-size 2 --input.height-px 32 --input.width-px 32 --network.widths 4 "
        "--network.widths 8 --runs OUT/runs --name caf\u00e9 --dataset.cache OUT/cache --dataset.folds 2",
        "evaluate nowhere-\u8eca",
        "studio OUT --cars 1 --views 1 --height-px 40 --width-px 60",
        "model OUT/\u8eca.onnx",
        "export nowhere-\u8eca",
        "submit DATA/table-\u8eca.csv --check DATA/images",
        "video DATA/clip-\u8eca.avi OUT/clip.avi --model small",
        "live nowhere-\u8eca",
        "benchmark nowhere-\u8eca",
    ],
)
def test_every_command_does_the_same_as_in_utf8(
    command: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for name in ("utf-8", "ascii", "cp1252"):
        folder = tmp_path / name / "\u8eca"
        folder.mkdir(parents=True)
        arguments = [word.replace("OUT", str(folder)).replace("DATA", str(photos)) for word in command.split(" ")]
        streams = [io.TextIOWrapper(io.BytesIO(), name) for _ in range(2)]
        monkeypatch.setattr(sys, "stdout", streams[0])
        monkeypatch.setattr(sys, "stderr", streams[1])
        with pytest.raises(SystemExit) as end:
            main(arguments)
        for stream in streams:
            stream.flush()
        results.append((end.value.code, sorted(path.relative_to(folder) for path in folder.rglob("*.png"))))
    assert results[0] == results[1] == results[2]


def test_the_log_of_the_service_shows_names_escaped(tmp_path: Path) -> None:
    code = "import logging, sys; from carmask.serving.log import set_up_log; set_up_log('text'); "
    code += "logging.getLogger('carmask.serving').warning('\u8eca.jpg')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )
    assert b"\\u8eca.jpg" in done.stderr
    assert b"Error" not in done.stderr
