"""Stable Diffusion 1.x: one CLIP text encoder, a UNet of any size, epsilon or v prediction."""

import torch
from torch import Tensor, nn

from trainers.config import ModelConfig
from trainers.families import loading, text, unet
from trainers.families.base import Components, Conditioning, FamilySpec, told_nothing
from trainers.families.ldm import TEXT_PREFIX
from trainers.families.loading import END_OF_TEXT, Source
from trainers.families.parts import UNET, VAE, Layout, clip


class Sd15:
    spec = FamilySpec(
        name="sd15",
        label="Stable Diffusion 1.x",
        native_resolution=512,
        text_prefixes=("lora_te",),
        denoiser_prefix="lora_unet",
        architectures={"": "stable-diffusion-v1"},
        base_versions={"epsilon": "sd_v1", "v": "sd_v1_v"},
    )
    source = Source(Layout(UNET, VAE, (clip("text_encoder", TEXT_PREFIX),)), (END_OF_TEXT,))
    encode_image, decode_image = staticmethod(unet.encode_image), staticmethod(unet.decode_image)
    tokenize, token_counts = staticmethod(text.tokenize), staticmethod(text.token_counts)
    denoise = staticmethod(unet.denoise)
    sizes = staticmethod(told_nothing)

    def load(self, config: ModelConfig, dtype: torch.dtype, deferred: bool = False) -> Components:
        """Read the base from disk (or hub): UNet and text encoder in `dtype`, the VAE in fp32.

        Raises:
            UserError: the model is missing, damaged, of another kind, or at odds with the settings.
        """
        return loading.load(self.spec, self.source, config, dtype, deferred)

    def random(self, dtype: torch.dtype) -> Components:
        """Components in the true shapes of Stable Diffusion 1.5, with random weights: for benchmarks and tests."""
        return loading.untrained(self.spec, self.source, dtype)

    def encode_text(
        self, text_encoders: tuple[nn.Module, ...], tokens: tuple[Tensor, ...], clip_skip: int
    ) -> Conditioning:
        return Conditioning(text.encode(text_encoders[0], tokens[0], clip_skip))


SD15 = Sd15()
