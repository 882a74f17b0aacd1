"""What a run could do otherwise, tried on a real micro-step that is then forgotten: is it right, and faster?"""

import logging
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Protocol

import torch
from torch import Tensor

from trainers import devices
from trainers.config import TrainConfig
from trainers.memory.regions import Shape
from trainers.ranks import shared_by
from trainers.step import TrainingStep

log = logging.getLogger(__name__)
EAGER = "eager"
MODES = {"compiled": "default", "compiled with CUDA graphs": "reduce-overhead"}  # torch.compile's names
CLEARLY = 0.95  # of the time before: by less, noise would decide
SHAPES = 8  # batches of so many different shapes run compiled, the commonest ones; each takes graphs of its own
REPEATS = 5  # timed passes of each
# Of the norm: fp32 may be TF32. Random tiny models differed by 6e-6 in fp32 and 5e-3 in bf16.
TOLERANCE = {torch.float32: 1e-2, torch.float16: 3e-2, torch.bfloat16: 5e-2}
Pass = tuple[Tensor, list[Tensor | None]]  # the loss, the gradients of all parameters


@dataclass(frozen=True)
class Verdict:
    """`chosen`: "eager", or one of MODES; `seconds`: medians of a forward and backward pass, where they were timed."""

    chosen: str
    seconds: dict[str, float] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)  # one of MODES -> why

    @property
    def times(self) -> str:
        return ", ".join(f"{name} {1000 * spent:.0f} ms" for name, spent in self.seconds.items())


class Way(Protocol):
    """Another way to do a step's passes."""

    exact: bool  # whether its results must be the eager ones to the bit
    worth: float  # of the eager time: the most that it may take, to be worth what it costs beside

    def put(self) -> None:
        """Do them so from now on."""

    def remove(self) -> None:
        """Do them as before."""

    def rest(self) -> None:
        """Give back the memory that it keeps between passes."""


class Trial:
    """Leaves no trace: no gradient, no number drawn, nothing of the optimizer is touched."""

    def __init__(self, step: TrainingStep, ways: Mapping[str, Way], number: int):
        """`number`: of the micro-step that is tried. Afterwards the step is done eagerly, whatever was found."""
        self.step, self.ways, self.number = step, ways, number
        self.device = step.feed.text.device

    def forced(self) -> Verdict:
        """The first way unless it is broken; nothing is timed."""
        name = next(iter(self.ways))
        with untouched(self.device):
            reason = self._broken(self.ways[name], self._pass())
        return Verdict(EAGER if reason else name, broken={name: reason} if reason else {})

    def timed(self) -> Verdict:
        """The fastest of those that are right, eager included."""
        broken: dict[str, str] = {}
        with untouched(self.device):
            expected = self._pass()
            seconds = {EAGER: self._seconds(None)}
            for name, way in self.ways.items():
                if reason := self._broken(way, expected):
                    broken[name] = reason
                else:
                    seconds[name] = self._seconds(way)
                way.rest()
        fastest = min(seconds, key=seconds.__getitem__)
        kept = fastest != EAGER and seconds[fastest] < self.ways[fastest].worth * seconds[EAGER]
        return Verdict(fastest if kept else EAGER, seconds if len(seconds) > 1 else {}, broken)

    def _broken(self, way: Way, expected: Pass) -> str:
        """Why a pass cannot be done so; "" where it can. It runs thrice: CUDA graphs are recorded after once."""
        try:
            for _ in range(3):
                loss, grads = self._pass(way)
        except Exception as error:  # compilers fail in as many ways as there are machines
            return first_line(error)
        worst = [difference([loss], [expected[0]]), difference(grads, expected[1])]
        if all(one <= (0 if way.exact else TOLERANCE[self.step.dtype]) for one in worst):  # not NaN
            return ""
        return f"Its result is wrong by {max(worst):.2g}"

    def _seconds(self, way: Way | None) -> float:
        """Median of a few passes. One way after the other: each may want the device's memory for itself."""
        spent = []
        with _put(way):
            for _ in range(REPEATS):
                devices.synchronize(self.device)
                start = perf_counter()
                with passed(self.step, self.number):
                    devices.synchronize(self.device)
                spent.append(perf_counter() - start)
        return statistics.median(spent)

    def _pass(self, way: Way | None = None) -> Pass:
        with _put(way):
            return once(self.step, self.number)


@contextmanager
def _put(way: Way | None) -> Iterator[None]:
    """Inside, passes are done that way; None: eagerly."""
    if way is None:
        yield
        return
    try:
        way.put()
        yield
    finally:
        way.remove()


@contextmanager
def passed(step: TrainingStep, number: int) -> Iterator[Tensor]:
    """Micro-step `number`'s loss; inside, the parameters have its gradients. Not scaled, in fp16 either."""
    try:
        with step.unscaled():
            loss = step.micro_step(number)
        yield loss
    finally:
        for parameter in step.parameters:
            parameter.grad = None


def once(step: TrainingStep, number: int) -> Pass:
    """Loss and gradients of micro-step `number`, which stay nowhere else."""
    with passed(step, number) as loss:
        return loss.clone(), [None if p.grad is None else p.grad.clone() for p in step.parameters]


def settle_exact(step: TrainingStep, wanted: bool) -> None:
    """Let a GPU's sums be the same to the bit every time, where `wanted`: resumed runs end in the same weights then.

    Where torch cannot do the step so, it is done as before, and the log says why.
    """
    if not wanted:
        return
    step.exact, earlier = True, step.mend

    def mend(error: Exception) -> bool:
        """What the step asks when a pass fails: whether it can be done again, in any order."""
        step.mend = earlier
        if "deterministic" not in str(error):
            return bool(earlier and earlier(error))
        step.exact = False
        log.warning("a resumed run may differ in its last bits: %s", first_line(error))
        return True

    step.mend = mend
    try:
        with untouched(step.feed.text.device), passed(step, number_of(step, common_shapes(step)[0])):
            pass
    except RuntimeError as error:
        if not mend(error):
            raise


def common_shapes(step: TrainingStep) -> list[Shape]:
    """The commonest shapes of latents computed at once in an epoch, at most SHAPES: the same in every resumed run."""
    seen = Counter(shape for batch in step.feed.batches.epoch(0) for shape in _shapes(step, batch))
    return [shape for shape, _ in sorted(seen.items(), key=lambda item: (-item[1], item[0]))[:SHAPES]]


def number_of(step: TrainingStep, shape: Shape) -> int:
    """The first of the longest micro-steps that have a pass of that shape."""
    batches = list(step.feed.batches.epoch(0))
    return max((i for i in range(len(batches)) if shape in _shapes(step, batches[i])), key=lambda i: len(batches[i]))


def _shapes(step: TrainingStep, batch: tuple[int, ...]) -> list[Shape]:
    """Of each pass over a batch's pictures, on whichever device."""
    size = step.feed.latents.shape(step.feed.training[batch[0]])
    shares = step.parts * shared_by(step.accumulation, step.ranks.count)
    return [(len(batch[share::shares]), *size) for share in range(min(shares, len(batch)))]


def situation(step: TrainingStep, config: TrainConfig) -> dict[str, Any]:
    """All that the speed of a step depends on, but the shapes of its batches: JSON values."""
    return {
        "device": devices.name_of(step.feed.text.device),
        "torch": torch.__version__,
        "dtype": str(step.dtype),
        "denoiser": sorted(f"{name} {value}" for name, value in step.denoiser.config.items()),
        "adapter": config.adapter.model_dump(mode="json"),
        "memory": config.memory.model_dump(mode="json"),
    }


@contextmanager
def untouched(device: torch.device) -> Iterator[None]:
    """Inside, numbers can be drawn at random; afterwards it is as if none had been."""
    devices_drawn = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(devices_drawn, device_type=device.type if devices_drawn else "cuda"):
        yield


def difference(found: list[Tensor | None], expected: list[Tensor | None]) -> float:
    """The norm of the difference to that of what was expected; infinite where one is missing."""
    if any((one is None) != (other is None) for one, other in zip(found, expected, strict=True)):
        return float("inf")
    pairs = [(a.float(), b.float()) for a, b in zip(found, expected, strict=True) if a is not None]
    apart = sum((a - b).square().sum().item() for a, b in pairs) ** 0.5
    return apart / max(sum(b.square().sum().item() for _, b in pairs) ** 0.5, 1e-12)


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
