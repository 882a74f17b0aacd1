"""One training step, counted: operators by phase, host syncs, operations, and the memory of each part."""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from trainers.bench.counter import PHASES, DispatchCounter
from trainers.memory.meter import Meter
from trainers.prepacked import ordered_bytes

GB = 2**30


@dataclass
class Memory:
    """Bytes in GB (2^30). Their sum is the peak: gradients are a part of the workspace."""

    weights: float  # of the frozen models that a step runs
    adapter: float  # fp32 masters, and their averages
    optimizer: float
    activations: float  # alive where the forward pass ends
    workspace: float  # what the peak of the step has above that
    gradients: float  # alive where the backward pass ends

    @property
    def peak(self) -> float:
        return self.weights + self.adapter + self.optimizer + self.activations + self.workspace


@dataclass
class Counted:
    dispatches: dict[str, int]
    names: dict[str, dict[str, int]]  # phase -> operator -> times, the most frequent first
    syncs: int
    flops: dict[str, int]
    memory: Memory | None  # None where it cannot be seen
    modules: int = field(default=0)  # adapted layers

    def summary(self) -> dict:
        parts = {name: round(value, 3) for name, value in vars(self.memory).items()} if self.memory else {}
        return {
            "modules": self.modules,
            "dispatches": {**self.dispatches, "total": sum(self.dispatches.values())},
            "host_syncs": self.syncs,
            "gflop": {**{p: round(n / 1e9, 2) for p, n in self.flops.items()}, "total": self.gflop},
            "memory_gb": {**parts, "peak": round(self.memory.peak, 3)} if self.memory else None,
            "operators": self.names,
        }

    @property
    def gflop(self) -> float:
        return round(sum(self.flops.values()) / 1e9, 2)


def count(loop: Callable[[int], None], models: Iterable[nn.Module], modules: int, metered: bool = True) -> Counted:
    """Count the loop's second step: the first one makes the optimizer's state.

    Of compiled code only what it takes from libraries is counted, and its memory is not seen: `metered` is False then.
    `loop` tells the beginning of each phase by calling its `mark`; `models` are those that its forward pass runs.
    """
    loop(0)
    counter, live, ends = DispatchCounter(), Meter(), {}

    def mark(phase: str) -> None:
        if phase != counter.phase:
            ends.setdefault(counter.phase, live.now)
        counter.phase = phase

    usual, loop.mark = loop.mark, mark
    try:
        with live if metered else nullcontext(), counter:
            loop(1)
    finally:
        loop.mark = usual
    names = {phase: dict(counter.names[phase].most_common()) for phase in PHASES}
    flops = {phase: counter.flops[phase] for phase in PHASES}
    memory = _memory(loop, models, live, ends) if metered else None
    return Counted(counter.dispatches, names, counter.syncs, flops, memory, modules)


def _memory(loop: Callable[[int], None], models: Iterable[nn.Module], live: Meter, ends: dict[str, int]) -> Memory:
    """`ends`: bytes alive where each phase ends."""
    masters = {id(p): p for p in loop.parameters}
    frozen = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in _tensors(models, masters)}
    averages = sum(size_of(value) for value in loop.ema.values) if getattr(loop, "ema", None) else 0  # a TrainingStep's
    return Memory(
        weights=(sum(frozen.values()) + sum(map(ordered_bytes, models))) / GB,
        adapter=(sum(size_of(p) for p in masters.values()) + averages) / GB,
        optimizer=sum(size_of(leaf) for leaf in tree_leaves(dict(loop.optimizer.state)) if isinstance(leaf, Tensor))
        / GB,
        activations=ends["forward"] / GB,
        workspace=(live.peak - ends["forward"]) / GB,
        gradients=ends["backward"] / GB,
    )


def size_of(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _tensors(models: Iterable[nn.Module], without: dict[int, Tensor]) -> list[Tensor]:
    found: list[Tensor] = []
    for model in models:
        found += [p for p in model.parameters() if id(p) not in without]
        found += list(model.buffers())
    return found
