"""The least that a LoRA step can compute: the frozen forward, and what must flow back to the first adapted layer."""

import torch
from torch import Tensor, nn

from trainers.bench.counter import DispatchCounter
from trainers.families.base import Conditioning, Family


def floor(family: Family, denoiser: nn.Module, paths: list[str], latents: Tensor, told: Conditioning) -> dict[str, int]:
    """FLOPs {forward, backward} of one micro-batch with the text frozen and nothing recomputed; adapters left out.

    Args:
        denoiser: the base without an adapter; it gets none, and stays as it was.
        paths: of the adapted layers.
        latents: [B, C, h, w] in the denoiser's dtype.
        told: the conditioning of the batch.
    """
    start = torch.zeros((), dtype=latents.dtype, device=latents.device, requires_grad=True)
    hooks = [denoiser.get_submodule(path).register_forward_hook(lambda _, __, y: y + start) for path in paths]
    timesteps = torch.zeros(len(latents), dtype=torch.long, device=latents.device)
    try:
        with DispatchCounter() as counter:
            prediction = family.denoise(denoiser, latents, timesteps, told)
            counter.phase = "backward"
            prediction.float().square().mean().backward()
    finally:
        for hook in hooks:
            hook.remove()
    return {"forward": counter.flops["forward"], "backward": counter.flops["backward"]}
