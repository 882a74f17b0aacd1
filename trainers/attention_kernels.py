"""Attention kernels, each tried on the run's own shapes, cut short, before it is trusted.

A kernel is correct where its output and its gradients are those of torch's plain mathematics. On GPUs the fastest
correct ones come first, and are remembered for the device. Where all sittings of a run are to agree to the bit, torch's
own order stays, as on a CPU: a choice by time could fall differently in two of them.
"""

import logging
import math
import time
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from trainers import devices, json_values
from trainers.data.cache import content_key
from trainers.files import remember, remembered

log = logging.getLogger(__name__)
Shape = tuple[tuple[int, ...], tuple[int, ...]]  # of query and key: [B, heads, L, D] and [B, heads, S, D]
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
BACKENDS = {  # in torch's own order
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}
ON_CPU = ("flash", "math")
TRIED = ("cpu", "cuda")  # kinds of devices: elsewhere torch chooses
CLEARLY = 0.9  # of the time of torch's own first choice: by less, noise would decide
REPEATS = 5
ROUND = 128  # kernels go through the tokens in blocks: what remains of the last one is tried too
FEW_TOKENS = 1024  # mathematics takes 0.1 GB for them, and 3 GB for the 9,216 of a picture of 768 pixels
TOLERANCE = {torch.float32: 5e-3, torch.float16: 1e-2, torch.bfloat16: 4e-2}  # of the largest value; fp32 may be TF32
FILE = "attention.json"  # in the cache


@dataclass(frozen=True)
class Verdict:
    """`order`: the correct kernels, the first one used wherever it takes the shape; `broken`: kernel -> why."""

    order: tuple[str, ...]
    broken: dict[str, str]


def probe(device: torch.device, dtype: torch.dtype, shapes: Counter[Shape]) -> Verdict:
    """Try every kernel once on each shape, forward and backward, against mathematics; where that is free, time them."""
    names = ON_CPU if device.type == "cpu" else tuple(BACKENDS)
    by_time = device.type != "cpu" and not torch.are_deterministic_algorithms_enabled()
    spent, broken = dict.fromkeys(names, 0.0), {}
    for shape, count in shapes.items():
        few = _few(shape)
        inputs, whole = _inputs(few, device, dtype), _inputs(shape, device, dtype)
        expected = _results(_backend("math"), inputs)
        plain = _seconds(_backend("math"), inputs, device) * _scores(shape) / _scores(few) if by_time else 0.0
        for name in names:
            able, reason = _check(_backend(name), inputs, expected)
            if reason:
                broken[name] = f"{reason}, at {list(shape[0])}"
            timed = by_time and able and not reason and name != "math"
            spent[name] += count * (_seconds(_backend(name), whole, device) if timed else plain)
    order = [name for name in names if name not in broken]
    if by_time and order:
        first = spent[order[0]]
        order.sort(key=lambda name: spent[name] if spent[name] < CLEARLY * first else first)  # stable
        times = ", ".join(f"{name} {1000 * spent[name]:.2f} ms" for name in order)
        log.info("attention of one step, forward and backward: %s", times)
    return Verdict(tuple(order) or ("math",), broken)


def lacking(name: str, device: torch.device, dtype: torch.dtype, shapes: Counter[Shape]) -> str:
    """Why there is no such kernel here; "" where it takes at least one of the shapes."""
    if device.type not in TRIED or (device.type == "cpu" and name not in ON_CPU):
        return f"Torch has no such kernel for the device {device.type}."
    reason = f"It takes no shape of this run, on {devices.name_of(device)} in {str(dtype).removeprefix('torch.')}."
    for shape in shapes:
        able, why = tried(_backend(name), shape, device, dtype)
        if able:
            return ""
        reason = why or reason
    return reason


def verdict(device: torch.device, dtype: torch.dtype, shapes: Counter[Shape], folder: Path | None) -> Verdict:
    """`probe`, which `folder` remembers of GPUs."""
    if device.type == "cpu" or folder is None:
        return probe(device, dtype, shapes)
    about = {"torch": torch.__version__, "dtype": str(dtype), "shapes": sorted(map(str, shapes.items()))}
    about["exact"] = torch.are_deterministic_algorithms_enabled()
    key = content_key(kind="attention", device=devices.name_of(device), **about)
    known = remembered(folder / FILE)
    with suppress(ValueError):  # none, or damaged
        return json_values.made(Verdict, known.get(key))
    found = probe(device, dtype, shapes)
    remember(folder / FILE, known | {key: {"order": found.order, "broken": found.broken}})
    return found


def tried(attention: Attention, shape: Shape, device: torch.device, dtype: torch.dtype) -> tuple[bool, str]:
    """(whether it takes this shape, cut short; why it is broken)."""
    inputs = _inputs(_few(shape), device, dtype)
    return _check(attention, inputs, _results(_backend("math"), inputs))


def _backend(name: str) -> Attention:
    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel(BACKENDS[name]):
            return scaled_dot_product_attention(q, k, v)

    return attention


def _few(shape: Shape) -> Shape:
    """One picture, two heads and few tokens of it: mathematics holds the whole score matrix."""
    few = lambda tokens: tokens if tokens < FEW_TOKENS else FEW_TOKENS + tokens % ROUND  # noqa: E731
    return tuple((1, min(2, heads), few(tokens), width) for _, heads, tokens, width in shape)


def _scores(shape: Shape) -> int:
    """Numbers in the score matrices."""
    return math.prod(shape[0][:3]) * shape[1][2]


def _inputs(shape: Shape, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    """Query, key and value of unit size, the same in every call."""
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(one, generator=generator) for one in (shape[0], shape[1], shape[1])]
    return [one.to(device, dtype).requires_grad_() for one in drawn]


@torch.enable_grad()
def _results(attention: Attention, inputs: list[Tensor]) -> list[Tensor]:
    """The output, and the gradients of query, key and value."""
    output = attention(*inputs)
    return [output.detach(), *torch.autograd.grad(output.square().sum(), inputs)]


def _check(attention: Attention, inputs: list[Tensor], expected: list[Tensor]) -> tuple[bool, str]:
    """(whether it takes this shape, why it is broken)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, which says at length why a kernel does not take a shape
            found = _results(attention, inputs)
    except RuntimeError as error:
        refused = "no available kernel" in str(error).lower()  # SDPA's way to say that it does not take a shape
        return False, "" if refused else first_line(error)
    except Exception as error:  # whatever a kernel of another maker raises
        return False, first_line(error)
    for one, other in zip(found, expected, strict=True):
        worst = (one.float() - other.float()).abs().max() / other.float().abs().max().clamp(min=1e-6)
        if not worst <= TOLERANCE[one.dtype]:  # NaN, too
            return True, f"Its result is wrong by {worst.item():.2g}"
    return True, ""


def _seconds(attention: Attention, inputs: list[Tensor], device: torch.device) -> float:
    """The best of a few, forward and backward; infinite where it does not take the shape after all."""
    best = float("inf")
    with suppress(RuntimeError):
        for _ in range(REPEATS):
            devices.synchronize(device)
            start = time.perf_counter()
            _results(attention, inputs)
            devices.synchronize(device)
            best = min(best, time.perf_counter() - start)
    return best


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
