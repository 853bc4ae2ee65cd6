"""What an export reports while it works. Needs no PyTorch, so that the command line's help can import it."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from carmask.progress import Progress

if TYPE_CHECKING:
    from carmask.exporting.parity import Int8Comparison, Reference
    from carmask.exporting.photos import ExportPhotos
    from carmask.models.card import EngineParity


class ExportLogger:
    """Ignores what happens during an export. Subclass it to show that."""

    def bar(self, what: str) -> AbstractContextManager[Progress]:  # noqa: ARG002
        """Return a context in which a progress bar may be shown."""
        return nullcontext(lambda done, total: None)  # noqa: ARG005

    def photos(self, photos: "ExportPhotos") -> None:
        """Take the photos that were chosen."""

    def graph(self, reference: "Reference", differences: dict[str, float]) -> None:
        """Take the largest difference of each engine (by name) from PyTorch, on probes."""

    def masks(self, reference: "Reference", figures: Sequence["EngineParity"]) -> None:
        """Take what each engine reached on the photos."""

    def int8(self, compared: Sequence["Int8Comparison"], float_bytes: int, int8_bytes: int) -> None:
        """Take what int8 costs and gains."""
