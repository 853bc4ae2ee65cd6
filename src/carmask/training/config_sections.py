"""The sections of `TrainSettings`: data, network, optimizer, schedule, loss, hardware."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from carmask.data.split import FOLDS
from carmask.labels.classes import parse_names
from carmask.models.config import EncoderName
from carmask.runtime.hardware import HardwareSettings

LabelNames = Annotated[tuple[str, ...], BeforeValidator(parse_names)]


class Section(BaseModel):
    """A part of the settings: an unknown name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class MaskSettings(Section):
    """How the photos and masks of a data set are grouped and read; see `find_pairs`."""

    group_pattern: str | None = Field(default=None, description="regular expression for the group in a photo's id")
    foreground: int | None = Field(default=None, ge=0, le=65535, description="mask value that means foreground")
    ignore: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="mask value that means unknown: loss and metrics leave these pixels out",
    )
    labels: LabelNames = Field(default=(), description="classes of label files that are vehicles: car,truck")
    ignore_labels: LabelNames = Field(default=(), description="classes of label files that mean unknown")


class DataSettings(MaskSettings):
    """Which photos the network is trained on, and which are held out for validation."""

    split: Path | None = Field(default=None, description="split.json to use; default: a new split")
    own_split: bool = Field(
        default=True, description="use the data's own split in folders or lists train and val, if it has one"
    )
    folds: int = Field(default=FOLDS, ge=2, description="number of folds that the groups are divided into")
    fold: int = Field(default=0, ge=0, description="fold to hold out, counted from 0")
    fraction: float | None = Field(
        default=None, ge=0, lt=1, description="hold out this share instead of a fold; 0 to train on all photos"
    )
    split_seed: int = Field(default=0, ge=0, description="seed of the split; independent of the training seed")
    empty: Path | None = Field(default=None, description="folder of photos without a vehicle, to train on too")
    cache: Path = Field(default=Path(".cache/carmask"), description="folder for decoded and resized photos")


class SourceSettings(MaskSettings):
    """One of several data sets of a run."""

    path: Path = Field(description="folder of photos and masks; a relative path starts from DATA")
    weight: float = Field(
        default=1.0, ge=0, le=1000, description="how often a pass shows each photo; 0 to only cut its vehicles out"
    )
    split: Path | None = Field(
        default=None, description="split.json to use; default: a new split with the settings of `dataset`"
    )
    empty: bool = Field(
        default=False, description="only photos without a vehicle, without masks; backgrounds of composites"
    )
    cutouts: bool = Field(default=False, description="cut vehicles out of its photos for composites")


class InputSettings(Section):
    """Size of the network's input; the preset's if not given."""

    height_px: int | None = Field(default=None, ge=16, le=8192, description="height in pixels")
    width_px: int | None = Field(default=None, ge=16, le=8192, description="width in pixels")


class NetworkSettings(Section):
    """Changes to the preset's network."""

    widths: tuple[int, ...] | None = Field(
        default=None, description="feature channels of each level, finest first; also sets the number of levels"
    )
    stem: int | None = Field(default=None, description="space-to-depth factor before the first level: 1, 2 or 4")
    encoder: EncoderName | None = Field(
        default=None, description="encoder; an EfficientNet can start with --init imagenet"
    )


class OptimizerSettings(Section):
    """The optimizer."""

    name: Literal["adam", "adamw", "sgd"] = Field(default="adam", description="optimizer")
    lr: float = Field(default=1e-4, gt=0, le=10, description="learning rate; with a schedule, its peak")
    encoder_lr: float = Field(default=1.0, ge=0, le=1, description="learning rate of the encoder as a share of lr")
    weight_decay: float = Field(default=0.0, ge=0, le=1, description="weight decay; not applied to biases and norms")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="momentum of sgd")
    clip_norm: float = Field(default=0.0, ge=0, description="clip the gradient to this norm; 0 to not clip")


class ScheduleSettings(Section):
    """The learning rate over the run."""

    name: Literal["constant", "one-cycle", "cosine"] = Field(default="constant", description="learning rate schedule")
    warmup: float = Field(default=0.05, ge=0, lt=1, description="share of the run in which the rate rises to its peak")


class LossSettings(Section):
    """The loss."""

    name: Literal["bce", "dice", "bce+dice", "border"] = Field(default="bce", description="loss function")
    border_weight: float = Field(default=3.0, ge=1, description="weight of pixels near the edge, for `border`")
    hard_targets: bool = Field(default=False, description="round soft masks to 0 and 1 before the loss")


class TrainingHardwareSettings(HardwareSettings):
    """Device, precision and threads, and what only training can use."""

    compile: bool = Field(default=False, description="compile the network with torch.compile")
