"""Which stored tensor holds the weight of each layer: the inverse of how base models are read.

Original checkpoints fuse some layers: query, key and value of OpenCLIP and of Stable Diffusion 3's blocks are one
tensor there. Sources of the names: `trainers.families.ldm`, `.openclip` and `.mmdit`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from trainers.adapters import names_sd3
from trainers.adapters.adapter import DENOISER, Place
from trainers.export.layers.families import family_shapes
from trainers.families import ldm, openclip, sd2, sd3, sdxl

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

WEIGHT = ".weight"
TEXT_FOLDERS = {"text_encoder": "text_0", "text_encoder_2": "text_1", "text_encoder_3": "text_2"}
CLIP_PREFIXES = {  # family -> parts whose tensors have transformers' names in a checkpoint file
    "sd15": {"text_0": ldm.TEXT_PREFIX},
    "sdxl": {"text_0": sdxl.CLIP_L},
    "sd3": {"text_0": sd3.CLIP_L, "text_1": sd3.CLIP_G, "text_2": "text_encoders.t5xxl.transformer."},
}
OPENCLIP_PREFIXES = {"sd2": {"text_0": sd2.TEXT_PREFIX}, "sdxl": {"text_1": sdxl.OPENCLIP}}
SIZES = {"sd3": "3.5-large"}  # its text encoders are those of every size
OPENCLIP_LAYER = {own: theirs for theirs, own in openclip.LAYER.items()}
SIDE = re.compile(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.")


@dataclass(frozen=True)
class Spot:
    """A layer's weight: one of equal blocks of rows of a stored tensor, and how it is turned there."""

    part: str  # the part's folder; "" in a checkpoint file
    name: str
    block: int = 0
    blocks: int = 1
    turn: str = ""  # swap: the halves of its rows change places; transpose


def in_folder(family: str, parts: Mapping[str, Shapes]) -> dict[Place, Spot]:
    """`parts`: a part's folder -> its tensors."""
    found: dict[Place, Spot] = {}
    for part, shapes in parts.items():
        if part in TEXT_FOLDERS:
            found |= dict(_clip(family, TEXT_FOLDERS[part], part, "", shapes))
        elif part != "vae":
            found |= {
                (DENOISER, name.removesuffix(WEIGHT)): Spot(part, name)
                for name, shape in shapes.items()
                if name.endswith(WEIGHT) and len(shape) in (2, 4)
            }
    return found


def in_file(family: str, shapes: Shapes) -> dict[Place, Spot]:
    found = dict(_mmdit(shapes) if family == "sd3" else _unet(family, shapes))
    for part, prefix in CLIP_PREFIXES.get(family, {}).items():
        found |= dict(_clip(family, part, "", prefix, shapes))
    for part, prefix in OPENCLIP_PREFIXES.get(family, {}).items():
        found |= dict(_openclip(family, part, prefix, shapes))
    return found


def _clip(family: str, part: str, folder: str, prefix: str, shapes: Shapes) -> Iterator[tuple[Place, Spot]]:
    names = ldm.text_names(prefix)
    for place in _layers(family, part):
        name = next((name for name in names(place[1] + WEIGHT) if name in shapes), None)
        if name:
            yield place, Spot(folder, name)


def _openclip(family: str, part: str, prefix: str, shapes: Shapes) -> Iterator[tuple[Place, Spot]]:
    for place in _layers(family, part):
        spot = _openclip_spot(place[1].removeprefix("text_model."), prefix)
        if spot.name in shapes:
            yield place, spot


def _openclip_spot(path: str, prefix: str) -> Spot:
    if path == "text_projection":
        return Spot("", f"{prefix}text_projection", turn="transpose")
    _, _, layer, module = path.split(".", 3)  # encoder.layers.N.rest
    block = f"{prefix}transformer.resblocks.{layer}."
    if module in OPENCLIP_LAYER:
        return Spot("", f"{block}{OPENCLIP_LAYER[module]}{WEIGHT}")
    return Spot("", f"{block}attn.in_proj_weight", "qkv".index(module.removeprefix("self_attn.")[0]), 3)


def _unet(family: str, shapes: Shapes) -> Iterator[tuple[Place, Spot]]:
    levels, config = _structure(shapes)
    names = ldm.unet_names(config)
    for place in _layers(family, DENOISER):
        if _is_there(place[1], levels, config["layers_per_block"]):
            name = names(place[1] + WEIGHT)[0]
            if name in shapes:
                yield place, Spot("", name)


def _structure(shapes: Shapes) -> tuple[int, dict]:
    """(levels, the settings that tell how blocks are counted) of a UNet in a checkpoint."""
    prefix = ldm.UNET_PREFIX
    inputs = [int(n) for n in _numbers(shapes, rf"{prefix}input_blocks\.(\d+)\.")]
    halvings = [int(n) for n in _numbers(shapes, rf"{prefix}input_blocks\.(\d+)\.0\.op\.")]
    levels, layers = len(halvings) + 1, (min(halvings) - 1 if halvings else max(inputs))
    attends = [f"{prefix}output_blocks.{(layers + 1) * i}.1.proj_in.weight" in shapes for i in range(levels)]
    return levels, {"layers_per_block": layers, "up_block_types": ["CrossAttn" if a else "" for a in attends]}


def _numbers(shapes: Shapes, pattern: str) -> set[str]:
    return {found[1] for name in shapes if (found := re.match(pattern, name))}


def _is_there(path: str, levels: int, layers: int) -> bool:
    """Whether a UNet of that many levels, and layers in each, has the block: names of others would mean another one."""
    found = SIDE.match(path)
    if not found:
        return True
    level, kind, layer = int(found[2]), found[3], int(found[4])
    return level < levels and (kind.endswith("samplers") or layer < layers + (found[1] == "up"))


def _mmdit(shapes: Shapes) -> Iterator[tuple[Place, Spot]]:
    prefix = next(p for p in (ldm.UNET_PREFIX, "diffusion_model.", "") if any(_is_joint(name, p) for name in shapes))
    for name, shape in shapes.items():
        if not (name.startswith(prefix) and name.endswith(WEIGHT) and len(shape) in (2, 4)):
            continue
        try:
            paths = names_sd3.from_original(name.removeprefix(prefix).removesuffix(WEIGHT))
        except KeyError:
            continue
        swapped = paths[0].endswith(("norm1_context.linear", "norm_out.linear")) and shape[0] == 2 * shape[1]
        for i, path in enumerate(paths):
            yield (DENOISER, path), Spot("", name, i, len(paths), "swap" if swapped else "")


def _is_joint(name: str, prefix: str) -> bool:
    return name.startswith(f"{prefix}joint_blocks.")


def _layers(family: str, part: str) -> list[Place]:
    return [place for place in family_shapes(SIZES.get(family, family)) if place[0] == part]
