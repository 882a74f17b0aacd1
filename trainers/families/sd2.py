"""Stable Diffusion 2.x: one OpenCLIP text encoder, read at its last layer but one; epsilon at 512, v at 768 pixels."""

import torch
from torch import Tensor, nn

from trainers.config import ModelConfig
from trainers.errors import UserError
from trainers.families import loading, openclip, text, unet
from trainers.families.base import Components, Conditioning, FamilySpec, told_nothing
from trainers.families.detect import Identity
from trainers.families.loading import EXCLAMATION, Source
from trainers.families.parts import UNET, VAE, Layout, clip
from trainers.families.weights import Weights

TEXT_PREFIX = "cond_stage_model.model."


def choose_variant(weights: Weights, found: Identity, config: ModelConfig) -> str:
    """sd2-768 or sd2-512. The weights of both look alike, so a file that does not say needs the setting."""
    prediction = found.prediction or config.prediction
    if prediction == "auto":
        raise UserError(
            f"{weights.name} does not say what it predicts, and Stable Diffusion 2.x comes in two kinds.",
            "Set model.prediction to v for a model of 768 pixels, or to epsilon for one of 512 (a -base model).",
        )
    return "sd2-768" if prediction == "v" else "sd2-512"


class Sd2:
    spec = FamilySpec(
        name="sd2",
        label="Stable Diffusion 2.x",
        native_resolution=768,
        text_prefixes=("lora_te",),
        denoiser_prefix="lora_unet",
        architectures={"epsilon": "stable-diffusion-v2-512", "v": "stable-diffusion-v2-768-v"},
        base_versions={"epsilon": "sd_v2", "v": "sd_v2_v"},
    )
    source = Source(
        Layout(UNET, VAE, (clip("text_encoder", TEXT_PREFIX),)),
        (EXCLAMATION,),
        define=lambda weights: openclip.define(weights, TEXT_PREFIX),
        variant=choose_variant,
        usual="sd2-768",
    )
    encode_image, decode_image = staticmethod(unet.encode_image), staticmethod(unet.decode_image)
    tokenize, token_counts = staticmethod(text.tokenize), staticmethod(text.token_counts)
    denoise = staticmethod(unet.denoise)
    sizes = staticmethod(told_nothing)

    def load(self, config: ModelConfig, dtype: torch.dtype, deferred: bool = False) -> Components:
        """Read the base from disk (or hub): UNet and text encoder in `dtype`, the VAE in fp32.

        Raises:
            UserError: the model is missing, damaged, of another kind, or at odds with the settings; or it is one file
                that does not say what it predicts, and neither do the settings.
        """
        return loading.load(self.spec, self.source, config, dtype, deferred)

    def random(self, dtype: torch.dtype) -> Components:
        """Components in the true shapes of Stable Diffusion 2.1, with random weights."""
        return loading.untrained(self.spec, self.source, dtype)

    def encode_text(
        self, text_encoders: tuple[nn.Module, ...], tokens: tuple[Tensor, ...], clip_skip: int
    ) -> Conditioning:
        return Conditioning(text.encode(text_encoders[0], tokens[0], clip_skip))


SD2 = Sd2()
