"""Whether the denoiser's blocks run compiled: tried on the run's own step before it is trusted, kept only if faster.

A compiled step is correct where its loss and gradients are those of the eager step. A trial leaves nothing behind, so
that a run which stays eager ends in the weights of one that never tried. What was decided is remembered, since compiled
and eager sums differ in their last bits, and every sitting of a run must take the same.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import torch

from trainers import json_values
from trainers.config import TrainConfig
from trainers.data.cache import content_key
from trainers.errors import UserError
from trainers.events import Adjusted, Event, Phase, Warned
from trainers.files import remember, remembered
from trainers.memory.decide import draws
from trainers.memory.regions import Regions, Shape
from trainers.memory.units import streamed
from trainers.step import TrainingStep
from trainers.trial import EAGER, MODES, Trial, Verdict, common_shapes, first_line, number_of, situation

log = logging.getLogger(__name__)
TRIED = ("cuda", "xpu")  # where auto tries: a step on a CPU spends its time in products that stay as they are
FILE = "compiling.json"  # in the cache


def compile_blocks(
    step: TrainingStep, config: TrainConfig, folder: Path | None, emit: Callable[[Event], None]
) -> Regions | None:
    """Let the step run compiled where the settings want it and it works; what was decided is told and logged.

    `folder` remembers what auto found. Should a compiled pass fail later, the step is done again without.
    """
    wish, device = config.memory.compile, step.feed.text.device
    if wish == "none" or wish == "auto" and device.type not in TRIED:
        return None
    if reason := unfit(step, config):
        emit(Adjusted("The denoiser is not compiled", reason))
        return None
    emit(Phase("Compiling the denoiser"))
    shapes = common_shapes(step)
    ways = {name: Regions(step.denoiser, shapes, mode) for name, mode in MODES.items() if _possible(mode, device)}
    trial = Trial(step, ways, number_of(step, shapes[0]))
    verdict = trial.forced() if wish == "all" else _remembered(trial, config, shapes, folder)
    for name, reason in verdict.broken.items():
        emit(Warned(f"The denoiser does not run {name} here, and is run without.", reason))
    log.info("the denoiser runs %s on %s; forward and backward: %s", verdict.chosen, device, verdict.times or "untimed")
    if verdict.seconds:
        emit(Adjusted(f"The denoiser runs {verdict.chosen}", f"a forward and backward pass takes {verdict.times}"))
    if verdict.chosen == EAGER:
        return None
    ways[verdict.chosen].put()
    step.mend = _mending(step, ways[verdict.chosen], emit)
    return ways[verdict.chosen]


def unfit(step: TrainingStep, config: TrainConfig) -> str:
    """Why a run is not compiled; "" where it can be."""
    if draws(config.adapter):
        return "with an adapter's dropout, compiled code would draw other numbers"
    if config.memory.quantize != "none":
        return "compiled code could keep what it unpacks of a quantised base"
    if streamed(step.denoiser):
        return "the weights of streamed blocks come and go"
    if any(getattr(module, "offload", False) for module in step.denoiser.modules()):
        return "torch does not compile what sends activations to host memory"
    return ""


def _possible(mode: str, device: torch.device) -> bool:
    return mode != "reduce-overhead" or device.type == "cuda"


def _remembered(trial: Trial, config: TrainConfig, shapes: list[Shape], folder: Path | None) -> Verdict:
    if folder is None:
        return trial.timed()
    key = content_key(kind="compiling", shapes=shapes, **situation(trial.step, config))
    known = remembered(folder / FILE)
    with suppress(ValueError):  # none, or damaged
        return json_values.made(Verdict, known.get(key))
    found = trial.timed()
    remember(folder / FILE, known | {key: asdict(found)})
    return found


def _mending(step: TrainingStep, regions: Regions, emit: Callable[[Event], None]) -> Callable[[Exception], bool]:
    """What the step asks when a pass fails: it can be done again, without compiled blocks."""
    earlier = step.mend

    def mend(error: Exception) -> bool:
        if isinstance(error, UserError):  # of a picture, say
            return False
        step.mend = earlier
        regions.remove()
        log.warning("a compiled pass failed", exc_info=error)
        emit(Warned("A compiled pass of the denoiser failed; training goes on without.", first_line(error)))
        return True

    return mend
