"""What a run gives up for memory."""

from dataclasses import dataclass

from torch import nn

from trainers.memory import units
from trainers.memory.slim import slim


@dataclass(frozen=True)
class Saving:
    """What is kept of a forward pass for the backward pass; the more is given up, the more time it takes."""

    recomputed: tuple[str, ...] = ()  # paths of units whose activations are computed again
    offload: bool = False  # whether what remains of those waits in host memory
    slim: bool = True  # whether frozen layers keep no more than they must: costs time, but no matrix products
    streamed: tuple[str, ...] = ()  # paths of blocks whose weights are there only while they run; all are `recomputed`
    prepacked: bool = True  # whether a CPU's convolutions keep their weights a second time, ready to compute with


PLAIN = Saving(slim=False)  # as torch does it


def apply(denoiser: nn.Module, saving: Saving, draws: bool = False) -> None:
    """Let the denoiser save so, and no other way from now on. An adapter must be on it already.

    Where weights wait is settled before that (stream.py): blocks that are streamed stay so, and checkpointed.
    `draws`: whether random numbers are drawn in it (dropout), so that the second time must draw the same.
    """
    units.recompute(denoiser, ())
    slim(denoiser, saving.slim)
    units.recompute(denoiser, {*saving.recomputed, *units.streamed(denoiser)}, draws, saving.offload)
