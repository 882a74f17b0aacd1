"""Will it fit, and how long: the memory and the seconds of one training step, before a run starts.

Memory is counted on the meta device, where tensors have shapes and no storage: every allocation of a real forward and
backward pass is followed until it is freed. Seconds are measured with real steps where those are cheap and fit;
else they follow from the operation count and the speed of this device.
"""

import statistics
import time
from dataclasses import dataclass, replace

import psutil
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from trainers import memory
from trainers.adapters.registry import ADAPTERS
from trainers.adapters.tokens import start_tokens
from trainers.bench.live import AttentionInPlace, LiveBytes
from trainers.bench.loops import engine_step
from trainers.config import TrainConfig
from trainers.families.base import Components, Family, plain_sizes

GB = 2**30
CHEAP = 1e11  # floating-point operations of a step that is worth doing on a CPU for its time: about a second
LIBRARIES = 0.5  # GB resident once torch, diffusers and their libraries are loaded: 0.48 measured on Linux


@dataclass(frozen=True)
class Estimate:
    """What one optimizer step needs; GB are 2^30 bytes."""

    peak_gb: float
    free_gb: float  # what the device has, less what others hold
    weights_gb: float
    activations_gb: float
    adapter_gb: float  # masters, gradients, optimizer states, averages
    tflop: float
    seconds: float | None  # per step; None where nothing could be measured
    measured: bool  # by doing steps, and not from the operation count
    drawing_seconds: float | None  # of all class pictures

    @property
    def fits(self) -> bool:
        return self.peak_gb < self.free_gb


def estimate(family: Family, components: Components, config: TrainConfig, plan: memory.Plan) -> Estimate:
    """Count a step; then time it where it fits. Leaves the components with an adapter on them: use them no further."""
    adapter, activations, once, forward = _count(family, components, config, plan.dtype)
    every, accumulation = config.loss.preservation_every, config.optimizer.accumulation
    again = (once + forward) / once / every if config.loss.preservation else 0.0
    flops = once * (1 + again) * accumulation
    weights = _resident(components, config, plan.device)
    peak = weights + adapter + activations + (LIBRARIES if plan.device.type == "cpu" else 0.3)
    free = _free(plan.device)
    seconds, measured = None, False
    if peak < free:
        measured = flops < CHEAP or plan.device.type != "cpu"
        seconds = _timed(family, components, config, plan) * (1 + again) if measured else flops / _speed(plan)
    drawn = config.data.class_pictures * config.preview.sampling_steps * 2 / config.data.batch_size * forward / flops
    drawing = None if seconds is None else drawn * seconds
    return Estimate(peak, free, weights, activations, adapter, flops / 1e12, seconds, measured, drawing)


def _count(
    family: Family, components: Components, config: TrainConfig, dtype: torch.dtype
) -> tuple[float, float, float, float]:
    """GB that the adapter keeps, GB alive at the peak, operations of a micro-step, and of its forward pass alone."""
    hollow = replace(
        components,
        denoiser=_hollow(components.denoiser, dtype),
        text_encoders=tuple(_hollow(encoder, dtype) for encoder in components.text_encoders),
    )
    adapter = ADAPTERS[config.adapter.type](hollow, family.spec, config.adapter, config.seed)
    if config.memory.checkpointing:
        hollow.denoiser.enable_gradient_checkpointing()
    adapter.train()
    adapter.train_tokens(start_tokens(hollow, family.spec, config))
    parameters = [*adapter.denoiser_parameters(), *adapter.text_parameters(), *adapter.token_parameters()]
    kept = 4 * sum(p.numel() for p in parameters)
    count, side = config.data.batch_size, (config.data.resolution or components.resolution) // components.latent.factor
    latents = torch.empty(count, components.latent.channels, side, side, device="meta")
    tokens = tuple(t.to("meta") for t in family.tokenize(components, ["a picture"] * count))
    live = LiveBytes()
    with FlopCounterMode(display=False) as flops, AttentionInPlace() as attention, live:
        conditioning = family.encode_text(hollow.text_encoders, tokens, config.model.clip_skip).to(dtype)
        if not config.adapter.trains_text:
            conditioning = conditioning.detach()
        conditioning = conditioning.sized(plain_sizes(family, side, side, count, torch.device("meta")))
        timesteps = torch.zeros(count, dtype=torch.long, device="meta")
        prediction = family.denoise(hollow.denoiser, latents.to(dtype), timesteps, conditioning)
        forward = flops.get_total_flops() + attention.flops
        (prediction.float() - latents).pow(2).mean().backward()
    per_weight = 2 + (1 if "8bit" in config.optimizer.type.lower() else 2) + config.optimizer.ema
    total = flops.get_total_flops() + attention.flops
    return kept * per_weight / GB, max(0, live.peak - kept) / GB, total, forward


def _hollow(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The same architecture without weights."""
    with torch.device("meta"):
        made = type(model).from_config(model.config) if hasattr(model, "from_config") else type(model)(model.config)
    return nn.Module.to(made, dtype).eval().requires_grad_(False)  # diffusers' own `to` warns of nothing


def _resident(components: Components, config: TrainConfig, device: torch.device) -> float:
    """GB of frozen weights beside the loop: all of them on a CPU, on a card only the parts that run."""
    models = [components.denoiser]
    if device.type == "cpu":
        models += [components.vae, *components.text_encoders]
    elif config.adapter.trains_text:
        models += components.text_encoders
    return sum(p.numel() * p.element_size() for m in models for p in m.parameters()) / GB


def _free(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / GB
    process = psutil.Process()
    return (psutil.virtual_memory().available + process.memory_info().rss) / GB


def _timed(family: Family, components: Components, config: TrainConfig, plan: memory.Plan) -> float:
    """Median seconds of three steps, without output preservation, after one that sets things up."""
    plain = config.model_copy(update={"loss": config.loss.model_copy(update={"preservation": 0.0})})
    step = engine_step(family, components, plain, plan, steps=4)
    seconds = []
    for number in range(4):
        start = time.perf_counter()
        step(number)
        step.mean_loss()  # waits for the device
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def _speed(plan: memory.Plan) -> float:
    """Floating-point operations per second of a convolution of the kind that fills a UNet, forward only."""
    layer = nn.Conv2d(320, 320, 3, padding=1).to(plan.device, plan.dtype)
    x: Tensor = torch.randn(1, 320, 64, 64, device=plan.device, dtype=plan.dtype)
    best = float("inf")
    with torch.no_grad():
        for _ in range(3):
            start = time.perf_counter()
            layer(x)
            best = min(best, time.perf_counter() - start)
    return 2 * 64 * 64 * 320 * 320 * 9 / best
