"""The frozen denoiser in its place before an adapter comes on it: on the device, packed or streamed as is decided."""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import nn

from trainers.families.residence import bring
from trainers.memory.packed import Packed, pack
from trainers.memory.saving import Saving
from trainers.memory.stream import Stream, stream


@dataclass(frozen=True)
class Settled:
    """What was made of the denoiser's weights, if anything."""

    packed: Packed | None = None
    stream: Stream | None = None

    def keep(self, aside: Collection[str]) -> None:
        """Bring the weights of these blocks, to stay as well."""
        if self.stream:
            self.stream.keep(aside)


def settle(
    denoiser: nn.Module, form: str, saving: Saving, device: torch.device, aside: Collection[str] = ()
) -> Settled:
    """Bring the weights that are to stay, packed in `form`; those of the blocks `aside` come with `keep`."""
    cpu, packed = torch.device("cpu"), None
    if form != "none":
        bring(denoiser, cpu)  # packed layer by layer on the way to the device, or to where it waits
        packed = pack(denoiser, form, cpu if saving.streamed else device)
    if saving.streamed:
        return Settled(packed, stream(denoiser, (*saving.streamed, *aside), device))
    bring(denoiser, device)
    return Settled(packed)
