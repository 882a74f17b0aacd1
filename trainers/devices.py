"""The devices that torch reaches, asked in the same words whoever made them."""

import ctypes
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

from trainers import computer
from trainers.capabilities import precision_of

ORDER = ("cuda", "xpu", "mps", "cpu")  # the best first; AMD's ROCm is called cuda by torch


def available() -> dict[str, bool]:
    """Which kinds of device are usable here, the best first."""
    return {
        "cuda": torch.cuda.is_available(),
        "xpu": torch.xpu.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }


def kind_of(device: torch.device) -> str:
    """cuda, rocm, xpu, mps or cpu."""
    return "rocm" if device.type == "cuda" and torch.version.hip else device.type


def name_of(device: torch.device) -> str:
    """As the driver calls it; the kind where there is no name."""
    ask = getattr(torch.get_device_module(device), "get_device_name", None)
    return ask(device) if ask else device.type


def precision(device: torch.device) -> str:
    """The format of a run whose precision is auto: fp32, bf16 or fp16."""
    kind = kind_of(device)
    if kind == "cuda":
        return precision_of(kind, name_of(device), torch.cuda.get_device_capability(device))
    chip = torch.cuda.get_device_properties(device).gcnArchName if kind == "rocm" else ""
    return precision_of(kind, chip=chip)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was asked."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def copies_aside(device: torch.device) -> bool:
    """Whether copies to and from it need not be waited for, `non_blocking`.

    On CUDA alone: torch keeps there what is still to be read, and orders what is written. A Mac reads the source later,
    when its memory may be another tensor's (pytorch#189690).
    """
    return device.type == "cuda"


def allow_exact() -> None:
    """Call it before torch is used: CUDA's library of matrix products reads it once (`exactly`)."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@contextmanager
def exactly(on: bool) -> Iterator[None]:
    """Inside, where `on`, sums on a GPU are added up in the same order every time: the same numbers to the bit.

    Raises RuntimeError where torch comes upon an operator that cannot.
    """
    if not on:
        yield
        return
    torch.utils.deterministic.fill_uninitialized_memory = False  # it would write all that is about to be overwritten
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def give_back() -> None:
    """Free what nothing refers to any more, and let a device's allocator hand it back."""
    gc.collect()
    if torch.accelerator.is_available():
        torch.get_device_module(torch.accelerator.current_accelerator()).empty_cache()


def hand_back() -> None:
    """Let glibc hand back to the system what is free of the memory that it keeps (memory/device.py)."""
    with suppress(OSError, AttributeError):  # another system, another allocator
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def forget_peak(device: torch.device) -> None:
    """Count the peak of memory anew from here, where the device counts it."""
    if hasattr(torch.get_device_module(device), "reset_peak_memory_stats"):
        torch.get_device_module(device).reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int | None:
    """The most that was allocated on it; what its driver holds now where no peak is counted; None for a CPU."""
    module = torch.get_device_module(device)
    if hasattr(module, "max_memory_allocated"):
        return module.max_memory_allocated(device)
    return module.driver_allocated_memory() if device.type == "mps" else None


def free_bytes(device: torch.device) -> int | None:
    """What the device still has; None where it does not say, or is a CPU."""
    module = torch.get_device_module(device)
    if device.type == "mps":  # whose memory is the computer's, in which other programs are, too
        own = module.recommended_max_memory() - module.driver_allocated_memory()
        return min(own, computer.available_bytes())
    return module.mem_get_info(device)[0] if hasattr(module, "mem_get_info") else None
