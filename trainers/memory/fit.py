"""The cheapest way to stay within a number of bytes: which units are computed again, by bytes freed per operation.

Where that is not enough, their inputs wait in host memory, and last the weights of as few blocks as will do.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from trainers.memory.hollow import Count, HollowStep, Traced
from trainers.memory.saving import PLAIN, Saving
from trainers.memory.spans import most
from trainers.memory.stream import block_bytes
from trainers.memory.units import blocks

TRIES = 4  # counted steps between nothing and everything: each takes as long as a real step takes a GPU to start


@dataclass(frozen=True)
class Rung:
    """A step up in what is computed again; `freed` bytes and `flops` are those of all steps so far."""

    recomputed: tuple[str, ...]
    freed: int
    flops: int


@dataclass(frozen=True)
class Fitted:
    """How a step is done, and how it would be done with nothing given up."""

    saving: Saving
    count: Count
    plain: Count
    freed: int = 0  # bytes of weights that are never there at once
    moved: int = 0  # bytes of weights that come in a pass, forward and backward

    @property
    def taken(self) -> int:
        """Bytes of activations and gradients, less those of weights that make room for them."""
        return self.count.peak - self.freed


def fit(step: HollowStep, room: float, device: torch.device, stream: bool = False) -> Fitted:
    """The saving with the fewest operations whose activations stay within `room` bytes; the smallest if none does.

    Host memory is used where the device has memory of its own. `stream`: whether weights may wait, too.
    """
    offload = device.type != "cpu"
    plain = step.count(PLAIN)
    if plain.peak <= room:
        return Fitted(PLAIN, plain, plain)
    slim = step.count(Saving())
    if slim.peak <= room:
        return Fitted(Saving(), slim, plain)
    rungs = ladder(step.trace(), blocks(step.denoiser))
    saving = Saving(rungs[-1].recomputed)
    count = step.count(saving)
    if count.peak > room and offload:
        saving = Saving(rungs[-1].recomputed, offload=True)
        count = step.count(saving)
    if count.peak > room and stream:
        return fit_streamed(step, room, device, plain)
    if count.peak > room or saving.offload:
        return Fitted(saving, count, plain)
    found, lacking = (len(rungs) - 1, count), (0, slim)
    for _ in range(TRIES):
        between = _between(rungs, lacking, found, room)
        if between is None:
            break
        count = step.count(Saving(rungs[between].recomputed))
        if count.peak <= room:
            found = (between, count)
        else:
            lacking = (between, count)
    return Fitted(Saving(rungs[found[0]].recomputed), found[1], plain)


def fit_streamed(
    step: HollowStep, room: float, device: torch.device, plain: Count, every: bool = False, offload: bool | None = None
) -> Fitted:
    """All blocks checkpointed, and the weights of as few as will do streamed, or of every one.

    `offload`: whether the inputs of blocks wait in host memory; None: where streaming alone is not enough.
    """
    whole, sizes = blocks(step.denoiser), block_bytes(step.denoiser)
    hosted = [False, True] if offload is None and device.type != "cpu" else [bool(offload)]
    for host in hosted:
        count = step.count(Saving(whole, host))
        for number in range(len(whole) if every else 1, len(whole) + 1):
            fitted = _streamed(Saving(whole, host, True, spread(whole, number)), count, plain, sizes, device)
            if fitted.taken <= room:
                return fitted
    return fitted


def fitted_as(step: HollowStep, saving: Saving, device: torch.device) -> Fitted:
    """What a step takes that saves so."""
    return _streamed(saving, step.count(saving), step.count(PLAIN), block_bytes(step.denoiser), device)


def _streamed(saving: Saving, count: Count, plain: Count, sizes: Mapping[str, int], device: torch.device) -> Fitted:
    if not saving.streamed:
        return Fitted(saving, count, plain)
    bytes_of = {path: sizes[path] for path in saving.streamed}
    every = sum(bytes_of.values())
    return Fitted(saving, count, plain, every + count.peak - most(count.spans, bytes_of, device), 2 * every)


def spread(paths: tuple[str, ...], number: int) -> tuple[str, ...]:
    """So many of the paths, evenly far apart: while one computes that stays, the next one's weights come."""
    return tuple(paths[i * len(paths) // number] for i in range(number))


def ladder(traced: Mapping[str, Traced], whole: tuple[str, ...]) -> list[Rung]:
    """From nothing to all blocks, the step that frees the most bytes per operation first.

    A block's attention and MLP are computed again one by one before the block is as a whole, where that is cheaper.
    """
    steps = [step for block in whole for step in _of_block(block, traced)]
    steps.sort(key=lambda step: step.freed / max(1, step.flops), reverse=True)
    chosen: dict[str, None] = {}
    rungs, freed, flops = [Rung((), 0, 0)], 0, 0
    for step in steps:
        for path in step.instead:
            chosen.pop(path, None)
        chosen[step.path] = None
        freed, flops = freed + step.freed, flops + step.flops
        rungs.append(Rung(tuple(chosen), freed, flops))
    return rungs


@dataclass(frozen=True)
class _Step:
    path: str
    freed: int
    flops: int
    instead: tuple[str, ...] = ()


def _of_block(block: str, traced: Mapping[str, Traced]) -> list[_Step]:
    """Parts in the order of their worth as long as they beat the whole block, then the block in their place."""
    total = traced[block]
    parts = [path for path in traced if path.startswith(f"{block}.") and traced[path].kept > 0]
    parts.sort(key=lambda path: traced[path].kept / max(1, traced[path].flops), reverse=True)
    steps: list[_Step] = []
    freed = flops = 0
    for path in parts:
        part = traced[path]
        rest = (total.kept - freed) / max(1, total.flops - flops)
        if part.kept / max(1, part.flops) <= rest:
            break
        steps.append(_Step(path, part.kept, part.flops))
        freed, flops = freed + part.kept, flops + part.flops
    whole = _Step(block, max(0, total.kept - freed), max(0, total.flops - flops), tuple(s.path for s in steps))
    return [*steps, whole] if total.kept > 0 else []


def _between(rungs: list[Rung], lacking: tuple[int, Count], found: tuple[int, Count], room: float) -> int | None:
    """The rung where a straight line through both ends meets the room; None where there is none between them."""
    (low, above), (high, below) = lacking, found
    if high - low < 2:
        return None
    share = (above.peak - room) / max(1, above.peak - below.peak)
    wanted = rungs[low].freed + share * (rungs[high].freed - rungs[low].freed)
    return next((i for i in range(low + 1, high) if rungs[i].freed >= wanted), high - 1)
