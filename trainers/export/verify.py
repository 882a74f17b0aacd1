"""Which image UIs load an adapter file, by their own key rules, for Stable Diffusion 1.x.

Source: the public loaders of Forge, ComfyUI, InvokeAI and diffusers; for A1111 and SD.Next, their documentation.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from trainers.adapters.adapter import DENOISER, LoraWeights, Place
from trainers.adapters.adapter_file import OTHER_TYPES, fitting, read_adapter, read_layers, reshaped, stray_keys
from trainers.adapters.names import exported_path, kohya_name, spellings
from trainers.export.sd15_layers import CROSS, sd15_shapes
from trainers.families.base import Components, FamilySpec

Shapes = Mapping[Place, tuple[int, ...]]
LOHA_LOKR = frozenset({"LoRA", "DoRA", "LoHa", "LoKr"})


@dataclass(frozen=True)
class UiRules:
    """What a UI reads. `tolerates` unmatched keys are passed over; one more and it refuses the whole file."""

    ui: str
    layouts: frozenset[str] = frozenset({"kohya"})
    text_prefixes: tuple[str, ...] = ("lora_te_",)
    types: frozenset[str] = LOHA_LOKR
    tolerates: float = float("inf")
    any_size: bool = False  # also loads onto bases that are not of Stable Diffusion 1.x's own size
    exact_shapes: bool = False  # a 1x1 convolution must be stored 4-D, a linear layer 2-D
    refusal: str = "it knows none of the file's keys"


UIS = (
    UiRules("A1111", refusal="it reads kohya's key names only, and passes over all others without a word"),
    UiRules("Forge", text_prefixes=("lora_te_", "lora_te1_"), tolerates=12, refusal="it reads kohya's key names only"),
    UiRules("ComfyUI", text_prefixes=("lora_te_", "lora_te1_"), refusal="none of the keys is one it maps"),
    UiRules("InvokeAI", refusal="it reads kohya's key names only"),
    UiRules("SD.Next", layouts=frozenset({"kohya", "diffusers"}), text_prefixes=("lora_te_", "lora_te1_")),
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
    layers = read_layers(tensors, metadata)
    width = text_width(layers)
    if any(name.startswith(FOREIGN) for name in layers) or width in OTHER_WIDTHS:
        return []
    own_size = width not in (None, CROSS)
    checked = shapes is not None or not own_size
    return [_judge(rules, tensors, metadata, layers, shapes or sd15_shapes(), own_size, checked) for rules in UIS]


def text_width(layers: Mapping[str, LoraWeights]) -> int | None:
    """Input width of the cross-attention's keys, which tells the family; None for a file without them."""
    keys = (layer for name, layer in layers.items() if name.endswith(("attn2_to_k", "attn2.to_k")))
    return next((layer.down.shape[1] for layer in keys if layer.up.shape[1] == layer.rank), None)


def verify_against(path: Path, components: Components, spec: FamilySpec) -> list[str]:
    """What is wrong with a file for this base, one sentence per key: unknown, misshapen, misnamed. Empty if fine."""
    file = read_adapter(path)
    found, unknown = fitting(components, file.layers)
    problems = [f"{name} fits no layer of {components.name}." for name in unknown]
    problems += [f"{key} belongs to no pair of matrices." for key in stray_keys(file.tensors, file.layers)]
    if any(name.startswith("lora_") for name in file.layers):
        names = {kohya_name(place, spec) for place in found}
        problems += [f"{name} has another family's prefix." for name in file.layers if name not in names | {*unknown}]
    return problems


FOREIGN = ("lora_unet_input_blocks", "lora_unet_middle_block", "lora_unet_output_blocks", "lora_te2_", "transformer.")
FOREIGN += ("lora_unet_joint_blocks", "lora_transformer_", "text_encoder_2.")
OTHER_WIDTHS = (1024, 2048, 1280)


def _judge(
    rules: UiRules,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    layers: Mapping[str, LoraWeights],
    shapes: Shapes,
    own_size: bool,
    checked: bool,
) -> UiVerdict:
    kinds = {kind for end, kind in OTHER_TYPES.items() if any(key.endswith(end) for key in tensors)}
    if kinds - rules.types:
        return UiVerdict(rules.ui, "no", tuple(sorted(tensors)), f"it does not read {' and '.join(sorted(kinds))}")
    if own_size and not rules.any_size:
        return UiVerdict(rules.ui, "no", (), "its base has a size of its own, which this UI is not known to open")
    names = _names(rules, shapes)
    good = {n for n, layer in layers.items() if n in names and (not checked or _fits(rules, layer, shapes[names[n]]))}
    if kinds & {"LoHa", "LoKr"}:
        good |= {key.rpartition(".")[0] for key in tensors if key.rpartition(".")[0] in names}
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
