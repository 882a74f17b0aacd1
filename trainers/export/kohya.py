"""kohya's adapter layout: `<prefix>_<module path with _ for dots>.lora_down.weight`, `.lora_up.weight` and `.alpha`.

Loaded by A1111, Forge, ComfyUI, InvokeAI, SD.Next and diffusers.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from trainers.adapters.adapter import LoraWeights, Place
from trainers.adapters.names import kohya_name
from trainers.families.base import FamilySpec


def tensors(modules: Mapping[Place, LoraWeights], spec: FamilySpec, dtype: torch.dtype) -> dict[str, Tensor]:
    """Every tensor of the file, contiguous on the CPU, cast last (from the fp32 masters).

    down [rank, in] or [rank, in, kh, kw], up [out, rank] or [out, rank, 1, 1], alpha 0-dim, all in `dtype`.
    """
    result = {}
    for place, module in modules.items():
        name = kohya_name(place, spec)
        result[f"{name}.lora_down.weight"] = stored(module.down, dtype)
        result[f"{name}.lora_up.weight"] = stored(module.up, dtype)
        result[f"{name}.alpha"] = torch.tensor(module.alpha, dtype=dtype)
    return result


def stored(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy on the CPU in the file's dtype."""
    return weight.detach().to("cpu", torch.float32).to(dtype).contiguous().clone()
