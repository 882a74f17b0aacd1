"""Stable Diffusion XL and what is built on it: two text encoders, a UNet that is told the picture's sizes."""

import torch
from torch import Tensor, nn

from trainers.config import ModelConfig
from trainers.families import loading, openclip, text, unet
from trainers.families.base import Components, Conditioning, FamilySpec, Size
from trainers.families.loading import END_OF_TEXT, EXCLAMATION, Source
from trainers.families.parts import UNET, VAE, Layout, clip

CLIP_L, OPENCLIP = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."


class Sdxl:
    spec = FamilySpec(
        name="sdxl",
        label="Stable Diffusion XL",
        native_resolution=1024,
        text_prefixes=("lora_te1", "lora_te2"),
        denoiser_prefix="lora_unet",
        architectures={"": "stable-diffusion-xl-v1-base"},
        base_versions={"": "sdxl_base_v1-0"},
        implementation="https://github.com/Stability-AI/generative-models",
        pooled=True,
        embedding_keys=("clip_l", "clip_g"),
        unheard={"text_0": r"layers\.(\d+)\."},  # of CLIP-L the last layer but one is read
    )
    source = Source(
        Layout(UNET, VAE, (clip("text_encoder", CLIP_L), clip("text_encoder_2", OPENCLIP, projected=True))),
        (END_OF_TEXT, EXCLAMATION),
        define=lambda weights: openclip.define(weights, OPENCLIP),
    )
    encode_image, decode_image = staticmethod(unet.encode_image), staticmethod(unet.decode_image)
    tokenize, token_counts = staticmethod(text.tokenize), staticmethod(text.token_counts)
    denoise = staticmethod(unet.denoise)

    def load(self, config: ModelConfig, dtype: torch.dtype, deferred: bool = False) -> Components:
        """Read the base from disk (or hub): UNet and text encoders in `dtype`, the VAE in fp32.

        Raises:
            UserError: the model is missing, damaged, of another kind, or at odds with the settings.
        """
        return loading.load(self.spec, self.source, config, dtype, deferred)

    def random(self, dtype: torch.dtype) -> Components:
        """Components in the true shapes of SDXL 1.0, with random weights."""
        return loading.untrained(self.spec, self.source, dtype)

    def encode_text(
        self, text_encoders: tuple[nn.Module, ...], tokens: tuple[Tensor, ...], clip_skip: int
    ) -> Conditioning:
        """Both encoders' last layers but one side by side [B, L, 768 + 1280], and the second's projection [B, 1280]."""
        (first, _), (second, pooled) = (
            text.encode_penultimate(encoder, ids, clip_skip) for encoder, ids in zip(text_encoders, tokens, strict=True)
        )
        return Conditioning(torch.cat([first, second], dim=-1), pooled)

    def sizes(self, original: Size, top_left: Size, target: Size) -> tuple[int, ...]:
        """[Podell et al. 2023, section 2.2]."""
        return (*original, *top_left, *target)


SDXL = Sdxl()
