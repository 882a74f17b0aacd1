"""What encoding takes: the VAE comes for the pictures and goes, text encoders for the captions."""

from collections.abc import Iterable

import torch
from torch import nn

from trainers.config import TrainConfig
from trainers.families.base import Components, Family
from trainers.memory.hollow import emptied_model
from trainers.memory.meter import Meter
from trainers.stores import TOGETHER

META = torch.device("meta")


def picture_bytes(family: Family, components: Components, config: TrainConfig, device: torch.device) -> int:
    """To encode one picture of the training resolution: more of them at once are halved until they fit.

    Of a process that did so with Stable Diffusion 1.5's on a CPU, with `decide.beside`: 9 % too little at 256 px,
    6 % too little to 3 % too much at 512 to 768.
    """
    side = components.side(config.data.resolution or components.resolution) * components.latent.factor
    vae = emptied_model(components.vae, next(components.vae.parameters()).dtype)
    pixels = torch.empty(1, 3, side, side, device=META)
    with torch.no_grad(), Meter() as meter:
        family.encode_image(vae, pixels)
    on_cpu = device.type == "cpu"  # where convolutions put what they read in an order of their own
    copied = meter.largest if on_cpu else 0
    return weight_bytes([vae]) + meter.peak + copied


def caption_bytes(family: Family, components: Components, config: TrainConfig, dtype: torch.dtype) -> int:
    """To encode as many captions as a run does at once, by encoders in `dtype`."""
    encoders = tuple(emptied_model(encoder, dtype) for encoder in components.text_encoders)
    tokens = tuple(ids.to(META) for ids in family.tokenize(components, ["a picture"] * TOGETHER))
    with torch.no_grad(), Meter() as meter:
        family.encode_text(encoders, tokens, config.model.clip_skip)
    return weight_bytes(encoders) + meter.peak


def weight_bytes(models: Iterable[nn.Module]) -> int:
    return sum(weight.numel() * weight.element_size() for model in models for weight in model.parameters())
