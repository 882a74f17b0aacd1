"""The tensors of an adapter file as updates of modules, for every layout and type that is read.

Names come from kohya, LyCORIS, peft (with its adapter name, too) and diffusers, old and new.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from peft.utils.other import get_pattern_key
from torch import Tensor

from trainers import json_values
from trainers.adapters.weights import DoraWeights, LohaWeights, LokrWeights, LoraWeights, Weights
from trainers.errors import UserError

PAIRS = (  # endings of LoRA's two matrices: kohya, peft (with its adapter name, too), diffusers before 0.22
    (".lora_down.weight", ".lora_up.weight"),
    (".lora_A.weight", ".lora_B.weight"),
    (".lora_A.default.weight", ".lora_B.default.weight"),
    (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
    (".lora.down.weight", ".lora.up.weight"),
    (".down.weight", ".up.weight"),
)
LYCORIS = tuple(f"{kind}_w{i}_{side}" for kind in ("hada", "lokr") for i in (1, 2) for side in "ab")
LYCORIS += ("hada_t1", "hada_t2", "lokr_w1", "lokr_w2", "lokr_t2")
MAGNITUDES = (".lora_magnitude_vector", ".lora_magnitude_vector.weight", ".lora_magnitude_vector.default.weight")
ENDINGS = {  # ending of a key -> what it is, longest names first where one ends in another
    **{end: name for pair in PAIRS for end, name in zip(pair, ("down", "up"), strict=True)},
    ".lora_mid.weight": "mid",
    ".dora_scale": "dora_scale",
    ".alpha": "alpha",
    **dict.fromkeys(MAGNITUDES, "magnitude"),
    **{f".{name}{end}": name for name in LYCORIS for end in ("", ".default")},
}
OTHER_TYPES = {  # a key that ends so -> the adapter type, none of which is a plain product of two matrices
    ".hada_w1_a": "LoHa",
    ".lokr_w1": "LoKr",
    ".lokr_w1_a": "LoKr",
    ".oft_blocks": "OFT",
    ".dora_scale": "DoRA",
    **dict.fromkeys(MAGNITUDES, "DoRA"),
    ".lora_mid.weight": "LoCon with Tucker decomposition",
}
# Patterns come with the file. Those of real ones are module paths, and now and then ^.*down_blocks.*to_q$
LONGEST_PATTERN, MOST_REPEATS = 300, 2
NUMBERS = re.compile(r"\\d\+(?=\\\.|\$|$)")  # up to a dot: matched in one way only
REPEATS = re.compile(r"(?<!\\)[*+?{]\??")
REPEATED_GROUP = re.compile(r"\)[*+?{]|\\[1-9]|\(\?")
PEFT = "base_model.model"  # what peft writes before every module's path
PEFT_CONFIG = "adapter_config.json"  # where it keeps ranks and alphas
HEADER_CONFIG = "lora_adapter_metadata"  # where diffusers does: {"unet.lora_alpha": 8, ...}


def read_modules(
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
    peft_config: Mapping[str, Any] | None = None,
) -> dict[str, Weights]:
    """Module name as the file spells it -> its update. Tensors that make no whole update are left out.

    alpha comes from the module's `.alpha`, else from the config of diffusers (in the header) or peft (beside the file),
    else it is the rank.

    Raises:
        UserError: such a config is damaged.
    """
    configs = _alphas(metadata or {}, peft_config or {})
    modules: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        end = _ending(key)
        if end:
            modules.setdefault(key.removesuffix(end), {})[ENDINGS[end]] = tensor
    found = {name: _update(name, own, configs) for name, own in modules.items()}
    return {name: update for name, update in found.items() if update is not None}


def read_layers(
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
    peft_config: Mapping[str, Any] | None = None,
) -> dict[str, LoraWeights]:
    """The pairs of matrices alone, of LoRA and of the types that are more than them. Raises as `read_modules`."""
    pairs = {key: tensor for key, tensor in tensors.items() if ENDINGS.get(_ending(key)) in ("down", "up", "alpha")}
    return read_modules(pairs, metadata, peft_config)


def stray_keys(tensors: Mapping[str, Tensor], layers: Mapping[str, Weights]) -> list[str]:
    """Keys that belong to none of the modules."""
    used = {name + end for name in layers for end in ENDINGS}
    return sorted(tensors.keys() - used)


def _ending(key: str) -> str:
    return next((end for end in ENDINGS if key.endswith(end)), "")


def _update(name: str, own: dict[str, Tensor], configs: Mapping[str, "_PeftAlphas"]) -> Weights | None:
    """One module's tensors as an update with its alpha; None where they are not whole."""
    stated = own.pop("alpha", None)
    try:
        update = _assembled(own)
    except (TypeError, AttributeError, RuntimeError, IndexError, ValueError):  # tensors are missing or do not fit
        return None
    if update is None:
        return None
    whole = isinstance(update, LokrWeights) and update.whole
    part = next((part for part in configs if name.startswith(f"{part}.")), None)
    if part and stated is None:
        path = name.removeprefix(f"{part}.")
        rank = configs[part].rank(path) if whole else update.rank
        alpha = configs[part].of(path, rank) / rank * update.rank if whole else configs[part].of(path, rank)
    elif stated is None or whole:  # readers take scale 1 for two whole matrices, whatever alpha says
        alpha = float(update.rank)
    else:
        alpha = float(stated) or float(update.rank)  # kohya reads alpha 0 as "equal to the rank"
    return replace(update, alpha=alpha)


def _assembled(own: Mapping[str, Tensor]) -> Weights | None:
    if "down" in own or "up" in own:
        return _pair(own)
    if not own or any(tensor.ndim < 2 for tensor in own.values()):
        return None
    update = (LohaWeights if any(name.startswith("hada") for name in own) else LokrWeights)(**own, alpha=1.0)
    return update if update.shape else None


def _pair(own: Mapping[str, Tensor]) -> Weights | None:
    down, up = own.get("down"), own.get("up")
    if down is None or up is None or down.ndim < 2 or up.ndim < 2:
        return None
    if "mid" in own:  # Tucker: up [out, r], mid [r, s, kh, kw], down [s, in] is up with mid and down as one matrix
        down = torch.einsum("r s k l, s i -> r i k l", own["mid"].float(), down.flatten(1).float())
    if "dora_scale" in own:
        return DoraWeights(down, up, 1.0, own["dora_scale"])
    if "magnitude" in own:  # as peft has it: [out] or [1, out, 1, 1]
        return DoraWeights(down, up, 1.0, own["magnitude"].reshape(len(up), *(1 for _ in up.shape[1:])))
    return LoraWeights(down, up, 1.0)


@dataclass(frozen=True)
class _PeftAlphas:
    """What a config of peft says of alphas and ranks."""

    alpha: float
    pattern: dict[str, float]  # regular expression for a module path or its end -> alpha
    rank_stabilised: bool  # the scale is alpha / sqrt(rank) [Kalajdzievski 2023]
    default_rank: int
    rank_pattern: dict[str, int]

    def of(self, path: str, rank: int) -> float:
        """The alpha that stands for this module's scale, once divided by the rank."""
        alpha = self.pattern.get(get_pattern_key(self.pattern, path), self.alpha)
        return alpha * math.sqrt(rank) if self.rank_stabilised else alpha

    def rank(self, path: str) -> int:
        """The module's rank; it shows in the matrices but where both of LoKr's are whole."""
        return self.rank_pattern.get(get_pattern_key(self.rank_pattern, path), self.default_rank)


def _alphas(metadata: Mapping[str, str], peft_config: Mapping[str, Any]) -> dict[str, _PeftAlphas]:
    """How the names of a part's modules begin -> its alphas, from diffusers' header entry and from peft's config."""
    try:
        configs = {PEFT: peft_config} if peft_config else {}
        for key, value in json_values.parse(metadata.get(HEADER_CONFIG, "{}")).items():
            part, _, name = key.partition(".")
            if name in ("lora_alpha", "alpha_pattern", "use_rslora"):
                configs.setdefault(part, {})[name] = value
        return {part: _part_alphas(config) for part, config in configs.items()}
    except (ValueError, TypeError, AttributeError, re.error) as error:
        where = PEFT_CONFIG if peft_config else f"{HEADER_CONFIG} in the file's header"
        raise UserError(f"The adapter's alphas cannot be read from {where}.", "Download or export it again.") from error


def _part_alphas(config: Mapping[str, Any]) -> _PeftAlphas:
    patterns = {key: float(alpha) for key, alpha in (config.get("alpha_pattern") or {}).items()}
    ranks = {key: int(rank) for key, rank in (config.get("rank_pattern") or {}).items()}
    for key in (*patterns, *ranks):
        re.compile(key)
        if (
            len(key) > LONGEST_PATTERN
            or len(REPEATS.findall(NUMBERS.sub("", key))) > MOST_REPEATS
            or REPEATED_GROUP.search(key)
        ):
            raise ValueError("a pattern that could be matched for hours")
    alpha = float(config.get("lora_alpha", config.get("alpha", 8)))  # 8: as peft
    return _PeftAlphas(alpha, patterns, bool(config.get("use_rslora")), int(config.get("r", 8)) or 8, ranks)
