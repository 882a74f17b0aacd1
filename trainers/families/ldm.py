"""Tensor names of the original latent-diffusion checkpoints, derived from the names of our modules.

Source: CompVis/stable-diffusion `ldm/modules/diffusionmodules/{openaimodel,model}.py`. It counts every layer of the
UNet in one list of input and one of output blocks; diffusers nests them as blocks of resnets and attentions. Each
function takes the name a tensor has in a diffusers module and gives the names it may have in a file, likeliest first.
"""

from collections.abc import Callable

Names = Callable[[str], tuple[str, ...]]

UNET_PREFIX, VAE_PREFIX, TEXT_PREFIX = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."

UNET_TOP = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",  # SDXL: of the pooled text and the sizes
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
UNET_MIDDLE = {"resnets.0": "middle_block.0", "attentions.0": "middle_block.1", "resnets.1": "middle_block.2"}
UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
VAE_ATTENTION = {  # this name, LDM's name, the name in diffusers folders written before 0.17
    "group_norm": ("norm", "group_norm"),
    "to_q": ("q", "query"),
    "to_k": ("k", "key"),
    "to_v": ("v", "value"),
    "to_out.0": ("proj_out", "proj_attn"),
}


def unet_names(config: dict, prefix: str = UNET_PREFIX) -> Names:
    """Names for a UNet2DConditionModel with this diffusers config."""
    layers = config["layers_per_block"]
    attends = ["CrossAttn" in kind for kind in config["up_block_types"]]

    def names(name: str) -> tuple[str, ...]:
        return (prefix + _unet_name(name, layers, attends),)

    return names


def vae_names(config: dict, prefixes: tuple[str, ...] = (VAE_PREFIX,)) -> Names:
    """Names for an AutoencoderKL with this diffusers config; a VAE file of its own has no prefix."""
    last = len(config["block_out_channels"]) - 1

    def names(name: str) -> tuple[str, ...]:
        return tuple(prefix + _vae_name(name, last) for prefix in prefixes)

    return names


def text_names(prefix: str = TEXT_PREFIX) -> Names:
    """Names for a CLIPTextModel: with the level `text_model.`, as most files have it, and without."""

    def names(name: str) -> tuple[str, ...]:
        bare = name.removeprefix("text_model.")  # transformers 4 has that level in its modules, 5 has not
        return (f"{prefix}text_model.{bare}", prefix + bare)

    return names


def same_names(name: str) -> tuple[str, ...]:
    """Names in a diffusers folder: the module's own."""
    return (name,)


def folder_vae_names(name: str) -> tuple[str, ...]:
    """Names in a diffusers VAE folder: the module's own, or those of old versions."""
    for new, (_, old) in VAE_ATTENTION.items():
        if f".attentions.0.{new}." in name:
            return (name, name.replace(f".attentions.0.{new}.", f".attentions.0.{old}."))
    return (name,)


def is_extra(name: str) -> bool:
    """Whether a checkpoint may hold this besides the three models: training leftovers, tables, marks."""
    return (
        "." not in name  # betas, alphas_cumprod, logvar, v_pred, ztsnr, ...
        or name.startswith(("model_ema.", f"{VAE_PREFIX}loss.", "loss.", "optimizer", "callbacks", "denoiser."))
        or name.startswith("cond_stage_model.model.transformer.resblocks.23.")  # SD 2 reads the layer before
        or name.endswith((".position_ids", "logit_scale", ".text_projection", ".text_projection.weight", ".scaled_fp8"))
    )


def _unet_name(name: str, layers: int, attends: list[bool]) -> str:
    module, _, leaf = name.rpartition(".")
    if module in UNET_TOP:
        return f"{UNET_TOP[module]}.{leaf}"
    if name.startswith("mid_block."):
        place = ".".join(name.split(".")[1:3])
        return _inside_unet(UNET_MIDDLE[place], place, name.split(".", 3)[3])
    side, block, kind, layer, rest = name.split(".", 4)
    block, layer = int(block), int(layer)
    if side == "down_blocks":
        if kind == "downsamplers":
            return f"input_blocks.{(layers + 1) * (block + 1)}.0.{rest.replace('conv', 'op', 1)}"
        return _inside_unet(f"input_blocks.{(layers + 1) * block + layer + 1}.{_part(kind)}", kind, rest)
    if kind == "upsamplers":  # the last member of the block's last entry
        return f"output_blocks.{(layers + 1) * block + layers}.{2 if attends[block] else 1}.{rest}"
    return _inside_unet(f"output_blocks.{(layers + 1) * block + layer}.{_part(kind)}", kind, rest)


def _part(kind: str) -> int:
    return 0 if kind == "resnets" else 1


def _inside_unet(place: str, kind: str, rest: str) -> str:
    if kind.startswith("resnets"):
        module, _, leaf = rest.rpartition(".")
        rest = f"{UNET_RESNET[module]}.{leaf}"
    return f"{place}.{rest}"


def _vae_name(name: str, last: int) -> str:
    parts = name.split(".")
    if parts[0] not in ("encoder", "decoder") or parts[1] in ("conv_in", "conv_out"):
        return name  # quant_conv, post_quant_conv, conv_in, conv_out
    side, place = parts[0], parts[1]
    if place == "conv_norm_out":
        return f"{side}.norm_out.{parts[2]}"
    if place == "mid_block":
        rest = ".".join(parts[4:])
        if parts[2] == "resnets":
            return f"{side}.mid.block_{int(parts[3]) + 1}.{_vae_resnet(rest)}"
        module, _, leaf = rest.rpartition(".")
        return f"{side}.mid.attn_1.{VAE_ATTENTION[module][0]}.{leaf}"
    level = int(parts[2]) if side == "encoder" else last - int(parts[2])  # LDM counts levels from the picture inwards
    way = "down" if side == "encoder" else "up"
    rest = ".".join(parts[5:])
    if parts[3] == "resnets":
        return f"{side}.{way}.{level}.block.{parts[4]}.{_vae_resnet(rest)}"
    return f"{side}.{way}.{level}.{way}sample.{rest}"


def _vae_resnet(rest: str) -> str:
    return rest.replace("conv_shortcut", "nin_shortcut", 1)
