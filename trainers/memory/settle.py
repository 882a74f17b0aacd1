"""The frozen denoiser in its place before an adapter comes on it: on the device, packed or streamed as is decided."""

import torch
from torch import nn

from trainers.families.residence import bring
from trainers.memory.packed import Packed, pack
from trainers.memory.saving import Saving
from trainers.memory.stream import stream


def settle(denoiser: nn.Module, form: str, saving: Saving, device: torch.device) -> Packed | None:
    """Bring the weights that are to stay; what was packed in `form`, if anything."""
    cpu, packed = torch.device("cpu"), None
    if form != "none":
        bring(denoiser, cpu)  # packed layer by layer on the way to the device, or to where it waits
        packed = pack(denoiser, form, cpu if saving.streamed else device)
    if saving.streamed:
        stream(denoiser, saving.streamed, device)
    else:
        bring(denoiser, device)
    return packed
