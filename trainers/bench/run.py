"""`darkroom bench`: what a training step costs, counted and timed, beside a bare peft loop on the same base."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from trainers import memory, thread_count
from trainers.adapters.adapter import DENOISER, Place
from trainers.adapters.targets import shapes
from trainers.bench import models
from trainers.bench.count import count
from trainers.bench.floor import floor
from trainers.bench.loops import BareLoop, OtherLoop, compiled_loop, engine_step, recorded_loop
from trainers.config import MemoryConfig, TrainConfig
from trainers.data.buckets import require_resolution
from trainers.families.base import Components, Conditioning, Family, plain_sizes
from trainers.families.positions import keep_middle
from trainers.memory import Plan
from trainers.memory.decide import draws
from trainers.step import TrainingStep
from trainers.trial import settle_exact

Progress = Callable[[str], None]
Loop = TrainingStep | OtherLoop | BareLoop
ON_A_DEVICE = ("budget", "offload", "compile")  # memory settings that nothing follows without one
USUAL = MemoryConfig()


@dataclass
class Timed:
    """Seconds of each step: by the clock, and of the processor's time, which other programs do not lengthen."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def summary(self) -> dict:
        low, _, high = statistics.quantiles(self.wall, n=4) if len(self.wall) > 1 else self.wall * 3
        found = {"fastest": min(self.wall), "slowest": max(self.wall), "low_quartile": low, "high_quartile": high}
        middle = {"median": statistics.median(self.wall), "processor": statistics.median(self.processor)}
        return {name: round(value, 4) for name, value in (middle | found).items()}


def bench(base: str, config: TrainConfig, meta: bool, steps: int, alone: bool, bare: str, progress: Progress) -> dict:
    """Count one step of each loop, and unless `meta` time `steps` of each, in turn so that both meet the same machine.

    Args:
        base: a name in `models.SIZES`, or that of a base model in `config`.
        meta: count without memory for numbers, as on a CPU; nothing is timed.
        alone: leave out the bare peft loop, which needs a second denoiser.
        bare: the precision of that loop; auto: Darkroom's own.
    """
    plan = _plan(config, meta)
    progress("Building the model")
    began = time.perf_counter()
    with models.without_numbers(meta):
        family, components, label = models.build(base, config, plan.dtype)
        resolution = config.data.resolution or components.resolution
        require_resolution(resolution, *components.bounds)
        places = list(shapes(components, family.spec, config.adapter))
        told = _told(family, components, config)
        loops: dict[str, Loop] = {}
        if not alone:
            its_plan = plan if bare == "auto" else replace(plan, precision=bare)
            loops["bare"] = BareLoop(family, components, config, its_plan, told, places)
        least = _least(family, components, config, plan, told, places)
        keep_middle(components, resolution)
        ours = engine_step(family, components, config, plan, steps)
        if not meta:
            thread_count.settle(ours, config)
            settle_exact(ours, plan.exact)
        compiled = None if meta else compiled_loop(ours, config)
        recorded = None if meta else recorded_loop(ours, config)
        others = {"compiled": compiled, "recorded": recorded}
        loops = {"darkroom": ours} | {name: loop for name, loop in others.items() if loop} | loops
        built = time.perf_counter() - began
        counted = {}
        for name, loop in loops.items():
            progress(f"Counting one step ({name})")
            seen = not isinstance(loop, OtherLoop)
            counted[name] = count(loop, _models_of(loop, components, config), len(places), seen)
    seconds = {} if meta else _timed(loops, steps, plan.device, progress)
    found = {
        name: counted[name].summary() | ({"seconds": seconds[name].summary()} if seconds else {}) for name in loops
    }
    if compiled:
        found["compiled"]["graph_calls"] = compiled.calls
    return {
        "base": label,
        "device": "none: counted without numbers" if meta else str(plan.device),
        "precision": plan.precision,
        "bare_precision": plan.precision if bare == "auto" else bare,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "resolution": config.data.resolution or components.resolution,
        "batch_size": config.data.batch_size,
        "parts": min(config.memory.parts, config.data.batch_size),
        "accumulation": config.optimizer.accumulation,
        "remarks": remarks(config, meta, alone),
        "adapter": f"{config.adapter.type}, rank {config.adapter.rank}, {config.adapter.targets}",
        "checkpointing": config.memory.checkpointing,
        "text_encoder": config.adapter.text_encoder,
        "seconds_to_build": round(built, 2),
        "floor_gflop": {**least, "total": round(sum(least.values()), 2)},
        "loops": found,
        "ratios": _ratios(seconds, "darkroom"),
        "recorded_ratios": _ratios(seconds, "recorded"),
        "process_peak_gb": None if meta else round(memory.peak_gb(plan.device), 2),
    }


def remarks(config: TrainConfig, meta: bool, alone: bool) -> list[str]:
    """Where the loops are not what the settings say, in sentences."""
    said = []
    if not alone and (config.adapter.type != "lora" or draws(config.adapter)):
        said.append("The bare loop trains a plain LoRA, without dropout.")
    if not alone and config.memory.attention != USUAL.attention:
        said.append("In the bare loop attention is as torch chooses.")
    changed = [name for name in ON_A_DEVICE if getattr(config.memory, name) != getattr(USUAL, name)]
    changed += ["attention"] * (config.memory.attention not in (USUAL.attention, "math"))
    if meta and changed:
        said.append(f"Not counted without a device: {', '.join(f'memory.{name}' for name in changed)}.")
    return said


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
        denoiser = models.hollow_model(components.denoiser)
        latents = torch.empty(batch, components.latent.channels, side, side, dtype=plan.dtype)
        sizes = plain_sizes(family, side * factor, side * factor, batch, cpu)
        flops = floor(family, denoiser, paths, latents, _without_numbers(told, plan.dtype).sized(sizes))
    return {phase: round(n * config.optimizer.accumulation / 1e9, 2) for phase, n in flops.items()}


def _without_numbers(told: Conditioning, dtype: torch.dtype) -> Conditioning:
    parts = (told.embeds, told.pooled)
    return Conditioning(*(None if part is None else torch.empty(part.shape, dtype=dtype) for part in parts))


def _timed(loops: dict[str, Loop], steps: int, device: torch.device, progress: Progress) -> dict[str, Timed]:
    """Seconds of each step of each loop."""
    found = {name: Timed() for name in loops}
    for step in range(2, steps + 2):
        for name, loop in loops.items():
            progress(f"Timing step {step - 1} of {steps} ({name})")
            _wait(device)
            wall, processor = time.perf_counter(), time.process_time()
            loop(step)
            _wait(device)
            found[name].wall.append(time.perf_counter() - wall)
            found[name].processor.append(time.process_time() - processor)
    return found


def _ratios(seconds: dict[str, Timed], name: str) -> dict[str, float]:
    """A loop's step to the bare loop's, by the clock and by what the processor worked for this process alone."""
    if not {name, "bare"} <= seconds.keys():
        return {}
    ours, bare = seconds[name], seconds["bare"]
    return {"wall": _ratio(ours.wall, bare.wall), "processor": _ratio(ours.processor, bare.processor)}


def _ratio(one: list[float], other: list[float]) -> float:
    """The median of one's seconds to the other's, step by step."""
    return round(statistics.median(a / b for a, b in zip(one, other, strict=True)), 4)


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize()
