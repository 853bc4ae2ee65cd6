"""The progress and figures of an export. Needs no PyTorch, so that the command line's help can import it."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from carmask.progress import Progress

if TYPE_CHECKING:
    from carmask.exporting.parity import Int8Comparison, Reference
    from carmask.exporting.photos import ExportPhotos
    from carmask.models.card import EngineParity
    from carmask.models.dice_calibration import DiceCalibration


class ExportLogger:
    """Ignores the progress and figures of an export. Subclass it to show them."""

    def bar(self, what: str) -> AbstractContextManager[Progress]:  # noqa: ARG002
        """Return a context in which a progress bar may be shown."""
        return nullcontext(lambda done, total: None)  # noqa: ARG005

    def photos(self, photos: "ExportPhotos") -> None:
        """Called with the chosen photos."""

    def graph(self, reference: "Reference", differences: dict[str, float]) -> None:
        """Called with the largest difference of each engine (by name) from PyTorch, on probes."""

    def masks(self, reference: "Reference", figures: Sequence["EngineParity"]) -> None:
        """Called with the figures of each engine on the photos."""

    def dice(self, name: str, calibration: "DiceCalibration | None") -> None:
        """Called with the calibration of a network's expected Dice; None if there were too few photos."""

    def int8(self, compared: Sequence["Int8Comparison"], float_bytes: int, int8_bytes: int) -> None:
        """Called with the Dice and the time of int8 and of float, for each engine."""
