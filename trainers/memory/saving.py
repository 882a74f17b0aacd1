"""What a run gives up for memory."""

from dataclasses import dataclass

from torch import nn

from trainers.memory import units
from trainers.memory.slim import slim


@dataclass(frozen=True)
class Saving:
    """Paths of units whose activations are computed again, and whether what remains of them waits in host memory."""

    recomputed: tuple[str, ...] = ()
    offload: bool = False


def apply(denoiser: nn.Module, saving: Saving, draws: bool = False) -> None:
    """Let the denoiser save so, and no other way from now on. An adapter must be on it already.

    `draws`: whether random numbers are drawn in it (dropout), so that the second time must draw the same.
    """
    slim(denoiser)
    units.recompute(denoiser, saving.recomputed, draws, saving.offload)
