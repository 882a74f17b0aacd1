"""Which attention kernel a run takes: the wished one where it works, else the first that was found to work here."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from trainers.attention_kernels import BACKENDS, TRIED, Shape, first_line, lacking, tried, verdict
from trainers.events import Adjusted, Warned
from trainers.families.base import Components, Conditioning, Family, plain_sizes
from trainers.stores import TextStore

log = logging.getLogger(__name__)
Held = Callable[[], AbstractContextManager[None]]


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
    broken = {forced: reason} if forced and (reason := lacking(forced, device, dtype, shapes)) else {}
    if wish == "math":
        name, held = "SDPA math", held_to(["math"])
    elif device.type in TRIED:
        found = verdict(device, dtype, shapes, folder)
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


def use_xformers(denoiser: nn.Module, device: torch.device, dtype: torch.dtype, shapes: Counter[Shape]) -> str:
    """Put xformers' attention into the denoiser; "" then, else why not, and the denoiser is as before."""
    before = denoiser.attn_processors
    try:
        from xformers.ops import memory_efficient_attention  # noqa: PLC0415 - optional extra

        def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # it has heads behind tokens
            return memory_efficient_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)

        for shape in shapes:
            able, reason = tried(attention, shape, device, dtype)
            if reason or not able:
                return reason or f"It does not take {list(shape[0])}"
        denoiser.enable_xformers_memory_efficient_attention()
    except Exception as error:  # it fails in as many ways as there are builds of it
        denoiser.set_attn_processor(before)
        return first_line(error)
    return ""
