"""Will it fit, and how long: the memory and the seconds of one training step, before a run starts.

Memory is counted on the meta device, where tensors have shapes and no storage: every allocation of a real forward and
backward pass is followed until it is freed. Seconds are measured with real steps where those are cheap and fit;
else they follow from the operation count and the speed of this device, or from the data sheet of another.
"""

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainers import memory
from trainers.bench.loops import engine_step
from trainers.config import TrainConfig
from trainers.families.base import Components, Family
from trainers.memory.cards import Card
from trainers.memory.decide import GB, Room, free_gb, needed, told
from trainers.memory.fit import Fitted
from trainers.memory.packing import FORMS
from trainers.memory.saving import PLAIN

CHEAP = 1e11  # floating-point operations of a step that is worth doing on a CPU for its time: about a second
SIDES = (768, 512, 384, 256)  # pixels that are tried where a run does not fit


@dataclass(frozen=True)
class Estimate:
    """What one optimizer step needs; GB are 2^30 bytes."""

    peak_gb: float
    free_gb: float  # what the device has, less what others hold, or the budget where that is less
    weights_gb: float
    activations_gb: float  # and gradients
    adapter_gb: float  # masters, optimizer states, averages
    tflop: float
    seconds: float | None  # per step; None where nothing could be measured
    measured: bool  # by doing steps, and not from the operation count
    drawing_seconds: float | None  # of all class pictures
    saved: str = ""  # what is given up for memory, in words and numbers
    instead: str = ""  # settings that would fit, where these do not
    span: tuple[float, float] | None = None  # seconds per step at least and at most, on a card that is not here

    @property
    def fits(self) -> bool:
        return self.peak_gb < self.free_gb


def estimate(
    family: Family, components: Components, config: TrainConfig, plan: memory.Plan, card: Card | None = None
) -> Estimate:
    """Count a step; then time it where it fits. Leaves the components with an adapter on them: use them no further.

    `card`: one that is not here. Nothing is timed then.
    """
    device = torch.device("cuda") if card else plan.device
    free = card.free_gb if card else free_gb(device)
    left, fitted = needed(family, components, config, plan, device, free)
    peak = left.peak(fitted)
    every, accumulation = config.loss.preservation_every, config.optimizer.accumulation
    once, forward = fitted.count.flops, fitted.count.forward
    again = (once + forward) / once / every if config.loss.preservation else 0.0
    flops = once * (1 + again) * accumulation
    fits = peak < min(left.budget, free)
    seconds, measured = None, False
    if fits and not card:
        measured = flops < CHEAP or device.type != "cpu"
        seconds = _timed(family, components, config, plan) * (1 + again) if measured else flops / _speed(plan)
    drawn = config.data.class_pictures * config.preview.sampling_steps * 2 / config.data.batch_size * forward / flops
    return Estimate(
        peak_gb=peak,
        free_gb=min(left.budget, free),
        weights_gb=left.weights - fitted.freed / GB,
        activations_gb=fitted.count.peak / GB,
        adapter_gb=left.adapter,
        tflop=flops / 1e12,
        seconds=seconds,
        measured=measured,
        drawing_seconds=None if seconds is None else drawn * seconds,
        saved=_saved(fitted, left, device),
        instead="" if fits else _instead(family, components, config, plan, device, free),
        span=card.seconds(flops) if card else None,
    )


def _saved(fitted: Fitted, left: Room, device: torch.device) -> str:
    if fitted.saving == PLAIN:
        return ""
    adjusted = told(fitted, left, device)
    return f"{adjusted.what}: {adjusted.why}."


def _instead(
    family: Family, components: Components, config: TrainConfig, plan: memory.Plan, device: torch.device, free: float
) -> str:
    """The first change of settings with which the run would fit, in words; "" where there is none."""
    for change in _smaller(config, components):
        changed = config.model_copy(
            update={section: getattr(config, section).model_copy(update=values) for section, values in change.items()}
        )
        left, fitted = needed(family, components, changed, plan, device, free)
        peak = left.peak(fitted)
        if peak < min(left.budget, free):
            settings = [f"{s}.{key} = {value}" for s, values in change.items() for key, value in values.items()]
            return f"It would fit with {', '.join(settings)}: {peak:.1f} GB."
    return ""


def _smaller(config: TrainConfig, components: Components) -> Iterator[dict[str, dict[str, object]]]:
    """Changes that need less and less: checkpointing, streaming, one picture, a quantised base, smaller pictures."""
    change: dict[str, dict[str, object]] = {}
    if config.memory.checkpointing == "none":
        change["memory"] = {"checkpointing": "auto"}
        yield dict(change)
    if config.memory.stream == "none":
        change["memory"] = {**change.get("memory", {}), "stream": "auto"}
        yield dict(change)
    if config.data.batch_size > 1:
        change["data"] = {"batch_size": 1}
        yield dict(change)
    if config.memory.quantize == "none" and config.adapter.type != "dora":
        for form in FORMS:
            change["memory"] = {**change.get("memory", {}), "quantize": form}
            yield dict(change)
    for side in SIDES:
        if side < (config.data.resolution or components.resolution):
            change["data"] = {**change.get("data", {}), "resolution": side}
            yield dict(change)


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
