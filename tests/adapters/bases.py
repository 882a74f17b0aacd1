"""Small random Components for tests of adapters."""

import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from tests.tiny import tiny_text_encoder, tiny_unet
from trainers.families.base import Components, LatentSpec


def tiny_components(dtype: torch.dtype = torch.float32, seed: int = 0) -> Components:
    """UNet and text encoder of width 16, frozen."""
    torch.manual_seed(seed)
    return components_of(torch.nn.Module.to(tiny_unet(), dtype), tiny_text_encoder(600).to(dtype))


def full_size_components() -> Components:
    """Stable Diffusion 1.5's own sizes, without memory (meta device)."""
    with torch.device("meta"):
        text = CLIPTextConfig(
            hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, projection_dim=768
        )
        return components_of(UNet2DConditionModel(cross_attention_dim=768), CLIPTextModel(text))


def components_of(unet: torch.nn.Module, text: torch.nn.Module) -> Components:
    for model in (unet, text):
        model.requires_grad_(False).eval()
    return Components(unet, torch.nn.Identity(), (text,), (), {}, LatentSpec(4, 2, 1.0), 16, 2, "tiny", None)


def predict(components: Components, seed: int = 7) -> torch.Tensor:
    """The denoiser's prediction for fixed noise, read from the text encoder's output: both parts take part."""
    generator = torch.Generator().manual_seed(seed)
    dtype = components.denoiser.dtype
    tokens = torch.randint(0, 500, (2, 24), generator=generator)
    noisy = torch.randn(2, 4, 8, 8, generator=generator).to(dtype)
    embeds = components.text_encoders[0](tokens).last_hidden_state
    return components.denoiser(noisy, torch.tensor([10, 700]), embeds, return_dict=False)[0]


@torch.no_grad()
def trained(adapter, seed: int = 3, size: float = 0.05) -> None:
    """Give `up` random values, as after some training."""
    generator = torch.Generator().manual_seed(seed)
    for layer in adapter.layers.values():
        up = layer.lora_B["default"].weight
        up.copy_(torch.randn(up.shape, generator=generator) * size)


@torch.no_grad()
def stirred(adapter, seed: int = 3, size: float = 0.05) -> None:
    """Move every trained tensor at random, whatever the type."""
    generator = torch.Generator().manual_seed(seed)
    for _, _, parameter in adapter.trained():
        parameter.add_(torch.randn(parameter.shape, generator=generator) * size)
