import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from carmask.imaging.geometry import Geometry
from carmask.models.card import CARD_KEY, HeldOut, Measured, ModelCard, ModelFileError, read_card
from carmask.models.config import UNetConfig
from carmask.runtime.locate import packaged_models

CARD = ModelCard(
    name="näme ⛟",
    version="9.9",
    unet=UNetConfig(in_channels=1, widths=(4, 6, 8)),
    geometry=Geometry(height_px=64, width_px=96, keep_aspect=True),
    threshold=0.25,
    precision="int8",
    train_groups=("a", "b"),
    measured=Measured(held_out=(HeldOut(data="cars", photos=3, dice=0.5),)),
)


def model(**metadata: str) -> bytes:
    """A whole ONNX file that is no network of ours, with this metadata among other fields."""
    weights = helper.make_tensor("w", TensorProto.FLOAT, [300], np.zeros(300, np.float32))
    node = helper.make_node("Add", ["x", "w"], ["y"])
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [300]) for name in "xy"]
    proto = helper.make_model(helper.make_graph([node], "g", value[:1], value[1:], [weights]), producer_name="someone")
    helper.set_model_props(proto, {"other": "thing", **metadata, "last": ""})
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString())


OURS = model(**{CARD_KEY: CARD.to_json()})


def test_the_card_is_what_onnx_itself_reads(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(OURS)
    assert read_card(tmp_path / "m.onnx") == read_card(str(tmp_path / "m.onnx")) == read_card(OURS) == CARD
    for path in packaged_models().values():
        props = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
        assert read_card(path) == ModelCard.model_validate_json(props[CARD_KEY])


def test_a_file_cut_short_anywhere_is_refused() -> None:
    whole = 0
    for length in range(len(OURS)):
        try:
            whole += read_card(OURS[:length]) == CARD
        except ModelFileError:
            continue
    # What follows the card is one more entry; a file that lacks only that is a whole message.
    assert whole <= 1


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_anything_else_is_refused_with_one_error(data: bytes) -> None:
    with pytest.raises(ModelFileError, match="model in memory"):
        read_card(data)


@settings(max_examples=200)
@given(st.integers(0, len(OURS) - 1), st.integers(0, 255))
def test_a_changed_byte_never_escapes(place: int, value: int) -> None:
    data = bytearray(OURS)
    data[place] = value
    with suppress(ModelFileError):
        assert isinstance(read_card(bytes(data)), ModelCard)


@pytest.mark.parametrize(
    "data",
    [
        model(),
        model(**{CARD_KEY: CARD.to_json().replace("threshold", "treshold")}),
        model(**{CARD_KEY: "no JSON"}),
        b"\xff\xd8\xff\xe0 a JPEG",
        b"",
    ],
    ids=["not ours", "misspelled", "no JSON", "a JPEG", "empty"],
)
def test_files_without_a_card_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(data)
    with pytest.raises(ModelFileError, match=r"model\.onnx"):
        read_card(tmp_path / "model.onnx")


def test_paths_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.onnx", tmp_path):
        with pytest.raises(ModelFileError):
            read_card(path)


def test_importing_cards_and_presets_needs_no_pytorch() -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from carmask.models import PRESETS, ModelCard\n"
        "from carmask.models.card import read_card\n"
        "print(*PRESETS)\n"
        "try:\n    from carmask.models import UNet\nexcept ImportError:\n    print('UNet needs it')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["small classic deep fast general sharp", "UNet needs it"]


def test_all_figures_are_shown_and_none_twice() -> None:
    first = {"data": "cars", "epoch": 3, "encoder": "an encoder"}
    card = CARD.model_copy(
        update={
            "training": {"data": "vans", "epoch": 7, "groups_held_out": ["a"], "started_from": first},
            "measured": Measured(held_out=(HeldOut(data="cars", photos=3, dice=0.5, remarks=("They are gray.",)),)),
        }
    )
    trainings, held_out = card.tables().values()
    assert trainings == [{"data": "vans", "epoch": "7"}, {"data": "cars", "epoch": "3"}]
    assert held_out == [{"data": "cars", "photos": "3", "dice": "0.5"}]
    texts = [text for _, text in card.rows()]
    assert texts.count("an encoder") == texts.count("They are gray.") == 1
    assert not {"vans", "7", "0.5"} & set(texts)
