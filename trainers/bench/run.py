"""`darkroom bench`: seconds, dispatches, host syncs, FLOPs and memory of a training step, beside a bare peft loop."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch.utils.flop_counter import FlopCounterMode

from trainers import memory
from trainers.bench.counter import DispatchCounter
from trainers.bench.loops import BareLoop, engine_step
from trainers.config import TrainConfig
from trainers.families.base import Components
from trainers.families.registry import find_family


@dataclass
class Measured:
    """One loop's numbers; seconds are wall-clock per optimizer step."""

    seconds: list[float] = field(default_factory=list)
    dispatches: dict[str, int] = field(default_factory=dict)
    syncs: int = 0
    gflop: float = 0.0

    def summary(self) -> dict:
        ordered = sorted(self.seconds)
        return {
            "seconds_per_step": round(statistics.median(ordered), 4),
            "fastest": round(ordered[0], 4),
            "slowest": round(ordered[-1], 4),
            "dispatches": {**self.dispatches, "total": sum(self.dispatches.values())},
            "host_syncs": self.syncs,
            "gflop": round(self.gflop, 2),
        }


def bench(
    config: TrainConfig, steps: int = 10, size: str = "base", progress: Callable[[str], None] = lambda text: None
) -> dict:
    """Time `steps` steps of each loop in turn (so that both meet the same machine) and count one step of each.

    `size` is "base" for the configured base model or "sd15" for random weights in Stable Diffusion 1.5's shapes.
    """
    plan = memory.plan(config.memory)
    family = find_family(config.model)
    progress("Building the model")
    components = family.random(plan.dtype) if size == "sd15" else family.load(config.model, plan.dtype)
    empty = family.tokenize(components, [""] * config.data.batch_size)
    with torch.no_grad():
        told = family.encode_text(components.text_encoders, empty, config.model.clip_skip)
    bare = BareLoop(family, components, config, plan, told)
    engine = engine_step(family, components, config, plan, steps)
    loops = {"darkroom": engine, "bare": bare}
    measured = {name: Measured() for name in loops}
    for name, loop in loops.items():
        progress(f"Counting the operators of one step ({name})")
        loop(0)  # the first step makes the optimizer's state
        _count(loop, measured[name])
    for step in range(2, steps + 2):
        for name, loop in loops.items():
            progress(f"Timing step {step - 1} of {steps} ({name})")
            _wait(plan.device)
            start = time.perf_counter()
            loop(step)
            _wait(plan.device)
            measured[name].seconds.append(time.perf_counter() - start)
    result = {name: m.summary() for name, m in measured.items()}
    ratios = [a / b for a, b in zip(measured["darkroom"].seconds, measured["bare"].seconds, strict=True)]
    return {
        "model": "Stable Diffusion 1.5, random weights" if size == "sd15" else components.name,
        "device": str(plan.device),
        "precision": plan.precision,
        "threads": torch.get_num_threads(),
        "batch_size": config.data.batch_size,
        "resolution": config.data.resolution or components.resolution,
        "steps": steps,
        "loops": result,
        "time_ratio": round(statistics.median(ratios), 4),
        "peak_memory_gb": round(memory.peak_gb(plan.device), 2),
        "weights_gb": round(_weights_gb(components), 3),
    }


def _count(loop: Callable[[int], None], into: Measured) -> None:
    counter = DispatchCounter()
    if isinstance(loop, BareLoop):
        loop.mark = lambda phase: setattr(counter, "phase", phase)
        restore = lambda: setattr(loop, "mark", lambda phase: None)  # noqa: E731
    else:
        restore = _mark_engine(loop, counter)
    with counter:
        loop(1)
    restore()
    with FlopCounterMode(display=False) as flops:
        loop(1)
    into.dispatches, into.syncs = dict(counter.dispatches), counter.syncs
    into.gflop = flops.get_total_flops() / 1e9


def _mark_engine(loop, counter: DispatchCounter) -> Callable[[], None]:  # noqa: ANN001
    """Tell the counter when the engine's step turns to the backward pass and to the optimizer."""
    backward, clip, micro = loop.accelerator.backward, loop.accelerator.clip_grad_norm_, loop.micro_step

    def marked(phase: str, call: Callable) -> Callable:
        def run(*args: object, **options: object) -> object:
            counter.phase = phase
            return call(*args, **options)

        return run

    loop.micro_step = marked("forward", micro)
    loop.accelerator.backward = marked("backward", backward)
    loop.accelerator.clip_grad_norm_ = marked("optimizer", clip)

    def restore() -> None:
        del loop.micro_step
        loop.accelerator.backward, loop.accelerator.clip_grad_norm_ = backward, clip

    return restore


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _weights_gb(components: Components) -> float:
    modules = [components.denoiser, components.vae, *components.text_encoders]
    return sum(p.numel() * p.element_size() for m in modules for p in m.parameters()) / 2**30
