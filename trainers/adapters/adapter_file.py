"""Read an adapter file, and put it on a base model for sampling."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from peft.utils.other import get_pattern_key
from safetensors import SafetensorError, safe_open
from torch import Tensor

from trainers.adapters.adapter import Adapter, LoraWeights, Place, weights
from trainers.adapters.lean import lean
from trainers.adapters.lora import adaptable, attach_layers, parts
from trainers.adapters.names import lookup
from trainers.errors import UserError
from trainers.families.base import Components
from trainers.families.detect import identify
from trainers.families.folders import read_json

PAIRS = (  # endings of the two matrices: kohya, peft (with its adapter name, too), diffusers before 0.22
    (".lora_down.weight", ".lora_up.weight"),
    (".lora_A.weight", ".lora_B.weight"),
    (".lora_A.default.weight", ".lora_B.default.weight"),
    (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
    (".lora.down.weight", ".lora.up.weight"),
    (".down.weight", ".up.weight"),
)
OTHER_TYPES = {  # a key that ends so -> the adapter type, none of which is a plain product of two matrices
    ".hada_w1_a": "LoHa",
    ".lokr_w1": "LoKr",
    ".lokr_w1_a": "LoKr",
    ".oft_blocks": "OFT",
    ".dora_scale": "DoRA",
    ".lora_magnitude_vector": "DoRA",
    ".lora_mid.weight": "LoCon with Tucker decomposition",
}
PEFT = "base_model.model"  # what peft writes before every module's path
PEFT_CONFIG = "adapter_config.json"  # where it keeps the alphas
HEADER_CONFIG = "lora_adapter_metadata"  # where diffusers does: {"unet.lora_alpha": 8, ...}


@dataclass(frozen=True)
class AdapterFile:
    """An adapter file's tensors as they are stored, its header's metadata, and peft's config from beside it."""

    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    peft_config: dict[str, Any]  # empty where there is none

    @cached_property
    def layers(self) -> dict[str, LoraWeights]:
        """Module name as the file spells it -> its matrices; a missing alpha means scale 1."""
        return read_layers(self.tensors, self.metadata, self.peft_config)

    @property
    def modules(self) -> list[str]:
        """Names of the adapted layers, such as lora_unet_mid_block_attentions_0_proj_in."""
        return sorted(self.layers)

    @property
    def type(self) -> str:
        """LoRA, or one of the other types told from key endings."""
        return next((name for end, name in OTHER_TYPES.items() if any(k.endswith(end) for k in self.tensors)), "LoRA")


def read_adapter(path: Path) -> AdapterFile:
    """Open an adapter file of any layout. UserError when it is damaged or something else (and what it is)."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - safe_open is no dict
    except (OSError, SafetensorError) as error:
        identify(path)  # says what it is instead, where that can be told
        message = f"{path.name} cannot be read as a .safetensors file ({error})."
        raise UserError(message, "Download or export it again.") from error
    beside = path.parent / PEFT_CONFIG
    in_peft = any(name.startswith(f"{PEFT}.") for name in tensors) and beside.is_file()
    found = AdapterFile(path, tensors, metadata, read_json(beside) if in_peft else {})
    if not found.layers and found.type == "LoRA":
        kind = identify(path)
        what = f"is {_article(kind.label)}, not a LoRA adapter" if kind.kind != "unknown" else "holds no LoRA adapter"
        raise UserError(f"{path.name} {what}.", "Choose an adapter file that Darkroom, kohya, diffusers or peft wrote.")
    return found


def read_layers(
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
    peft_config: Mapping[str, Any] | None = None,
) -> dict[str, LoraWeights]:
    """Pair the matrices of a file by module name.

    alpha comes from the module's `.alpha`, else from the config of diffusers (in the header) or peft (beside the file),
    else it is the rank.

    Raises:
        UserError: such a config is damaged.
    """
    configs = _alphas(metadata or {}, peft_config or {})
    layers = {}
    for key, down in tensors.items():
        pair = next((pair for pair in PAIRS if key.endswith(pair[0])), None)
        if not pair:
            continue
        name = key.removesuffix(pair[0])
        up, alpha = tensors.get(name + pair[1]), tensors.get(f"{name}.alpha")
        if up is None or down.ndim < 2 or up.ndim < 2:
            continue
        rank, part = len(down), next((part for part in configs if name.startswith(f"{part}.")), None)
        if alpha is not None:
            value = float(alpha) or float(rank)  # kohya reads alpha 0 as "equal to the rank"
        else:
            value = configs[part].of(name.removeprefix(f"{part}."), rank) if part else float(rank)
        layers[name] = LoraWeights(down, up, value)
    return layers


def stray_keys(tensors: Mapping[str, Tensor], layers: Mapping[str, LoraWeights]) -> list[str]:
    """Keys that belong to no pair of matrices."""
    used = {name + end for name in layers for pair in (*PAIRS, (".alpha", ".alpha")) for end in pair}
    return sorted(tensors.keys() - used)


def fitting(components: Components, layers: Mapping[str, LoraWeights]) -> tuple[dict[Place, LoraWeights], list[str]]:
    """(the layers that the base has, by place; the names that fit no module of it, or not its shape)."""
    shapes = module_shapes(components)
    places = lookup(shapes)
    found, unknown = {}, []
    for name, layer in layers.items():
        place = places.get(name)
        shaped = reshaped(layer, shapes[place]) if place else None
        if shaped is None:
            unknown.append(name)
        else:
            found[place] = shaped
    order = {place: i for i, place in enumerate(shapes)}
    return dict(sorted(found.items(), key=lambda item: order[item[0]])), sorted(unknown)


def module_shapes(components: Components) -> dict[Place, tuple[int, ...]]:
    """Every layer an adapter can sit on -> the shape of its weight, in module order."""
    return {
        (part, path): tuple((module.get_base_layer() if hasattr(module, "base_layer") else module).weight.shape)
        for part, model in parts(components).items()
        for path, module in model.named_modules()
        if adaptable(module) and ".lora_" not in path and not path.endswith(".base_layer")
    }


def reshaped(layer: LoraWeights, shape: tuple[int, ...]) -> LoraWeights | None:
    """The layer with matrices of a weight's own dimensions (1x1 convolutions are stored 2-D or 4-D); None if unfit."""
    rank = layer.rank
    down, up = (rank, *shape[1:]), (shape[0], rank, *(1 for _ in shape[2:]))
    if layer.up.shape[:2] != up[:2] or layer.down.shape[1] != shape[1]:
        return None
    if layer.down.numel() != torch.Size(down).numel() or layer.up.numel() != torch.Size(up).numel():
        return None
    return LoraWeights(layer.down.reshape(down), layer.up.reshape(up), layer.alpha)


def apply_file(components: Components, path: Path, strength: float = 1.0, strict: bool = False) -> Adapter:
    """Attach the file's adapter to the base, at `strength`, in eval mode; it can be switched off and on again.

    Keys that fit nothing are in the adapter's `unknown`.

    Raises:
        UserError: the file is no plain LoRA, or none of its layers fits the base; with `strict`, or any does not.
    """
    file = read_adapter(path)
    found, unknown = _usable(components, file)
    if strict and unknown:
        raise _unfit(components, file, unknown)
    adapter = attach_layers(components, {place: (layer.rank, layer.alpha) for place, layer in found.items()})
    adapter.unknown = (*unknown, *stray_keys(file.tensors, file.layers))
    with torch.no_grad():
        for place, layer in found.items():
            for weight, value in zip(weights(adapter.layers[place]), (layer.down, layer.up), strict=True):
                weight.copy_(value)
    adapter.set_strength(strength)
    adapter.eval()
    lean(adapter, components)
    return adapter


def _usable(components: Components, file: AdapterFile) -> tuple[dict[Place, LoraWeights], list[str]]:
    if file.type != "LoRA":
        hint = "An image program that knows the type can use it; plain LoRA files can be used here."
        raise UserError(f"{file.path.name} is a {file.type} adapter, which cannot be used here yet.", hint)
    found, unknown = fitting(components, file.layers)
    if not found:
        raise _unfit(components, file, unknown)
    return found, unknown


def _unfit(components: Components, file: AdapterFile, unknown: list[str]) -> UserError:
    count = f"{len(unknown)} of {len(file.layers)} layers ({unknown[0]}, ...)"
    message = f"{file.path.name} does not fit {components.name}: it lacks {count} or has them in other sizes."
    return UserError(message, "Choose the base model it was trained on (`darkroom inspect` names it).")


@dataclass(frozen=True)
class _PeftAlphas:
    """What a config of peft says of alphas; the ranks show in the matrices."""

    alpha: float
    pattern: dict[str, float]  # regular expression for a module path or its end -> alpha
    rank_stabilised: bool  # the scale is alpha / sqrt(rank) [Kalajdzievski 2023]

    def of(self, path: str, rank: int) -> float:
        """The alpha that stands for this module's scale, once divided by the rank."""
        alpha = self.pattern.get(get_pattern_key(self.pattern, path), self.alpha)
        return alpha * math.sqrt(rank) if self.rank_stabilised else alpha


def _alphas(metadata: Mapping[str, str], peft_config: Mapping[str, Any]) -> dict[str, _PeftAlphas]:
    """How the names of a part's modules begin -> its alphas, from diffusers' header entry and from peft's config."""
    try:
        configs = {PEFT: peft_config} if peft_config else {}
        for key, value in json.loads(metadata.get(HEADER_CONFIG, "{}")).items():
            part, _, name = key.partition(".")
            if name in ("lora_alpha", "alpha_pattern", "use_rslora"):
                configs.setdefault(part, {})[name] = value
        return {part: _part_alphas(config) for part, config in configs.items()}
    except (ValueError, TypeError, AttributeError, re.error) as error:
        where = PEFT_CONFIG if peft_config else f"{HEADER_CONFIG} in the file's header"
        raise UserError(f"The adapter's alphas cannot be read from {where}.", "Download or export it again.") from error


def _part_alphas(config: Mapping[str, Any]) -> _PeftAlphas:
    pattern = {key: float(alpha) for key, alpha in (config.get("alpha_pattern") or {}).items()}
    for key in pattern:
        re.compile(key)
    return _PeftAlphas(float(config.get("lora_alpha", 8)), pattern, bool(config.get("use_rslora")))  # 8: as peft


def _article(words: str) -> str:
    return f"{'an' if words[0] in 'AEIOaeio' else 'a'} {words}"
