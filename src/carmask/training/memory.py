"""Memory during training: keeping freed memory, a batch size that fits, and what to do when it has run out."""

import copy
import ctypes
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from carmask.errors import first_line
from carmask.limits import free_memory_bytes
from carmask.runtime.hardware import Hardware
from carmask.training.checkpoint import TrainingState
from carmask.training.distributed import DistributedContext
from carmask.training.loggers import RunLogger
from carmask.training.stopping import TrainingError

# glibc's <malloc.h>
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
GLIBC_DEFAULTS = {M_MMAP_MAX: 65536, M_TRIM_THRESHOLD: 128 << 10, M_TOP_PAD: 128 << 10}
GROWTH_BYTES = 1 << 28
LARGEST_FOUND_BATCH = 16
# Memory of a training step by that of its saved activations: also their gradients, workspaces, the images.
ACTIVATION_FACTOR = 2.5
MEMORY_SHARE = 0.7

# PyTorch's allocator for CUDA has an exception class of its own. These are the messages of others: PyTorch on a CPU or
# on Apple's GPUs, oneDNN, and on a GPU cuDNN, cuBLAS and the driver, which allocate memory themselves.
_OUT_OF_MEMORY = re.compile(
    r"can't allocate memory|could not create a (primitive(?! descriptor)|memory object)"
    r"|CUDNN_STATUS_ALLOC_FAILED|CUBLAS_STATUS_ALLOC_FAILED|(CUDA error:|MPS backend) out of memory"
)


@contextmanager
def keep_freed_memory(device: torch.device) -> Iterator[None]:
    """On a CPU, let the C library keep freed memory while inside, instead of returning it after each operation.

    Training frees and allocates the same hundreds of megabytes in every step. glibc returns each at once, and the
    system clears every page again, which is over a third of a step in float32 (`benchmarks/training_speed.py`).
    """
    if device.type != "cpu" or platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL("libc.so.6")
    for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1), (M_TOP_PAD, GROWTH_BYTES)):
        libc.mallopt(option, value)
    try:
        yield
    finally:
        for option, value in GLIBC_DEFAULTS.items():
            libc.mallopt(option, value)
        libc.malloc_trim(0)


def return_freed_memory(device: torch.device) -> None:
    """Return memory that is kept for the next step to the system, for libraries that allocate from the system.

    On a CPU that is oneDNN, which maps the code that it compiles for each convolution.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif platform.libc_ver()[0] == "glibc":
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether the error means that memory has run out, whichever library raised it."""
    return isinstance(error, torch.OutOfMemoryError) or _OUT_OF_MEMORY.search(str(error)) is not None


def halve_parts(
    state: TrainingState, photos: int, distributed: DistributedContext, logger: RunLogger, error: RuntimeError
) -> None:
    """After running out of memory, run batches in twice as many parts for the rest of the run.

    Raises:
        TrainingError: a part is a single photo, or other processes would have to do the same.
    """
    if distributed.world_size > 1:
        raise TrainingError(
            f"out of memory at step {state.step}, which cannot be fixed while several processes train together; start "
            f"a new run with smaller parts, --accumulate {2 * state.accumulate}, or a smaller --batch-size"
        ) from error
    if state.accumulate >= photos:
        raise TrainingError(
            f"out of memory at step {state.step} with a single photo; use a smaller --input.height-px and "
            "--input.width-px, or a smaller --preset"
        ) from error
    state.accumulate = min(2 * state.accumulate, photos)
    logger.info(
        f"out of memory at step {state.step}: from here on batches of {photos} photos run in {state.accumulate} parts, "
        "which takes longer and lets BatchNorm see fewer photos at once"
    )


@contextmanager
def explain_out_of_memory(state: TrainingState) -> Iterator[None]:
    """Raise `TrainingError` if memory runs out inside, where splitting the batch does not help."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            f"out of memory at step {state.step}, where smaller parts do not help ({first_line(error)}); use a smaller "
            "--batch-size or --preset in a new run, or, if other programs took the memory, go on with `carmask train "
            "--resume` when they are done"
        ) from error


def find_batch_size(model: nn.Module, hardware: Hardware, input_CHW: tuple[int, int, int], photos: int) -> int:
    """The largest power of two, up to 16 and to half the photos, whose training step fits into free memory.

    Counts the bytes that the network saves for its backward pass of two images, instead of provoking a failure; two,
    because BatchNorm refuses a single value per channel, which is all that one image may leave.
    """
    saved_bytes = 0

    def count(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal saved_bytes
        saved_bytes += tensor.numel() * tensor.element_size()
        return tensor

    # A copy, because BatchNorm updates its statistics in every forward pass.
    with saved_tensors_hooks(count, lambda tensor: tensor), hardware.autocast():
        copy.deepcopy(model)(torch.zeros(2, *input_CHW, device=hardware.device))
    on_gpu = hardware.device.type == "cuda"
    free_bytes = torch.cuda.mem_get_info(hardware.device)[0] if on_gpu else free_memory_bytes()
    usable_bytes = MEMORY_SHARE * free_bytes
    batch = LARGEST_FOUND_BATCH
    while batch > 1 and (batch * ACTIVATION_FACTOR * saved_bytes / 2 > usable_bytes or 2 * batch > photos):
        batch //= 2
    return batch
