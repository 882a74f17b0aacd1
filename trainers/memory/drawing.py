"""What drawing previews takes, counted without weights: to denoise some pictures together, to decode one."""

import torch

from trainers.families.base import Components, Family, plain_sizes
from trainers.memory.encoders import weight_bytes
from trainers.memory.hollow import emptied_model
from trainers.memory.meter import Meter
from trainers.memory.tiles import decoding_bytes, tile

META = torch.device("meta")
ROWS = 2  # of a picture in each pass: with its prompt and without


def denoised(
    family: Family, components: Components, latents: tuple[int, int], pictures: int, dtype: torch.dtype
) -> Meter:
    """One pass over so many pictures of so many latents (width, height)."""
    rows, (width, height), factor = ROWS * pictures, latents, components.latent.factor
    denoiser = emptied_model(components.denoiser, dtype)
    encoders = tuple(emptied_model(encoder, dtype) for encoder in components.text_encoders)
    tokens = tuple(ids.to(META) for ids in family.tokenize(components, ["a picture"] * rows))
    noisy = torch.empty(rows, components.latent.channels, height, width, device=META, dtype=dtype)
    sizes = plain_sizes(family, width * factor, height * factor, rows, META)
    with torch.no_grad():
        told = family.encode_text(encoders, tokens, 1).to(dtype).sized(sizes)
        with Meter() as meter:
            family.denoise(denoiser, noisy, torch.zeros(rows, dtype=torch.long, device=META), told)
    return meter


def decoded_bytes(
    family: Family, components: Components, latents: tuple[int, int], device: torch.device, space: float
) -> int:
    """To decode one picture of so many latents (width, height), with the VAE's weights: in tiles where `space` asks."""
    (width, height), vae = latents, components.vae
    shape, weights = (1, components.latent.channels, height, width), weight_bytes([vae])
    side = tile(family, vae, shape, space - weights, device)
    return weights + decoding_bytes(family, vae, shape, side, device)
