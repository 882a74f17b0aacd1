"""Every name that an adapter file may give a layer of a base, in every style that is found, and what it stands for.

A style is a way of naming: kohya's `lora_unet_` with diffusers' or with the original code's blocks, the dotted paths of
diffusers and peft, `lycoris_`, OneTrainer's `lora_transformer_`, and kohya's prefixes of the text encoders.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from trainers.adapters import names_sd3, names_sdxl
from trainers.adapters.adapter import DENOISER, Place
from trainers.adapters.names import OLD_PROCESSOR, exported_path, pipeline_part, text_index
from trainers.export.layers.families import SD3_SIZES, family_shapes

KOHYA = "kohya"  # lora_unet_ + diffusers' path; for Stable Diffusion 3 + the original path
SGM = "kohya with original blocks"  # SDXL: lora_unet_input_blocks_...
LYCORIS = "lycoris"  # lycoris_ + diffusers' path
ONETRAINER = "OneTrainer"  # Stable Diffusion 3: lora_transformer_ + diffusers' path
ORIGINAL = "original"  # diffusion_model. + the original code's path
DIFFUSERS = "diffusers"  # unet. or transformer. or text_encoder. + path
BARE = "diffusers, not as files have it"  # text_encoder.encoder. ...: what transformers 5 calls the layers
OLD_DIFFUSERS = "old diffusers"  # ...attn1.processor.to_q_lora
PEFT = "peft"  # base_model.model. + path
PEFT_TEXT = "peft, text encoder"
TE, TE1, TE2, TE3 = "lora_te_", "lora_te1_", "lora_te2_", "lora_te3_"

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Known:
    """The style of a name, the layers it stands for (three for a fused one), and the shape of their weight."""

    style: str
    places: tuple[Place, ...]
    shape: Shape

    @property
    def text(self) -> bool:
        return self.places[0][0] != DENOISER


@cache
def known_names(base: str) -> dict[str, Known]:
    """Every name for a base of `layers.families`: sd15, sd2, sdxl or a size of Stable Diffusion 3."""
    return names_for(base, family_shapes(base))


def names_for(base: str, shapes: Mapping[Place, Shape]) -> dict[str, Known]:
    """The same for a base of that kind with other layers, `shapes`."""
    names = names_of_shapes(shapes, denoiser="transformer" if base in SD3_SIZES else "unet")
    paths = [path for part, path in shapes if part == DENOISER]
    if base == "sdxl":
        names |= dict(_sgm(paths, shapes))
    if base in SD3_SIZES:
        names |= dict(_joint(paths, shapes))
    return names


def names_of_shapes(shapes: Mapping[Place, Shape], denoiser: str = "unet") -> dict[str, Known]:
    """The names that follow from the layers' paths alone; `denoiser` is its name in a diffusers pipeline."""
    found: dict[str, Known] = {}
    for place, shape in shapes.items():
        spelt = _denoiser_names(place[1], denoiser) if place[0] == DENOISER else _text_names(place)
        for name, style in spelt:
            found.setdefault(name, Known(style, (place,), shape))  # peft's names are the same for each text encoder
    return found


def _denoiser_names(path: str, denoiser: str) -> Iterator[tuple[str, str]]:
    flat = path.replace(".", "_")
    yield f"{denoiser}.{path}", DIFFUSERS
    yield f"base_model.model.{path}", PEFT
    yield f"lycoris_{flat}", LYCORIS
    if denoiser == "transformer":
        yield f"lora_transformer_{flat}", ONETRAINER
        return
    yield f"lora_unet_{flat}", KOHYA
    ending = next((e for e in OLD_PROCESSOR if path.endswith(e)), None)
    if ending:
        name = f"{path.removesuffix(ending)}.processor{ending.removesuffix('.0')}_lora"
        yield f"unet.{name}", OLD_DIFFUSERS
        yield name, OLD_DIFFUSERS


def _text_names(place: Place) -> Iterator[tuple[str, str]]:
    part, path = place
    index, exported = text_index(part), exported_path(place)
    flat = exported.replace(".", "_")
    yield f"{pipeline_part(part)}.{exported}", DIFFUSERS if index < 2 else BARE  # nobody reads T5 in that style
    yield f"{pipeline_part(part)}.{path}", BARE
    yield f"lora_te{index + 1}_{flat}", (TE1, TE2, TE3)[index]
    if index == 0:
        yield f"lora_te_{flat}", TE
    yield f"base_model.model.{path}", PEFT_TEXT
    yield f"base_model.model.{exported}", PEFT_TEXT


def _sgm(paths: list[str], shapes: Mapping[Place, Shape]) -> Iterator[tuple[str, Known]]:
    for path in paths:
        place, name = (DENOISER, path), names_sdxl.to_sgm(path)
        yield f"lora_unet_{name}".replace(".", "_"), Known(SGM, (place,), shapes[place])
        yield f"diffusion_model.{name}", Known(ORIGINAL, (place,), shapes[place])


def _joint(paths: list[str], shapes: Mapping[Place, Shape]) -> Iterator[tuple[str, Known]]:
    """Fused layers have the rows of their parts one below the other."""
    for name, group in names_sd3.grouped(paths).items():
        places = tuple((DENOISER, path) for path in group)
        out, *rest = shapes[places[0]]
        shape = (out * len(places), *rest)
        yield f"lora_unet_{name}".replace(".", "_"), Known(KOHYA, places, shape)
        yield f"diffusion_model.{name}", Known(ORIGINAL, places, shape)
