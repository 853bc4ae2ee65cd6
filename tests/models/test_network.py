import json
import os
import shutil
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from safetensors.torch import load_file, save_file

from carmask.imaging.geometry import Geometry
from carmask.models.card import ModelCard
from carmask.models.config import UNetConfig
from carmask.models.network import Network, WeightsError

CONFIG = ModelCard(
    name="a name of my own",
    unet=UNetConfig(in_channels=3, widths=(4, 6, 8), up_kernel=3, stem=2, head_kernel=3),
    geometry=Geometry(height_px=32, width_px=48, keep_aspect=True),
    threshold=0.37,
    training={"epoch": 3, "held_out_dice": 0.99, "data": "cars"},
)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any attempt to reach the network fails the test."""

    def refuse(*_: object) -> NoReturn:
        pytest.fail("tried to reach the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def trained() -> Network:
    """A network whose weights and running statistics are not those of a new one."""
    torch.manual_seed(0)
    network = Network(CONFIG)
    for _ in range(3):
        network(torch.rand(2, 3, 32, 48))
    return network


@pytest.fixture
def folder(trained: Network, tmp_path: Path) -> Path:
    trained.save_pretrained(tmp_path / "weights")
    return tmp_path / "weights"


def test_what_is_saved_is_what_is_loaded(trained: Network, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    loaded = Network.load(folder)
    assert loaded.card == CONFIG
    assert isinstance(loaded.card.unet.widths, tuple)
    assert not loaded.training
    x_BCHW = torch.rand(2, 3, 64, 32)
    trained.eval()
    assert torch.equal(loaded(x_BCHW), trained(x_BCHW))
    # What a command prints must not begin with what a library has to say.
    assert capfd.readouterr().out == ""
    # Once more round: the loaded one saves the same.
    loaded.save_pretrained(folder.with_name("again"))
    assert Network.load(folder.with_name("again")).card == CONFIG


def test_the_hub_s_own_way_of_loading_works_too(trained: Network, folder: Path) -> None:
    loaded = Network.from_pretrained(str(folder))
    assert loaded.card == CONFIG
    x_BCHW = torch.rand(1, 3, 32, 32)
    assert torch.equal(loaded(x_BCHW), trained.eval()(x_BCHW))


def test_a_folder_with_the_first_metadata_loads(trained: Network, folder: Path) -> None:
    """Early folders hold five fields."""
    first = CONFIG.model_dump(mode="json", include={"name", "unet", "geometry", "threshold", "training"})
    (folder / "config.json").write_text(json.dumps({"config": first}))
    loaded = Network.load(folder)
    assert loaded.card == CONFIG
    assert torch.equal(loaded.unet.head.weight, trained.unet.head.weight)


def test_notes_travel_with_the_weights(tmp_path: Path) -> None:
    network = Network(CONFIG)
    network.note_training({"epoch": 7, "seed": 1})
    network.save_pretrained(tmp_path)
    assert Network.load(tmp_path).card.training == {"epoch": 7, "held_out_dice": 0.99, "data": "cars", "seed": 1}


def test_a_run_s_folder_means_its_best_weights(folder: Path, tmp_path: Path) -> None:
    for which, threshold in (("best", 0.25), ("last", 0.75)):
        Network(CONFIG.model_copy(update={"threshold": threshold})).save_pretrained(
            tmp_path / "run" / "weights" / which
        )
    assert Network.load(tmp_path / "run").card.threshold == 0.25
    assert Network.load(tmp_path / "run" / "weights" / "last").card.threshold == 0.75
    assert Network.load(folder).card.threshold == 0.37


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", ["runs/nothing", "bert-base-uncased", "/nowhere/at/all"])
def test_a_missing_folder_is_not_looked_for_on_the_hub(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match=name):
        Network.load(Path(name))
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match=r"no config\.json"):
        Network.load(tmp_path / "empty")


def edit_config(change: Callable[[dict], object]) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        content = json.loads((folder / "config.json").read_text())
        change(content["config"])
        (folder / "config.json").write_text(json.dumps(content))

    return damage


def edit_weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return damage


def write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "no configuration": lambda folder: (folder / "config.json").unlink(),
    "cut weights": lambda folder: os.truncate(folder / "model.safetensors", 900),
    "empty weights": write("model.safetensors", b""),
    "weights that are none": write("model.safetensors", struct.pack("<Q", 1 << 40) + b"{}"),
    "a tensor is missing": edit_weights(lambda tensors: tensors.pop("unet.head.bias")),
    "a tensor too many": edit_weights(lambda tensors: tensors.update(other=torch.zeros(1))),
    "tensors of another network": edit_weights(
        lambda tensors: [tensors.update({f"x.{name}": tensors.pop(name)}) for name in list(tensors)]
    ),
    "a tensor of another shape": edit_weights(lambda tensors: tensors.update({"unet.head.bias": torch.zeros(9)})),
    "empty configuration": write("config.json", b""),
    "cut configuration": lambda folder: os.truncate(folder / "config.json", 60),
    "a list as configuration": write("config.json", b"[]"),
    "another configuration": write("config.json", b'{"hidden_size": 768}'),
    "configuration that is no text": write("config.json", b"\xff\xfe\x00"),
    "unknown setting": edit_config(lambda config: config.update(color="red")),
    "impossible setting": edit_config(lambda config: config.update(threshold=2)),
    "no geometry": edit_config(lambda config: config.pop("geometry")),
    "other widths": edit_config(lambda config: config["unet"].update(widths=[4, 6, 9])),
    "fewer levels": edit_config(lambda config: config["unet"].update(widths=[4, 6])),
}


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_weights_are_refused(folder: Path, damage: str) -> None:
    DAMAGES[damage](folder)
    with pytest.raises(WeightsError) as caught:
        Network.load(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_copy_of_the_folder_is_enough(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "elsewhere")
    shutil.rmtree(folder)
    assert Network.load(tmp_path / "elsewhere").card == CONFIG


def test_the_summary_is_that_of_the_padded_input() -> None:
    config = CONFIG.model_copy(update={"geometry": Geometry(height_px=33, width_px=47)})
    assert Network(config).summary().input_CHW == (3, 40, 48)
