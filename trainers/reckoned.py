"""The pace of what is too large to be tried on a CPU: from its operations, and from the weights that it reads.

Against measured steps of SD 1.5 in fp32 on two cores of an Intel Xeon (AVX-512), to which SLOWER is fitted: 10 % too
little to 5 % too much at 256 and 512 px, with batches of 2, checkpointed, and with weights in one order; 17 % too
little to 6 % too much where blocks are streamed.
"""

import math
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import nn

from trainers import devices
from trainers.config import TrainConfig
from trainers.families.base import Components, Family
from trainers.memory import Plan
from trainers.memory.drawing import denoised
from trainers.memory.encoders import weight_bytes
from trainers.memory.fit import Fitted
from trainers.memory.hollow import emptied_model
from trainers.memory.meter import Meter, attending
from trainers.memory.stream import HANDED_BACK
from trainers.pace import Pace, as_trained, drawn, operations, passes, preview_batch
from trainers.prepacked import prepacked_bytes

SLOWER = 1.5  # than in one large convolution: a step's other operations, and its smaller ones
CHEAP = 1e11  # floating-point operations of what is worth doing on a CPU for its time: about a second
TOKENS = 1024  # of attention that is timed
FOUND = 1 << 26  # bytes
ORDERED = 3  # times that bytes move where a convolution's weights are put in order: written, which reads, and read


def reckon(family: Family, components: Components, config: TrainConfig, plan: Plan, fitted: Fitted) -> Pace:
    """Roughly. Nothing is read but the base's headers."""
    meta, count, saving = torch.device("meta"), fitted.count, fitted.saving
    latent, side = components.latent, config.data.resolution or components.resolution
    width, height = drawn(components, config)
    vae = emptied_model(components.vae, torch.float32)
    encoders = tuple(emptied_model(encoder, plan.dtype) for encoder in components.text_encoders)
    tokens = tuple(ids.to(meta) for ids in family.tokenize(components, ["a picture"]))
    pixels = torch.empty(1, 3, side, side, device=meta)
    latents = torch.empty(1, latent.channels, height, width, device=meta)
    rate, single = (_speed(plan.device, dtype) / SLOWER for dtype in (plan.dtype, torch.float32))
    with attending(config.memory.attention):
        attention = _attending(components.denoiser, plan.device, plan.dtype)

    def spent(flops: float, attended: float) -> float:
        """Seconds of so many operations of the denoiser, of which so many are attention's."""
        return (flops - attended) / rate + attended / attention

    at_hand = prepacked_bytes(components.denoiser, config.memory) / 2
    loose = convolution_bytes(components.denoiser) - at_hand * (saving.prepacked and not saving.streamed)
    trained = [components.denoiser, *(components.text_encoders if config.adapter.trains_text else ())]
    once = (weight_bytes(trained) + ORDERED * loose) / _reading(plan.device)
    moved = fitted.moved / _converting(plan.device, plan.dtype) if fitted.moved else 0.0
    again = (count.flops - fitted.plain.flops) / fitted.plain.forward  # of the forward pass, in the backward pass
    weights = passes(config) * ((2 + again) * once + moved + _found_anew(fitted, plan.device))
    work = operations(config, count) * spent(count.flops, count.attended) / count.flops
    batch = preview_batch(config, components, checkpointing=bool(saving.recomputed))

    def drawing(latents: tuple[int, int]) -> float:
        """A sampling step of one picture."""
        one = denoised(family, components, latents, batch, plan.dtype)
        return (spent(one.flops, one.attended) + once + moved / 2) / batch

    return Pace(
        step=work + weights,
        alone=work / config.data.batch_size + weights,
        denoised=drawing((width, height)),
        trained=drawing(as_trained(components, config)),
        encoded=_counted(lambda: family.encode_image(vae, pixels)) / single,
        decoded=_counted(lambda: family.decode_image(vae, latents)) / single,
        told=_counted(lambda: family.encode_text(encoders, tokens, config.model.clip_skip)) / rate,
        tried=False,
    )


def convolution_bytes(model: nn.Module) -> int:
    """Weights that oneDNN puts in an order of its own."""
    layers = (layer for layer in model.modules() if isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1))
    return sum(layer.weight.numel() * layer.weight.element_size() for layer in layers)


@torch.no_grad()
def _counted(act: Callable[[], object]) -> int:
    with Meter() as meter:
        act()
    return meter.flops


def _speed(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a convolution of the kind that fills a UNet, forward only."""
    layer = nn.Conv2d(320, 320, 3, padding=1).to(device, dtype)
    x = torch.randn(1, 320, 64, 64, device=device, dtype=dtype)
    with torch.no_grad():
        return 2 * 64 * 64 * 320 * 320 * 9 / _least(lambda: layer(x))


def _attending(denoiser: nn.Module, device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations per second of attention with heads as wide as the denoiser's first ones."""
    first = next(module for module in denoiser.modules() if isinstance(module, Attention))
    query = torch.randn(1, first.heads, TOKENS, first.inner_dim // first.heads, device=device, dtype=dtype)
    with torch.no_grad():
        return 4 * query.numel() * TOKENS / _least(lambda: F.scaled_dot_product_attention(query, query, query))


def _reading(device: torch.device) -> float:
    """Bytes per second that come from memory."""
    x = torch.ones(1 << 26, device=device)
    return x.nbytes / _least(x.sum)


def _converting(device: torch.device, dtype: torch.dtype) -> float:
    """Bytes per second of weights that are made of those of a file with half as many."""
    x = torch.ones(1 << 23, device=device, dtype=torch.float16)
    return x.numel() * dtype.itemsize / _least(lambda: x.to(dtype, copy=True))


def _found_anew(fitted: Fitted, device: torch.device) -> float:
    """Seconds in which memory is handed back before streamed blocks of a pass, and found anew for activations."""
    if not (streamed := len(fitted.saving.streamed)) or device.type != "cpu":
        return 0.0
    return (1 + math.ceil(streamed / HANDED_BACK)) * fitted.count.peak / _finding()


def _finding() -> float:
    """Bytes per second that are handed back to the system and come from there again."""

    def once() -> None:
        devices.hand_back()
        torch.empty(FOUND, dtype=torch.uint8).fill_(1)

    return FOUND / _least(once)


def _least(act: Callable[[], object], tries: int = 8) -> float:
    """Seconds."""
    spent = []
    for _ in range(tries):
        began = time.perf_counter()
        act()
        spent.append(time.perf_counter() - began)
    return min(spent)
