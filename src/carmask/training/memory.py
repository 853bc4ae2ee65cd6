"""Memory while training: keeping what the C library would give away, and a batch size that fits."""

import copy
import ctypes
import platform
import re

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from carmask.limits import free_memory_bytes
from carmask.runtime.hardware import Hardware

# glibc's <malloc.h>
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
GROWTH_BYTES = 1 << 28
LARGEST_FOUND_BATCH = 16
# What a training step needs beside saved activations: gradients of them, workspaces, the images themselves.
ACTIVATION_FACTOR = 2.5
MEMORY_SHARE = 0.7

# PyTorch's allocator on a GPU has an error of its own. What others say: that on a CPU; oneDNN, which names no cause;
# and on a GPU cuDNN, cuBLAS and the driver, of memory that they ask for themselves.
_NO_MEMORY = re.compile(
    r"can't allocate memory|could not create a (primitive(?! descriptor)|memory object)"
    r"|CUDNN_STATUS_ALLOC_FAILED|CUBLAS_STATUS_ALLOC_FAILED|CUDA error: out of memory"
)


def keep_freed_memory() -> None:
    """Let the C library keep freed memory instead of handing it back to the system after each operation.

    Training frees and asks for the same hundreds of megabytes in every step. glibc gives each back at once, and the
    system clears every page again, which is over a third of a step in float32 (`benchmarks/training_speed.py`).
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)
        libc.mallopt(M_TOP_PAD, GROWTH_BYTES)


def give_back_freed_memory(device: torch.device) -> None:
    """Hand memory that is kept for the next step back to the system, for those who ask the system and not the keeper.

    On a CPU that is oneDNN, which maps the code that it compiles for each convolution.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif platform.libc_ver()[0] == "glibc":
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether it says, in whatever words, that memory did not suffice."""
    return isinstance(error, torch.OutOfMemoryError) or _NO_MEMORY.search(str(error)) is not None


def find_batch_size(model: nn.Module, hardware: Hardware, input_CHW: tuple[int, int, int], photos: int) -> int:
    """The largest power of two, up to 16 and to half the photos, whose training step fits into free memory.

    Counts the bytes that two images make the network save for its backward pass, instead of provoking a failure: two,
    because BatchNorm refuses a single value for each channel, which one image may come down to.
    """
    saved_bytes = 0

    def count(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal saved_bytes
        saved_bytes += tensor.numel() * tensor.element_size()
        return tensor

    # Of a copy, because BatchNorm learns from every image that it sees.
    with saved_tensors_hooks(count, lambda tensor: tensor), hardware.autocast():
        copy.deepcopy(model)(torch.zeros(2, *input_CHW, device=hardware.device))
    on_gpu = hardware.device.type == "cuda"
    free_bytes = torch.cuda.mem_get_info(hardware.device)[0] if on_gpu else free_memory_bytes()
    room_bytes = MEMORY_SHARE * free_bytes
    batch = LARGEST_FOUND_BATCH
    while batch > 1 and (batch * ACTIVATION_FACTOR * saved_bytes / 2 > room_bytes or 2 * batch > photos):
        batch //= 2
    return batch
