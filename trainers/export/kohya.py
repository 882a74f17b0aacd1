"""kohya's adapter layout: `<prefix>_<module path with _ for dots>.lora_down.weight`, `.lora_up.weight` and `.alpha`.

Loaded by A1111, Forge, ComfyUI, InvokeAI, SD.Next and diffusers.
"""

import torch
from torch import Tensor

from trainers.adapters.lora import Adapter, AdapterModule
from trainers.families.base import FamilySpec

LEVEL = "text_model."  # in every exported name; some versions of transformers have no such level in their paths


def module_name(module: AdapterModule, spec: FamilySpec) -> str:
    """lora_unet_down_blocks_0_..., lora_te_text_model_encoder_layers_0_..."""
    if module.part == "denoiser":
        return f"{spec.denoiser_prefix}_{module.path}".replace(".", "_")
    path = module.path if module.path.startswith(LEVEL) else LEVEL + module.path
    return f"{spec.text_prefixes[int(module.part.split('_')[1])]}_{path}".replace(".", "_")


def tensors(adapter: Adapter, spec: FamilySpec, dtype: torch.dtype) -> dict[str, Tensor]:
    """Every tensor of the file, contiguous on the CPU, cast last (from the fp32 masters)."""
    result = {}
    for module in adapter.modules:
        name = module_name(module, spec)
        for suffix, value in (("lora_down", module.down), ("lora_up", module.up)):
            result[f"{name}.{suffix}.weight"] = value.detach().float().cpu().to(dtype).contiguous()
        result[f"{name}.alpha"] = torch.tensor(module.alpha, dtype=dtype)
    return result


def delta(tensors: dict[str, Tensor], name: str, strength: float = 1.0) -> Tensor:
    """The weight change of one module in fp32, shaped like the layer: strength · alpha / rank · up · down."""
    down, up = tensors[f"{name}.lora_down.weight"].float(), tensors[f"{name}.lora_up.weight"].float()
    rank = down.shape[0]
    scale = strength * tensors.get(f"{name}.alpha", torch.tensor(float(rank))).item() / rank
    return (scale * up.flatten(1) @ down.flatten(1)).reshape(up.shape[0], *down.shape[1:])
