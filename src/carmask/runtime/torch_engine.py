"""PyTorch as an engine."""

import os
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from carmask.errors import first_line
from carmask.models.network import Network
from carmask.runtime.engine import Engine, EngineError
from carmask.runtime.hardware import Hardware


class TorchEngine(Engine):
    """Runs a `Network` in PyTorch."""

    name = "torch"
    # PyTorch may choose other kernels for other batch sizes.
    steady_batch = None
    # The process that has an engine. Its forked children must not use PyTorch.
    process: ClassVar[int | None] = None

    def __init__(self, network: Network, hardware: Hardware) -> None:
        super().__init__(network.card)
        TorchEngine.process = TorchEngine.process or os.getpid()
        self._network = network.eval().to(hardware.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._hardware = hardware
        self.device = str(hardware.device)
        self.precision = "bf16" if hardware.precision == torch.bfloat16 else "float32"
        self.threads = torch.get_num_threads() if hardware.device.type == "cpu" else None

    @torch.inference_mode()
    def _run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        count, height, width, _ = images_NHWC.shape
        try:
            with self._hardware.autocast():
                logits_B1HW = self._network(to_input(images_NHWC, self._hardware.device))
            probability_BHW: NDArray[np.float32] = logits_B1HW[:, 0].float().sigmoid().cpu().numpy()
        except RuntimeError as error:
            raise EngineError(
                f"{self.card.name}: PyTorch failed on {count} x {height} x {width} px: {first_line(error)}"
            ) from error
        return probability_BHW


def to_input(images_NHWC: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Return photos as a network takes them: `x_NCHW` float32 0..1, channels_last, on `device`."""
    # H x W x C in memory seen as C x H x W is what channels_last means: no copy.
    return torch.from_numpy(images_NHWC).to(device, non_blocking=True).permute(0, 3, 1, 2).float().div_(255)
