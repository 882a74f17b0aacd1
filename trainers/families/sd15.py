"""Stable Diffusion 1.x: one CLIP text encoder, a UNet of any size, epsilon or v prediction."""

import logging
from pathlib import Path

import torch
from torch import Tensor, nn

from trainers.config import ModelConfig
from trainers.errors import UserError
from trainers.families import read_sd, text, unet
from trainers.families.base import Components, Conditioning, FamilySpec
from trainers.families.detect import Identity, require_family
from trainers.families.locate import expand, locate, name_of

log = logging.getLogger(__name__)
CONFIGS = Path(__file__).parent / "configs"


class Sd15:
    spec = FamilySpec(
        name="sd15",
        label="Stable Diffusion 1.x",
        native_resolution=512,
        text_prefixes=("lora_te",),
        denoiser_prefix="lora_unet",
        architecture="stable-diffusion-v1",
        base_version="sd_v1",
        trains_text=True,
    )

    def load(self, config: ModelConfig, dtype: torch.dtype) -> Components:
        """Read the base from disk (or hub): UNet and text encoder in `dtype`, the VAE in fp32.

        Raises:
            UserError: the model is missing, damaged, of another kind, or at odds with the settings.
        """
        path = locate(config.base)
        name = name_of(config.base, path)
        found = require_family(path, self.spec.name, name)
        if path.is_dir():
            components = read_sd.from_folder(path, dtype)
        else:
            settings = read_sd.bundled(CONFIGS / "sd15", CONFIGS / "clip_tokenizer")
            components, found = read_sd.from_file(path, settings, self.spec.name, dtype, with_vae=not config.vae)
        components.name = name
        if config.vae:
            read_sd.replace_vae(components, expand(config.vae), CONFIGS / "sd15")
        components.scheduler = _with_prediction(components.scheduler, found, config, components.name)
        _check_clip_skip(components, config.clip_skip)
        return components

    def random(self, dtype: torch.dtype) -> Components:
        """Components in the true shapes of Stable Diffusion 1.5, with random weights: for benchmarks and tests."""
        return read_sd.untrained(read_sd.bundled(CONFIGS / "sd15", CONFIGS / "clip_tokenizer"), dtype)

    def encode_image(self, vae: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return unet.encode_image(vae, pixels)

    def tokenize(self, components: Components, captions: list[str]) -> tuple[Tensor, ...]:
        tokenizer, encoder = components.tokenizers[0], components.text_encoders[0]
        return (text.tokenize(tokenizer, captions, text.caption_length(tokenizer, encoder)),)

    def token_counts(self, components: Components, captions: list[str]) -> tuple[list[int], int]:
        tokenizer, encoder = components.tokenizers[0], components.text_encoders[0]
        return text.token_counts(tokenizer, captions), text.caption_length(tokenizer, encoder)

    def encode_text(
        self, text_encoders: tuple[nn.Module, ...], tokens: tuple[Tensor, ...], clip_skip: int
    ) -> Conditioning:
        return Conditioning(text.encode(text_encoders[0], tokens[0], clip_skip))

    def denoise(self, denoiser: nn.Module, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        return unet.denoise(denoiser, noisy, timesteps, conditioning)

    def decode_image(self, vae: nn.Module, latents: Tensor) -> Tensor:
        return unet.decode_image(vae, latents)


SD15 = Sd15()


def _with_prediction(scheduler: dict, found: Identity, config: ModelConfig, name: str) -> dict:
    """The scheduler config with the prediction type that model and settings agree on."""
    wish = "" if config.prediction == "auto" else config.prediction
    if wish and found.prediction and wish != found.prediction:
        raise UserError(
            f"model.prediction is {wish}, but {name} says that it predicts {found.prediction}.",
            "Set model.prediction to auto.",
        )
    prediction = wish or found.prediction or "epsilon"
    scheduler = {**scheduler, "prediction_type": "v_prediction" if prediction == "v" else "epsilon"}
    if found.zero_terminal_snr:
        scheduler |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return scheduler


def _check_clip_skip(components: Components, clip_skip: int) -> None:
    layers = components.text_encoders[0].config.num_hidden_layers
    if clip_skip > layers:
        raise UserError(
            f"model.clip_skip is {clip_skip}, but the text encoder has {layers} layers.", "Set it to 1 or 2."
        )
