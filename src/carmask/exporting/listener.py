"""Who is told what an export does, as it does it. Needs no PyTorch."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from carmask.progress import Progress

if TYPE_CHECKING:
    from carmask.exporting.comparison import Comparison
    from carmask.exporting.parity import Figures, Reference
    from carmask.exporting.photos import Photos


class Listener:
    """Is told what happens, as it happens. This one does not mind."""

    def bar(self, what: str) -> AbstractContextManager[Progress]:  # noqa: ARG002
        """Show a bar while inside."""
        return nullcontext(lambda done, total: None)  # noqa: ARG005

    def chosen(self, photos: "Photos") -> None:
        """Take note of the photos."""

    def probed(self, reference: "Reference", differences: dict[str, float]) -> None:
        """Take note of how far each engine (by name) is from PyTorch, on probes."""

    def measured(self, reference: "Reference", figures: Sequence["Figures"]) -> None:
        """Take note of what each engine gave, on photos."""

    def compared(self, compared: Sequence["Comparison"], float_bytes: int, int8_bytes: int) -> None:
        """Take note of what int8 costs and brings."""
