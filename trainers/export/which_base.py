"""Which base an adapter was made for, told from names and shapes; what the metadata says is compared, not trusted."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from trainers.export.contents import Contents
from trainers.export.known_names import PEFT_TEXT, Known, known_names, names_of_shapes
from trainers.export.layers.families import SD3_SIZES, TEXTS, family_shapes
from trainers.export.layers.text import CLIP_G
from trainers.export.modules import Module, clean
from trainers.families.detect import FAMILY_LABELS
from trainers.families.keys import CONTEXT_WIDTH

SIZE_LABELS = {
    "3-medium": "Stable Diffusion 3 Medium",
    "3.5-medium": "Stable Diffusion 3.5 Medium",
    "3.5-large": "Stable Diffusion 3.5 Large",
}
EITHER_MEDIUM = "Stable Diffusion 3 Medium or 3.5 Medium"
REFINER_WIDTH = 1280  # of the text embedding; SDXL's refiner is a UNet of its own
JOINT = ("joint_blocks", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out", "norm1_context", "ff_context")
JOINT += ("transformer.transformer_blocks.", "lora_transformer_transformer_blocks_", "lycoris_transformer_blocks_")
MODULATION = re.compile(r"(?:transformer|joint)_blocks[._](\d+)[._](?:norm1[._]linear|x_block[._]adaLN)")
FLUX = ("double_blocks", "single_transformer_blocks", "single_blocks")
SAID = {  # beginnings of ss_base_model_version and modelspec.architecture -> base
    "sdxl_": "sdxl",
    "sd_v1": "sd15",
    "sd_v2": "sd2",
    "5-medium": "3.5-medium",
    "5-large": "3.5-large",
    "medium": "3-medium",
    "stable-diffusion-xl-v1": "sdxl",
    "stable-diffusion-v1": "sd15",
    "stable-diffusion-v2": "sd2",
    "stable-diffusion-3-medium": "3-medium",
    "stable-diffusion-3-5-medium": "3.5-medium",
    "stable-diffusion-3-5-large": "3.5-large",
}


@dataclass(frozen=True)
class Base:
    """The kind of base model that an adapter file is for."""

    name: str  # sd15, sd2, sdxl or a size of Stable Diffusion 3; "" where it is none of them
    label: str
    own_size: bool = False  # in the way of Stable Diffusion 1.x, but of other sizes
    peft_part: str = ""  # the text encoder that peft's names are of: they do not say it

    @property
    def family(self) -> str:
        return "sd3" if self.name in SD3_SIZES else self.name

    @cached_property
    def known(self) -> Mapping[str, Known]:
        """Every name that stands for one of its layers."""
        if not self.name:
            return {}
        known = names_of_shapes(family_shapes("sd15")) if self.own_size else known_names(self.name)
        if not self.peft_part:
            return known
        part = {place: shape for place, shape in family_shapes(self.name).items() if place[0] == self.peft_part}
        return known | {name: layer for name, layer in names_of_shapes(part).items() if layer.style == PEFT_TEXT}


def base_of(contents: Contents) -> Base:
    """The base by the width of the text that cross-attention reads, else by what else is in the file."""
    names = [clean(name) for name in contents.modules]
    if _any(names, FLUX):
        return Base("", FAMILY_LABELS["flux"])
    if _any(names, JOINT):
        return _sd3(contents)
    width = text_width(contents.modules)
    if width == REFINER_WIDTH:
        return Base("", "Stable Diffusion XL refiner")
    if width and width not in CONTEXT_WIDTH:
        return Base("sd15", f"a Stable Diffusion UNet of its own size (text width {width})", own_size=True)
    name = CONTEXT_WIDTH[width] if width else _best_fit(contents)
    second = name == "sdxl" and any(_is_big_clip(own, module) for own, module in contents.modules.items())
    return Base(name, FAMILY_LABELS.get(name) or SIZE_LABELS[name], peft_part="text_1" if second else "")


def said_base(metadata: Mapping[str, str]) -> str:
    """The base that the metadata names: a key of `layers.families.TEXTS`, or "" where it names none."""
    said = (metadata.get(key, "").lower() for key in ("modelspec.architecture", "ss_base_model_version"))
    found = (base for text in said for start, base in SAID.items() if text.startswith(start))
    return next(found, "sd2" if metadata.get("ss_v2") == "True" else "")


def text_width(modules: Mapping[str, Module]) -> int | None:
    """Input width of the cross-attention's keys and values, which tells the family; None for a file without them."""
    ends = ("attn2_to_k", "attn2.to_k", "attn2_to_v", "attn2.to_v", "attn2.processor.to_k_lora")
    for name, module in modules.items():
        if clean(name).endswith(ends) and module.sizes and _is_product(module):
            return module.sizes[1]
    return None


def _is_product(module: Module) -> bool:
    """Whether down and up share a rank: swapped ones would tell the wrong width."""
    down, up = module.shapes.get("down"), module.shapes.get("up")
    return down is None or up is None or up[1:2] == down[:1]


def _is_big_clip(name: str, module: Module) -> bool:
    found = name.startswith("base_model.model.") and "encoder.layers." in name and module.sizes
    return bool(found) and CLIP_G.width in module.sizes


def _sd3(contents: Contents) -> Base:
    names = {clean(name): module for name, module in contents.modules.items()}
    widths = {module.sizes[1] for module in names.values() if module.sizes}
    if SD3_SIZES["3.5-large"].width in widths:
        return Base("3.5-large", SIZE_LABELS["3.5-large"])
    modulation = [(module.sizes, int(found[1])) for name, module in names.items() if (found := MODULATION.search(name))]
    rows = {
        sizes[0] // sizes[1]
        for sizes, block in modulation
        if sizes and sizes[1] and block < SD3_SIZES["3.5-medium"].dual
    }
    if 9 in rows or _any(names, ("attn2",)):  # a block with two attentions has nine shifts, scales and gates, not six
        return Base("3.5-medium", SIZE_LABELS["3.5-medium"])
    if rows:
        return Base("3-medium", SIZE_LABELS["3-medium"])
    said = said_base(contents.metadata)
    return Base(said if said in ("3-medium", "3.5-medium") else "3-medium", SIZE_LABELS.get(said, EITHER_MEDIUM))


def _best_fit(contents: Contents) -> str:
    """The base that has most of the layers in these shapes; of equals the one the metadata names, else the oldest."""
    said = said_base(contents.metadata)
    order = sorted(TEXTS, key=lambda name: name != said)
    return max(order, key=lambda name: _fitting(contents.modules, known_names(name)))


def _fitting(modules: Mapping[str, Module], known: Mapping[str, Known]) -> tuple[int, int]:
    found = [(module, known[clean(name)]) for name, module in modules.items() if clean(name) in known]
    return sum(module.fits(layer.shape) for module, layer in found), len(found)


def _any(names: Iterable[str], marks: tuple[str, ...]) -> bool:
    return any(mark in name for name in names for mark in marks)
