"""A U-Net together with all that is needed to use it: one folder, one call to load.

Weights (`model.safetensors`) and configuration (`config.json`) are written by huggingface_hub's model mixin, so a
folder can be pushed to and pulled from the Hub as it is, and nobody repeats channels, size or threshold.
"""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import PyTorchModelHubMixin
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.torch import load_model
from torch import Tensor, nn

from carmask.errors import CarmaskError, first_line
from carmask.imaging.geometry import Geometry
from carmask.models.config import WEIGHTS, UNetConfig, weights_folder
from carmask.models.presets import PRESETS, PresetName
from carmask.models.summary import Summary, summarise
from carmask.models.unet import UNet


class WeightsError(CarmaskError):
    """A folder that holds no network, or a damaged one."""


class NetworkConfig(BaseModel):
    """What a network is, how photos are fitted to it, and what is known about its training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="the preset it was built from, or a name of your own")
    unet: UNetConfig
    geometry: Geometry
    threshold: float = Field(default=0.5, gt=0, lt=1, description="a pixel belongs to the mask from here on")
    training: dict[str, Any] = Field(default_factory=dict, description="data, settings and measured figures")

    @classmethod
    def from_preset(cls, preset: PresetName) -> "NetworkConfig":
        """The configuration of an untrained preset."""
        chosen = PRESETS[preset]
        return cls(name=chosen.name, unet=chosen.unet, geometry=chosen.geometry)


class Network(
    nn.Module,
    PyTorchModelHubMixin,
    coders={NetworkConfig: (lambda config: config.model_dump(mode="json"), NetworkConfig.model_validate)},
    library_name="carmask",
    tags=["image-segmentation", "u-net"],
):
    """A `UNet` that knows its geometry and threshold. `x_BCHW` float 0..1 -> `logits_B1HW` float."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.unet = UNet(config.unet)
        self._keep_for_saving()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Logits, see `UNet.forward`."""
        logits_B1HW: Tensor = self.unet(x_BCHW)
        return logits_B1HW

    def note_training(self, notes: dict[str, Any]) -> None:
        """Add to what is known about the training; it is saved with the weights."""
        self.config = self.config.model_copy(update={"training": {**self.config.training, **notes}})
        self._keep_for_saving()

    def summary(self) -> Summary:
        """Levels, shapes, parameters, multiply-adds and receptive field at the network's own size; print it."""
        return summarise(self.unet, self.config.geometry.canvas_HW(self.config.unet.stride_px))

    def _keep_for_saving(self) -> None:
        # The mixin would save what it saw at construction.
        self._hub_mixin_config = {"config": self.config.model_dump(mode="json")}

    @classmethod
    def load(cls, folder: Path) -> "Network":
        """Load from a local folder, never from the Hub: a folder of weights, or a run's folder, whose best are taken.

        The network is ready to be used: in evaluation mode, on the CPU.

        Raises:
            WeightsError: the folder, its configuration or its weights are missing or damaged.

        """
        folder = weights_folder(folder)
        config, weights = (folder / name for name in WEIGHTS)
        # A missing folder would be taken for the name of a repository on the Hub, so look first.
        for file in (config, weights):
            if not file.is_file():
                raise WeightsError(f"{folder}: no {file.name} in it; a folder of weights holds {' and '.join(WEIGHTS)}")
        try:
            network = cls(NetworkConfig.model_validate(json.loads(config.read_text())["config"]))
            load_model(network, weights)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError, RuntimeError) as error:
            raise WeightsError(
                f"{folder}: damaged or foreign weights ({first_line(error)}); copy the folder again"
            ) from error
        return network.eval()
