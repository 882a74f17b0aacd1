"""The layouts of diffusers (one file for a pipeline) and of peft (one folder per model)."""

import json
from collections.abc import Mapping

import torch
from peft import LoraConfig
from torch import Tensor

from trainers.adapters.adapter import LoraWeights, Place
from trainers.adapters.names import diffusers_name
from trainers.export.kohya import stored
from trainers.families.base import FamilySpec


def tensors(modules: Mapping[Place, LoraWeights], spec: FamilySpec, dtype: torch.dtype) -> dict[str, Tensor]:
    """`unet.<path>.lora_A.weight`, `text_encoder.<path>.lora_B.weight`, ..., with alpha / rank multiplied into B.

    diffusers takes no `.alpha` key here, and others ignore an alpha in the header: a file of scale 1 means the same
    everywhere.
    """
    result = {}
    for place, module in modules.items():
        scale, name = module.alpha / module.rank, diffusers_name(place)
        result[f"{name}.lora_A.weight"] = stored(module.down, dtype)
        result[f"{name}.lora_B.weight"] = stored(module.up.float() * scale, dtype)
    return result


def peft_tensors(modules: Mapping[Place, LoraWeights], part: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """adapter_model.safetensors of one model: `base_model.model.<path>.lora_A.weight` and `.lora_B.weight`.

    A text encoder's paths have no `text_model` level, unlike in the other layouts: peft looks them up in the model
    itself, and CLIPTextModel has had no such level since transformers 5. Earlier versions cannot load that folder.
    """
    result = {}
    for (owner, path), module in modules.items():
        if owner == part:
            result[f"base_model.model.{path}.lora_A.weight"] = stored(module.down, dtype)
            result[f"base_model.model.{path}.lora_B.weight"] = stored(module.up, dtype)
    return result


def peft_config(modules: Mapping[Place, LoraWeights], part: str) -> str:
    """adapter_config.json of one model, with the ranks and alphas that differ from the commonest as patterns."""
    shapes = {path: (m.rank, m.alpha) for (owner, path), m in modules.items() if owner == part}
    values = list(shapes.values())
    rank, alpha = max(set(values), key=values.count)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=sorted(shapes),
        rank_pattern={path: r for path, (r, _) in shapes.items() if r != rank},
        alpha_pattern={path: a for path, (_, a) in shapes.items() if a != alpha},
        inference_mode=True,
    )
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()}
    return json.dumps(plain, indent=2, default=str)
