"""kohya's adapter layout: `<prefix>_<module path with _ for dots>.<tensor>`, such as `.lora_down.weight` and `.alpha`.

LoHa and LoKr are in it under LyCORIS' names. Loaded by A1111, Forge, ComfyUI, InvokeAI, SD.Next; by diffusers for LoRA.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from trainers.adapters.adapter import Place, Weights
from trainers.adapters.names import kohya_name
from trainers.families.base import FamilySpec


def tensors(modules: Mapping[Place, Weights], spec: FamilySpec, dtype: torch.dtype) -> dict[str, Tensor]:
    """Every tensor of the file, contiguous on the CPU, cast last (from the fp32 masters).

    down [rank, in] or [rank, in, kh, kw], up [out, rank] or [out, rank, 1, 1], alpha 0-dim, all in `dtype`.
    """
    result = {}
    for place, module in modules.items():
        name = kohya_name(place, spec)
        result |= {f"{name}.{ending}": tensor for ending, tensor in module.stored(dtype).items()}
    return result
