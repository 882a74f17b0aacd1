"""How fast this device does each kind of a run's work, tried."""

import math
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save

from trainers import preview, thread_count
from trainers.bench.loops import engine_step
from trainers.config import TrainConfig
from trainers.encoding import together
from trainers.families.base import Components, Family, plain_sizes
from trainers.families.residence import lent
from trainers.files import write_whole
from trainers.graphs import record_passes
from trainers.memory import Plan
from trainers.memory.decide import free_gb, room
from trainers.memory.hollow import Count
from trainers.memory.saving import PLAIN, Saving
from trainers.memory.tiles import tiled
from trainers.memory.units import recomputes
from trainers.prepacked import is_prepacked
from trainers.prompts import preview_prompts
from trainers.step import TrainingStep
from trainers.stores import TOGETHER
from trainers.trial import settle_exact

LEAST, MOST, LONG = 3, 10, 0.5  # how often something is tried: at least; at most, unless it takes so many seconds
ENOUGH = 5.0  # seconds: a preview's picture that takes longer is tried once
Clock = Callable[[], float]


class Stopwatch:
    """Seconds by a clock, and those that first times took longer: libraries are loaded, kernels made, memory found."""

    def __init__(self, clock: Clock):
        self.clock = clock
        self.first = 0.0

    def median(self, act: Callable[[], object], enough: float = math.inf) -> float:
        """Seconds of one, after one that sets things up; of that one itself where it takes more than `enough`."""
        first = self.spent(act)
        if first > enough:
            return first
        seconds: list[float] = []
        while len(seconds) < LEAST or (len(seconds) < MOST and sum(seconds) < LONG):
            seconds.append(self.spent(act))
        usual = statistics.median(seconds)
        self.first += max(0.0, first - usual)
        return usual

    def spent(self, act: Callable[[], object]) -> float:
        began = self.clock()
        act()
        return self.clock() - began


@dataclass(frozen=True)
class Pace:
    """Seconds of one each."""

    step: float  # optimizer step of whole batches: accumulation and output preservation are in it
    alone: float  # the same with batches of one picture
    denoised: float  # sampling step of one picture of a preview, with and without its prompt
    trained: float  # the same of one of the training resolution
    encoded: float  # picture by the VAE
    decoded: float
    told: float  # caption by the text encoders
    saved: float = 0.0  # checkpoint
    ready: float = 0.0  # weights read and the step set up, and what else takes longer the first time
    anew: float = 0.0  # more that a step takes whose passes are recorded again (graphs.py), after each preview
    tried: bool = True

    def step_of(self, pictures: float, batch_size: int) -> float:
        """An optimizer step whose batches have so many pictures on average: the last of a bucket may be smaller."""
        if batch_size == 1:
            return self.step * pictures
        return self.alone + (self.step - self.alone) * (pictures - 1) / (batch_size - 1)


def pace(
    family: Family,
    components: Components,
    config: TrainConfig,
    plan: Plan,
    clock: Clock = time.perf_counter,
    before: Saving | None = None,
    drawing: Callable[[], "Pace"] | None = None,
) -> Pace:
    """The pace of a run with these settings, tried; leaves an adapter on the components.

    Args:
        clock: what tells the seconds.
        before: how an earlier sitting of the run saved memory.
        drawing: what tells the pace of a preview in its stead, on as many threads as the steps were given.
    """
    stopwatch = Stopwatch(clock)
    encoded = _encoding(family, components, config, plan.device, stopwatch)  # before the denoiser comes, as in a run
    told = _telling(family, components, config, plan.device, stopwatch)
    began = clock()
    step = engine_step(family, components, config, plan, steps=LEAST, before=before)
    thread_count.settle(step, config)
    settle_exact(step, plan.exact)
    recorded = record_passes(step, config, lambda event: None)
    ready = clock() - began
    whole = alone = _step(step, stopwatch)
    if config.data.batch_size > 1:
        batches, step.feed.batches = step.feed.batches, step.feed.batches.sized(1)
        alone = _step(step, stopwatch)
        step.feed.batches = batches
    anew = 0.0
    if recorded:
        recorded.rest()
        anew = max(0.0, stopwatch.spent(lambda: _done(step, 0)) - whole)
        recorded.rest()
    with step.held():
        if drawing:
            told_instead = drawing()
            denoised, trained, decoded = told_instead.denoised, told_instead.trained, told_instead.decoded
        else:
            denoised = trained = _denoising(step, components, config, stopwatch, drawn(components, config))
            decoded = _decoding(step, components, config, stopwatch)
        if drawn(components, config) != (seen := as_trained(components, config)):
            trained = _denoising(step, components, config, stopwatch, seen)
    return Pace(
        step=whole,
        alone=alone,
        denoised=denoised,
        trained=trained,
        encoded=encoded,
        decoded=decoded,
        told=told,
        saved=_saving(step, clock),
        ready=ready + stopwatch.first,
        anew=anew,
        tried=not drawing,
    )


def operations(config: TrainConfig, count: Count) -> float:
    """Those of an optimizer step: output preservation denoises once more with gradients and once without."""
    again = (count.flops + count.forward) / config.loss.preservation_every if config.loss.preservation else 0.0
    return (count.flops + again) * config.optimizer.accumulation * config.data.batch_size / config.at_once


def passes(config: TrainConfig) -> float:
    """Forward and backward passes of an optimizer step; one without gradients counts half."""
    again = 1.5 / config.loss.preservation_every if config.loss.preservation else 0.0
    return (1 + again) * config.optimizer.accumulation * min(config.memory.parts, config.data.batch_size)


def _step(step: TrainingStep, stopwatch: Stopwatch) -> float:
    """With the share of output preservation that falls to every step."""
    preservation, step.preservation = step.preservation, None
    plain = _stepping(step, stopwatch)
    if preservation is None:
        return plain
    every, preservation.every, step.preservation = preservation.every, 1, preservation
    kept = _stepping(step, stopwatch)
    preservation.every = every
    return plain + (kept - plain) / every


def _stepping(step: TrainingStep, stopwatch: Stopwatch) -> float:
    numbers = iter(range(1 << 30))
    return stopwatch.median(lambda: _done(step, next(numbers)))


def _done(step: TrainingStep, number: int) -> None:
    step(number)
    step.mean_loss()  # waits for the device


@torch.no_grad()
def _denoising(
    step: TrainingStep, components: Components, config: TrainConfig, stopwatch: Stopwatch, latents: tuple[int, int]
) -> float:
    """Pictures of so many latents (width, height) are denoised in the batches of a preview."""
    device, few = step.feed.text.device, config.preview.model_copy(update={"sampling_steps": 2})
    width, height = latents
    batch = preview_batch(config, components, checkpointing=recomputes(step.denoiser))
    noise = torch.randn(batch, components.latent.channels, height, width).to(device)
    told = step.feed.text.conditioning(torch.zeros(2 * batch, dtype=torch.long, device=device)).to(step.dtype)
    factor = components.latent.factor
    told = told.sized(plain_sizes(step.family, width * factor, height * factor, 2 * batch, device))

    def once() -> None:
        preview.draw(step.family, components, noise, told, few).sum().item()

    step.denoiser.eval()
    seconds = stopwatch.median(once, ENOUGH) / few.sampling_steps / batch
    step.denoiser.train()
    return seconds


@torch.no_grad()
def _encoding(
    family: Family, components: Components, config: TrainConfig, device: torch.device, stopwatch: Stopwatch
) -> float:
    """Pictures are encoded in batches."""
    vae, side = components.vae, config.data.resolution or components.resolution
    batch = together(side, side, device)
    with lent([vae], device):
        pixels = torch.zeros(batch, 3, side, side).to(device)
        return stopwatch.median(lambda: family.encode_image(vae, pixels)[0].sum().item()) / batch


@torch.no_grad()
def _decoding(step: TrainingStep, components: Components, config: TrainConfig, stopwatch: Stopwatch) -> float:
    """Pictures are decoded one by one, beside the denoiser: in tiles where the whole one would not fit."""
    device, vae = step.feed.text.device, components.vae
    trained = sum(parameter.numel() * 4 for parameter in step.parameters)
    left = room(components, config, device, trained, free_gb(device))
    space = left.for_(replace(PLAIN, prepacked=is_prepacked(components.denoiser))).activations
    space -= sum(weight.numel() * weight.element_size() for weight in vae.parameters())
    width, height = drawn(components, config)
    latents = torch.zeros(1, components.latent.channels, height, width).to(device)
    with lent([vae], device), tiled(step.family, vae, tuple(latents.shape), space):
        return stopwatch.median(lambda: step.family.decode_image(vae, latents).sum().item(), ENOUGH)


@torch.no_grad()
def _telling(
    family: Family, components: Components, config: TrainConfig, device: torch.device, stopwatch: Stopwatch
) -> float:
    encoders = components.text_encoders
    tokens = tuple(ids.to(device) for ids in family.tokenize(components, ["a picture"] * TOGETHER))
    with lent(list(encoders), device):
        told = lambda: family.encode_text(encoders, tokens, config.model.clip_skip).embeds.sum().item()  # noqa: E731
        return stopwatch.median(told) / TOGETHER


def _saving(step: TrainingStep, clock: Clock) -> float:
    """Masters and optimizer states, written whole."""
    names = {f"{i}/{part}": p.detach().cpu() for part in range(3) for i, p in enumerate(step.parameters)}
    with tempfile.TemporaryDirectory() as folder:
        began = clock()
        write_whole(Path(folder) / "state", save({name: tensor.clone() for name, tensor in names.items()}))
        return clock() - began


def preview_batch(config: TrainConfig, components: Components, checkpointing: bool) -> int:
    """How many of a preview's pictures are denoised together."""
    side = config.data.resolution or components.resolution
    together = preview.at_once(config.at_once, checkpointing, preview.larger(config.preview, side, side))
    return min(together, len(preview_prompts(config)) or together)


def as_trained(components: Components, config: TrainConfig) -> tuple[int, int]:
    """Width and height of the latents of a picture of the training resolution."""
    side = components.side(config.data.resolution or components.resolution)
    return side, side


def drawn(components: Components, config: TrainConfig) -> tuple[int, int]:
    """Width and height of the latents of a preview, or of a training picture where there are none."""
    side, preview = config.data.resolution or components.resolution, config.preview
    width, height = (preview.width, preview.height) if preview.every else (0, 0)
    return components.side(width or side), components.side(height or side)
