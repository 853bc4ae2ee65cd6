"""PyTorch as an engine."""

import numpy as np
import torch
from numpy.typing import NDArray

from carmask.models.network import Network
from carmask.runtime.hardware import Hardware


class TorchEngine:
    """Runs a `Network` in PyTorch, on the device and in the precision that it is given."""

    name = "torch"

    def __init__(self, network: Network, hardware: Hardware) -> None:
        self._network = network.eval().to(hardware.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._hardware = hardware
        self.device = str(hardware.device)
        self.precision = str(hardware.precision).removeprefix("torch.")

    @torch.inference_mode()
    def run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Engine.run`."""
        x_BCHW = torch.from_numpy(images_NHWC).to(self._hardware.device).permute(0, 3, 1, 2).float().div_(255)
        with self._hardware.autocast():
            logits_B1HW = self._network(x_BCHW)
        probability_BHW: NDArray[np.float32] = logits_B1HW[:, 0].float().sigmoid().cpu().numpy()
        return probability_BHW
