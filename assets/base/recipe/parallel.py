"""Two single-threaded processes that average their gradients: steadier on a busy CPU than one with two threads."""

import os

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


class Ema:
    """Exponential moving average of parameters, with a warm-up so that the first steps do not weigh for ever."""

    def __init__(self, parameters: list[torch.nn.Parameter], decay: float):
        self.decay, self.parameters = decay, parameters
        self.values = [p.detach().clone() for p in parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.values, [p.detach() for p in self.parameters], weight)

    @torch.no_grad()
    def store(self) -> None:
        for p, value in zip(self.parameters, self.values, strict=True):
            p.copy_(value)
