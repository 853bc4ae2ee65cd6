"""BatchNorm over the batches of all processes, for tensors on the CPU, which PyTorch's SyncBatchNorm refuses."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class SyncedBatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d` whose mean and variance, while training, are those of all processes' images together."""

    @classmethod
    def of(cls, norm: nn.BatchNorm2d) -> "SyncedBatchNorm":
        """The same layer: same parameters, same running statistics."""
        synced = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        synced.to(norm.weight.device, norm.weight.dtype)
        synced.load_state_dict(norm.state_dict())
        return synced.train(norm.training)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Normalized `x_BCHW`, in its own dtype."""
        if not self.training:
            return super().forward(x_BCHW)
        # In two rounds, because a mean of squares minus the square of a mean loses half of the digits.
        x = x_BCHW if x_BCHW.dtype == torch.float64 else x_BCHW.float()
        pixels = x.numel() // x.shape[1]
        sum_C1 = _summed(torch.cat([x.sum((0, 2, 3)), x.new_tensor([float(pixels)])]))
        count = sum_C1[-1].detach()
        centered = x - (sum_C1[:-1] / count).view(1, -1, 1, 1)
        variance_C = _summed(centered.square().sum((0, 2, 3))) / count
        self._remember(sum_C1[:-1].detach() / count, variance_C.detach() * count / (count - 1))
        scale_C = self.weight * torch.rsqrt(variance_C + self.eps)
        y_BCHW: Tensor = (centered * scale_C.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)).to(x_BCHW.dtype)
        return y_BCHW

    @torch.no_grad()
    def _remember(self, mean_C: Tensor, unbiased_C: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean_C, self.momentum)
        self.running_var.lerp_(unbiased_C, self.momentum)


class _SumOfAll(torch.autograd.Function):
    """The sum over all processes; each gets the gradient of what all of them made of it.

    As in torch.distributed.nn.functional, which warns that it is going to be taken away.
    """

    @staticmethod
    def forward(_context: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


def _summed(tensor: Tensor) -> Tensor:
    total: Tensor = _SumOfAll.apply(tensor)  # type: ignore[no-untyped-call]
    return total
