"""Settings of a training run: the same model is the Python API, the YAML file and the command line.

A setting that is not passed is taken from the YAML file (`config`), then from the preset (`PRESET_DEFAULTS`), then from
the defaults below.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from carmask.data.augment import AugmentSettings
from carmask.data.cache import CacheKey
from carmask.data.composite import CompositeSettings
from carmask.errors import CarmaskError, explain
from carmask.files import read_settings
from carmask.imaging.geometry import Geometry, size_text
from carmask.models.card import ModelCard, read_card
from carmask.models.config import EMPTY_SOURCE, PRESETS, WEIGHTS, PresetName, UNetConfig, weights_folder
from carmask.runtime.locate import packaged_models
from carmask.training.config_sections import (
    DataSettings,
    InputSettings,
    LossSettings,
    MaskSettings,
    NetworkSettings,
    OptimizerSettings,
    ScheduleSettings,
    Section,
    SourceSettings,
    TrainingHardwareSettings,
)
from carmask.training.preset_defaults import FINE_TUNING_LR, PRESET_DEFAULTS

_SOURCE_NAME = re.compile(r"[\w-]+")


# As `init`, unless there is such a folder: the weights of the encoder that were trained on ImageNet.
IMAGENET = Path("imagenet")

ModelT = TypeVar("ModelT", bound=BaseModel)


class SettingsError(CarmaskError):
    """A setting that does not exist or cannot have that value."""


class TrainSettings(Section):
    """Settings of one training run."""

    data: Path = Field(description="folder of photos and masks, or the folder that the paths of `datasets` start from")
    preset: PresetName = Field(
        default="small", description="network to train; with --init, by default that of the weights"
    )
    config: Path | None = Field(default=None, description="YAML file of settings; options override it")
    name: str | None = Field(
        default=None, pattern=r"^\w[\w.+-]*$", description="name of the run; default: preset and time"
    )
    runs: Path = Field(default=Path("runs"), description="parent folder of the run's folder")
    epochs: int = Field(
        default=10, ge=1, le=100_000, description="number of epochs; each ends with validation and a checkpoint"
    )
    epoch_samples: int | None = Field(
        default=None, ge=1, description="photos per epoch; default: as many as there are to train on"
    )
    batch_size: int | None = Field(
        default=None, ge=1, le=4096, description="photos per step, over all devices; default: by free memory"
    )
    accumulate: int = Field(default=1, ge=1, le=1024, description="run each batch in this many parts, to save memory")
    seed: int = Field(default=0, ge=0, description="seed of weights, photo order and augmentation")
    init: Path | None = Field(
        default=None,
        description="weights to start from, of the same network at any input size: packaged weights (fast), an .onnx "
        "file, the folder of a run or of weights, or a Hub id; or imagenet, for an EfficientNet encoder's weights "
        "trained on ImageNet",
    )
    patience: int | None = Field(default=None, ge=1, description="stop after this many epochs without a better Dice")
    ema: float = Field(
        default=0.0, ge=0, lt=1, description="decay of the averaged weights that are validated and saved; 0 for none"
    )
    checkpoint_minutes: float = Field(default=10.0, ge=0, description="minutes between checkpoints within an epoch")
    tensorboard: bool = Field(default=True, description="also log to TensorBoard, in the run's folder")
    stages: tuple[dict[str, Any], ...] = Field(
        default=(),
        description="settings that change from stage to stage, for a --config file; each stage starts from the best "
        "weights of the one before",
    )
    dataset: DataSettings = DataSettings()
    datasets: dict[str, SourceSettings] = Field(
        default={}, description="several data sets by name instead of the one in DATA, for a --config file"
    )
    network: NetworkSettings = NetworkSettings()
    input: InputSettings = InputSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    loss: LossSettings = LossSettings()
    augment: AugmentSettings = AugmentSettings()
    composite: CompositeSettings = CompositeSettings()
    hardware: TrainingHardwareSettings = TrainingHardwareSettings()

    @model_validator(mode="before")
    @classmethod
    def _merge_config_and_preset(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        given = dict(given)
        config = given.pop("config", None)
        if config is not None:
            given = merge(_read_config(Path(config)), given)
        init = given.get("init")
        place = Path(init) if isinstance(init, str | Path) else None
        if place is not None and not place.exists():
            place = packaged_models().get(str(place), place)
        if place is not None and "preset" not in given:
            given |= _preset_of(place)
        defaults = PRESET_DEFAULTS.get(str(given.get("preset", "small")), {})
        if place is not None and place.suffix.lower() == ".onnx" and "optimizer" in defaults:
            defaults = merge(defaults, {"optimizer": {"lr": FINE_TUNING_LR}})
        return {**merge(defaults, given), "config": config}

    @model_validator(mode="after")
    def _check_together(self) -> "TrainSettings":
        _check_sources(self)
        if self.dataset.fraction is None and self.dataset.fold >= self.dataset.folds:
            raise ValueError(f"dataset.fold {self.dataset.fold}: folds are counted from 0 to {self.dataset.folds - 1}")
        try:
            unet = self.unet()
        except ValidationError as error:
            raise ValueError(f"network.{explain(error, UNetConfig)}") from error
        if self.batch_size is not None and self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} cannot be divided into {self.accumulate} equal parts")
        canvas_HW = self.geometry().canvas_HW(unet.stride_px)
        if self.batch_size == self.accumulate and unet.norm == "batch" and max(canvas_HW) == unet.stride_px:
            raise ValueError(
                f"batch_size {self.batch_size}: with single photos of {size_text(canvas_HW)}, BatchNorm "
                "has only one value for each channel at the lowest level; use a larger batch or input"
            )
        return self

    def unet(self) -> UNetConfig:
        """The preset's network with the changes in `network`."""
        changes = self.network.model_dump(exclude_none=True)
        return UNetConfig.model_validate({**PRESETS[self.preset].unet.model_dump(), **changes})

    def geometry(self) -> Geometry:
        """The preset's geometry at the size in `input`."""
        changes = self.input.model_dump(exclude_none=True)
        return Geometry.model_validate({**PRESETS[self.preset].geometry.model_dump(), **changes})

    def sources(self) -> dict[str, SourceSettings]:
        """The data sets of the run by name; the one in `data` has an empty name."""
        if self.datasets:
            return {
                name: source.model_copy(update={"path": self.data / source.path})
                for name, source in self.datasets.items()
            }
        options = self.dataset.model_dump(include={"split", *MaskSettings.model_fields})
        sources = {"": SourceSettings(path=self.data, **options)}
        if self.dataset.empty is not None:
            sources[EMPTY_SOURCE] = SourceSettings(path=self.dataset.empty, empty=True)
        return sources

    def cache_key(self, source: MaskSettings) -> CacheKey:
        """How photos and masks of a data set are resized for the network."""
        unet = self.unet()
        return CacheKey(
            geometry=self.geometry(),
            channels=unet.in_channels,
            stride_px=unet.stride_px,
            foreground=source.foreground,
            ignore=source.ignore,
        )

    def with_absolute_paths(self) -> "TrainSettings":
        """The same settings with absolute paths, so that a run can be resumed from any working folder."""
        # Otherwise it is a name.
        init = self.init.absolute() if self.init is not None and self.init.exists() else self.init
        changes: dict[str, Any] = {
            "data": self.data.absolute(),
            "init": init,
            "dataset": _with_absolute(self.dataset, "split", "cache", "empty"),
            "datasets": {name: _with_absolute(source, "split") for name, source in self.datasets.items()},
        }
        return self.model_copy(update=changes)

    def differences(self, other: "TrainSettings") -> list[str]:
        """Names of the settings that differ, such as "optimizer.lr"; `config` and `runs` are ignored."""
        both = (one.with_absolute_paths().model_dump(exclude={"config", "runs"}) for one in (self, other))
        mine, theirs = map(flatten, both)
        return sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))

    def to_yaml(self) -> str:
        """All settings as YAML, for `from_yaml`."""
        return str(yaml.safe_dump(self.model_dump(mode="json", exclude={"config"}), sort_keys=False))

    @classmethod
    def from_yaml(cls, path: Path) -> "TrainSettings":
        """Read a YAML file of settings.

        Raises:
            SettingsError: the file cannot be read, or a setting does not exist or has an impossible value.
        """
        try:
            return cls.model_validate(_read_config(path))
        except ValidationError as error:
            raise SettingsError(f"{path}: {explain(error, cls)}") from error


def _preset_of(place: Path) -> dict[str, Any]:
    """The preset of weights, as a setting; none if they cannot be read, which training reports."""
    try:
        if place.is_dir():
            text = (weights_folder(place) / WEIGHTS[0]).read_text(encoding="utf-8")
            preset = ModelCard.model_validate(json.loads(text)["config"]).preset
        else:
            preset = read_card(place).preset
    except (OSError, ValueError, KeyError, TypeError, CarmaskError):
        preset = None
    return {} if preset is None else {"preset": preset}


def _with_absolute(settings: ModelT, *names: str) -> ModelT:
    """The settings with these paths, where given, absolute."""
    given = {name: path for name in names if (path := getattr(settings, name)) is not None}
    return settings.model_copy(update={name: path.absolute() for name, path in given.items()})


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level of dotted names."""
    result: dict[str, Any] = {}
    for name, value in settings.items():
        result.update(flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value})
    return result


def merge(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` over `defaults`, group by group. A group may also be a model, of which the fields that were set count."""
    result = dict(defaults)
    for name, value in given.items():
        if isinstance(value, BaseModel):
            value = value.model_dump(exclude_unset=True)
        if isinstance(value, Mapping) and isinstance(result.get(name), Mapping):
            result[name] = merge(result[name], value)
        else:
            result[name] = value
    return result


def _check_sources(settings: TrainSettings) -> None:
    sources = settings.sources()
    if odd := [name for name in settings.datasets if not _SOURCE_NAME.fullmatch(name)]:
        raise ValueError(f"datasets: {odd[0]!r} is not a name; use letters, digits, _ and -")
    if taken := sorted({"median", "worst"} & settings.datasets.keys()):
        # See `EpochMetrics`.
        raise ValueError(
            f"datasets: choose another name than {taken[0]}, since metrics.csv has a column dice_{taken[0]}"
        )
    for key in ("empty", *MaskSettings.model_fields) if settings.datasets else ():
        if getattr(settings.dataset, key) != DataSettings.model_fields[key].default:
            instead = "empty: true" if key == "empty" else f"{key}: ..."
            raise ValueError(
                f"dataset.{key}: has no effect beside `datasets`; there each data set has its own: "
                f"NAME: {{path: FOLDER, {instead}}}"
            )
    if settings.datasets and not any(source.weight for source in sources.values()):
        raise ValueError("datasets: all have weight 0; give the data sets to train on a weight above 0")
    if settings.composite.probability:
        if not any(source.cutouts for source in sources.values()):
            raise ValueError("composite.probability: no data set has `cutouts: true`, so there is nothing to paste")
        if not any(source.empty and source.weight for source in sources.values()):
            raise ValueError("composite.probability: no data set has `empty: true`, so there is nothing to paste onto")


def _read_config(path: Path) -> dict[str, Any]:
    if not (settings := read_settings(path, SettingsError, example="epochs: 10")):
        raise SettingsError(f"{path}: contains no settings; write one per line, such as epochs: 10")
    return settings
