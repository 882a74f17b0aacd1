"""Room to encode pictures between the steps, on a CPU where the weights of some blocks wait in the base's file.

Until all pictures that the run shows are encoded, those of a few more blocks wait there too. That changes no number:
these blocks are computed again anyway, and their weights lie in memory alike whether they come and go or stay.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from trainers.memory.decide import Free
from trainers.memory.saving import Saving
from trainers.memory.stream import block_bytes


@dataclass(frozen=True)
class RoomBeside:
    """How pictures are encoded between steps."""

    vae_stays: bool  # in memory until all are encoded; else it is read each time
    aside: tuple[str, ...] = ()  # blocks that are streamed until then
    gained: int = 0  # bytes of those


def room_beside(denoiser: nn.Module, saving: Saving, free: Free, takes: int, vae: int) -> RoomBeside | None:
    """None where there is none.

    Args:
        free: what the saving leaves.
        takes: bytes in which a picture is encoded, the VAE among them.
        vae: bytes of that.
    """
    sizes = block_bytes(denoiser) if saving.streamed else {}
    aside = _aside(sizes, saving.streamed, takes - free.between)
    gained = sum(sizes[path] for path in aside)
    if takes > free.between + gained:
        return None
    return RoomBeside(vae <= free.within + gained, aside, gained)


def _aside(sizes: Mapping[str, int], streamed: tuple[str, ...], lacking: float) -> tuple[str, ...]:
    """Blocks that stay, the fewest that free what lacks, and the smallest of those; all where all are too few."""
    most = max((sizes[path] for path in streamed), default=0)  # the piece of memory that serves all grows no further
    left = sorted((path for path in sizes if path not in streamed and sizes[path] <= most), key=sizes.__getitem__)
    chosen: list[str] = []
    while left and lacking > 0:
        one = next((path for path in left if sizes[path] >= lacking), left[-1])
        left.remove(one)
        chosen.append(one)
        lacking -= sizes[one]
    return tuple(chosen)
