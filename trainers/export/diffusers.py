"""The layouts of diffusers (one file for a pipeline) and of peft (one folder per model)."""

import json
from collections.abc import Mapping

import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, PeftConfig
from peft.tuners.lokr.layer import factorization
from torch import Tensor

from trainers.adapters.adapter import Place
from trainers.adapters.names import diffusers_name
from trainers.adapters.weights import DoraWeights, LohaWeights, LokrWeights, LoraWeights, Weights, stored
from trainers.errors import UserError
from trainers.families.base import FamilySpec

MAGNITUDE = "lora_magnitude_vector"
PEFT_NAMES = {"down": "lora_A.weight", "up": "lora_B.weight", "magnitude": MAGNITUDE}


def tensors(modules: Mapping[Place, Weights], spec: FamilySpec, dtype: torch.dtype) -> dict[str, Tensor]:
    """`unet.<path>.lora_A.weight`, `text_encoder.<path>.lora_B.weight`, ..., with alpha / rank multiplied into B.

    diffusers takes no `.alpha` key here, and others ignore an alpha in the header: a file of scale 1 means the same
    everywhere. UserError for types that diffusers does not read.
    """
    result = {}
    for place, module in modules.items():
        if not isinstance(module, LoraWeights):
            hint = "Use the kohya layout, which image programs read, or peft's."
            raise UserError(f"diffusers reads no {module.label} adapters.", hint)
        named = _named(diffusers_name(place), module.rescaled(float(module.rank)), dtype)
        # with transformers 5, a text encoder's magnitude is only found under the longer name
        result |= {f"{key}.weight" if key.endswith(MAGNITUDE) else key: tensor for key, tensor in named.items()}
    return result


def peft_tensors(modules: Mapping[Place, Weights], part: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """adapter_model.safetensors of one model: `base_model.model.<path>.lora_A.weight`, `.lora_B.weight` and so on.

    A text encoder's paths have no `text_model` level, unlike in the other layouts: peft looks them up in the model
    itself, and CLIPTextModel has had no such level since transformers 5. Earlier versions cannot load that folder.
    """
    result = {}
    for (owner, path), module in modules.items():
        if owner == part:
            result |= _named(f"base_model.model.{path}", module, dtype)
    return result


def _named(name: str, module: Weights, dtype: torch.dtype) -> dict[str, Tensor]:
    own = module.tensors()
    if isinstance(module, DoraWeights) and not module.by_output:
        hint = "Use the kohya layout, which keeps them."
        raise UserError("This DoRA has a magnitude for each input, and this layout has them for outputs.", hint)
    if isinstance(module, DoraWeights):  # as peft has it: [out] or [1, out, 1, 1]
        own["magnitude"] = module.magnitude.transpose(0, 1) if module.up.ndim > 2 else module.magnitude.flatten()
    return {f"{name}.{PEFT_NAMES.get(key, key)}": stored(tensor, dtype) for key, tensor in own.items()}


def peft_config(modules: Mapping[Place, Weights], part: str) -> str:
    """adapter_config.json of one model, with the ranks and alphas that differ from the commonest as patterns.

    UserError where peft cannot make the modules' matrices from any settings.
    """
    own = {path: module for (owner, path), module in modules.items() if owner == part}
    shapes = {path: _shape(module) for path, module in own.items()}
    values = list(shapes.values())
    rank, alpha = max(set(values), key=values.count)
    make, settings = _type(list(own.values()))
    config = make(
        r=rank,
        target_modules=sorted(shapes),
        rank_pattern={path: r for path, (r, _) in shapes.items() if r != rank},
        alpha_pattern={path: a for path, (_, a) in shapes.items() if a != alpha},
        inference_mode=True,
        **{"lora_alpha" if make is LoraConfig else "alpha": alpha},
        **settings,
    )
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()}
    return json.dumps(plain, indent=2, default=str)


def _shape(module: Weights) -> tuple[int, float]:
    """(rank, alpha) under which peft makes the module's matrices and scale."""
    if not (isinstance(module, LokrWeights) and module.whole):
        return module.rank, module.alpha
    rank = max(module.lokr_w2.shape[:2])  # peft leaves w2 whole from half of that on
    return rank, module.alpha * rank


def _type(modules: list[Weights]) -> tuple[type[PeftConfig], dict[str, object]]:
    """peft's class of config for these modules, and its settings beside ranks and alphas."""
    if len({type(module) for module in modules}) > 1:
        raise UserError("peft has one adapter type per model, and this adapter mixes several.", "Use another layout.")
    if isinstance(modules[0], LoraWeights):
        return LoraConfig, {"use_dora": isinstance(modules[0], DoraWeights)}
    if isinstance(modules[0], LohaWeights):
        return LoHaConfig, {"use_effective_conv2d": any(module.hada_t1 is not None for module in modules)}
    both = any(module.lokr_w1 is None for module in modules)
    core = any(module.lokr_t2 is not None for module in modules)
    return LoKrConfig, {
        "decompose_factor": _factor(modules),
        "decompose_both": both,
        "use_effective_conv2d": core,
    }


def _factor(modules: list[LokrWeights]) -> int:
    """The setting under which peft divides every layer as these are."""
    sizes = {(first, size) for m in modules for first, size in zip(m.first_shape, m.shape, strict=False)}
    for factor in (-1, max(first for first, _ in sizes)):
        if all(factorization(size, factor)[0] == first for first, size in sizes):
            return factor
    raise UserError("peft cannot divide layers as this LoKr does.", "Use the kohya layout.")
