"""What each image UI reads of an adapter file, as data.

Sources, read in the public code (a row says what a program's loader maps, not what its documentation hopes):
- A1111: extensions-builtin/Lora/networks.py, network.py, network_lora.py (its `mid_model` is Tucker's) and
  network_oft.py, and the release notes of 1.7.0 (OFT) and 1.8.0 (BOFT).
- Forge: packages_3rdparty/comfyui_lora_collection/lora.py, extensions-builtin/sd_forge_lora/networks.py. Of OFT there
  is only a TODO.
- ComfyUI: comfy/lora.py, comfy/weight_adapter/.
- InvokeAI: invokeai/backend/patches/layers/utils.py (an OFT layer is an error there), lora_layer.py,
  lora_conversions/sdxl_lora_conversion_utils.py.
- SD.Next: modules/lora/lora_convert.py, network_lora.py, network_oft.py. It has BOFT for other families only.
- diffusers 0.42: loaders/lora_pipeline.py, loaders/lora_conversion_utils.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from trainers.export.known_names import (
    BARE,
    DIFFUSERS,
    KOHYA,
    LYCORIS,
    OLD_DIFFUSERS,
    ONETRAINER,
    ORIGINAL,
    PEFT,
    SGM,
    TE,
    TE1,
    TE2,
    TE3,
)
from trainers.export.modules import PAIRS, TUCKER

COMMON_TYPES = frozenset({"LoRA", "DoRA", "LoHa", "LoKr", TUCKER})
LYCORIS_TYPES = COMMON_TYPES | {"GLoRA", "full difference", "norm difference"}
COMMON = frozenset({KOHYA, TE})
COMMON_SDXL = frozenset({KOHYA, SGM, TE1, TE2})
COMFY_WAYS = frozenset(PAIRS)
KOHYA_ONLY = "it reads kohya's key names only"


@dataclass(frozen=True)
class UiRules:
    """What a UI reads. `tolerates` unmatched keys are passed over; one more and it refuses the whole file."""

    ui: str
    reads: Mapping[str, frozenset[str]]  # family -> styles of names; a family that is missing has no LoRA there
    types: frozenset[str] = LYCORIS_TYPES
    ways: frozenset[str] = frozenset({"lora_down"})  # of calling the two matrices
    refuses_types: bool = True  # a module of an unknown type stops the whole file
    tolerates: float = float("inf")
    only: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # family -> beginnings; any other key is an error
    drops: Mapping[str, frozenset[str]] = field(default_factory=dict)  # family -> styles passed over without an error
    embeddings: bool = False  # reads textual inversions in the file
    any_size: bool = False  # also loads onto bases that are not of Stable Diffusion 1.x's own size
    exact_shapes: bool = False  # a 1x1 convolution must be stored 4-D, a linear layer 2-D
    dotted_alpha: bool = True  # an `.alpha` key may stand beside dotted names
    magnitude: frozenset[str] = frozenset()  # styles beside which `lora_magnitude_vector` is read
    dora_scale: bool = True
    refusal: str = KOHYA_ONLY
    no_family: Mapping[str, str] = field(default_factory=dict)  # family -> why not


UIS = (
    UiRules(
        "A1111",
        reads={"sd15": COMMON, "sd2": COMMON, "sdxl": COMMON_SDXL},
        types=LYCORIS_TYPES | {"OFT", "BOFT", "IA3"},
        embeddings=True,
        refusal="it reads kohya's key names only, and passes over all others without a word",
        no_family={"sd3": "it has no LoRA class for Stable Diffusion 3"},
    ),
    UiRules(
        "Forge",
        reads={
            "sd15": COMMON | {TE1, OLD_DIFFUSERS},
            "sd2": COMMON | {TE1, OLD_DIFFUSERS},
            "sdxl": COMMON_SDXL | {TE, OLD_DIFFUSERS, ORIGINAL},
            "sd3": frozenset({KOHYA, ORIGINAL, TE, TE1, TE2, TE3}),
        },
        ways=COMFY_WAYS - {"lora_A.default"},
        refuses_types=False,
        tolerates=12,
    ),
    UiRules(
        "ComfyUI",
        reads={
            "sd15": COMMON | {TE1, OLD_DIFFUSERS, LYCORIS},
            "sd2": COMMON | {TE1, OLD_DIFFUSERS, LYCORIS},
            "sdxl": COMMON_SDXL | {TE, OLD_DIFFUSERS, ORIGINAL, LYCORIS},
            "sd3": frozenset({KOHYA, ORIGINAL, ONETRAINER, LYCORIS, DIFFUSERS, PEFT, TE, TE1, TE2, TE3}),
        },
        types=LYCORIS_TYPES | {"OFT", "BOFT"},
        ways=COMFY_WAYS,
        refuses_types=False,
        refusal="it knows none of the file's keys",
    ),
    UiRules(
        "InvokeAI",
        reads={"sd15": COMMON, "sd2": COMMON, "sdxl": COMMON_SDXL},
        types=COMMON_TYPES | {"IA3", "full difference", "norm difference"},
        only={"sdxl": ("lora_unet_", "lora_te1_", "lora_te2_")},
        no_family={"sd3": "it reads no LoRA of Stable Diffusion 3"},
    ),
    UiRules(
        "SD.Next",
        reads={
            "sd15": COMMON | {TE1, DIFFUSERS},
            "sd2": COMMON | {TE1, DIFFUSERS},
            "sdxl": COMMON_SDXL | {DIFFUSERS},
            "sd3": frozenset({KOHYA, DIFFUSERS, ONETRAINER, LYCORIS, TE1, TE2}),
        },
        types=LYCORIS_TYPES | {"OFT", "IA3"},
        ways=COMFY_WAYS - {"_lora.down", "lora_A.default"},
        refuses_types=False,
        refusal="it knows none of the file's keys",
    ),
    UiRules(
        "diffusers",
        reads={
            "sd15": COMMON | {TE1, DIFFUSERS, OLD_DIFFUSERS},
            "sd2": COMMON | {TE1, DIFFUSERS, OLD_DIFFUSERS},
            "sdxl": COMMON_SDXL | {TE, DIFFUSERS, OLD_DIFFUSERS},
            "sd3": frozenset({DIFFUSERS}),
        },
        types=frozenset({"LoRA", "DoRA"}),
        ways=COMFY_WAYS - {"lora_A.default"},
        tolerates=0,
        drops={"sd3": frozenset({KOHYA, ONETRAINER, LYCORIS, BARE, TE, TE1, TE2, TE3})},
        any_size=True,
        exact_shapes=True,
        dotted_alpha=False,
        magnitude=frozenset({DIFFUSERS}),
        dora_scale=False,
        refusal="it knows none of the file's keys",
    ),
)
