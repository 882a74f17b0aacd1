"""`darkroom bench`: what a training step costs, counted and timed, beside a bare peft loop on the same base."""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from trainers import memory
from trainers.adapters.adapter import DENOISER, Place
from trainers.adapters.targets import shapes
from trainers.bench import models
from trainers.bench.count import count
from trainers.bench.floor import floor
from trainers.bench.loops import BareLoop, engine_step
from trainers.config import TrainConfig
from trainers.families.base import Components, Conditioning, Family, plain_sizes
from trainers.memory import Plan
from trainers.step import TrainingStep

Progress = Callable[[str], None]
Loop = TrainingStep | BareLoop


def bench(base: str, config: TrainConfig, meta: bool, steps: int, alone: bool, progress: Progress) -> dict:
    """Count one step of each loop, and unless `meta` time `steps` of each, in turn so that both meet the same machine.

    Args:
        base: a name in `models.SIZES`, or that of a base model in `config`.
        meta: count without memory for numbers, as on a CPU; nothing is timed.
        alone: leave out the bare peft loop, which needs a second denoiser.
    """
    plan = _plan(config, meta)
    progress("Building the model")
    began = time.perf_counter()
    with models.without_numbers(meta):
        family, components, label = models.build(base, config, plan.dtype)
        places = list(shapes(components, family.spec, config.adapter))
        told = _told(family, components, config)
        loops: dict[str, Loop] = {}
        if not alone:
            loops["bare"] = BareLoop(family, components, config, plan, told, places)
        least = _least(family, components, config, plan, told, places)
        loops = {"darkroom": engine_step(family, components, config, plan, steps), **loops}
        built = time.perf_counter() - began
        counted = {}
        for name, loop in loops.items():
            progress(f"Counting one step ({name})")
            counted[name] = count(loop, _models_of(loop, components, config), len(places))
    seconds = {} if meta else _timed(loops, steps, plan.device, progress)
    found = {name: {**counted[name].summary(), **_seconds(seconds.get(name))} for name in loops}
    ratio = [a / b for a, b in zip(seconds["darkroom"], seconds["bare"], strict=True)] if len(seconds) == 2 else []
    return {
        "base": label,
        "device": "none: counted without numbers" if meta else str(plan.device),
        "precision": plan.precision,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "resolution": config.data.resolution or components.resolution,
        "batch_size": config.data.batch_size,
        "accumulation": config.optimizer.accumulation,
        "adapter": f"{config.adapter.type}, rank {config.adapter.rank}, {config.adapter.targets}",
        "checkpointing": bool(config.memory.checkpointing),
        "text_encoder": config.adapter.text_encoder,
        "seconds_to_build": round(built, 2),
        "floor_gflop": {**least, "total": round(sum(least.values()), 2)},
        "loops": found,
        "time_ratio": round(statistics.median(ratio), 4) if ratio else None,
        "process_peak_gb": None if meta else round(memory.peak_gb(plan.device), 2),
    }


def _plan(config: TrainConfig, meta: bool) -> Plan:
    if not meta:
        return memory.plan(config.memory)
    precision = config.memory.precision
    return replace(
        memory.plan(config.memory.model_copy(update={"device": "cpu", "precision": "fp32"})),
        precision="bf16" if precision == "auto" else precision,
    )


def _told(family: Family, components: Components, config: TrainConfig) -> Conditioning:
    """The conditioning of a batch of empty captions, without sizes."""
    empty = family.tokenize(components, [""] * config.data.batch_size)
    with torch.no_grad():
        return family.encode_text(components.text_encoders, empty, config.model.clip_skip)


def _models_of(loop: Loop, components: Components, config: TrainConfig) -> list[nn.Module]:
    """The models that its step runs."""
    if isinstance(loop, BareLoop):
        return loop.models
    return [components.denoiser, *(components.text_encoders if config.adapter.trains_text else ())]


def _least(
    family: Family, components: Components, config: TrainConfig, plan: Plan, told: Conditioning, places: list[Place]
) -> dict[str, float]:
    """GFLOP {forward, backward} of a step's floor, counted on a denoiser without numbers."""
    paths = [path for part, path in places if part == DENOISER]
    batch, factor, cpu = config.data.batch_size, components.latent.factor, torch.device("cpu")
    side = (config.data.resolution or components.resolution) // factor
    with models.without_numbers(True):
        hollow = type(components.denoiser).from_config(components.denoiser.config)
        hollow = nn.Module.to(hollow, plan.dtype).eval().requires_grad_(False)
        latents = torch.empty(batch, components.latent.channels, side, side, dtype=plan.dtype)
        sizes = plain_sizes(family, side * factor, side * factor, batch, cpu)
        flops = floor(family, hollow, paths, latents, _hollow(told, plan.dtype).sized(sizes))
    return {phase: round(n * config.optimizer.accumulation / 1e9, 2) for phase, n in flops.items()}


def _hollow(told: Conditioning, dtype: torch.dtype) -> Conditioning:
    parts = (told.embeds, told.pooled)
    return Conditioning(*(None if part is None else torch.empty(part.shape, dtype=dtype) for part in parts))


def _timed(loops: dict[str, Loop], steps: int, device: torch.device, progress: Progress) -> dict[str, list[float]]:
    """Wall-clock seconds of each step of each loop."""
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for step in range(2, steps + 2):
        for name, loop in loops.items():
            progress(f"Timing step {step - 1} of {steps} ({name})")
            _wait(device)
            start = time.perf_counter()
            loop(step)
            _wait(device)
            seconds[name].append(time.perf_counter() - start)
    return seconds


def _seconds(measured: list[float] | None) -> dict:
    if not measured:
        return {}
    low, middle, high = statistics.quantiles(measured, n=4) if len(measured) > 1 else [measured[0]] * 3
    return {
        "seconds": {
            "median": round(middle, 4),
            "fastest": round(min(measured), 4),
            "slowest": round(max(measured), 4),
            "quartiles": [round(low, 4), round(high, 4)],
        }
    }


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize()
