"""Everything that can be set about a training run: one model is the Python API, the YAML file and the command line.

What is not given is taken from the YAML file (`config`), then from the preset's recipe (`RECIPES`), then from the
defaults here.
"""

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from carmask.data.augment import AugmentSettings
from carmask.data.cache import CacheRecipe
from carmask.errors import CarmaskError
from carmask.imaging.geometry import Geometry
from carmask.models.presets import PRESETS, PresetName
from carmask.runtime.hardware import HardwareSettings


class SettingsError(CarmaskError):
    """A setting that does not exist or cannot have that value."""


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataSettings(_Settings):
    """Which photos are learnt from and which are held out."""

    split: Path | None = Field(default=None, description="a split.json made before; otherwise one is made")
    folds: int = Field(default=5, ge=2, description="the groups are dealt into this many folds")
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


class OptimiserSettings(_Settings):
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
    batch_size: int | None = Field(default=None, ge=1, le=4096, description="found by measurement when not given")
    seed: int = Field(default=0, ge=0, description="all randomness comes from this and the step")
    init: Path | None = Field(
        default=None, description="run, or folder of weights, to start from: of the same network, at any input size"
    )
    patience: int | None = Field(default=None, ge=1, description="stop after so many epochs without a better Dice")
    ema: float = Field(
        default=0.0, ge=0, lt=1, description="decay of averaged weights, which are then validated; 0 for none"
    )
    dataset: DataSettings = DataSettings()
    input: InputSettings = InputSettings()
    optimiser: OptimiserSettings = OptimiserSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    loss: LossSettings = LossSettings()
    augment: AugmentSettings = AugmentSettings()
    hardware: HardwareSettings = HardwareSettings()

    @model_validator(mode="before")
    @classmethod
    def _fill_from_config_and_recipe(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        given = dict(given)
        config = given.pop("config", None)
        if config is not None:
            given = _merged(_read_yaml(Path(config)), given)
        recipe = RECIPES.get(str(given.get("preset", "small")), {})
        return {**_merged(recipe, given), "config": config}

    @model_validator(mode="after")
    def _fold_exists(self) -> "TrainSettings":
        if self.dataset.fraction is None and self.dataset.fold >= self.dataset.folds:
            raise ValueError(f"dataset.fold {self.dataset.fold}: folds are counted from 0 to {self.dataset.folds - 1}")
        return self

    @model_validator(mode="after")
    def _batch_norm_has_something_to_average(self) -> "TrainSettings":
        unet = PRESETS[self.preset].unet
        canvas_HW = self.geometry().canvas_HW(unet.stride_px)
        if self.batch_size == 1 and unet.norm == "batch" and max(canvas_HW) == unet.stride_px:
            raise ValueError(
                f"batch_size 1 at {canvas_HW[0]} x {canvas_HW[1]} px leaves BatchNorm one value for each channel at "
                "the lowest level; use a larger batch or input"
            )
        return self

    def geometry(self) -> Geometry:
        """The preset's geometry, at the size that was asked for."""
        preset = PRESETS[self.preset].geometry
        return Geometry(
            height_px=self.input.height_px or preset.height_px,
            width_px=self.input.width_px or preset.width_px,
            keep_aspect=preset.keep_aspect,
        )

    def cache_recipe(self) -> CacheRecipe:
        """How photos and masks are fitted for the preset's network."""
        unet = PRESETS[self.preset].unet
        return CacheRecipe(
            geometry=self.geometry(),
            channels=unet.in_channels,
            stride_px=unet.stride_px,
            foreground=self.dataset.foreground,
        )

    def with_absolute_paths(self) -> "TrainSettings":
        """The same settings, in the words of any working folder, so that a run can be resumed from another."""
        dataset = self.dataset.model_copy(update={"cache": self.dataset.cache.absolute()})
        init = self.init.absolute() if self.init else None
        return self.model_copy(update={"data": self.data.absolute(), "init": init, "dataset": dataset})

    def to_yaml(self) -> str:
        """Every setting as YAML that `from_yaml` reads back."""
        return str(yaml.safe_dump(self.model_dump(mode="json", exclude={"config"}), sort_keys=False))

    @classmethod
    def from_yaml(cls, path: Path) -> "TrainSettings":
        """Read settings that `to_yaml` wrote.

        Raises:
            SettingsError: unreadable, misspelt or impossible.

        """
        try:
            return cls.model_validate(_read_yaml(path))
        except ValidationError as error:
            raise SettingsError(f"{path}: {explain(error)}") from error


# What presets set where nothing else is given. `small` keeps to the recipe that it was published with, which is that of
# the defaults (Adam 1e-4, BCE, 10 epochs), with nothing varied.
_MODERN: dict[str, Any] = {
    "epochs": 30,
    "ema": 0.995,
    "optimiser": {"name": "adamw", "lr": 3e-3, "weight_decay": 1e-4, "clip_norm": 1.0},
    "schedule": {"name": "one-cycle", "warmup": 0.2},
    "loss": {"name": "bce+dice"},
}
RECIPES: Mapping[str, dict[str, Any]] = {
    "small": {"augment": AugmentSettings.off().model_dump(exclude_unset=True)},
    "fast": {**_MODERN, "batch_size": 8},
    "classic": {**_MODERN, "optimiser": {**_MODERN["optimiser"], "lr": 1e-3}},
    "deep": {**_MODERN, "optimiser": {**_MODERN["optimiser"], "lr": 1e-3}},
}


def explain(error: ValidationError) -> str:
    """Say in one line per fault which setting is wrong, and for a misspelt one which was probably meant."""
    known = sorted(_setting_names(TrainSettings))
    return "; ".join(
        _explain_fault(".".join(map(str, fault["loc"])), fault["type"], fault["msg"], fault.get("input"), known)
        for fault in error.errors()
    )


def _explain_fault(name: str, kind: str, message: str, value: object, known: list[str]) -> str:
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        return f"there is no setting '{name}'" + (f"; did you mean '{near[0]}'?" if near else "")
    if kind == "missing":
        return f"'{name}' is not given"
    message = message.removeprefix("Value error, ")
    return f"{name} = {value!r}: {message[0].lower()}{message[1:]}" if name else message


def _setting_names(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _setting_names(field.annotation, f"{prefix}{name}.")


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`, group by group. Groups may also be given as models."""
    result = dict(below)
    for name, value in above.items():
        if isinstance(value, BaseModel):
            value = value.model_dump(exclude_unset=True)
        if isinstance(value, Mapping) and isinstance(result.get(name), Mapping):
            result[name] = _merged(result[name], value)
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
