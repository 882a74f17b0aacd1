"""A picture is decoded in tiles where the whole one would not fit, by diffusers' own tiled decoding."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from trainers.families.base import Family
from trainers.memory.hollow import emptied_model
from trainers.memory.meter import Meter

LEAST = 16  # latents on a tile's side: its outer quarter is blended with the next one's
PLENTY = 1024  # numbers at once for each pixel, and no decoder has more: Stable Diffusion's 768, and on a CPU 1024


@contextmanager
def tiled(family: Family, vae: nn.Module, shape: tuple[int, ...], space: float) -> Iterator[None]:
    """Inside, the VAE decodes latents of this shape [B, C, h, w] within `space` bytes, or in the smallest tiles.

    Where the whole picture fits nothing is different; tiles change it a little, since each is normalised by itself.
    """
    side = tile(family, vae, shape, space, next(vae.parameters()).device)
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


def tile(family: Family, vae: nn.Module, shape: tuple[int, ...], space: float, device: torch.device) -> int | None:
    """Latents on the side of the largest tile whose decoding fits; None where the whole picture does."""
    if _pixels(vae, shape) * PLENTY <= space:
        return None
    if decoding_bytes(family, vae, shape, None, device) <= space:
        return None
    side = max(shape[2:]) // 2
    while side > LEAST and decoding_bytes(family, vae, shape, side, device) > space:
        side //= 2
    return max(LEAST, side)


def decoding_bytes(
    family: Family, vae: nn.Module, shape: tuple[int, ...], side: int | None, device: torch.device
) -> int:
    """Beside the weights, of latents of this shape in tiles with so many on a side, or whole; the VAE may have none."""
    at_once = shape if side is None else (*shape[:2], side, side)
    hollow = emptied_model(vae, next(vae.parameters()).dtype)
    with torch.no_grad(), Meter() as meter:
        family.decode_image(hollow, torch.empty(at_once, device="meta"))
    pieces = 0 if side is None else 3 * 4 * _pixels(vae, shape)  # tiles that overlap by a quarter, rows, the whole
    copied = meter.largest if device.type == "cpu" else 0  # which its convolutions put in an order of their own
    return pieces + meter.peak + copied


def _pixels(vae: nn.Module, shape: tuple[int, ...]) -> int:
    """Bytes of a number for each pixel."""
    count, _, height, width = shape
    factor = vae.tile_sample_min_size // vae.tile_latent_min_size
    return count * height * width * factor**2 * next(vae.parameters()).dtype.itemsize
