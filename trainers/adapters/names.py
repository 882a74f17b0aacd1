"""What a module of the base is called in adapter files, in every layout that is read.

kohya writes `lora_unet_` + path with `_` for `.`: that cannot be turned back by text, so names are looked up in the
list of the base's own modules.
"""

from collections.abc import Iterable

from trainers.adapters.adapter import DENOISER, Place
from trainers.adapters.names_sdxl import ENDS, to_sgm
from trainers.families.base import FamilySpec

LEVEL = "text_model."  # in every exported name; transformers 5 has no such level in CLIPTextModel's paths
UNET_BLOCKS = ("down_blocks.", "mid_block.", "up_blocks.")
TRANSFORMER = "transformer_blocks."  # how the paths of a denoiser begin that is no UNet
OLD_PROCESSOR = (".to_q", ".to_k", ".to_v", ".to_out.0")


def exported_path(place: Place) -> str:
    """The module path with the `text_model` level that files carry."""
    part, path = place
    return LEVEL + path if part != DENOISER and path.startswith("encoder.layers.") else path  # T5 has no such level


def kohya_name(place: Place, spec: FamilySpec) -> str:
    """lora_unet_down_blocks_0_..., lora_te_text_model_encoder_layers_0_...; on SDXL lora_unet_input_blocks_4_..."""
    part = place[0]
    if part == DENOISER and spec.name == "sdxl":
        return f"{spec.denoiser_prefix}_{to_sgm(place[1])}".replace(".", "_")
    prefix = spec.denoiser_prefix if part == DENOISER else spec.text_prefixes[text_index(part)]
    return f"{prefix}_{exported_path(place)}".replace(".", "_")


def lycoris_name(place: Place, spec: FamilySpec) -> str:
    """lycoris_transformer_blocks_0_attn_to_q: what SimpleTuner writes and ComfyUI reads for any type on SD 3."""
    return f"lycoris_{place[1]}".replace(".", "_") if place[0] == DENOISER else kohya_name(place, spec)


def diffusers_name(place: Place) -> str:
    """unet.down_blocks.0..., text_encoder.text_model.encoder.layers.0..."""
    return f"{component(place)}.{exported_path(place)}"


def component(place: Place) -> str:
    """The component of a diffusers pipeline that a module is in: unet, transformer, text_encoder, text_encoder_2."""
    part, path = place
    return "transformer" if part == DENOISER and path.startswith(TRANSFORMER) else pipeline_part(part)


def pipeline_part(part: str) -> str:
    """The component of a diffusers pipeline: unet, text_encoder, text_encoder_2."""
    if part == DENOISER:
        return "unet"
    return "text_encoder" if text_index(part) == 0 else f"text_encoder_{text_index(part) + 1}"


def text_index(part: str) -> int:
    return int(part.removeprefix("text_"))


def spellings(place: Place) -> dict[str, str]:
    """Every name of a module that is read -> its layout: kohya, diffusers, peft or old diffusers."""
    part, path = place
    flat, dotted = exported_path(place).replace(".", "_"), diffusers_name(place)
    names = {dotted: "diffusers", f"{component(place)}.{path}": "diffusers"}
    if part == DENOISER:
        names |= {f"lora_unet_{flat}": "kohya", f"base_model.model.{path}": "peft"}
        names |= {f"lora_transformer_{flat}": "OneTrainer", f"lycoris_{flat}": "LyCORIS"}
        if path.startswith(UNET_BLOCKS) or path in ENDS:
            names[f"lora_unet_{to_sgm(path)}".replace(".", "_")] = "kohya"  # SDXL's
        ending = next((e for e in OLD_PROCESSOR if path.endswith(e)), None)
        if ending:
            name = f"{path.removesuffix(ending)}.processor{ending.removesuffix('.0')}_lora"
            names |= {f"unet.{name}": "old diffusers", name: "old diffusers"}
    else:
        index = text_index(part)
        names[f"lora_te{index + 1}_{flat}"] = "kohya"
        if index == 0:  # peft's names do not say which model they are of, and CLIP's paths are all the same
            names |= {f"lora_te_{flat}": "kohya", f"base_model.model.{path}": "peft"}
            names[f"base_model.model.{exported_path(place)}"] = "peft"
    return names


def lookup(places: Iterable[Place]) -> dict[str, Place]:
    """Any name that is read -> its module."""
    return {name: place for place in places for name in spellings(place)}
