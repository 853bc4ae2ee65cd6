"""The U-Net's configuration, the presets, and the files in a folder of weights. Needs no PyTorch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from carmask.imaging.geometry import Geometry

# The files in a folder of weights.
WEIGHTS = ("config.json", "model.safetensors")
# The best weights in a run's folder.
BEST_OF_RUN = Path("weights", "best")
# The name of `dataset.empty` in a run's split, as ids have it.
EMPTY_SOURCE = "no-vehicle"
# A run's settings, its split, and a row for each epoch.
CONFIG_OF_RUN, SPLIT_OF_RUN, METRICS_OF_RUN = "config.yaml", "split.json", "metrics.csv"

PresetName = Literal["small", "classic", "deep", "fast", "general", "sharp"]
EncoderName = Literal["plain", "efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2"]


def weights_folder(folder: Path) -> Path:
    """Return the folder of the best weights for a run's folder; any other folder is returned as it is."""
    best = folder / BEST_OF_RUN
    return best if not (folder / WEIGHTS[0]).exists() and best.is_dir() else folder


class UNetConfig(BaseModel):
    """The structure of a `UNet`. Saved with the weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    in_channels: Literal[1, 3, 4] = Field(
        description="1 for gray images, 3 for RGB, 4 for RGB with the probability of a network that is refined"
    )
    widths: tuple[int, ...] = Field(
        description="feature channels of each level, the finest first; with an EfficientNet as the encoder, of the "
        "decoder's levels, which have strides of 2, 4, 8 and 16"
    )
    encoder: EncoderName = Field(default="plain", description="plain is the U-Net's own, of double convolutions")
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

    @model_validator(mode="after")
    def _fit_the_encoder(self) -> "UNetConfig":
        given = (self.in_channels, len(self.widths), self.norm, self.stem)
        if self.encoder != "plain" and given != (3, 4, "batch", 1):
            raise ValueError(
                f"the encoder {self.encoder} needs 3 input channels, 4 widths, norm batch and a stem of 1, not "
                f"{given[0]} channels, {given[1]} widths, norm {given[2]} and a stem of {given[3]}"
            )
        return self

    @property
    def finest_stride_px(self) -> int:
        """Stride of the finest level's features. The head gives this times this many logits for each of them."""
        return self.stem if self.encoder == "plain" else 2

    @property
    def decoder_widths(self) -> tuple[int, ...]:
        """Feature channels of each level of the decoder, the finest first."""
        return self.widths[:-1] if self.encoder == "plain" else self.widths

    @property
    def stride_px(self) -> int:
        """Height and width of an input must be multiples of this."""
        return int(self.finest_stride_px * 2 ** len(self.decoder_widths))


@dataclass(frozen=True)
class Preset:
    """A network, the size of its input, and one sentence about it. refines: the network whose outlines it refines."""

    name: PresetName
    summary: str
    unet: UNetConfig
    geometry: Geometry
    refines: str | None = None


PRESETS: dict[PresetName, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "small",
            "the light U-Net: gray 128 x 128 px, three levels, no normalization",
            UNetConfig(in_channels=1, widths=(64, 128, 256), norm="none", up_kernel=3),
            Geometry(height_px=128, width_px=128),
        ),
        Preset(
            "classic",
            "the paper's symmetric U-Net, with BatchNorm and padding",
            UNetConfig(in_channels=3, widths=(64, 128, 256, 512, 1024)),
            Geometry(height_px=640, width_px=960, keep_aspect=True),
        ),
        Preset(
            "deep",
            "seven levels: a wider view than `classic` for a third of its arithmetic per pixel",
            UNetConfig(in_channels=3, widths=(32, 64, 128, 256, 512, 512, 512)),
            Geometry(height_px=1024, width_px=1024),
        ),
        Preset(
            "fast",
            "a slim U-Net behind a space-to-depth stem: photo-sized masks in real time on a CPU",
            UNetConfig(in_channels=3, widths=(16, 32, 64, 128, 256, 256), stem=2, head_kernel=3),
            Geometry(height_px=512, width_px=768, keep_aspect=True),
        ),
        Preset(
            "general",
            "any vehicle in any photo: a U-Net on an EfficientNet-Lite0 encoder trained on ImageNet",
            UNetConfig(in_channels=3, widths=(32, 48, 64, 128), encoder="efficientnet-lite0", head_kernel=3),
            Geometry(height_px=512, width_px=768, keep_aspect=True),
        ),
        Preset(
            "sharp",
            "refines the outline that `general` finds, in crops of the photo at its full size",
            UNetConfig(in_channels=4, widths=(32, 64, 96), stem=2, head_kernel=3),
            Geometry(height_px=64, width_px=64),
            refines="general",
        ),
    )
}
assert set(PRESETS) == set(get_args(PresetName))
