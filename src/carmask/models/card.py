"""The metadata of a network, in `config.json` beside its weights and inside its `.onnx` file. Needs no PyTorch."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import DecodeError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from carmask import __version__
from carmask.errors import CarmaskError, explain
from carmask.imaging.geometry import Geometry, size_text
from carmask.models.config import PRESETS, PresetName, UNetConfig
from carmask.models.dice_calibration import DiceCalibration

# The key of the card, which is JSON, in an `.onnx` file's metadata.
CARD_KEY = "carmask"
# The same in a file of one input size for other programs.
FIXED_CARD_KEY = "carmask.fixed"

# The two fields of ONNX's `ModelProto` that matter here, as a protobuf FileDescriptorProto.
_ONNX_METADATA = """
name: "onnx_metadata.proto" package: "carmask" syntax: "proto3"
message_type { name: "Entry"
  field { name: "key" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "value" number: 2 type: TYPE_STRING label: LABEL_OPTIONAL } }
message_type { name: "Model"
  field { name: "graph" number: 7 type: TYPE_BYTES label: LABEL_OPTIONAL }
  field { name: "metadata_props" number: 14 type: TYPE_MESSAGE type_name: ".carmask.Entry" label: LABEL_REPEATED } }
"""


class ModelFileError(CarmaskError):
    """An `.onnx` file that is missing, damaged, or was not exported by carmask."""


class HeldOut(BaseModel):
    """A network's figures on the photos of one data set, each at its own size, as `carmask evaluate` measures them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str = Field(description="name of the folder of photos and masks")
    photos: int = Field(ge=1, description="number of photos measured")
    groups: int | None = Field(default=None, ge=1, description="number of groups (cars) in them")
    dice: float = Field(ge=0, le=1, description="mean over the photos, each counting the same")
    median_dice: float | None = Field(default=None, ge=0, le=1)
    worst_dice: float | None = Field(default=None, ge=0, le=1)
    boundary_error_px: float | None = Field(default=None, ge=0, description="mean distance between the two outlines")
    engine: str | None = Field(default=None, description="what ran the network, and in which precision")
    of_twin: bool = Field(
        default=False,
        description="measured on a network trained in the same way, but without these photos, which this one has seen",
    )
    remarks: tuple[str, ...] = Field(default=(), description="whether the photos were held out, and who chose them")


class EngineParity(BaseModel):
    """How one engine's results on photos compare with those of PyTorch in float32, and with the true masks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: str
    precision: str = Field(description="what the engine computes in")
    dice: float = Field(description="mean Dice with the true masks, each photo at its own size")
    same_mask: float = Field(description="mean Dice with PyTorch's masks")
    largest_difference: float = Field(description="of a pixel's probability from PyTorch's, 0..1")
    mean_difference: float = Field(description="mean difference of the pixels' probabilities from PyTorch's")

    def rounded(self) -> "EngineParity":
        """Return the figures with six decimals, as they are stored with a network."""
        return self.model_copy(update={name: round(value, 6) for name, value in self if isinstance(value, float)})


class Measured(BaseModel):
    """All figures of exactly these weights, as they are stored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    compared_on: str | None = Field(default=None, description="photos on which the export was compared with PyTorch")
    pytorch_dice: float | None = Field(default=None, description="PyTorch's mean Dice on these photos, in float32")
    engines: tuple[EngineParity, ...] = ()
    parity: dict[str, Any] | None = Field(default=None, description="the graph against PyTorch, in float32")
    dice_drop: dict[str, float] | None = Field(default=None, description="engine -> Dice lost by int8")
    calibrated_on: str | None = Field(default=None, description="photos that gave int8 its ranges")
    held_out: tuple[HeldOut, ...] = ()


class ModelCard(BaseModel):
    """A network's structure, how photos are fitted to it, its training and its figures."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="the preset it was built from, or a name of your own")
    version: str = Field(default=__version__, description="version of carmask that made it")
    unet: UNetConfig
    geometry: Geometry
    threshold: float = Field(
        default=0.5, gt=0, lt=1, description="a pixel belongs to the mask from this probability on"
    )
    refines: str | None = Field(
        default=None, description="the network whose outlines this one refines in crops of the photo; none for others"
    )
    precision: Literal["float32", "int8"] = Field(default="float32", description="what the convolutions are made for")
    weights: Literal["float32", "float16", "int8"] = Field(default="float32", description="how the weights are stored")
    training: dict[str, Any] = Field(default_factory=dict, description="data, settings and figures of the training")
    train_groups: tuple[str, ...] = Field(default=(), description="groups (cars) that it was trained on")
    held_out_groups: tuple[str, ...] = Field(default=(), description="groups by which its best epoch was chosen")
    measured: Measured = Measured()
    dice_calibration: DiceCalibration | None = Field(default=None, description="how sure masks become expected Dice")

    @classmethod
    def from_preset(cls, preset: PresetName) -> "ModelCard":
        """Return the card of an untrained preset."""
        chosen = PRESETS[preset]
        return cls(name=chosen.name, unet=chosen.unet, geometry=chosen.geometry, refines=chosen.refines)

    @property
    def preset(self) -> PresetName | None:
        """Name of the preset that has this U-Net."""
        return next((name for name, preset in PRESETS.items() if preset.unet == self.unet), None)

    @property
    def trainings(self) -> list[Mapping[str, Any]]:
        """The notes on the training, and on the trainings that its initial weights came from, latest first."""
        found: list[Mapping[str, Any]] = [self.training]
        while isinstance(earlier := found[-1].get("started_from"), Mapping):
            found.append(earlier)
        return found

    @property
    def channels(self) -> Literal[1, 3, 4]:
        """See `UNetConfig.in_channels`."""
        return self.unet.in_channels

    @property
    def colors(self) -> str:
        """What the channels are, for people."""
        return {1: "gray", 3: "RGB", 4: "RGB and the probability of the network that it refines"}[self.channels]

    @property
    def stride_px(self) -> int:
        """Sides that are multiples of this are not padded inside the network."""
        return self.unet.stride_px

    def to_json(self) -> str:
        """Return the text in an `.onnx` file, without fields that are not known."""
        return self.model_dump_json(exclude_none=True)

    def rows(self) -> list[tuple[str, str]]:
        """Return (label, text) pairs of what `tables` leaves out, for people."""
        fit = "proportions kept" if self.geometry.keep_aspect else "stretched"
        rows = [
            ("name", self.name),
            ("preset", self.preset or "none"),
            ("input size", f"{size_text(self.geometry.size_HW)}, {fit}, {self.colors}"),
            ("threshold", f"{self.threshold:g}"),
            ("precision", self.precision),
            ("trained on", f"{len(self.train_groups)} groups" if self.train_groups else "not known"),
            ("held out", f"{len(self.held_out_groups)} groups" if self.held_out_groups else "not known"),
        ]
        calibration = self.dice_calibration
        on = f"calibrated on {calibration.masks} masks: {calibration.fitted_on}" if calibration else "not calibrated"
        rows.append(("expected Dice", on))
        notes = {name: value for training in self.trainings for name, value in training.items() if name != "data"}
        measured = self.measured.model_dump(exclude_defaults=True, exclude={"engines", "held_out"})
        rows += [(_label(name), value) for name, value in notes.items() if isinstance(value, str)]
        rows += [(_label(name), _text(value)) for name, value in measured.items()]
        return rows + [(f"on {one.data}", remark) for one in self.measured.held_out for remark in one.remarks]

    def tables(self) -> dict[str, list[dict[str, str]]]:
        """Return the trainings (the last one first), engines and held-out photos by title: rows, by heading."""
        tables: dict[str, list[dict[str, Any]]] = {
            "trainings, the last one first": [
                {name: value for name, value in training.items() if name == "data" or isinstance(value, int | float)}
                for training in self.trainings
            ],
            "engines, compared with PyTorch": [one.model_dump() for one in self.measured.engines],
            "held-out photos": [
                one.model_dump(exclude_defaults=True, exclude={"remarks"}) for one in self.measured.held_out
            ],
        }
        return {
            title: [{_label(name): _text(value) for name, value in row.items()} for row in rows]
            for title, rows in tables.items()
            if any(rows)
        }


def _label(name: str) -> str:
    return name.replace("_", " ")


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{_label(name)} {_text(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        # Lists in lists are sizes.
        return ", ".join(" x ".join(map(str, one)) if isinstance(one, list | tuple) else _text(one) for one in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def read_card(source: str | Path | bytes) -> ModelCard:
    """Read the card of an exported network from its file or its bytes.

    Raises:
        ModelFileError: the file is missing or damaged, or carmask has not exported it.
    """
    name = source_name(source)
    export = "export the network again with `carmask export`"
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        file = _onnx_message().FromString(data)
        if not file.graph:
            raise DecodeError("no graph")
        metadata = {entry.key: entry.value for entry in file.metadata_props}
        if FIXED_CARD_KEY in metadata:
            raise ModelFileError(
                f"{name}: has one fixed size and layout, for other programs; export the network without --fixed-size "
                "and --size"
            )
        return ModelCard.model_validate_json(metadata[CARD_KEY])
    except OSError as error:
        raise ModelFileError(f"{name}: cannot be read ({error.strerror or error}); check the path") from error
    except DecodeError as error:
        raise ModelFileError(f"{name}: not a complete ONNX file; copy it again, or {export}") from error
    except KeyError as error:
        raise ModelFileError(
            f"{name}: an ONNX file that carmask has not exported (its metadata has no '{CARD_KEY}', so its input size "
            f"and threshold are not known); {export}"
        ) from error
    except ValidationError as error:
        raise ModelFileError(
            f"{name}: cannot understand its card ({explain(error, ModelCard)}); another version of carmask may have "
            f"written it: update carmask, or {export}"
        ) from error


def source_name(source: str | Path | bytes) -> str:
    """Return the name of a model in messages."""
    return "model in memory" if isinstance(source, bytes) else str(source)


@cache
def _onnx_message() -> Any:
    """Return the message class of `_ONNX_METADATA`.

    `onnx` is not part of the core installation, protobuf is (onnxruntime needs it). This way reading the metadata of
    `fast` takes 12 ms and 25 ms for the import; in onnxruntime it takes 60 ms and 140 ms, in OpenVINO 70 ms and 220 ms.
    """
    file = text_format.Parse(_ONNX_METADATA, descriptor_pb2.FileDescriptorProto())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("carmask.Model"))
