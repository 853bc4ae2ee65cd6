from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from carmask.imaging.geometry import Geometry
from carmask.runtime.card import CARD_KEY, ModelCard
from carmask.runtime.locate import packaged_models
from carmask.runtime.onnx_file import ModelFileError, read_card

CARD = ModelCard(
    name="näme ⛟",
    version="9.9",
    preset=None,
    geometry=Geometry(height_px=64, width_px=96, keep_aspect=True),
    channels=1,
    stride_px=8,
    threshold=0.25,
    precision="int8",
    train_groups=("a", "b"),
    measured={"dice": 0.5},
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


OURS = model(**{CARD_KEY: CARD.model_dump_json()})


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


def test_a_stranger_s_file_is_told_from_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="carmask has not exported"):
        read_card(model())
    with pytest.raises(ModelFileError, match=r"'stride_px' is not given; .* mean 'stride_px'.* another version"):
        read_card(model(**{CARD_KEY: CARD.model_dump_json().replace("stride_px", "stride_m")}))
    with pytest.raises(ModelFileError, match="another version"):
        read_card(model(**{CARD_KEY: "no JSON"}))
    with pytest.raises(ModelFileError, match="not a whole one"):
        read_card(b"\xff\xd8\xff\xe0 a JPEG")
    with pytest.raises(ModelFileError, match=r"gone\.onnx: cannot be read"):
        read_card(tmp_path / "gone.onnx")
    with pytest.raises(ModelFileError, match="cannot be read"):
        read_card(tmp_path)
