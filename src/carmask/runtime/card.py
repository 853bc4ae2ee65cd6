"""What an exported network says about itself: the metadata inside its `.onnx` file. Needs no PyTorch."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from carmask.imaging.geometry import Geometry

# The key under which a card stands, as JSON, in the file's metadata.
CARD_KEY = "carmask"


class ModelCard(BaseModel):
    """All that is needed to use a network, and what is known about it. Travels inside the `.onnx` file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="what the network is called")
    version: str = Field(description="version of carmask that exported it")
    preset: str | None = Field(description="the preset it was built from")
    geometry: Geometry = Field(description="how photos are fitted to it")
    channels: Literal[1, 3] = Field(description="1 for gray images, 3 for RGB")
    stride_px: int = Field(ge=1, description="sides that are multiples of this are not padded inside the network")
    threshold: float = Field(gt=0, lt=1, description="a pixel belongs to the mask from here on")
    precision: Literal["float32", "int8"] = Field(description="in what the convolutions are to be computed")
    weights: Literal["float32", "float16", "int8"] = Field(
        default="float32", description="in what the weights are stored"
    )
    training: dict[str, Any] = Field(default_factory=dict, description="what it was trained on, and how")
    train_groups: tuple[str, ...] = Field(default=(), description="groups (cars) that it was trained on")
    held_out_groups: tuple[str, ...] = Field(default=(), description="groups by which its best epoch was chosen")
    measured: dict[str, Any] = Field(default_factory=dict, description="Dice and other figures, on what, and parity")

    def as_int8(self) -> "ModelCard":
        """The card of the same network quantized, of which nothing is measured yet."""
        changed = {"name": f"{self.name}-int8", "precision": "int8", "weights": "int8", "measured": {}}
        return self.model_copy(update=changed)
