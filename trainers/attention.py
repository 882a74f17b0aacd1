"""Which attention kernel runs: each that is there is tried on the run's own shapes, cut short, before it is trusted.

A kernel is correct where its output and its gradients are those of torch's plain mathematics. On GPUs the fastest
correct ones come first, and are remembered for the device. Where all sittings of a run are to agree to the bit, torch's
own order stays, as on a CPU: a choice by time could fall differently in two of them.
"""

import logging
import math
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from trainers import devices, json_values
from trainers.data.cache import content_key
from trainers.events import Adjusted, Warned
from trainers.families.base import Components, Conditioning, Family, plain_sizes
from trainers.files import remember, remembered
from trainers.stores import TextStore

log = logging.getLogger(__name__)
Shape = tuple[tuple[int, ...], tuple[int, ...]]  # of query and key: [B, heads, L, D] and [B, heads, S, D]
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
Held = Callable[[], AbstractContextManager[None]]
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


@dataclass(frozen=True)
class Chosen:
    """`held`: inside, torch takes the chosen kernels; `said`: what of it is told."""

    held: Held
    said: list[Adjusted | Warned]


class Shapes(TorchFunctionMode):
    """Counts the shapes of attention inside; nothing else changes."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[Shape] = Counter()

    def __torch_function__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204 - torch's protocol
        if func is scaled_dot_product_attention:
            self.seen[tuple(args[0].shape), tuple(args[1].shape)] += 1
        return func(*args, **(kwargs or {}))


def shapes_of(
    family: Family, denoiser: nn.Module, latents: tuple[int, ...], conditioning: Conditioning
) -> Counter[Shape]:
    """How often a step of latents [B, C, h, w] attends in which shapes: a forward pass without weights and numbers."""
    with torch.device("meta"):
        twin = type(denoiser).from_config(denoiser.config).eval()
        noisy, timesteps = torch.empty(latents), torch.zeros(latents[0], dtype=torch.long)
    with Shapes() as shapes, torch.no_grad():
        family.denoise(twin, noisy, timesteps, conditioning.on(torch.device("meta")).to(torch.float32))
    return shapes.seen


def attended(family: Family, components: Components, text: TextStore, resolution: int, count: int) -> Counter[Shape]:
    """The shapes that attention meets in a step of `count` pictures of the training resolution."""
    side, device = components.side(resolution), text.device
    with torch.no_grad():
        told = text.conditioning(torch.zeros(count, dtype=torch.long, device=device))
    told = told.sized(plain_sizes(family, resolution, resolution, count, device))
    return shapes_of(family, components.denoiser, (count, components.latent.channels, side, side), told)


def set_attention(
    denoiser: nn.Module,
    wish: str,
    device: torch.device,
    shapes: Counter[Shape],
    folder: Path | None,
    until_the_end: ExitStack,
) -> list[Adjusted | Warned]:
    """Use the wished kernel where it works, else SDPA's fastest; what was found is logged, and told where it matters.

    `folder` remembers what was found on GPUs. What torch is told holds until `until_the_end` is left.
    """
    chosen = choose(denoiser, wish, device, shapes, folder)
    until_the_end.enter_context(chosen.held())
    return chosen.said


def choose(denoiser: nn.Module, wish: str, device: torch.device, shapes: Counter[Shape], folder: Path | None) -> Chosen:
    """What `set_attention` uses; of it only xformers, which lies in the denoiser, is put to use here."""
    dtype, said, name, held = next(denoiser.parameters()).dtype, [], "SDPA as torch chooses", nullcontext
    forced = wish if wish in BACKENDS and wish != "math" else ""
    broken = {forced: reason} if forced and (reason := _lacking(forced, device, dtype, shapes)) else {}
    if wish == "math":
        name, held = "SDPA math", held_to(["math"])
    elif device.type in TRIED:
        found = _remembered(device, dtype, shapes, folder)
        broken |= found.broken
        order = [*([forced] if forced and forced not in broken else ()), *found.order]
        name, held = f"SDPA {order[0]}", held_to([*order, "math"])  # mathematics takes every shape
    for kernel, reason in broken.items():
        said.append(Warned(f"The attention kernel {kernel} does not work here and is not used.", reason))
    if wish == "xformers":
        reason = use_xformers(denoiser, device, dtype, shapes)
        said += [Adjusted(f"Attention runs on {name}, not xformers", reason)] if reason else []
        name = name if reason else "xformers"
    log.info("attention runs on %s, on %s in %s", name, device, str(dtype).removeprefix("torch."))
    return Chosen(held, said)


def held_to(names: Iterable[str]) -> Held:
    """Inside, torch takes the first of these kernels that takes a shape."""
    return partial(sdpa_kernel, [BACKENDS[name] for name in dict.fromkeys(names)], set_priority=True)


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


def use_xformers(denoiser: nn.Module, device: torch.device, dtype: torch.dtype, shapes: Counter[Shape]) -> str:
    """Put xformers' attention into the denoiser; "" then, else why not, and the denoiser is as before."""
    before = denoiser.attn_processors
    try:
        from xformers.ops import memory_efficient_attention  # noqa: PLC0415 - optional extra

        def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # it has heads behind tokens
            return memory_efficient_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)

        for shape in shapes:
            inputs = _inputs(_few(shape), device, dtype)
            able, reason = _check(attention, inputs, _results(_backend("math"), inputs))
            if reason or not able:
                return reason or f"It does not take {list(shape[0])}"
        denoiser.enable_xformers_memory_efficient_attention()
    except Exception as error:  # it fails in as many ways as there are builds of it
        denoiser.set_attn_processor(before)
        return _first_line(error)
    return ""


def _lacking(name: str, device: torch.device, dtype: torch.dtype, shapes: Counter[Shape]) -> str:
    """Why there is no such kernel here; "" where it takes at least one of the shapes."""
    if device.type not in TRIED or (device.type == "cpu" and name not in ON_CPU):
        return f"Torch has no such kernel for the device {device.type}."
    reason = f"It takes no shape of this run, on {devices.name_of(device)} in {str(dtype).removeprefix('torch.')}."
    for shape in shapes:
        inputs = _inputs(_few(shape), device, dtype)
        able, why = _check(_backend(name), inputs, _results(_backend("math"), inputs))
        if able:
            return ""
        reason = why or reason
    return reason


def _remembered(device: torch.device, dtype: torch.dtype, shapes: Counter[Shape], folder: Path | None) -> Verdict:
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
        return False, "" if refused else _first_line(error)
    except Exception as error:  # whatever a kernel of another maker raises
        return False, _first_line(error)
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


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
