"""A U-Net with its card, in one folder.

huggingface_hub's model mixin writes the weights (`model.safetensors`) and the card (`config.json`), so a folder can be
pushed to the Hub and pulled from it unchanged. Its README.md comes from `hub_card`.
"""

import json
from pathlib import Path
from typing import Any

import huggingface_hub as hub
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_model
from torch import Tensor, nn

from carmask.errors import CarmaskError, explain, first_line
from carmask.models.card import ModelCard, read_card
from carmask.models.config import WEIGHTS, weights_folder
from carmask.models.hub_card import SIGNATURE, write_hub_card
from carmask.models.series_file import fold_folders
from carmask.models.summary import NetworkSummary, summarize
from carmask.models.unet import UNet


class WeightsError(CarmaskError):
    """A folder that holds no network, or a damaged one."""


class Network(
    nn.Module,
    hub.PyTorchModelHubMixin,
    coders={ModelCard: (lambda card: card.model_dump(mode="json", exclude_none=True), ModelCard.model_validate)},
    library_name="carmask",
    tags=["u-net"],
):
    """A `UNet` that knows its geometry and threshold. `x_BCHW` float 0..1 -> `logits_B1HW` float."""

    def __init__(self, card: ModelCard) -> None:
        super().__init__()
        self.unet = UNet(card.unet)
        self._set_card(card)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """See `UNet.forward`."""
        logits_B1HW: Tensor = self.unet(x_BCHW)
        return logits_B1HW

    def note_training(self, notes: dict[str, Any]) -> None:
        """Add to the card's notes on the training; they are saved with the weights."""
        self._set_card(self.card.model_copy(update={"training": {**self.card.training, **notes}}))

    def summary(self) -> NetworkSummary:
        """Levels, shapes, parameters, multiply-adds and receptive field at the network's own size; print it."""
        return summarize(self.unet, self.card.geometry.canvas_HW(self.card.stride_px))

    def _set_card(self, card: ModelCard) -> None:
        self.card = card
        # The mixin would save the card from construction.
        self._hub_mixin_config = {"config": card.model_dump(mode="json", exclude_none=True)}

    def generate_model_card(self, *, license_id: str | None = None) -> hub.ModelCard:
        """Write the README.md that `save_pretrained` puts beside the weights.

        A README.md that somebody else wrote is kept, and so is one without its last line.

        Args:
            license_id: The license of these weights, as the Hub names it ("mit"); without it the README says that
                none is stated. `save_pretrained` and `push_to_hub` take it in `model_card_kwargs`.
        """
        return write_hub_card(
            self.card,
            model="FOLDER",
            parameters=sum(parameter.numel() for parameter in self.parameters()),
            tags=self._hub_mixin_info.model_card_data.tags or (),
            license_id=license_id,
        )

    def _save_pretrained(self, save_directory: Path) -> None:
        super()._save_pretrained(save_directory)
        # The mixin keeps an existing README. One that we wrote has the figures of the old weights.
        readme = save_directory / "README.md"
        if readme.is_file() and SIGNATURE in readme.read_text(encoding="utf-8", errors="replace"):
            readme.unlink()

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, *, map_location: str = "cpu", **hub_options: Any
    ) -> "Network":
        """Load from a folder, as `load` does and offline, or from a repository on the Hub.

        Args:
            pretrained_model_name_or_path: A folder, or a repository's id (owner/name) unless a folder has that name.
            map_location: The device.
            hub_options: revision, token, cache_dir, force_download, local_files_only; see `hf_hub_download`, also for
                the errors of repositories that cannot be read.

        Raises:
            WeightsError: the folder, its configuration or its weights are missing or damaged.
        """
        folder = Path(pretrained_model_name_or_path)
        if isinstance(pretrained_model_name_or_path, str) and not folder.exists():
            # Not with the mixin, which silently leaves a missing tensor at its random start.
            files = [hub.hf_hub_download(pretrained_model_name_or_path, name, **hub_options) for name in WEIGHTS]
            folder = Path(files[0]).parent
        return cls.load(folder).to(map_location)

    @classmethod
    def load(cls, folder: Path) -> "Network":
        """Load a folder of weights, or the best weights of a run's folder, in evaluation mode on the CPU.

        It may also be a float `.onnx` file; `onnx_weights` says what becomes of BatchNorm.

        Raises:
            WeightsError: the folder, its configuration or its weights are missing or damaged.
            ModelFileError: the file is missing or damaged, or carmask has not exported it.
        """
        if folder.suffix.lower() == ".onnx" and not folder.is_dir():
            return cls._load_onnx(folder)
        if folds := fold_folders(folder):
            raise WeightsError(f"{folder}: holds {len(folds)} folds, each with a network; name one, such as {folds[0]}")
        folder = weights_folder(folder)
        config, weights = (folder / name for name in WEIGHTS)
        for file in (config, weights):
            if not file.is_file():
                raise WeightsError(f"{folder}: no {file.name} in it; a folder of weights holds {' and '.join(WEIGHTS)}")
        try:
            network = cls(ModelCard.model_validate(json.loads(config.read_text())["config"]))
            load_model(network, weights)
        except ValidationError as error:
            raise WeightsError(
                f"{config}: cannot understand it ({explain(error, ModelCard)}); another version of carmask may have "
                "written it: update carmask, or copy the folder again"
            ) from error
        except (OSError, ValueError, KeyError, TypeError, SafetensorError, RuntimeError) as error:
            raise WeightsError(
                f"{folder}: damaged or foreign weights ({first_line(error)}); copy the folder again"
            ) from error
        return network.eval()

    @classmethod
    def _load_onnx(cls, file: Path) -> "Network":
        network = cls(read_card(file))
        if network.card.precision == "int8":
            raise WeightsError(f"{file}: its weights are int8, which cannot be trained or exported; use the float file")
        try:
            # Not needed for folders, and slow to import.
            from carmask.models.onnx_weights import read_onnx_weights

            network.load_state_dict(read_onnx_weights(file, network))
        except (KeyError, RuntimeError) as error:
            raise WeightsError(f"{file}: no network of this structure in it ({first_line(error)})") from error
        return network.eval()
