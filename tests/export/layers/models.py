"""The families' models in their true sizes, without memory (meta device), from configs written out here."""

import torch
from diffusers import SD3Transformer2DModel, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from trainers.adapters.targets import adaptable

XL_BLOCKS = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
}
XL_ADDED = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


def denoiser(base: str) -> nn.Module:
    with torch.device("meta"):
        if base == "sd15":
            return UNet2DConditionModel(cross_attention_dim=768)
        if base == "sd2":
            return UNet2DConditionModel(
                cross_attention_dim=1024, use_linear_projection=True, attention_head_dim=(5, 10, 20, 20)
            )
        if base == "sdxl":
            return UNet2DConditionModel(cross_attention_dim=2048, use_linear_projection=True, **XL_BLOCKS, **XL_ADDED)
        blocks = 38 if base == "3.5-large" else 24
        return SD3Transformer2DModel(
            num_layers=blocks,
            num_attention_heads=blocks,
            caption_projection_dim=64 * blocks,
            dual_attention_layers=tuple(range(13)) if base == "3.5-medium" else (),
        )


def text_encoders(base: str) -> list[nn.Module]:
    with torch.device("meta"):
        if base in ("sd15", "sd2"):
            return [CLIPTextModel(_clip(768, 12) if base == "sd15" else _clip(1024, 23))]
        first = CLIPTextModel if base == "sdxl" else CLIPTextModelWithProjection
        found = [first(_clip(768, 12)), CLIPTextModelWithProjection(_clip(1280, 32))]
        if base == "sdxl":
            return found
        t5 = T5Config(d_model=4096, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu")
        return [*found, T5EncoderModel(t5)]


def layers(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Path -> weight shape of every linear layer and convolution."""
    return {path: tuple(module.weight.shape) for path, module in model.named_modules() if adaptable(module)}


def _clip(width: int, depth: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=depth,
        num_attention_heads=width // 64,
        projection_dim=width,
    )
