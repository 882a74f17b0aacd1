"""Which image UIs load an adapter file, by their own key rules, for Stable Diffusion 1.x.

Source of the key rules: the public loaders of Forge, ComfyUI, InvokeAI and diffusers; for A1111 and SD.Next, their
documentation. Source of the types that are more than two matrices, all read in the public code:
- A1111: extensions-builtin/Lora/network_lora.py (its `mid_model` is Tucker's), network_oft.py, and the release notes of
  1.7.0 (OFT) and 1.8.0 (BOFT).
- Forge: packages_3rdparty/comfyui_lora_collection/lora.py, backend/patcher/lora.py. They read `lora_mid`; of OFT there
  is only a TODO.
- ComfyUI: comfy/weight_adapter/lora.py, oft.py, boft.py.
- InvokeAI: invokeai/backend/patches/layers/utils.py and lora_layer.py. An OFT layer is an error there.
- SD.Next: modules/lora/lora_common.py, network_lora.py, network_oft.py. It has BOFT for other families only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from trainers.adapters.adapter import DENOISER, LoraWeights, Place
from trainers.adapters.adapter_file import OTHER_TYPES, read_layers, reshaped
from trainers.adapters.names import exported_path, spellings
from trainers.export.sd15_layers import CROSS, sd15_shapes
from trainers.families.keys import CONTEXT_WIDTH

Shapes = Mapping[Place, tuple[int, ...]]
COMMON_TYPES = frozenset({"LoRA", "DoRA", "LoHa", "LoKr", OTHER_TYPES[".lora_mid.weight"]})


@dataclass(frozen=True)
class UiRules:
    """What a UI reads. `tolerates` unmatched keys are passed over; one more and it refuses the whole file."""

    ui: str
    layouts: frozenset[str] = frozenset({"kohya"})
    text_prefixes: tuple[str, ...] = ("lora_te_",)
    types: frozenset[str] = COMMON_TYPES
    tolerates: float = float("inf")
    any_size: bool = False  # also loads onto bases that are not of Stable Diffusion 1.x's own size
    exact_shapes: bool = False  # a 1x1 convolution must be stored 4-D, a linear layer 2-D
    refusal: str = "it knows none of the file's keys"


UIS = (
    UiRules(
        "A1111",
        types=COMMON_TYPES | {"OFT", "BOFT"},
        refusal="it reads kohya's key names only, and passes over all others without a word",
    ),
    UiRules("Forge", text_prefixes=("lora_te_", "lora_te1_"), tolerates=12, refusal="it reads kohya's key names only"),
    UiRules(
        "ComfyUI",
        text_prefixes=("lora_te_", "lora_te1_"),
        types=COMMON_TYPES | {"OFT", "BOFT"},
        refusal="none of the keys is one it maps",
    ),
    UiRules("InvokeAI", refusal="it reads kohya's key names only"),
    UiRules(
        "SD.Next",
        layouts=frozenset({"kohya", "diffusers"}),
        text_prefixes=("lora_te_", "lora_te1_"),
        types=COMMON_TYPES | {"OFT"},
    ),
    UiRules(
        "diffusers",
        layouts=frozenset({"kohya", "diffusers", "old diffusers"}),
        text_prefixes=("lora_te_", "lora_te1_"),
        types=frozenset({"LoRA", "DoRA"}),
        tolerates=0,
        any_size=True,
        exact_shapes=True,
    ),
)


@dataclass(frozen=True)
class UiVerdict:
    """Whether a UI loads the file, the keys it would not use, and why not in one sentence."""

    ui: str
    loads: Literal["whole", "partly", "no"]
    unmatched: tuple[str, ...] = ()
    why: str = ""


def verdicts(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], shapes: Shapes | None = None
) -> list[UiVerdict]:
    """One verdict per UI; empty for a file of another family, whose rules are not here.

    `shapes` are the layers of its base (`adapter_file.module_shapes`); without them, Stable Diffusion 1.x's own.
    """
    layers, others = read_layers(tensors, metadata), _other_layers(tensors)
    width = text_width(layers)
    foreign = any(name.startswith(FOREIGN) for name in (*layers, *others))
    if foreign or CONTEXT_WIDTH.get(width, "sd15") != "sd15":
        return []
    own_size = width not in (None, CROSS)
    checked = shapes is not None or not own_size
    common = (shapes or sd15_shapes(), own_size, checked)
    return [_judge(rules, tensors, metadata, layers, others, *common) for rules in UIS]


def text_width(layers: Mapping[str, LoraWeights]) -> int | None:
    """Input width of the cross-attention's keys, which tells the family; None for a file without them."""
    keys = (layer for name, layer in layers.items() if name.endswith(("attn2_to_k", "attn2.to_k")))
    return next((layer.down.shape[1] for layer in keys if layer.up.shape[1] == layer.rank), None)


FOREIGN = ("lora_unet_input_blocks", "lora_unet_middle_block", "lora_unet_output_blocks", "lora_te2_", "transformer.")
FOREIGN += ("lora_unet_joint_blocks", "lora_transformer_", "text_encoder_2.")


def _judge(
    rules: UiRules,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    layers: Mapping[str, LoraWeights],
    others: Mapping[str, set[str]],
    shapes: Shapes,
    own_size: bool,
    checked: bool,
) -> UiVerdict:
    kinds = set().union(*others.values())
    if kinds - rules.types:
        return UiVerdict(rules.ui, "no", tuple(sorted(tensors)), f"it does not read {' and '.join(sorted(kinds))}")
    if own_size and not rules.any_size:
        return UiVerdict(rules.ui, "no", (), "its base has a size of its own, which this UI is not known to open")
    names = _names(rules, shapes)
    good = {n for n, layer in layers.items() if n in names and (not checked or _fits(rules, layer, shapes[names[n]]))}
    good |= {n for n, types in others.items() if n in names and types != {"DoRA"}}  # their shapes are not looked at
    unmatched = tuple(key for key in sorted(tensors) if not any(key.startswith(f"{n}.") for n in _heads(key, good)))
    if len(unmatched) == len(tensors):
        return UiVerdict(rules.ui, "no", unmatched, _cause(rules, layers, names))
    if len(unmatched) > rules.tolerates:
        amount = f"more than {rules.tolerates:.0f} keys" if rules.tolerates else "any key"
        return UiVerdict(rules.ui, "no", unmatched, f"it refuses a file with {amount} that it does not know")
    if not any(names[name][0] == DENOISER for name in good) and any(_is_unet(name) for name in layers):
        return UiVerdict(rules.ui, "partly", unmatched, "it uses the text encoder's part only")
    why = _remark(rules, metadata, layers, checked)
    return UiVerdict(rules.ui, "partly" if unmatched else "whole", unmatched, why)


def _other_layers(tensors: Mapping[str, Tensor]) -> dict[str, set[str]]:
    """Modules that are more than two matrices -> their types."""
    found: dict[str, set[str]] = {}
    for key, tensor in tensors.items():
        for end, kind in OTHER_TYPES.items():
            if key.endswith(end):
                butterfly = kind == "OFT" and tensor.ndim == 4  # LyCORIS names the two alike
                found.setdefault(key.removesuffix(end), set()).add("BOFT" if butterfly else kind)
    return found


def _names(rules: UiRules, shapes: Shapes) -> dict[str, Place]:
    names = {}
    for place in shapes:
        for name, layout in spellings(place).items():
            text = name.startswith("lora_te")
            if layout in rules.layouts and (not text or name.startswith(rules.text_prefixes)):
                if layout != "diffusers" or name.endswith(exported_path(place)):
                    names[name] = place
    return names


def _heads(key: str, good: set[str]) -> list[str]:
    """Module names in `good` that `key` may belong to: its beginnings up to a dot."""
    pieces = key.split(".")
    return [head for i in range(1, len(pieces)) if (head := ".".join(pieces[:i])) in good]


def _fits(rules: UiRules, layer: LoraWeights, shape: tuple[int, ...]) -> bool:
    fitted = reshaped(layer, shape)
    return fitted is not None and (not rules.exact_shapes or fitted.down.shape == layer.down.shape)


def _is_unet(name: str) -> bool:
    return name.startswith(("lora_unet_", "unet.", "base_model.model."))


def _cause(rules: UiRules, layers: Mapping[str, LoraWeights], names: Mapping[str, Place]) -> str:
    known = any(name in names for name in layers)
    return "the matrices have other shapes than the base's layers" if known else rules.refusal


def _remark(rules: UiRules, metadata: Mapping[str, str], layers: Mapping[str, LoraWeights], checked: bool) -> str:
    if rules.ui == "A1111" and (
        metadata.get("ss_v2") == "True" or metadata.get("ss_base_model_version", "").startswith("sdxl_")
    ):
        return "its metadata names another family, so the list of adapters may hide it"
    if rules.ui == "InvokeAI" and text_width(layers) is None:
        return "older versions cannot tell its base, since it has no cross-attention"
    return "" if checked else "with the base it was trained on, whose layers were not looked at"
