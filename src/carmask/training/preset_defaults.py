"""The settings that each preset is trained with, unless others are given."""

from collections.abc import Mapping
from typing import Any

from carmask.data.augment import AugmentSettings

_MODERN: dict[str, Any] = {
    "epochs": 30,
    "ema": 0.995,
    "optimizer": {"name": "adamw", "lr": 3e-3, "weight_decay": 1e-4, "clip_norm": 1.0},
    "schedule": {"name": "one-cycle", "warmup": 0.2},
    "loss": {"name": "bce+dice"},
}
# `small` is trained as it was published: Adam at 1e-4, BCE, 10 epochs, which are the defaults, and no augmentation.
PRESET_DEFAULTS: Mapping[str, dict[str, Any]] = {
    "small": {"augment": AugmentSettings.off().model_dump(exclude_unset=True)},
    "fast": {**_MODERN, "batch_size": 8},
    "classic": {**_MODERN, "optimizer": {**_MODERN["optimizer"], "lr": 1e-3}},
    "deep": {**_MODERN, "optimizer": {**_MODERN["optimizer"], "lr": 1e-3}},
    "general": {
        **_MODERN,
        "batch_size": 8,
        "optimizer": {**_MODERN["optimizer"], "lr": 2e-3, "encoder_lr": 0.3},
        "schedule": {"name": "cosine", "warmup": 0.05},
    },
    # Crops are small: they are moved little.
    "sharp": {
        **_MODERN,
        "batch_size": 64,
        "optimizer": {**_MODERN["optimizer"], "lr": 2.5e-3},
        "schedule": {"name": "cosine", "warmup": 0.02},
        "loss": {"name": "bce"},
        "augment": {"shift": 0.02, "scale": 0.1, "zoom": 1.25},
    },
}
# The learning rate for exported networks: higher rates make them forget what they have learned.
FINE_TUNING_LR = 3e-4
