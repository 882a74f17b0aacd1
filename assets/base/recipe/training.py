"""What both stages share: processes that average their gradients, the learning rate, EMA, and the state on disk.

Two single-threaded processes are steadier on a busy CPU than one with two threads.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist


def start() -> tuple[int, int]:
    """Join the other processes, if torchrun started any; returns (rank, world size)."""
    torch.set_num_threads(1 if not torch.cuda.is_available() else torch.get_num_threads())
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def average_gradients(parameters: list[torch.nn.Parameter], world: int) -> None:
    """Replace every gradient by its mean over the processes (one flat all-reduce)."""
    if world == 1:
        return
    gradients = [p.grad for p in parameters]
    flat = torch.cat([g.reshape(-1) for g in gradients])
    dist.all_reduce(flat)
    flat /= world
    for gradient, piece in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(piece.view_as(gradient))


def rate_at(step: int, steps: int, peak: float, warm_up: int = 300) -> float:
    """Warm up, hold, then fall linearly over the last 35 %: the end can be moved while the run is on its way."""
    return peak * min(1, (step + 1) / warm_up, max(0.01, (steps - step) / (0.35 * steps)))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def save_state(file: Path, state: dict[str, Any]) -> None:
    """The file is the old one or the new one at every instant."""
    torch.save(state, file.with_suffix(".tmp"))
    os.replace(file.with_suffix(".tmp"), file)


class Ema:
    """Exponential moving average of parameters, with a warm-up so that the first steps do not weigh for ever."""

    def __init__(self, parameters: list[torch.nn.Parameter], decay: float):
        self.decay, self.parameters = decay, parameters
        self.values = [p.detach().clone() for p in parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.values, [p.detach() for p in self.parameters], weight)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The averages stand in for the parameters meanwhile."""
        raw = [p.detach().clone() for p in self.parameters]
        self._put(self.values)
        yield
        self._put(raw)

    @torch.no_grad()
    def _put(self, values: list[torch.Tensor]) -> None:
        for p, value in zip(self.parameters, values, strict=True):
            p.copy_(value)
