"""kohya's adapter layout: `<prefix>_<module path with _ for dots>.<tensor>`, such as `.lora_down.weight` and `.alpha`.

LoHa and LoKr are in it under LyCORIS' names. On Stable Diffusion 3 the denoiser's
names are the original joint blocks', whose query, key and value are one layer; types other than LoRA cannot be joined,
and take LyCORIS' names there. Loaded by A1111, Forge, ComfyUI, InvokeAI, SD.Next; by diffusers for LoRA.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from trainers.adapters.adapter import DENOISER, Place, Weights
from trainers.adapters.joint import fuse
from trainers.adapters.names import kohya_name, lycoris_name
from trainers.adapters.weights import LoraWeights
from trainers.families.base import FamilySpec


def tensors(modules: Mapping[Place, Weights], spec: FamilySpec, dtype: torch.dtype) -> dict[str, Tensor]:
    """Every tensor of the file, contiguous on the CPU, cast last (from the fp32 masters).

    down [rank, in] or [rank, in, kh, kw], up [out, rank] or [out, rank, 1, 1], alpha 0-dim, all in `dtype`.
    """
    result = {}
    for name, module in _named(modules, spec).items():
        result |= {f"{name}.{ending}": tensor for ending, tensor in module.stored(dtype).items()}
    return result


def _named(modules: Mapping[Place, Weights], spec: FamilySpec) -> dict[str, Weights]:
    if not spec.joint:
        return {kohya_name(place, spec): module for place, module in modules.items()}
    denoiser = {place: module for place, module in modules.items() if place[0] == DENOISER}
    if any(type(module) is not LoraWeights for module in denoiser.values()):  # a kind that cannot be joined
        return {lycoris_name(place, spec): module for place, module in modules.items()}
    text = {kohya_name(place, spec): module for place, module in modules.items() if place[0] != DENOISER}
    return fuse(denoiser) | text
