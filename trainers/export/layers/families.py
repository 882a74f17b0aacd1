"""Every layer of each family that an adapter can sit on, with the shape of its weight. Builds no model."""

from functools import cache

from trainers.adapters.adapter import DENOISER, Place
from trainers.export.layers import mmdit, text, unet

Shapes = dict[Place, tuple[int, ...]]

SD3_SIZES = {  # size -> its transformer; the label is its name
    "3-medium": mmdit.SD3_MEDIUM,
    "3.5-medium": mmdit.SD35_MEDIUM,
    "3.5-large": mmdit.SD35_LARGE,
}
UNETS = {"sd15": unet.SD15, "sd2": unet.SD2, "sdxl": unet.SDXL}
TEXTS = {"sd15": (text.CLIP_L,), "sd2": (text.CLIP_H,), "sdxl": (text.CLIP_L, text.CLIP_G)}
TEXTS |= dict.fromkeys(SD3_SIZES, (text.CLIP_L_PROJECTED, text.CLIP_G))


@cache
def family_shapes(base: str) -> Shapes:
    """(part, module path) -> weight shape, for `sd15`, `sd2`, `sdxl` or a size of Stable Diffusion 3."""
    denoiser = mmdit.mmdit_shapes(SD3_SIZES[base]) if base in SD3_SIZES else unet.unet_shapes(UNETS[base])
    shapes = {(DENOISER, path): shape for path, shape in denoiser.items()}
    for i, numbers in enumerate(TEXTS[base]):
        shapes |= {(f"text_{i}", path): shape for path, shape in text.clip_shapes(numbers).items()}
    if base in SD3_SIZES:
        shapes |= {("text_2", path): shape for path, shape in text.t5_shapes().items()}
    return shapes
