"""Photo in, mask out: the object that predicting, evaluating and serving share."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carmask.errors import CarmaskError
from carmask.imaging.decode import ImageSource, Photo, decode_photo
from carmask.imaging.geometry import Geometry, fit_image, plan, restore
from carmask.runtime.engine import Engine

Box = tuple[int, int, int, int]


class EngineMissing(CarmaskError):
    """What is needed to run a network is not installed."""


@dataclass(frozen=True)
class Result:
    """What was found in one photo. `probability_HW` is float32 0..1 at the photo's own size."""

    probability_HW: NDArray[np.float32]
    threshold: float

    @property
    def mask_HW(self) -> NDArray[np.bool_]:
        """Bool, at the photo's own size."""
        return self.probability_HW >= self.threshold

    @property
    def coverage(self) -> float:
        """Share of the photo that the mask covers, 0..1."""
        return float(self.mask_HW.mean())

    @property
    def box_px(self) -> Box | None:
        """Top, left, bottom, right in pixels, bottom and right exclusive; nothing when no vehicle was found."""
        mask_HW = self.mask_HW
        rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
        if not rows.size:
            return None
        return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


class Segmenter:
    """A trained network with its geometry: `segmenter("car.jpg").mask_HW`."""

    def __init__(
        self, engine: Engine, *, name: str, geometry: Geometry, channels: int, stride_px: int, threshold: float
    ) -> None:
        self.engine = engine
        self.name = name
        self.geometry = geometry
        self.channels = channels
        self.stride_px = stride_px
        self.threshold = threshold

    @classmethod
    def load(cls, path: str | Path, *, device: str = "auto", precision: str = "auto") -> "Segmenter":
        """Load a run's folder (its best weights) or a folder of weights.

        Raises:
            WeightsError: there is no network in the folder, or a damaged one.
            EngineMissing: PyTorch is not installed.

        """
        try:
            from carmask.models.network import Network
            from carmask.runtime.hardware import HardwareSettings, set_up
            from carmask.runtime.torch_engine import TorchEngine
        except ImportError as error:
            raise EngineMissing(
                f"{path}: needs PyTorch ({error}); install it with `pip install 'carmask[train]'`"
            ) from error
        network = Network.load(Path(path))
        hardware = set_up(HardwareSettings.model_validate({"device": device, "precision": precision}))
        config = network.config
        return cls(
            TorchEngine(network, hardware),
            name=config.name,
            geometry=config.geometry,
            channels=config.unet.in_channels,
            stride_px=config.unet.stride_px,
            threshold=config.threshold,
        )

    def describe(self) -> dict[str, Any]:
        """Name, size, threshold and engine, as JSON can hold them."""
        return {
            "name": self.name,
            "input": {**self.geometry.model_dump(), "channels": self.channels},
            "threshold": self.threshold,
            "engine": self.engine.name,
            "device": self.engine.device,
            "precision": self.engine.precision,
        }

    def decode(self, source: ImageSource) -> Photo:
        """Decode a photo as the network wants it: its channels, and no larger than needed.

        Raises:
            UnreadableImage: not a readable picture.

        """
        return decode_photo(source, channels=self.channels, at_least_HW=self.geometry.size_HW)

    def predict_photos(self, photos: Sequence[Photo]) -> list[NDArray[np.float32]]:
        """Probabilities (float32 0..1) at each photo's own size. All photos go through the network as one batch."""
        if not photos:
            return []
        placements = [plan(photo.size_HW, self.geometry, stride_px=self.stride_px) for photo in photos]
        fitted = [fit_image(photo.image_HWC, place) for photo, place in zip(photos, placements, strict=True)]
        probability_NHW = self.engine.run(np.stack(fitted))
        return [restore(one_HW, place) for one_HW, place in zip(probability_NHW, placements, strict=True)]

    def __call__(self, source: ImageSource) -> Result:
        """Cut out one photo: a path or the bytes of a picture file.

        Raises:
            UnreadableImage: not a readable picture.

        """
        (probability_HW,) = self.predict_photos([self.decode(source)])
        return Result(probability_HW, self.threshold)
