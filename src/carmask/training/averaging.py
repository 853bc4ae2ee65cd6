"""An exponential moving average of the weights (Polyak and Juditsky, 1992), which is validated and shipped."""

import copy
from typing import Any

import torch
from torch import nn


class AveragedWeights:
    """A copy of a network that follows it slowly.

    The decay climbs from 0.1 to its full value, so that the random start is soon forgotten. Running statistics of
    BatchNorm are averaged like weights.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False)
        self._decay = decay
        self._updates = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move the average toward `network` by one step."""
        self._updates += 1
        decay = min(self._decay, self._updates / (self._updates + 9))
        slow, fast = self.network.state_dict(), network.state_dict()
        floats = [name for name, tensor in slow.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([slow[name] for name in floats], [fast[name] for name in floats], 1 - decay)
        for name in slow.keys() - set(floats):
            slow[name].copy_(fast[name])

    def state_dict(self) -> dict[str, Any]:
        """All that the next update depends on."""
        return {"network": self.network.state_dict(), "updates": self._updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where `state_dict` was called."""
        self.network.load_state_dict(state["network"])
        self._updates = state["updates"]
