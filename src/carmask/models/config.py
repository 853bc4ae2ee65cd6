"""What a U-Net is made of. Needs no PyTorch, so that presets can be named without it."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

# What a folder of weights holds.
WEIGHTS = ("config.json", "model.safetensors")
# Where a run keeps the weights that it is judged by.
BEST_OF_RUN = Path("weights", "best")
# Its settings, who was held out, and a row for each epoch.
CONFIG_OF_RUN, SPLIT_OF_RUN, METRICS_OF_RUN = "config.yaml", "split.json", "metrics.csv"


def weights_folder(folder: Path) -> Path:
    """Return the folder of weights that is meant: the best ones where it is a run's folder, otherwise itself."""
    best = folder / BEST_OF_RUN
    return best if not (folder / WEIGHTS[0]).exists() and best.is_dir() else folder


class UNetConfig(BaseModel):
    """All that is needed to build a `UNet`. Travels with the weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    in_channels: Literal[1, 3] = Field(description="1 for gray images, 3 for RGB")
    widths: tuple[int, ...] = Field(description="feature channels of each level, the finest first")
    norm: Literal["batch", "none"] = Field(default="batch", description="normalization after each convolution")
    up_kernel: Literal[2, 3] = Field(default=2, description="kernel of the stride-2 transposed convolutions")
    stem: Literal[1, 2, 4] = Field(default=1, description="space-to-depth factor before the first level")
    head_kernel: Literal[1, 3] = Field(default=1, description="kernel of the last convolution")

    @field_validator("widths")
    @classmethod
    def _widths_make_a_u(cls, widths: tuple[int, ...]) -> tuple[int, ...]:
        if len(widths) < 2 or min(widths) < 1:
            raise ValueError("a U-Net has at least two levels, each with at least one channel")
        return widths

    @property
    def stride_px(self) -> int:
        """Height and width of an input must be multiples of this."""
        return int(self.stem * 2 ** (len(self.widths) - 1))
