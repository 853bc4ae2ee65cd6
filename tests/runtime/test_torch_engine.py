import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bright_network import bright_is_vehicle
from carmask.errors import CarmaskError
from carmask.imaging.geometry import Geometry
from carmask.models.card import ModelCard
from carmask.models.config import UNetConfig
from carmask.models.network import Network
from carmask.runtime.engine import EngineError
from carmask.runtime.hardware import Hardware, HardwareSettings, set_up
from carmask.runtime.options import RunOptions
from carmask.runtime.torch_engine import TorchEngine
from carmask.segmenter import Segmenter


def small_engine() -> tuple[TorchEngine, Network]:
    config = ModelCard(
        name="n", unet=UNetConfig(in_channels=3, widths=(4, 8)), geometry=Geometry(height_px=16, width_px=16)
    )
    network = Network(config).eval()
    return TorchEngine(network, Hardware(torch.device("cpu"), torch.float32, "as asked")), network


def test_the_engine_gives_what_the_network_gives() -> None:
    engine, network = small_engine()
    images_NHWC = np.random.default_rng(0).integers(0, 256, (3, 16, 24, 3), dtype=np.uint8)
    x_BCHW = torch.from_numpy(images_NHWC.transpose(0, 3, 1, 2) / 255).float()
    with torch.no_grad():
        logits_BHW = network(x_BCHW)[:, 0].double().numpy()
    np.testing.assert_allclose(engine.run(images_NHWC), 1 / (1 + np.exp(-logits_BHW)), atol=1e-5)
    assert (engine.name, engine.device, engine.precision) == ("torch", "cpu", "float32")


def test_more_than_the_memory_holds_is_an_error_of_the_engine() -> None:
    engine, _ = small_engine()
    # One byte seen so often that no machine has room for what becomes of it.
    size = 1 << 22
    images_NHWC = np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), (1, size, size, 3), (0, 0, 0, 0))
    with pytest.raises(EngineError, match=rf"n: PyTorch failed on 1 x {size} x {size} px: .*allocate memory"):
        engine.run(images_NHWC)
    assert engine.run(np.zeros((1, 16, 24, 3), np.uint8)).shape == (1, 16, 24)


def test_a_device_that_is_not_there_is_refused(tmp_path: Path) -> None:
    folder = bright_is_vehicle(tmp_path)
    for device in ("cuda:99", "abacus"):
        with pytest.raises(CarmaskError, match=device):
            Segmenter.load(folder, RunOptions(device=device))


def test_more_processes_than_gpus_are_refused() -> None:
    for local_rank in (0, 9_999):
        with pytest.raises(CarmaskError, match=r"10000 processes, \d+ GPUs: each"):
            set_up(HardwareSettings(device="cuda"), local_rank=local_rank, local_count=10_000)


@pytest.mark.parametrize("precision", ["auto", "bf16", "float32"])
def test_the_precision_is_what_was_asked_for(precision: str) -> None:
    hardware = set_up(HardwareSettings.model_validate({"device": "cpu", "precision": precision}))
    with hardware.autocast():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == hardware.precision
    if precision != "auto":
        assert str(hardware.precision).endswith({"bf16": "bfloat16"}.get(precision, precision))
    assert str(hardware.precision).removeprefix("torch.") in hardware.describe()


def test_without_pytorch_it_says_what_to_install(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from carmask.runtime.engine import EngineMissing\n"
        "from carmask.segmenter import Segmenter\n"
        "try:\n    Segmenter.load(sys.argv[1])\n"
        "except EngineMissing as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "carmask[train]" in done.stdout
