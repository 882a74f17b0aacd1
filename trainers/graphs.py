"""A step's passes as CUDA graphs: recorded once, and then one launch in place of thousands.

Small batches keep a fast card waiting for the processor that tells it, operator by operator, what to do. A graph has
the same kernels on the same numbers, so that a run ends in the same weights with or without; nothing is compiled. Its
memory is of its own and stays until `rest`: what else a run does on the card comes after that.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor, nn

from trainers import devices
from trainers.config import TrainConfig
from trainers.data.batches import Batches
from trainers.events import Adjusted, Event, Warned
from trainers.memory.decide import GB, draws, free_gb
from trainers.memory.regions import Regions
from trainers.memory.units import streamed
from trainers.schedules import total_steps
from trainers.step import ErrorOf, Inputs, TrainingStep
from trainers.trial import EAGER, Trial, common_shapes, first_line, number_of

log = logging.getLogger(__name__)
MOST = 64  # graphs: passes of rarer shapes run as usual
NAME = "as a CUDA graph"


@dataclass(frozen=True)
class Graph:
    """One recorded pass: its inputs, the parameters whose gradients it adds to, its loss; all where they were then."""

    graph: "torch.cuda.CUDAGraph"
    inputs: Inputs
    used: list[nn.Parameter]
    loss: Tensor

    def replay(self, inputs: Inputs) -> Tensor:
        """The loss, in memory of its own."""
        for place, value in zip(self.inputs, inputs, strict=True):
            if place is not None:
                place.copy_(value)
        self.graph.replay()
        return self.loss.clone()


class Recorded:
    """Does the passes of a step in its stead: `put` it there. A graph is recorded when a pass of its shape first comes.

    Gradients are added up in tensors that stay where they are, since the graphs know them by their place.
    """

    worth = 0.85  # of the usual time: they are recorded anew after every preview

    def __init__(self, step: TrainingStep):
        self.step = step
        self.graphs: dict[tuple, Graph] = {}
        self.gradients: dict[nn.Parameter, Tensor] = {}
        self.stream = torch.cuda.Stream(step.feed.text.device)
        self.pool = torch.cuda.graph_pool_handle()  # one memory for all graphs: they never run side by side
        self.kept = 0  # bytes of it, at the most
        self.made = 0  # graphs, in all
        self.seconds = 0.0  # that recording them took

    @property
    def exact(self) -> bool:
        """Where the step's own sums are the same every time, not one bit may differ."""
        return self.step.exact

    def put(self) -> None:
        self.step.recorded = self

    def remove(self) -> None:
        self.step.recorded = None

    def rest(self) -> None:
        """Between two steps: give the memory back. What comes next is recorded anew."""
        devices.synchronize(self.step.feed.text.device)
        self.graphs.clear()
        self.gradients.clear()
        self.pool = torch.cuda.graph_pool_handle()
        devices.give_back()

    def __call__(self, error_of: ErrorOf, inputs: Inputs, share: float = 1.0) -> Tensor:
        """Add the gradients of a `share` of error_of(*inputs) to the parameters', as `both_passes` does."""
        key = (error_of.__qualname__, share, self.step.accelerator.scaler is None, *map(_described, inputs))
        if key not in self.graphs:
            if len(self.graphs) == MOST:
                return self.step.both_passes(error_of, inputs, share)
            began = perf_counter()
            self.graphs[key] = self._record(error_of, inputs, share)
            self.made, self.seconds = self.made + 1, self.seconds + perf_counter() - began
        graph = self.graphs[key]
        self._give_places(graph.used)
        return graph.replay(inputs)

    def _record(self, error_of: ErrorOf, inputs: Inputs, share: float) -> Graph:
        step = self.step
        inputs = tuple(None if one is None else one.clone() for one in inputs)
        before = [parameter.grad for parameter in step.parameters]
        devices.give_back()  # what usual passes keep at hand is of no use to a graph
        try:
            used = self._try(error_of, inputs, share)
            for parameter in used:
                if parameter not in self.gradients:
                    self.gradients[parameter] = torch.zeros_like(parameter)
                parameter.grad = self.gradients[parameter]
            devices.give_back()
            held, graph = torch.cuda.memory_reserved(step.feed.text.device), torch.cuda.CUDAGraph()
            with self._recording(graph):
                loss = step.both_passes(error_of, inputs, share)
            self.kept += torch.cuda.memory_reserved(step.feed.text.device) - held
        finally:
            for parameter, grad in zip(step.parameters, before, strict=True):
                parameter.grad = grad
        return Graph(graph, inputs, used, loss)

    @contextmanager
    def _recording(self, graph: "torch.cuda.CUDAGraph") -> Iterator[None]:
        """Inside, what the card is told is recorded and not done.

        Other threads may use the card meanwhile; what the thread of the backward pass does is recorded as well.
        """
        device = self.step.feed.text.device
        usual = torch.cuda.current_stream(device)
        try:
            with torch.cuda.graph(graph, self.pool, self.stream, capture_error_mode="thread_local"):
                yield
        except Exception:  # torch leaves off where its own end of the recording fails
            torch.cuda.set_stream(usual)
            with suppress(RuntimeError, AttributeError):
                torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), self.pool)
            raise

    def _try(self, error_of: ErrorOf, inputs: Inputs, share: float) -> list[nn.Parameter]:
        """Do the pass once as usual, so that libraries are set up; the parameters that it has gradients for."""
        step, device = self.step, self.step.feed.text.device
        for parameter in step.parameters:
            parameter.grad = None
        self.stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(self.stream):
            step.both_passes(error_of, inputs, share)
        torch.cuda.current_stream(device).wait_stream(self.stream)
        used = [parameter for parameter in step.parameters if parameter.grad is not None]
        for parameter in used:
            parameter.grad = None
        return used

    def _give_places(self, used: list[nn.Parameter]) -> None:
        """Let gradients be where graphs add to them: those of the passes before, or none yet."""
        fresh = []
        for parameter in used:
            place = self.gradients[parameter]
            if parameter.grad is None:
                fresh.append(place)
            elif parameter.grad is not place:
                place.copy_(parameter.grad)
            parameter.grad = place
        if fresh:
            torch._foreach_zero_(fresh)


def record_passes(
    step: TrainingStep, config: TrainConfig, emit: Callable[[Event], None], regions: Regions | None = None
) -> Recorded | None:
    """Let the step run as CUDA graphs where that is the same to the bit and faster; what was found is told and logged.

    `regions`: its compiled blocks. Should a recorded pass fail later, the step is done again without.
    """
    if config.memory.graphs == "none" or devices.kind_of(step.feed.text.device) != "cuda":
        return None
    reason = unfit(step, config)
    if regions and regions.mode == "reduce-overhead":
        reason = "its compiled blocks are CUDA graphs already"
    if reason:
        log.info("no CUDA graphs: %s", reason)
        return None
    recorded = Recorded(step)
    verdict = Trial(step, {NAME: recorded}, number_of(step, common_shapes(step)[0])).timed()
    log.info("the step runs %s; forward and backward: %s; %s", verdict.chosen, verdict.times, verdict.broken)
    if verdict.chosen != EAGER and not has_room(step, config, recorded.kept):
        log.info("no CUDA graphs: their %.1f GB and a usual pass do not fit side by side", recorded.kept / GB)
        return None
    if verdict.chosen != EAGER and not pays(step, config, recorded, verdict.seconds[EAGER] - verdict.seconds[NAME]):
        log.info("no CUDA graphs: batches have so many shapes that recording each after every preview takes longer")
        return None
    if verdict.seconds:
        emit(Adjusted(f"A step runs {verdict.chosen}", f"a forward and backward pass takes {verdict.times}"))
    if verdict.chosen == EAGER:
        return None
    recorded.put()
    step.mend = _mending(step, recorded, emit)
    return recorded


def has_room(step: TrainingStep, config: TrainConfig, kept: int) -> bool:
    """Whether graphs that keep so many bytes fit into the budget, and a usual pass beside them where there are several.

    A pass is done as usual once before it is recorded, while the memory of earlier graphs stays theirs.
    """
    device = step.feed.text.device
    lengths = {len(batch) for batch in step.feed.batches.epoch(0)}
    several = step.preservation is not None or len(lengths) > 1 or len(common_shapes(step)) > 1
    taken = torch.cuda.memory_allocated(device)
    budget = min((config.memory.budget or float("inf")) * GB, free_gb(device) * GB)
    return taken + kept * (1 + several) <= budget


def pays(step: TrainingStep, config: TrainConfig, recorded: Recorded, saved: float) -> bool:
    """Whether passes that each save so many seconds gain more than all recordings between two previews take."""
    steps = config.preview.every or total_steps(config)
    taken = recorded.seconds / max(1, recorded.made) * recordings(config, step.feed.batches, steps)
    return saved * steps * step.accumulation > taken


def recordings(config: TrainConfig, batches: Batches, steps: int) -> float:
    """Passes that are recorded on average in so many steps after a preview: one of each shape, those of output
    preservation too.
    """
    return batches.kinds(steps * config.optimizer.accumulation) * (2 if config.loss.preservation else 1)


def unfit(step: TrainingStep, config: TrainConfig) -> str:
    """Why a run's passes are not recorded; "" where they can be."""
    if draws(config.adapter):
        return "an adapter's dropout draws anew in every step"
    if streamed(step.denoiser) or any(getattr(module, "offload", False) for module in step.denoiser.modules()):
        return "weights or activations come and go between the card and the computer"
    if step.ranks.count > 1:
        return "several devices share a step"
    return ""


def _mending(step: TrainingStep, recorded: Recorded, emit: Callable[[Event], None]) -> Callable[[Exception], bool]:
    """What the step asks when a pass fails: it can be done again, operator by operator."""
    earlier = step.mend

    def mend(error: Exception) -> bool:
        step.mend = earlier
        recorded.remove()
        recorded.rest()
        log.warning("a recorded pass failed", exc_info=error)
        emit(Warned("A CUDA graph failed; training goes on without.", first_line(error)))
        return True

    return mend


def _described(one: Tensor | None) -> tuple | None:
    return None if one is None else (tuple(one.shape), one.dtype)
