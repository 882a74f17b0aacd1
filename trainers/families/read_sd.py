"""Reads a Stable Diffusion model with a UNet into Components: from a diffusers folder or from one checkpoint file."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from trainers.errors import UserError
from trainers.families import ldm
from trainers.families.base import Components, LatentSpec
from trainers.families.detect import Identity, classify, identify, refuse
from trainers.families.folders import read_json, weight_files
from trainers.families.weights import Weights, build

log = logging.getLogger(__name__)
DEFAULT_SCALING = 0.18215  # configs of Stable Diffusion 1.x VAEs written before the key existed


@dataclass(frozen=True)
class Settings:
    """The configs of a pipeline's parts, as diffusers writes them, and its tokenizer."""

    unet: dict[str, Any]
    vae: dict[str, Any]
    text: dict[str, Any]
    scheduler: dict[str, Any]
    tokenizer: Any


def bundled(folder: Path, tokenizer: Path) -> Settings:
    """Settings from a folder of config files without weights."""
    parts = (read_json(folder / part / "config.json") for part in ("unet", "vae", "text_encoder"))
    return Settings(*parts, read_json(folder / "scheduler" / "scheduler_config.json"), _tokenizer(tokenizer))


def from_folder(folder: Path, dtype: torch.dtype) -> Components:
    """Components of a diffusers folder, whose parts bring their own settings."""
    settings = bundled(folder, folder / "tokenizer")
    unet = _unet(settings.unet, Weights(weight_files(folder / "unet")), ldm.same_names, dtype)
    vae = _vae(settings.vae, Weights(weight_files(folder / "vae")), ldm.folder_vae_names)
    encoder = _text(settings.text, Weights(weight_files(folder / "text_encoder")), ldm.text_names(""), dtype)
    return _components(settings, unet, vae, encoder, folder.name, folder)


def from_file(
    path: Path, settings: Settings, family: str, dtype: torch.dtype, with_vae: bool = True
) -> tuple[Components, Identity]:
    """Components of one checkpoint file in the original layout, and what its tensors say it is.

    Without `with_vae` the file's own VAE is skipped, and the caller puts another in its place.
    """
    weights = Weights([path])
    found = classify(weights.shapes, weights.metadata)
    refuse(found, path.name, family)
    unet = _unet(settings.unet, weights, ldm.unet_names(settings.unet), dtype)
    vae = _vae(settings.vae, weights, ldm.vae_names(settings.vae)) if with_vae else nn.Module()
    encoder = _text(settings.text, weights, ldm.text_names(), dtype)
    if not with_vae:
        weights.taken |= {name for name in weights if name.startswith(ldm.VAE_PREFIX)}
    left = sorted(name for name in weights if name not in weights.taken and not ldm.is_extra(name))
    if left:
        shown = ", ".join(left[:5]) + (", ..." if len(left) > 5 else "")
        log.warning("%s holds %d tensors that no part of the model uses: %s", path.name, len(left), shown)
    return _components(settings, unet, vae, encoder, path.name, path), found


def replace_vae(components: Components, path: Path, configs: Path) -> None:
    """Put another VAE in place: a .safetensors file in either layout, a VAE folder, or a pipeline folder with one."""
    if not path.exists():
        raise UserError(
            f"There is no VAE at {path}.", "model.vae takes a VAE file or folder; empty means the base's own."
        )
    if path.is_dir():
        folder = path / "vae" if (path / "vae" / "config.json").is_file() else path
        config, weights, names = read_json(folder / "config.json"), None, ldm.folder_vae_names
        if config.get("_class_name") != "AutoencoderKL":
            raise UserError(
                f"{path} holds no VAE.", "Choose a VAE file, or a folder whose config.json names AutoencoderKL."
            )
        weights = Weights(weight_files(folder))
    else:
        config, weights = read_json(configs / "vae" / "config.json"), _vae_file(path)
        layout = classify(weights.shapes).layout
        names = ldm.vae_names(config, (ldm.VAE_PREFIX, "")) if layout == "ldm" else ldm.folder_vae_names
    vae = _vae(config, weights, names)
    latent, own = _latent(vae.config), components.latent
    if (latent.channels, latent.factor) != (own.channels, own.factor):
        raise UserError(
            f"The VAE {path.name} makes latents of another shape than {components.name} works on.",
            "Choose a VAE made for this base, or empty model.vae.",
        )
    components.vae, components.latent = vae, latent


def untrained(settings: Settings, dtype: torch.dtype) -> Components:
    """Random weights in the shapes that the settings give."""
    unet = random_module(lambda: _make_unet(settings.unet), dtype)
    vae = random_module(lambda: _make_vae(settings.vae), torch.float32)
    encoder = random_module(lambda: _make_text(settings.text), dtype)
    return _components(settings, unet, vae, encoder, "random weights", None)


def random_module(make: Callable[[], nn.Module], dtype: torch.dtype, seed: int = 0) -> nn.Module:
    """A frozen module whose matrices are 0.02 times the same block of normal numbers over and over, biases 0, norms 1.

    A full-size UNet takes a second this way, where drawing each number takes a minute.
    """
    block = torch.randn(1_000_003, generator=torch.Generator().manual_seed(seed)).mul_(0.02).to(dtype)
    with torch.device("meta"):
        module = make()
    nn.Module.to(module.to_empty(device="cpu"), dtype)  # diffusers' own `to` warns about each change of dtype
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            flat = parameter.data.view(-1)
            for start in range(0, len(flat), len(block)):
                piece = flat[start : start + len(block)]
                piece.copy_(block[: len(piece)])
        else:
            parameter.data.fill_(1.0 if name.endswith("weight") else 0.0)
    for buffer in module.buffers():
        buffer.copy_(torch.arange(buffer.shape[-1]).expand(buffer.shape))  # CLIP's position numbers, its only buffer
    return module.requires_grad_(False).eval()


def _vae_file(path: Path) -> Weights:
    identity = identify(path)
    weights = Weights([path])
    identity = classify(weights.shapes) if identity.kind == "pickle" else identity
    if identity.kind not in ("VAE", "base"):
        raise UserError(f"{path.name} is a {identity.label}, not a VAE.", "Choose a VAE file, or empty model.vae.")
    return weights


def _make_unet(config: dict) -> nn.Module:
    return UNet2DConditionModel.from_config(config)


def _make_vae(config: dict) -> nn.Module:
    return AutoencoderKL.from_config({"scaling_factor": DEFAULT_SCALING, **config})


def _make_text(config: dict) -> nn.Module:
    return CLIPTextModel(CLIPTextConfig.from_dict(config))


def _unet(config: dict, weights: Weights, names: ldm.Names, dtype: torch.dtype) -> nn.Module:
    return build(lambda: _make_unet(config), weights, names, dtype, "UNet")


def _vae(config: dict, weights: Weights, names: ldm.Names) -> nn.Module:
    # fp32 always: it is small, used once, and fp16 VAEs of some bases overflow
    return build(lambda: _make_vae(config), weights, names, torch.float32, "VAE")


def _text(config: dict, weights: Weights, names: ldm.Names, dtype: torch.dtype) -> nn.Module:
    return build(lambda: _make_text(config), weights, names, dtype, "text encoder")


def _tokenizer(folder: Path) -> CLIPTokenizer:
    names = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    if "tokenizer.json" not in names and not {"vocab.json", "merges.txt"} <= names:
        raise UserError(
            f"{folder} lacks the tokenizer's vocabulary.", "Copy or download the model folder again, whole."
        )
    try:
        return CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"The tokenizer in {folder} cannot be read.", "Copy or download the model folder again."
        ) from error


def _latent(config: Mapping[str, Any]) -> LatentSpec:
    scaling = config.get("scaling_factor", DEFAULT_SCALING)
    return LatentSpec(config["latent_channels"], 2 ** (len(config["block_out_channels"]) - 1), scaling)


def _components(
    settings: Settings, unet: nn.Module, vae: nn.Module, encoder: nn.Module, name: str, path: Path | None
) -> Components:
    latent = _latent(vae.config if isinstance(vae, AutoencoderKL) else settings.vae)  # else `replace_vae` brings one
    return Components(
        denoiser=unet,
        vae=vae,
        text_encoders=(encoder,),
        tokenizers=(settings.tokenizer,),
        scheduler={k: v for k, v in settings.scheduler.items() if not k.startswith("_")},
        latent=latent,
        resolution=unet.config.sample_size * latent.factor,
        multiple=2 ** (len(unet.config.block_out_channels) - 1),
        name=name,
        path=path,
    )
