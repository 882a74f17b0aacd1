"""Adapter files made up in the true shapes of a family, with random small matrices; each spelling in a function."""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from trainers.adapters import names_sd3, names_sdxl
from trainers.adapters.adapter import DENOISER, Place
from trainers.adapters.names import exported_path, pipeline_part, text_index
from trainers.export.layers.families import SD3_SIZES, family_shapes

Tensors = dict[str, Tensor]
SOME = {  # beginnings of paths: a few blocks of each family, with every kind of layer
    "sd15": ("mid_block", "up_blocks.3.resnets.0", "down_blocks.0.downsamplers", "encoder.layers.11"),
    "sd2": ("mid_block", "up_blocks.3.resnets.0", "down_blocks.0.downsamplers", "encoder.layers.22"),
    "sdxl": (
        *("down_blocks.1.attentions.0", "mid_block.resnets", "up_blocks.0.upsamplers", "down_blocks.0.downsamplers"),
        *("up_blocks.1.attentions.2", "encoder.layers.3", "text_model.encoder.layers.31"),
    ),
}
SOME |= dict.fromkeys(SD3_SIZES, ("transformer_blocks.0.", "transformer_blocks.23.", "text_model.encoder.layers.7"))


def places(base: str, starts: Iterable[str] = ()) -> dict[Place, tuple[int, ...]]:
    """Layers of the base whose paths begin so (by default a few), none of T5's."""
    starts = tuple(starts) or SOME[base]
    return {place: shape for place, shape in family_shapes(base).items() if place[1].startswith(starts)}


def denoiser(base: str, starts: Iterable[str] = ()) -> dict[Place, tuple[int, ...]]:
    return {place: shape for place, shape in places(base, starts).items() if place[0] == DENOISER}


def sgm(place: Place) -> str:
    part, path = place
    head = "lora_unet" if part == DENOISER else f"lora_te{text_index(part) + 1}"
    return f"{head}_{names_sdxl.to_sgm(path) if part == DENOISER else exported_path(place)}".replace(".", "_")


def flat(prefix: str = "lora_unet_", text: str = "lora_te{}_") -> Callable[[Place], str]:
    """kohya's rule with diffusers' paths; `{}` in the text prefix is the number of the encoder."""

    def name(place: Place) -> str:
        part = place[0]
        head = prefix if part == DENOISER else text.format(text_index(part) + 1)
        return head + exported_path(place).replace(".", "_")

    return name


def dotted(model: str = "unet") -> Callable[[Place], str]:
    return lambda place: f"{model if place[0] == DENOISER else pipeline_part(place[0])}.{exported_path(place)}"


def peft(place: Place) -> str:
    return f"base_model.model.{place[1]}"


def lora(
    shapes: Mapping[Place, tuple[int, ...]],
    name: Callable[[Place], str],
    rank: int = 2,
    alpha: float | None = 1.0,
    ends: tuple[str, str] = (".lora_down.weight", ".lora_up.weight"),
) -> Tensors:
    """A plain LoRA; alpha None: no alpha keys."""
    found = {}
    for place, shape in shapes.items():
        found |= pair(name(place), shape, rank, alpha, ends)
    return found


def pair(
    name: str,
    shape: tuple[int, ...],
    rank: int = 2,
    alpha: float | None = 1.0,
    ends: tuple[str, str] = (".lora_down.weight", ".lora_up.weight"),
) -> Tensors:
    generator = torch.Generator().manual_seed(len(name))
    down = torch.randn((rank, *shape[1:]), generator=generator).half()
    up = torch.randn((shape[0], rank, *(1 for _ in shape[2:])), generator=generator).half()
    alphas = {} if alpha is None else {f"{name}.alpha": torch.tensor(alpha, dtype=torch.float16)}
    return {name + ends[0]: down, name + ends[1]: up} | alphas


AB = (".lora_A.weight", ".lora_B.weight")


def joint(size: str, starts: Iterable[str] = ()) -> Tensors:
    """kohya's layout of Stable Diffusion 3: joint blocks with fused q, k and v."""
    shapes = denoiser(size, starts)
    found = {}
    for name, group in names_sd3.grouped(path for _, path in shapes).items():
        out, *rest = shapes[DENOISER, group[0]]
        found |= pair(f"lora_unet_{name}".replace(".", "_"), (out * len(group), *rest))
    return found | lora({p: s for p, s in places(size, starts).items() if p[0] != DENOISER}, flat())


def loha(shapes: Mapping[Place, tuple[int, ...]], name: Callable[[Place], str], rank: int = 2) -> Tensors:
    found = {}
    for place, shape in shapes.items():
        out, into = shape[0], torch.Size(shape[1:]).numel()
        for i in "12":
            found[f"{name(place)}.hada_w{i}_a"] = torch.randn(out, rank).half()
            found[f"{name(place)}.hada_w{i}_b"] = torch.randn(rank, into).half()
        found[f"{name(place)}.alpha"] = torch.tensor(1.0).half()
    return found


def lokr(shapes: Mapping[Place, tuple[int, ...]], name: Callable[[Place], str], factor: int = 4) -> Tensors:
    """Full w1 and w2; 1x1 convolutions and linear layers only."""
    found = {}
    for place, shape in shapes.items():
        tail = shape[2:]
        found[f"{name(place)}.lokr_w1"] = torch.randn(factor, factor).half()
        found[f"{name(place)}.lokr_w2"] = torch.randn(shape[0] // factor, shape[1] // factor, *tail).half()
        found[f"{name(place)}.alpha"] = torch.tensor(1.0).half()
    return found
