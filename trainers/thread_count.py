"""Whether fewer threads of the CPU do a step sooner: tried on the run's own step, remembered, kept for the whole run.

A small model's operations take less time than waking the threads that share them. Measured on two cores: a step of the
embedded base on four pictures takes 0.16 s with one thread and 0.33 s with two that sleep while they wait.
"""

import logging
import statistics
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from time import perf_counter

import torch

from trainers import threads
from trainers.config import TrainConfig
from trainers.data.cache import content_key
from trainers.files import remember, remembered
from trainers.memory.units import blocks
from trainers.step import TrainingStep
from trainers.trial import CLEARLY, common_shapes, number_of, once, situation, untouched

log = logging.getLogger(__name__)
LONG = 2.0  # seconds: waking threads is lost in a pass as long as this, and trying would cost much
REPEATS = 3  # timed passes with each number
FILE = "threads.json"  # in the cache


def settle(step: TrainingStep, config: TrainConfig, folder: Path | None = None) -> None:
    """Let torch compute with as many threads as do a pass of `step` soonest: those that it has now, or fewer.

    The user's OMP_NUM_THREADS stays. `folder` remembers what was found: other numbers give other last bits, and every
    run of these settings on this machine shall end in the same weights.
    """
    most = torch.get_num_threads()
    if step.feed.text.device.type != "cpu" or most == 1 or threads.wished():
        return
    shape = common_shapes(step)[0]
    key = content_key(kind="threads", most=most, shape=shape, **situation(step, config))
    known = remembered(folder / FILE) if folder else {}
    if known.get(key) not in range(1, most + 1):  # none, or damaged
        step.feed.fetch(number := number_of(step, shape))
        known |= {key: _fastest(step, number, most)}
        if folder:
            remember(folder / FILE, known)
    torch.set_num_threads(known[key])


def _fastest(step: TrainingStep, number: int, most: int) -> int:
    """Half as many threads, as long as that is clearly faster."""
    with untouched(step.feed.text.device):
        chosen, best = most, _seconds(step, number, most)
        while chosen > 1 and best < LONG:
            fewer = chosen // 2
            seconds = _seconds(step, number, fewer)
            log.info("a pass takes %.3f s with %d threads, %.3f s with %d", best, chosen, seconds, fewer)
            if seconds > CLEARLY * best:
                break
            chosen, best = fewer, seconds
    return chosen


class _Long(Exception):
    """A pass takes so long that the number of threads is not worth more of it."""


def _seconds(step: TrainingStep, number: int, count: int) -> float:
    """The median of a few passes, after one that sets things up; LONG, or more, where that one is long."""
    torch.set_num_threads(count)
    spent: list[float] = []
    while len(spent) <= REPEATS and (not spent or spent[0] < LONG):
        start = perf_counter()
        try:
            with nullcontext() if spent else _cut_short(step, start):
                once(step, number)
        except _Long:
            return LONG
        spent.append(perf_counter() - start)
    return statistics.median(spent[1:] or spent)


@contextmanager
def _cut_short(step: TrainingStep, start: float) -> Iterator[None]:
    """Inside, a pass that will be long is given up: after LONG, or when its first forward pass took half of that.

    A backward pass takes longer than the forward pass before it.
    """
    most = LONG / 2

    def look(*_: object) -> None:
        if perf_counter() - start > most:
            raise _Long

    def begins(phase: str) -> None:
        nonlocal most
        if phase == "backward":
            look()
            most = LONG

    hooks = [step.denoiser.get_submodule(path).register_forward_pre_hook(look) for path in blocks(step.denoiser)]
    mark, step.mark = step.mark, begins
    try:
        yield
    finally:
        step.mark = mark
        for hook in hooks:
            hook.remove()
