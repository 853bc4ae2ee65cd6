"""A card says what was measured and no more; folders load without a network; what is pushed is what is pulled."""

import json
import os
import socket
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import onnx
import pytest
import torch
import yaml
from hub_server import complaints, local_hub
from huggingface_hub import ModelCard as HubCard
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from PIL import Image
from safetensors.torch import load_file, save_file

from bright_onnx import write_bright_onnx
from carmask.cli import main
from carmask.cli.model import hub_card
from carmask.exporting.graph import note_held_out
from carmask.imaging.geometry import Geometry
from carmask.models.card import CARD_KEY, HeldOut, Measured, ModelCard, read_card
from carmask.models.config import UNetConfig
from carmask.models.hub_card import SIGNATURE
from carmask.models.network import Network, WeightsError
from carmask.runtime.locate import packaged_models

ROOT = Path(__file__).parents[2]
CONFIG = ModelCard(
    name="a name of my own",
    unet=UNetConfig(in_channels=3, widths=(4, 6, 8), up_kernel=3, stem=2, head_kernel=3),
    geometry=Geometry(height_px=32, width_px=48, keep_aspect=True),
    threshold=0.37,
    training={"data": "cars", "photos": 1200, "groups": 40, "held_out_photos": 30, "held_out_dice": 0.98765},
)
ON_STREETS = HeldOut(
    data="street-cars", photos=20, dice=0.97537, worst_dice=0.9405, boundary_error_px=10.105, engine="openvino in bf16"
)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any attempt to reach the network fails the test."""

    def refuse(*_: object) -> NoReturn:
        pytest.fail("tried to reach the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def a_network(*held_out: HeldOut, **training: Any) -> Network:
    torch.manual_seed(0)
    measured = Measured(held_out=held_out)
    return Network(CONFIG.model_copy(update={"training": training, "measured": measured}))


def figures_in(card: HubCard) -> dict[tuple[str, str], float]:
    """What the Hub's own reader finds, by data and metric."""
    results = card.data.eval_results or []
    return {(result.dataset_name, result.metric_type): result.metric_value for result in results}


def rows_in(text: str) -> list[list[str]]:
    """Cells of all tables of a Markdown text, headings left out, as a reader of Markdown sees them."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    rows: list[list[str]] = []
    for token, content in pairwise(tokens):
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "td_open":
            rows[-1].append("".join(part.content for part in content.children or ()))
    return [row for row in rows if row]


def headings_in(text: str) -> list[str]:
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    return [after.content for token, after in pairwise(tokens) if token.type == "heading_open"]


@pytest.mark.usefixtures("no_network")
def test_the_front_matter_is_what_the_hub_reads(tmp_path: Path) -> None:
    Network(CONFIG).save_pretrained(tmp_path, model_card_kwargs={"license_id": "mit"})
    written = (tmp_path / "README.md").read_text()
    card = HubCard.load(tmp_path / "README.md")
    assert figures_in(card) == {("30 held-out photos of cars", "dice"): 0.98765}
    assert (card.data.license, card.data.library_name) == ("mit", "carmask")
    assert card.data.pipeline_tag == "image-segmentation"
    assert {"u-net", "pytorch_model_hub_mixin"} <= set(card.data.tags)
    front = yaml.safe_load(written.split("---\n")[1])
    assert front["model-index"][0]["name"] == CONFIG.name
    # No id of data on the Hub is made up for a folder of ours.
    assert "datasets" not in front
    assert front["model-index"][0]["results"][0]["dataset"]["type"] == "folder-cars"
    assert complaints(written) == []


def test_the_text_says_what_the_configuration_says(tmp_path: Path) -> None:
    Network(CONFIG).save_pretrained(tmp_path)
    card = HubCard.load(tmp_path / "README.md")
    assert headings_in(card.text) == [CONFIG.name, "Data", "Figures", "Use", "Limits", "License"]
    assert rows_in(card.text) == [
        ["30 of cars", "0.98765", *["not measured"] * 3, "PyTorch, in training"],
    ]
    parameters = sum(tensor.numel() for tensor in Network(CONFIG).parameters())
    for wanted in ("1,200 photos of 40 groups", "32 x 48 px", "at least 0.37 ", f"{parameters:,} parameters"):
        assert wanted in card.text
    assert card.data.license is None
    assert "for whoever trained them to state" in card.text


def test_the_source_of_a_pretrained_encoder_is_told_also_in_later_stages() -> None:
    first = {"data": "mine", "photos": 3, "encoder": "of the package some-weights, under Apache-2.0"}
    unet = UNetConfig(in_channels=3, widths=(4, 4, 4, 4), encoder="efficientnet-lite0")
    for training in (first, {"data": "mine", "photos": 4, "started_from": first}):
        network = Network(CONFIG.model_copy(update={"unet": unet, "training": training}))
        text = network.generate_model_card().text
        assert first["encoder"] in text
        assert unet.encoder in text


def test_cars_of_the_challenge_are_counted_among_several_data_sets() -> None:
    groups = {"train_groups": ("carvana/0123456789ab", "scenes/1"), "held_out_groups": ("carvana/ba9876543210",)}
    network = Network(CONFIG.model_copy(update={"training": {"data": "carvana+scenes"}, **groups}))
    text = network.generate_model_card().text
    assert "2 were at hand: 1 were trained on, 1 held out" in text
    # A folder of that name may hold any photos.
    assert "`scenes`: the terms for its photos are not known" in text


def test_what_nobody_has_measured_is_not_told() -> None:
    card = a_network().generate_model_card()
    assert card.data.eval_results is None
    assert "Nothing has been measured of it." in card.text
    assert "What it was trained on is not known." in card.text
    assert rows_in(card.text) == []
    # Figures of the training from whose weights this one began are not its own.
    begun = a_network(
        data="mine", photos=3, started_from={"data": "carvana", "held_out_dice": 0.912}
    ).generate_model_card()
    assert begun.data.eval_results is None
    assert "0.912" not in str(begun)
    assert "not redistributed" in begun.text
    assert "not redistributed" not in card.text


# YAML takes these for ends of lines, which huggingface_hub writes as they are.
ENDS_OF_LINES = "\x85\u2028\u2029"


@settings(max_examples=40)
@given(
    name=st.text(st.characters(exclude_categories=["Cs"], exclude_characters=ENDS_OF_LINES), min_size=1),
    data=st.text(min_size=1),
    dice=st.floats(0, 1).map(lambda value: round(value, 5)),
    error_px=st.none() | st.floats(0, 999).map(lambda value: round(value, 2)),
)
def test_any_name_and_any_figure_survives_both_readers(
    name: str, data: str, dice: float, error_px: float | None
) -> None:
    entry = HeldOut(data=data, photos=7, dice=dice, boundary_error_px=error_px)
    network = Network(CONFIG.model_copy(update={"name": name, "measured": Measured(held_out=(entry,))}))
    card = HubCard(str(network.generate_model_card()))
    measured = {metric: value for (_, metric), value in figures_in(card).items()}
    assert measured == {"dice": dice} | ({} if error_px is None else {"boundary_error_px": error_px})
    assert card.data.model_name == name
    assert complaints(str(card)) == []
    assert headings_in(card.text)[1:] == ["Data", "Figures", "Use", "Limits", "License"]
    [cells] = rows_in(card.text)
    assert len(cells) == 6
    assert float(cells[1]) == dice
    assert cells[4] == "not measured" if error_px is None else float(cells[4].removesuffix(" px")) == error_px


def test_figures_of_two_folders_do_not_mix() -> None:
    noted = [HeldOut(data=data, photos=3, dice=dice) for data, dice in (("cars a", 0.9), ("Cars/A", 0.8), ("车", 0.7))]
    card = HubCard(str(a_network(*noted).generate_model_card()))
    told = {f"3 held-out photos of {one.data}": one.dice for one in noted}
    assert figures_in(card) == {(photos, "dice"): dice for photos, dice in told.items()}
    assert complaints(str(card)) == []


def test_the_hub_is_not_told_a_twins_figures_as_its_own() -> None:
    own, of_twin = HeldOut(data="streets", photos=2, dice=0.9), HeldOut(data="cars", photos=3, dice=0.8, of_twin=True)
    card = HubCard(str(a_network(own, of_twin).generate_model_card()))
    assert figures_in(card) == {("2 held-out photos of streets", "dice"): 0.9}
    assert [row[:2] for row in rows_in(card.text)] == [["2 of streets", "0.9"], ["3 of cars, its twin", "0.8"]]
    assert card.text.count("learned from all of these photos") == 1


def test_figures_that_cannot_be_are_refused(tmp_path: Path) -> None:
    for held_out in ("0.99", [{"data": "cars", "photos": 3, "dice": 99.3}], [{"data": "cars", "dice": 0.9}]):
        Network(CONFIG).save_pretrained(tmp_path)
        content = json.loads((tmp_path / "config.json").read_text())
        content["config"]["measured"] = {"held_out": held_out}
        (tmp_path / "config.json").write_text(json.dumps(content))
        with pytest.raises(WeightsError):
            Network.load(tmp_path)


def test_a_card_is_of_the_weights_beside_it_unless_somebody_has_written_it(tmp_path: Path) -> None:
    network, readme = Network(CONFIG), tmp_path / "README.md"
    network.save_pretrained(tmp_path)
    network.note_training({"held_out_dice": 0.99123})
    network.save_pretrained(tmp_path)
    assert figures_in(HubCard.load(readme)) == {("30 held-out photos of cars", "dice"): 0.99123}
    mine = "".join(line for line in readme.read_text().splitlines(keepends=True) if SIGNATURE not in line)
    for kept in (mine, "# Mine\n"):
        readme.write_text(kept)
        network.save_pretrained(tmp_path)
        assert readme.read_text() == kept


@pytest.mark.usefixtures("no_network")
def test_a_folder_is_loaded_without_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(CONFIG)
    network.save_pretrained(tmp_path / "run" / "weights" / "best")
    monkeypatch.chdir(tmp_path)
    for name in ("run", "run/weights/best", tmp_path / "run", str(tmp_path / "run" / "weights" / "best")):
        loaded = Network.from_pretrained(name)
        assert loaded.card == CONFIG
        assert isinstance(loaded.card.unet.widths, tuple)
        assert not loaded.training
        for tensor, own in zip(loaded.state_dict().values(), network.state_dict().values(), strict=True):
            assert torch.equal(tensor, own)
    (tmp_path / "owner" / "empty").mkdir(parents=True)
    for missing in ("owner/empty", Path("owner/nothing")):
        with pytest.raises(WeightsError, match=r"no config\.json"):
            Network.from_pretrained(missing)


def test_a_missing_tensor_is_not_left_at_random(tmp_path: Path) -> None:
    Network(CONFIG).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["unet.head.bias"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="damaged"):
        Network.from_pretrained(str(tmp_path))


# Another machine than this one cannot be reached: the Hub that is pushed to is the one in this test.
PUSHED = """
import socket, sys
connect, look_up = socket.socket.connect, socket.getaddrinfo
def connect_here(self, address):
    assert address[0] == "127.0.0.1", address
    return connect(self, address)
def look_up_here(host, *more, **named):
    assert host in ("127.0.0.1", b"127.0.0.1"), host
    return look_up(host, *more, **named)
socket.socket.connect, socket.getaddrinfo = connect_here, look_up_here

from pathlib import Path
from safetensors.torch import save_model
from carmask.models.network import Network
from carmask.runtime.locate import locate

network = Network.load(Path("own"))
network.push_to_hub("someone/cars", model_card_kwargs={"license_id": "mit"})
pulled = Network.from_pretrained("someone/cars")
assert pulled.card == network.card, pulled.card
assert not pulled.training
save_model(pulled, "pulled.safetensors")
assert Network.load(locate("someone/cars", "torch")).card.threshold == network.card.threshold
try:
    network.push_to_hub("someone/refused", model_card_kwargs={"license_id": "none of these"})
except ValueError as error:
    print(error)
try:
    Network.from_pretrained("someone/nothing")
except OSError as error:
    print(type(error).__name__)
"""


def test_what_is_pushed_is_what_is_pulled(tmp_path: Path) -> None:
    Network(CONFIG).save_pretrained(tmp_path / "own")
    (tmp_path / "hub").mkdir()
    with local_hub(tmp_path / "hub") as hub:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "NO_PROXY": "127.0.0.1"}
        # Xet is a protocol of its own, spoken by compiled code; without it the client sends large files by HTTP.
        environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", PUSHED], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    kept = hub.repository("someone/cars")
    assert sorted(path.name for path in kept.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    weights = (tmp_path / "own" / "model.safetensors").read_bytes()
    assert (kept / "model.safetensors").read_bytes() == weights
    assert (tmp_path / "pulled.safetensors").read_bytes() == weights
    assert (kept / "config.json").read_bytes() == (tmp_path / "own" / "config.json").read_bytes()
    assert HubCard.load(kept / "README.md").data.license == "mit"
    assert "POST /api/models/someone/cars/commit/main" in hub.asked
    # The Hub looks at the card before it takes anything.
    assert "license none of these" in done.stdout
    assert list(hub.repository("someone/refused").iterdir()) == []
    assert "RepositoryNotFoundError" in done.stdout


@pytest.mark.parametrize("name", packaged_models())
def test_the_cards_in_the_documentation_are_those_of_the_packaged_weights(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["model", name, "--card"])
    assert end.value.code == 0
    printed = capsys.readouterr().out
    place = ROOT / "docs" / "models" / f"{name}.md"
    assert place.read_text() == printed, f"write it again: carmask model {name} --card > docs/models/{name}.md"
    assert complaints(printed) == []
    assert HubCard(printed).data.license == "mit"


@pytest.mark.parametrize("name", packaged_models())
def test_the_card_of_a_file_tells_the_file_s_own_figures(name: str) -> None:
    path = packaged_models()[name]
    known, card = read_card(path), hub_card(path)
    told = set(figures_in(card).values())
    assert told
    own = {one.dice for one in known.measured.engines} | {known.training.get("held_out_dice")}
    for entry in known.measured.held_out:
        own |= {entry.dice, entry.median_dice, entry.worst_dice, entry.boundary_error_px}
    assert told <= own
    for one in known.measured.engines:
        assert [one.engine, one.precision, f"{one.dice:g}", f"{one.same_mask:g}"] in rows_in(card.text)
    for group in known.held_out_groups:
        assert f"`{group}`" in card.text
    assert f"{path.stat().st_size / 1e6:.1f} MB" in card.text
    script = (ROOT / "tests" / "exporting" / "plain_onnxruntime.py").read_text()
    if known.channels == 1:
        script = script.replace('"RGB"', '"L"').replace("pixels[None]", "pixels[None, ..., None]")
    # Crops alone make no mask of a photo.
    assert (script.replace("fast.onnx", f"{name}.onnx") in card.text) == (known.refines is None)


def test_figures_are_noted_in_the_file_itself(tmp_path: Path) -> None:
    path = tmp_path / "mine.onnx"
    path.write_bytes(packaged_models()["fast-int8"].read_bytes())
    before = onnx.load(path).graph
    for dice in (0.5, ON_STREETS.dice):
        note_held_out(path, [ON_STREETS.model_copy(update={"dice": dice, "remarks": ("Held out.",)})])
    assert onnx.load(path).graph == before
    card = hub_card(path)
    told = {
        metric: value
        for (data, metric), value in figures_in(card).items()
        if data == "20 held-out photos of street-cars"
    }
    assert told == {"dice": 0.97537, "worst_dice": 0.9405, "boundary_error_px": 10.105}
    assert ["20 of street-cars", "0.97537", "not measured", "0.9405", "10.105 px", "openvino in bf16"] in rows_in(
        card.text
    )
    assert "citation asked for" in card.text
    # A file that is not the package's own has no license but the one that its maker gives it.
    assert card.data.license is None
    assert 'Segmenter.load("mine.onnx")' in card.text


@pytest.mark.parametrize("channels", [1, 3])
def test_the_card_s_plain_script_runs(tmp_path: Path, channels: int) -> None:
    path = write_bright_onnx(tmp_path / "my net.onnx")
    unet = UNetConfig(in_channels=channels, widths=(1, 1))
    model, card = onnx.load(path), read_card(path).model_copy(update={"unet": unet})
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = channels
    onnx.helper.set_model_props(model, {CARD_KEY: card.to_json()})
    onnx.save(model, path)
    tokens = MarkdownIt("commonmark").parse(hub_card(path).text)
    [script] = [token.content for token in tokens if token.type == "fence" and "onnxruntime" in token.content]
    truth_HW = np.zeros((123, 201), bool)
    truth_HW[30:80, 50:150] = True
    Image.fromarray(np.where(truth_HW, 220, 40).astype(np.uint8)).convert("RGB").save(tmp_path / "car.jpg", quality=95)
    subprocess.run([sys.executable, "-I", "-c", script], check=True, cwd=tmp_path)
    found_HW = np.asarray(Image.open(tmp_path / "mask.png")) > 0
    assert (found_HW & truth_HW).sum() / (found_HW | truth_HW).sum() > 0.96


CORE = """
import sys
sys.modules |= dict.fromkeys(("huggingface_hub", "torch", "jinja2"))
from carmask.cli import main
main(["model", "fast", "--card"])
"""


def test_the_core_installation_says_what_a_card_needs() -> None:
    done = subprocess.run([sys.executable, "-c", CORE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "this needs huggingface_hub" in done.stderr
    assert "pip install 'carmask[train]'" in " ".join(done.stderr.split())


@pytest.mark.parametrize(("name", "said"), [("deep", "a preset is not trained"), ("nothing", "nothing: ")])
def test_there_is_no_card_of_what_is_not_trained(name: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["model", name, "--card"])
    assert end.value.code == 1
    assert said in capsys.readouterr().err


def test_a_run_s_card_is_printed_as_it_is_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Network(CONFIG).save_pretrained(tmp_path)
    with pytest.raises(SystemExit):
        main(["model", str(tmp_path), "--card"])
    assert capsys.readouterr().out == (tmp_path / "README.md").read_text()
    assert json.loads((tmp_path / "config.json").read_text())["config"]["name"] in (tmp_path / "README.md").read_text()
