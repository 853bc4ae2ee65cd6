import platform
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from carmask.limits import free_memory_bytes
from carmask.runtime.hardware import Hardware
from carmask.training.memory import find_batch_size

HARDWARE = Hardware(torch.device("cpu"), torch.float32, "as asked")
PLENTY = 10_000


class Keeps(nn.Module):
    """Keeps so many bytes of each image for its backward pass; they are one number seen very often."""

    def __init__(self, kept_bytes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.kept_bytes = kept_bytes

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return _Keep.apply(x_BCHW * self.weight, self.kept_bytes)


class _Keep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x_BCHW: Tensor, kept_bytes: int) -> Tensor:
        ctx.save_for_backward(torch.zeros(1).expand(kept_bytes // 4 * len(x_BCHW)))
        return x_BCHW.clone()


@pytest.mark.parametrize(("share_of_free", "wanted"), [(1e-6, 16), (0.7 / 2.5 / 11, 8), (0.7 / 2.5 / 5, 4), (0.5, 1)])
def test_the_batch_is_the_largest_power_of_two_that_fits(share_of_free: float, wanted: int) -> None:
    kept_bytes = int(free_memory_bytes() * share_of_free)
    assert find_batch_size(Keeps(kept_bytes), HARDWARE, (3, 4, 4), PLENTY) == wanted


@pytest.mark.parametrize(("photos", "wanted"), [(1, 1), (2, 1), (3, 1), (4, 2), (9, 4), (31, 8), (32, 16), (5000, 16)])
def test_a_batch_is_no_more_than_half_of_the_photos(photos: int, wanted: int) -> None:
    assert find_batch_size(nn.Conv2d(1, 2, 3), HARDWARE, (1, 8, 8), photos) == wanted


def test_looking_leaves_the_network_as_it_was() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    find_batch_size(net, HARDWARE, (3, 16, 16), PLENTY)
    assert net.training
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(parameter.grad is None for parameter in net.parameters())


PAGES_TAKEN = """
import resource
import numpy as np
import torch
from carmask.training.memory import keep_freed_memory

def new_pages():
    def use():
        for _ in range(6):
            np.ones(32 << 20, np.uint8)
    use()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    use()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(new_pages())
with keep_freed_memory(torch.device("cpu")):
    print(new_pages())
print(new_pages())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc hands memory back at once")
def test_freed_memory_is_kept_and_returned_again_afterwards() -> None:
    done = subprocess.run([sys.executable, "-c", PAGES_TAKEN], capture_output=True, text=True, check=True)
    before, inside, after = map(int, done.stdout.split())
    # Six times 32 MB: a page has 4 KB, or 2 MB where the system gives large ones.
    assert before >= 6 * 16
    assert inside < before / 10
    assert after > before / 2
