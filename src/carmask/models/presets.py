"""The four networks that the project ships, and the geometry that each is meant for."""

from dataclasses import dataclass
from typing import Literal, get_args

from carmask.imaging.geometry import Geometry
from carmask.models.config import UNetConfig

PresetName = Literal["small", "classic", "deep", "fast"]


@dataclass(frozen=True)
class Preset:
    """A network, the size at which it sees photos, and one sentence about it."""

    name: PresetName
    summary: str
    unet: UNetConfig
    geometry: Geometry


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
    )
}
assert set(PRESETS) == set(get_args(PresetName))
