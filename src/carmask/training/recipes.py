"""What presets set where neither the command line nor a file does."""

from collections.abc import Mapping
from typing import Any

from carmask.data.augment import AugmentSettings

# `small` keeps to the recipe that it was published with: the defaults (Adam 1e-4, BCE, 10 epochs), with nothing varied.
_MODERN: dict[str, Any] = {
    "epochs": 30,
    "ema": 0.995,
    "optimizer": {"name": "adamw", "lr": 3e-3, "weight_decay": 1e-4, "clip_norm": 1.0},
    "schedule": {"name": "one-cycle", "warmup": 0.2},
    "loss": {"name": "bce+dice"},
}
RECIPES: Mapping[str, dict[str, Any]] = {
    "small": {"augment": AugmentSettings.off().model_dump(exclude_unset=True)},
    "fast": {**_MODERN, "batch_size": 8},
    "classic": {**_MODERN, "optimizer": {**_MODERN["optimizer"], "lr": 1e-3}},
    "deep": {**_MODERN, "optimizer": {**_MODERN["optimizer"], "lr": 1e-3}},
}
