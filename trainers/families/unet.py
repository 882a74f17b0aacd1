"""What the families do alike: predict with a UNet, and turn pictures into latents and back."""

from torch import Tensor, nn

from trainers.families.base import Conditioning


def denoise(denoiser: nn.Module, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
    """noisy [B, C, h, w], timesteps [B] int64, embeds [B, L, D] -> prediction [B, C, h, w].

    SDXL's UNet is also told pooled [B, P] and time_ids [B, 6].
    """
    more = {}
    if conditioning.pooled is not None:
        more["added_cond_kwargs"] = {"text_embeds": conditioning.pooled, "time_ids": conditioning.time_ids}
    return denoiser(noisy, timesteps, encoder_hidden_states=conditioning.embeds, return_dict=False, **more)[0]


def encode_image(vae: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels [B, 3, H, W] in -1..1 -> posterior mean and logvar [B, C, h, w], unscaled, fp32."""
    posterior = vae.encode(pixels.to(vae.dtype), return_dict=False)[0]
    return posterior.mean.float(), posterior.logvar.float()


def decode_image(vae: nn.Module, latents: Tensor) -> Tensor:
    """Scaled latents [B, C, h, w] -> pixels [B, 3, H, W] in about -1..1 (not clamped)."""
    shift = vae.config.shift_factor or 0.0
    return vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor + shift, return_dict=False)[0]
