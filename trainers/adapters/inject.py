"""Put layers of peft on the modules of a model."""

import math
import re
import warnings
from collections.abc import Callable, Mapping

import torch
from peft import LoraConfig, PeftConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor

from trainers.adapters.adapter import NAME, Adapter, Place, put, tensors_of
from trainers.adapters.targets import Shape, parts
from trainers.families.base import Components


def inject(
    components: Components, places: Mapping[Place, Shape], make: Callable[..., PeftConfig], **settings: object
) -> Adapter:
    """Layers of the given ranks and alphas, of the type that `make` configures, all their fp32 weights zero.

    Module paths stay as they are, and no random number is drawn.
    """
    layers: dict[Place, BaseTunerLayer] = {}
    for part, model in parts(components).items():
        shapes = {path: shape for (owner, path), shape in places.items() if owner == part}
        if shapes:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Already found a `peft_config`")  # a file may hold several types
                config = _config(shapes, make, settings)
                inject_adapter_in_model(config, model, adapter_name=NAME, low_cpu_mem_usage=True)
            layers |= {(part, path): model.get_submodule(path) for path in shapes}
    for layer in layers.values():
        put(layer, {name: torch.zeros(weight.shape) for name, weight in tensors_of(layer).items()})
    return Adapter({place: layers[place] for place in places})


def _config(shapes: Mapping[str, Shape], make: Callable[..., PeftConfig], settings: Mapping) -> PeftConfig:
    values = list(shapes.values())
    rank, alpha = max(set(values), key=values.count)
    return make(
        r=rank,
        target_modules="|".join(re.escape(path) for path in shapes),  # a list would match endings too
        rank_pattern={f"^{re.escape(path)}": r for path, (r, _) in shapes.items() if r != rank},
        alpha_pattern={f"^{re.escape(path)}": a for path, (_, a) in shapes.items() if a != alpha},
        **{"lora_alpha" if make is LoraConfig else "alpha": alpha},
        **settings,
    )


@torch.no_grad()
def kaiming(weight: Tensor, generator: torch.Generator) -> None:
    """Uniform with a = sqrt(5), that is +-1 / sqrt(fan in), drawn on the CPU [He et al. 2015; LoRA's start]."""
    bound = 1 / math.sqrt(weight[0].numel())
    weight.copy_((torch.rand(weight.shape, generator=generator) * 2 - 1) * bound)


@torch.no_grad()
def normal(weight: Tensor, deviation: float, generator: torch.Generator) -> None:
    weight.copy_(torch.randn(weight.shape, generator=generator) * deviation)
