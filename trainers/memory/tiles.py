"""A picture is decoded in tiles where the whole one would not fit, by diffusers' own tiled decoding."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from trainers.families.base import Family
from trainers.memory.hollow import emptied_model
from trainers.memory.meter import Meter

LEAST = 16  # latents on a tile's side: its outer quarter is blended with the next one's
PLENTY = 1024  # numbers at once for each pixel that a decoder stays below: Stable Diffusion's has 768 (counted)


@contextmanager
def tiled(family: Family, vae: nn.Module, shape: tuple[int, ...], space: float) -> Iterator[None]:
    """Inside, the VAE decodes latents of this shape [B, C, h, w] within `space` bytes, or in the smallest tiles.

    Where the whole picture fits nothing is different; tiles change it a little, since each is normalised by itself.
    """
    side = tile(family, vae, shape, space)
    if side is None:
        yield
        return
    usual = vae.use_tiling, vae.tile_latent_min_size, vae.tile_sample_min_size
    factor = vae.tile_sample_min_size // vae.tile_latent_min_size
    vae.use_tiling, vae.tile_latent_min_size, vae.tile_sample_min_size = True, side, side * factor
    try:
        yield
    finally:
        vae.use_tiling, vae.tile_latent_min_size, vae.tile_sample_min_size = usual


def tile(family: Family, vae: nn.Module, shape: tuple[int, ...], space: float) -> int | None:
    """Latents on the side of the largest tile whose decoding fits; None where the whole picture does."""
    count, channels, height, width = shape
    factor = vae.tile_sample_min_size // vae.tile_latent_min_size
    dtype = next(vae.parameters()).dtype
    picture = count * height * width * factor**2 * dtype.itemsize
    if picture * PLENTY <= space:
        return None
    hollow = emptied_model(vae, dtype)
    if decoded(family, hollow, shape).peak <= space:
        return None
    side = max(height, width) // 2
    pieces = 3 * 4 * picture  # three colours: tiles that overlap by a quarter, their rows, and the whole
    while side > LEAST and pieces + decoded(family, hollow, (count, channels, side, side)).peak > space:
        side //= 2
    return max(LEAST, side)


def decoded(family: Family, vae: nn.Module, shape: tuple[int, ...]) -> Meter:
    """What decoding latents of this shape takes, of a VAE without weights."""
    with torch.no_grad(), Meter() as meter:
        family.decode_image(vae, torch.empty(shape, device="meta"))
    return meter
