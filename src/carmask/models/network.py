"""A U-Net together with all that is needed to use it: one folder, one call to load.

Weights (`model.safetensors`) and configuration (`config.json`) are written by huggingface_hub's model mixin, so a
folder can be pushed to and pulled from the Hub as it is, and nobody repeats channels, size or threshold. Its card
(`README.md`) is our own: `hub_card`.
"""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, PyTorchModelHubMixin, hf_hub_download
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_model
from torch import Tensor, nn

from carmask.errors import CarmaskError, explain, first_line
from carmask.imaging.geometry import Geometry
from carmask.models.config import WEIGHTS, UNetConfig, weights_folder
from carmask.models.hub_card import SIGNATURE, Facts, write_hub_card
from carmask.models.presets import PRESETS, PresetName
from carmask.models.series_file import fold_folders
from carmask.models.summary import Summary, summarize
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
    tags=["u-net"],
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
        return summarize(self.unet, self.config.geometry.canvas_HW(self.config.unet.stride_px))

    def _keep_for_saving(self) -> None:
        # The mixin would save what it saw at construction.
        self._hub_mixin_config = {"config": self.config.model_dump(mode="json")}

    def generate_model_card(self, *, license_id: str | None = None) -> ModelCard:
        """Write the card that `save_pretrained` puts beside the weights, as README.md.

        What others have written there is kept, and so is a card from which its last line was taken.

        Args:
            license_id: The license of these weights, as the Hub names it ("mit"); the card says that none is stated
                where it is not given. `save_pretrained` and `push_to_hub` take it in `model_card_kwargs`.

        Raises:
            CardError: what is noted about the training cannot be understood.

        """
        config = self.config
        facts = Facts(
            name=config.name,
            form="weights",
            call="FOLDER",
            geometry=config.geometry,
            channels=config.unet.in_channels,
            stride_px=config.unet.stride_px,
            threshold=config.threshold,
            unet=config.unet,
            parameters=sum(parameter.numel() for parameter in self.parameters()),
            notes=config.training,
            measured={name: value for name, value in config.training.items() if name.startswith("held_out")},
            held_out_groups=config.training.get("groups_held_out", ()),
        )
        return write_hub_card(facts, tags=self._hub_mixin_info.model_card_data.tags or (), license_id=license_id)

    def _save_pretrained(self, save_directory: Path) -> None:
        super()._save_pretrained(save_directory)
        # The mixin keeps a card that is there. One that we wrote tells the figures of the weights that were there.
        card = save_directory / "README.md"
        if card.is_file() and SIGNATURE in card.read_text(encoding="utf-8", errors="replace"):
            card.unlink()

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, *, map_location: str = "cpu", **hub_options: Any
    ) -> "Network":
        """Load from a folder, as `load` does and without a network, or from a repository on the Hub.

        Args:
            pretrained_model_name_or_path: A folder, which goes before a repository of that name; or a repository's id
                (owner/name). A `Path` is always a folder.
            map_location: The device.
            hub_options: revision, token, cache_dir, force_download, local_files_only: see `hf_hub_download`, which
                also says what is raised where a repository cannot be had.

        Raises:
            WeightsError: the folder, its configuration or its weights are missing or damaged.

        """
        folder = Path(pretrained_model_name_or_path)
        if isinstance(pretrained_model_name_or_path, str) and not folder.exists():
            # Not by the mixin, which leaves a tensor that is missing as it was made, at random, and says nothing.
            files = [hf_hub_download(pretrained_model_name_or_path, name, **hub_options) for name in WEIGHTS]
            folder = Path(files[0]).parent
        return cls.load(folder).to(map_location)

    @classmethod
    def load(cls, folder: Path) -> "Network":
        """Load from a local folder, never from the Hub: a folder of weights, or a run's folder, whose best are taken.

        The network is ready to be used: in evaluation mode, on the CPU.

        Raises:
            WeightsError: the folder, its configuration or its weights are missing or damaged.

        """
        if folds := fold_folders(folder):
            raise WeightsError(f"{folder}: holds {len(folds)} folds, each with a network; name one, such as {folds[0]}")
        folder = weights_folder(folder)
        config, weights = (folder / name for name in WEIGHTS)
        # A missing folder would be taken for the name of a repository on the Hub, so look first.
        for file in (config, weights):
            if not file.is_file():
                raise WeightsError(f"{folder}: no {file.name} in it; a folder of weights holds {' and '.join(WEIGHTS)}")
        try:
            network = cls(NetworkConfig.model_validate(json.loads(config.read_text())["config"]))
            load_model(network, weights)
        except ValidationError as error:
            raise WeightsError(
                f"{config}: cannot be understood ({explain(error, NetworkConfig)}); it may be of another version of "
                "carmask: update carmask, or copy the folder again"
            ) from error
        except (OSError, ValueError, KeyError, TypeError, SafetensorError, RuntimeError) as error:
            raise WeightsError(
                f"{folder}: damaged or foreign weights ({first_line(error)}); copy the folder again"
            ) from error
        return network.eval()
