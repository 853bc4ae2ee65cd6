"""The device, precision and threads of PyTorch."""

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from carmask.environment import cpu_name
from carmask.errors import CarmaskError, first_line
from carmask.limits import cpu_quota

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "float32": torch.float32}


class HardwareSettings(BaseModel):
    """The device, precision and CPU threads of a training run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:1, mps")
    precision: Literal["auto", "bf16", "fp16", "float32"] = Field(
        default="auto", description="auto is bf16 where the hardware computes it natively, float32 elsewhere"
    )
    threads: int | None = Field(default=None, ge=1, description="CPU threads; default: all usable cores")


@dataclass(frozen=True)
class Hardware:
    """The device and precision of a run, and the reason for the precision."""

    device: torch.device
    precision: torch.dtype
    reason: str

    def describe(self) -> str:
        """One line for the start of a run."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else cpu_name()
        threads = f", {torch.get_num_threads()} threads" if self.device.type == "cpu" else ""
        dtype = str(self.precision).removeprefix("torch.")
        return f"{self.device} ({name}{threads}), {dtype} ({self.reason}), channels_last"

    def autocast(self) -> torch.autocast:
        """The context of the forward pass."""
        return torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32)


def set_up(settings: HardwareSettings, *, local_rank: int = 0, local_count: int = 1) -> Hardware:
    """Choose device and precision, and set the number of threads.

    Each of the `local_count` processes on one machine, numbered by `local_rank`, takes its own GPU.

    Raises:
        CarmaskError: this machine does not have the device, or not enough GPUs.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    elif (quota := cpu_quota()) is not None:
        # By default PyTorch takes a thread per processor, or fewer if the environment says so.
        torch.set_num_threads(min(quota, torch.get_num_threads()))
    device = _device(settings.device, local_rank, local_count)
    native, reason = _native_bf16(device)
    if settings.precision == "auto":
        return Hardware(device, torch.bfloat16 if native else torch.float32, reason)
    emulated = settings.precision == "bf16" and not native
    return Hardware(device, _DTYPES[settings.precision], f"as asked, though {reason}" if emulated else "as asked")


def _device(wanted: str, local_rank: int, local_count: int) -> torch.device:
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and local_count > max(1, torch.cuda.device_count()):
        raise CarmaskError(
            f"{local_count} processes, {torch.cuda.device_count()} GPUs: each process takes its own GPU; start fewer, "
            "or choose device cpu"
        )
    if wanted == "cuda" and local_rank:
        wanted = f"cuda:{local_rank}"
    try:
        device = torch.device(wanted)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise CarmaskError(
            f"device '{wanted}' cannot be used here ({first_line(error)}); choose another, or 'auto'"
        ) from error
    return device


def _native_bf16(device: torch.device) -> tuple[bool, str]:
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return native, "native on this GPU" if native else "this GPU has no native bf16"
    if device.type == "cpu":
        features = [name for name in ("amx_bf16", "avx512_bf16", "arm_bf16") if torch.cpu.get_capabilities().get(name)]
        return bool(features), features[0] if features else "this CPU has no bf16 instructions"
    return False, f"bf16 is not tested on {device.type}"
