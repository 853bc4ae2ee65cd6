"""Everything that can be set about a training run: one model is the Python API, the YAML file and the command line.

What is not given is taken from the YAML file (`config`), then from the preset's recipe (`recipes`), then from the
defaults here.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from carmask.data.augment import AugmentSettings
from carmask.data.cache import CacheKey
from carmask.data.split import FOLDS
from carmask.errors import CarmaskError, explain
from carmask.imaging.geometry import Geometry
from carmask.models.config import PRESETS, PresetName, UNetConfig
from carmask.runtime.hardware import HardwareSettings
from carmask.training.recipes import RECIPES


class SettingsError(CarmaskError):
    """A setting that does not exist or cannot have that value."""


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataSettings(_Settings):
    """Which photos are learned from and which are held out."""

    split: Path | None = Field(default=None, description="a split.json made before; otherwise one is made")
    folds: int = Field(default=FOLDS, ge=2, description="the groups are dealt into this many folds")
    fold: int = Field(default=0, ge=0, description="the fold that is held out, counted from 0")
    fraction: float | None = Field(default=None, gt=0, lt=1, description="hold out this share instead of a fold")
    split_seed: int = Field(default=0, ge=0, description="seed of the split, apart from the seed of the training")
    group_pattern: str | None = Field(default=None, description="regular expression that finds the group in an id")
    foreground: int | None = Field(default=None, ge=0, le=65535, description="mask value that is foreground")
    cache: Path = Field(default=Path(".cache/carmask"), description="folder for decoded and fitted photos")


class InputSettings(_Settings):
    """The size at which the network sees photos, where it is not the preset's."""

    height_px: int | None = Field(default=None, ge=16, le=8192, description="height in pixels")
    width_px: int | None = Field(default=None, ge=16, le=8192, description="width in pixels")


class NetworkSettings(_Settings):
    """What differs from the preset's network."""

    widths: tuple[int, ...] | None = Field(
        default=None, description="feature channels of each level, the finest first; as many levels as are given"
    )
    stem: int | None = Field(default=None, description="space-to-depth factor before the first level: 1, 2 or 4")


class OptimizerSettings(_Settings):
    """How weights are changed."""

    name: Literal["adam", "adamw", "sgd"] = Field(default="adam", description="the rule")
    lr: float = Field(default=1e-4, gt=0, le=10, description="learning rate; the peak where a schedule varies it")
    weight_decay: float = Field(default=0.0, ge=0, le=1, description="on weights, not on biases and norms")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of sgd")
    clip_norm: float = Field(default=0.0, ge=0, description="largest norm of the gradient; 0 for any")


class ScheduleSettings(_Settings):
    """How the learning rate varies over the run."""

    name: Literal["constant", "one-cycle", "cosine"] = Field(default="constant", description="the shape")
    warmup: float = Field(default=0.05, ge=0, lt=1, description="share of the run that climbs to the peak")


class LossSettings(_Settings):
    """What is made small."""

    name: Literal["bce", "dice", "bce+dice", "border"] = Field(default="bce", description="the loss")
    border_weight: float = Field(default=3.0, ge=1, description="weight of the band along the edge, for `border`")
    hard_targets: bool = Field(default=False, description="round soft masks to 0 and 1, as most others train")


class TrainingHardwareSettings(HardwareSettings):
    """Where and how it is computed, and what only training can do there."""

    compile: bool = Field(default=False, description="let torch.compile make the network's own code first")


TrackerName = Literal["tensorboard", "wandb", "mlflow", "trackio"]


class TrainSettings(_Settings):
    """One training run."""

    data: Path = Field(description="folder of photos and masks")
    preset: PresetName = Field(default="small", description="the network")
    config: Path | None = Field(default=None, description="YAML file of settings; what is given beside it goes first")
    name: str | None = Field(
        default=None, pattern=r"^\w[\w.+-]*$", description="name of the run; preset and time when not given"
    )
    runs: Path = Field(default=Path("runs"), description="folder in which the run's own folder is made")
    epochs: int = Field(
        default=10, ge=1, le=100_000, description="validations, checkpoints and samples come once in each"
    )
    epoch_samples: int | None = Field(
        default=None, ge=1, description="photos in an epoch; every training photo once when not given"
    )
    batch_size: int | None = Field(
        default=None, ge=1, le=4096, description="photos in a step, of all devices together; found when not given"
    )
    accumulate: int = Field(
        default=1, ge=1, le=1024, description="parts of a batch that go through the network one after the other"
    )
    seed: int = Field(default=0, ge=0, description="all randomness comes from this and the step")
    init: Path | None = Field(
        default=None, description="run, or folder of weights, to start from: of the same network, at any input size"
    )
    patience: int | None = Field(default=None, ge=1, description="stop after so many epochs without a better Dice")
    ema: float = Field(
        default=0.0, ge=0, lt=1, description="decay of averaged weights, which are then validated; 0 for none"
    )
    hard: float = Field(
        default=0.0, ge=0, le=1, description="share of the photos that is drawn by how badly each was learned so far"
    )
    checkpoint_minutes: float = Field(
        default=10.0, ge=0, description="so much work is lost at most; each epoch ends with a checkpoint anyway"
    )
    trackers: tuple[TrackerName, ...] = Field(
        default=("tensorboard",), description="who records the run, beside its own folder"
    )
    stages: tuple[dict[str, Any], ...] = Field(
        default=(),
        description="settings laid over all others, one stage after the other; each starts from the best weights of "
        "the one before (in a --config file)",
    )
    dataset: DataSettings = DataSettings()
    network: NetworkSettings = NetworkSettings()
    input: InputSettings = InputSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    loss: LossSettings = LossSettings()
    augment: AugmentSettings = AugmentSettings()
    hardware: TrainingHardwareSettings = TrainingHardwareSettings()

    @model_validator(mode="before")
    @classmethod
    def _fill_from_config_and_recipe(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        given = dict(given)
        config = given.pop("config", None)
        if config is not None:
            given = merged(_read_yaml(Path(config)), given)
        recipe = RECIPES.get(str(given.get("preset", "small")), {})
        return {**merged(recipe, given), "config": config}

    @model_validator(mode="after")
    def _fold_exists(self) -> "TrainSettings":
        if self.dataset.fraction is None and self.dataset.fold >= self.dataset.folds:
            raise ValueError(f"dataset.fold {self.dataset.fold}: folds are counted from 0 to {self.dataset.folds - 1}")
        return self

    @model_validator(mode="after")
    def _network_is_one(self) -> "TrainSettings":
        try:
            self.unet()
        except ValidationError as error:
            raise ValueError(f"network.{explain(error, UNetConfig)}") from error
        return self

    @model_validator(mode="after")
    def _parts_divide_the_batch(self) -> "TrainSettings":
        if self.batch_size is not None and self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} cannot be divided into {self.accumulate} equal parts")
        return self

    @model_validator(mode="after")
    def _batch_norm_has_something_to_average(self) -> "TrainSettings":
        unet = self.unet()
        canvas_HW = self.geometry().canvas_HW(unet.stride_px)
        if self.batch_size == self.accumulate and unet.norm == "batch" and max(canvas_HW) == unet.stride_px:
            raise ValueError(
                f"batch_size {self.batch_size}, photos one at a time at {canvas_HW[0]} x {canvas_HW[1]} px, leaves "
                "BatchNorm one value for each channel at the lowest level; use a larger batch or input"
            )
        return self

    def unet(self) -> UNetConfig:
        """The preset's network, with what was asked for otherwise."""
        given = self.network.model_dump(exclude_none=True)
        return UNetConfig.model_validate({**PRESETS[self.preset].unet.model_dump(), **given})

    def geometry(self) -> Geometry:
        """The preset's geometry, at the size that was asked for."""
        preset = PRESETS[self.preset].geometry
        return Geometry(
            height_px=self.input.height_px or preset.height_px,
            width_px=self.input.width_px or preset.width_px,
            keep_aspect=preset.keep_aspect,
        )

    def cache_key(self) -> CacheKey:
        """How photos and masks are fitted for the network."""
        unet = self.unet()
        return CacheKey(
            geometry=self.geometry(),
            channels=unet.in_channels,
            stride_px=unet.stride_px,
            foreground=self.dataset.foreground,
        )

    def with_absolute_paths(self) -> "TrainSettings":
        """The same settings, in the words of any working folder, so that a run can be resumed from another."""
        split = self.dataset.split.absolute() if self.dataset.split else None
        dataset = self.dataset.model_copy(update={"cache": self.dataset.cache.absolute(), "split": split})
        init = self.init.absolute() if self.init else None
        return self.model_copy(update={"data": self.data.absolute(), "init": init, "dataset": dataset})

    def differences(self, other: "TrainSettings") -> list[str]:
        """Names of the settings that are not the same, wherever they came from."""
        whole = (one.with_absolute_paths().model_dump(exclude={"config", "runs"}) for one in (self, other))
        mine, theirs = map(flat, whole)
        return sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))

    def to_yaml(self) -> str:
        """Every setting as YAML that `from_yaml` reads back."""
        return str(yaml.safe_dump(self.model_dump(mode="json", exclude={"config"}), sort_keys=False))

    @classmethod
    def from_yaml(cls, path: Path) -> "TrainSettings":
        """Read settings that `to_yaml` wrote.

        Raises:
            SettingsError: unreadable, misspelled or impossible.

        """
        try:
            return cls.model_validate(_read_yaml(path))
        except ValidationError as error:
            raise SettingsError(f"{path}: {explain(error, cls)}") from error


def flat(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Groups of settings as names with dots."""
    result: dict[str, Any] = {}
    for name, value in settings.items():
        result.update(flat(value, f"{above}{name}.") if isinstance(value, Mapping) else {above + name: value})
    return result


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`, group by group. Groups may also be given as models."""
    result = dict(below)
    for name, value in above.items():
        if isinstance(value, BaseModel):
            value = value.model_dump(exclude_unset=True)
        if isinstance(value, Mapping) and isinstance(result.get(name), Mapping):
            result[name] = merged(result[name], value)
        else:
            result[name] = value
    return result


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise SettingsError(f"{path}: holds no settings; expected lines such as 'epochs: 10'")
    return content
