"""The scripts in gpu/: pack a data set, train from the pack for a moment, go on, and join the weights."""

import json
import os
import re
import runpy
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from carmask.data.pairs import find_pairs, load_soft_mask
from carmask.data.split import make_split
from carmask.evaluation.metrics import dice
from carmask.imaging.color import display_p3, to_srgb
from carmask.imaging.decode import decode_photo
from carmask.models.card import ModelCard
from carmask.models.network import Network
from carmask.training.run_folder import RunFolder

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
CONFIG = """
preset: fast
network: {widths: [4, 8]}
batch_size: 4
epochs: 6
hardware: {device: cpu, precision: float32, threads: 1}
stages:
  - {input: {height_px: 32, width_px: 32}}
  - {input: {height_px: 32, width_px: 48}}
"""


def run(script: str, *arguments: object) -> None:
    """Run a script in this process: PyTorch takes its time to start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [script, *map(str, arguments)])
        patch.syspath_prepend(ROOT / "gpu")
        runpy.run_path(str(ROOT / "gpu" / script), run_name="__main__")


@pytest.fixture(scope="module")
def packed(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    out = tmp_path_factory.mktemp("pack")
    run("pack.py", tiny, "--out", out, "--max-mib", "0.015", "--height", "45", "--width", "60", "--quality", "95")
    return sorted(out.iterdir())


def test_pack_keeps_ids_proportions_and_masks_within_the_limit(packed: list[Path], tiny: Path, tmp_path: Path) -> None:
    assert len(packed) > 1
    assert max(path.stat().st_size for path in packed) <= 0.015 * 2**20
    for path in packed:
        zipfile.ZipFile(path).extractall(tmp_path)
    before, after = find_pairs(tiny).pairs, find_pairs(tmp_path).pairs
    assert [pair.id for pair in after] == [pair.id for pair in before]
    for old, new in zip(before, after, strict=True):
        photo = decode_photo(new.image)
        assert photo.size_HW == (40, 60)
        mask_HW = load_soft_mask(new).mask_HW
        reference_HW = load_soft_mask(old).mask_HW.repeat(2, 0).repeat(2, 1).reshape(40, 3, 60, 3).mean((1, 3)) >= 0.5
        assert dice(reference_HW, mask_HW) > 0.995


def test_pack_keeps_the_colors_that_a_profile_gives(tmp_path: Path) -> None:
    for folder, pixels, options in (
        ("images", np.full((40, 60, 3), (250, 40, 40), np.uint8), {"icc_profile": display_p3()}),
        ("masks", np.eye(40, 60, dtype=np.uint8) * np.uint8(255), {}),
    ):
        (tmp_path / "p3" / folder).mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / "p3" / folder / "0.png", **options)
    run("pack.py", tmp_path / "p3", "--out", tmp_path, "--quality", "100")
    zipfile.ZipFile(tmp_path / "p3-1.zip").extractall(tmp_path / "packed")
    before, after = (
        to_srgb(photo.image_HWC, photo.icc_profile).mean((0, 1))
        for photo in (decode_photo(tmp_path / "p3/images/0.png"), decode_photo(tmp_path / "packed/images/0.webp"))
    )
    np.testing.assert_allclose(after, before, atol=3)


def test_training_from_a_pack_goes_on_and_its_weights_come_back(packed: list[Path], tiny: Path, tmp_path: Path) -> None:
    pairs = find_pairs(tiny).pairs
    split, config = tmp_path / "split.json", tmp_path / "tiny.yaml"
    make_split({pair.id: pair.id.partition("_")[0] for pair in pairs}, {pair.id: 1.0 for pair in pairs}).save(split)
    config.write_text(CONFIG)
    where = ("--config", config, "--split", split, "--work", tmp_path / "work", "--out", tmp_path / "out")
    limit_mib = 0.002
    index = tmp_path / "out" / "tiny.json"
    arguments = (*packed, *where, "--minutes", "1", "--max-mib", str(limit_mib))
    started = subprocess.Popen([sys.executable, ROOT / "gpu" / "run.py", *arguments], env=ENVIRONMENT)
    runs = tmp_path / "work" / "runs"
    while not (runs / "tiny.stages" / "1" / "checkpoint.pt").exists():
        assert started.poll() is None
        time.sleep(0.05)
    started.kill()
    started.wait()
    assert not index.exists()
    run("run.py", *arguments)
    trained = RunFolder(runs / "tiny").weights("best")
    files = [index.parent / name for name in json.loads(index.read_text())["sha256"]]
    assert len(files) > 1
    assert max(file.stat().st_size for file in files) <= limit_mib * 2**20
    run("weights.py", "join", index, tmp_path / "joined")
    expected, joined = Network.load(trained), Network.load(tmp_path / "joined")
    assert joined.card == expected.card
    tensors = joined.state_dict()
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(tensors[name], tensor, rtol=2**-10, atol=1e-7)


@pytest.mark.parametrize("setting", ["preset=huge", "preset", "optimizer.lr=1"])
def test_a_setting_that_does_not_exist_is_named(tiny: Path, tmp_path: Path, setting: str) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(CONFIG)
    with pytest.raises(SystemExit, match=re.escape(setting.partition("=")[0])):
        run(
            "run.py", tiny, "--config", config, "--set", setting, "--minutes", 1, "--work", tmp_path / "work",
            "--out", tmp_path / "out",
        )  # fmt: skip


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    Network(ModelCard.from_preset("small")).save_pretrained(tmp_path / "small")
    run("weights.py", "split", tmp_path / "small", tmp_path / "out")
    part = tmp_path / "out" / "small-1.bin"
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    with pytest.raises(SystemExit, match=re.escape(part.name)):
        run("weights.py", "join", tmp_path / "out" / "small.json", tmp_path / "joined")
    assert not (tmp_path / "joined").exists()
