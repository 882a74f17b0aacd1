"""Where and in which number format a run computes, and the peak of memory it has reached."""

import ctypes
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from trainers import devices
from trainers.config import MemoryConfig
from trainers.errors import UserError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Plan:
    device: torch.device
    precision: str  # fp32, bf16 or fp16: the denoiser's weights and activations; adapters stay fp32
    exact: bool = False  # whether a GPU is to add up in the same order every time

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.precision]


def plan(config: MemoryConfig) -> Plan:
    """Choose device and precision; UserError when the wished device is not there, or cannot do what is wished."""
    device = _device(config.device)
    if device.type == "cpu":
        keep_freed_memory()
    if device.type == "cuda":
        devices.allow_exact()
        torch.set_float32_matmul_precision("high")  # TF32 for what stays fp32: the VAE, the adapters' own sums
        torch.backends.cudnn.allow_tf32 = True
    precision = config.precision if config.precision != "auto" else devices.precision(device)
    if precision == "fp16" and device.type == "cpu":
        raise UserError("fp16 cannot be trained on a CPU.", "Set memory.precision to auto, fp32 or bf16.")
    if config.stream == "all" and config.quantize != "none" and device.type == "cpu":
        what = "memory.stream = all reads the base's file again on a CPU, where memory.quantize rounds the base."
        raise UserError(what, "Set one of the two to none.")
    return Plan(device, precision, _exact(config.exact, device, precision))


def _exact(wish: str, device: torch.device, precision: str) -> bool:
    """auto: where flash attention does it; the other kernel takes several times as long then."""
    if device.type != "cuda" or wish != "auto":
        return device.type == "cuda" and wish == "all"
    if precision == "fp32" or devices.kind_of(device) != "cuda":
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


def keep_freed_memory() -> None:
    """Let glibc keep what one step frees for the next one.

    By default it hands every large tensor back to the system, and each page of the next one is faulted in and zeroed
    anew: 4,000 faults in a step on the embedded base, and 0 with this. Up to 1 GiB is kept.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)  # the largest value that glibc takes
        libc.mallopt(M_TRIM_THRESHOLD, 1 << 30)
    except (OSError, AttributeError):
        return  # another system, another allocator


def _device(wish: str) -> torch.device:
    available = devices.available()
    if wish == "auto":
        return torch.device(next(name for name, there in available.items() if there))
    if not available[wish]:
        raise UserError(
            f"memory.device is {wish}, but no such device is usable here.", "Run `darkroom doctor`, or set it to auto."
        )
    return torch.device(wish)


def peak_gb(device: torch.device) -> float:
    """Peak memory so far in GB (2^30): allocated on a GPU, resident for this process on a CPU."""
    if (allocated := devices.peak_bytes(device)) is not None:
        return allocated / 2**30
    with suppress(OSError, StopIteration):  # Linux: ru_maxrss there begins with that of the process which started this
        status = Path("/proc/self/status").read_text("ascii", "replace").splitlines()
        return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) / 2**20
    try:
        import resource  # noqa: PLC0415 - not on Windows

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
    except ImportError:
        return psutil.Process().memory_info().peak_wset / 2**30


def card_gb(device: torch.device) -> tuple[float, float]:
    """Memory of the GPU in GB (2^30) that all programs use now, and that it has; (0, 0) where it is none."""
    if device.type != "cuda":
        return 0.0, 0.0
    free, total = torch.cuda.mem_get_info(device)
    return (total - free) / 2**30, total / 2**30
