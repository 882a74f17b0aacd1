"""A Stable Diffusion model of any family as Components: from a diffusers folder or from one checkpoint file.

Headers and settings are read and checked; the weights stay on disk until `residence.bring` wants them.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainers.errors import UserError
from trainers.families import ldm
from trainers.families.base import Components, LatentSpec
from trainers.families.detect import Identity, classify, identify, refuse
from trainers.families.folders import read_json, weight_files
from trainers.families.parts import DEFAULT_SCALING, VAE, Layout, Part, random_module
from trainers.families.weights import Weights, prepare
from trainers.libraries import transformers

log = logging.getLogger(__name__)
TOKENIZER = Path(__file__).parent / "configs" / "clip_tokenizer"


@dataclass(frozen=True)
class Settings:
    """The configs of a pipeline's parts by folder, as diffusers writes them, and its tokenizers in their order."""

    configs: Mapping[str, dict[str, Any]]
    scheduler: dict[str, Any]
    tokenizers: tuple[Any, ...]


def bundled(layout: Layout, folder: Path, padding: tuple[str, ...]) -> Settings:
    """Settings from a folder of config files without weights; `padding`: the pad token of each tokenizer."""
    tokenizers = tuple(transformers.CLIPTokenizer.from_pretrained(str(TOKENIZER), pad_token=token) for token in padding)
    return Settings(_configs(layout, folder), _scheduler(folder), tokenizers)


def from_folder(layout: Layout, folder: Path, dtype: torch.dtype) -> Components:
    """Components of a diffusers folder, whose parts bring their own settings."""
    tokenizers = tuple(_tokenizer(folder / name) for name in layout.tokenizers)
    settings = Settings(_configs(layout, folder), _scheduler(folder), tokenizers)
    models = [
        _prepare(part, settings, Weights(weight_files(folder / part.folder)), part.in_folder, dtype)
        for part in layout.parts
    ]
    return _components(settings, models, folder.name, folder)


def from_file(
    layout: Layout,
    weights: Weights,
    choose: Callable[[Weights, Identity], Settings],
    family: str,
    dtype: torch.dtype,
    define: Callable[[Weights], None] = lambda _: None,
    without: tuple[Part, ...] = (),
) -> tuple[Components, Identity]:
    """Components of one checkpoint in the original layout, and what its tensors say it is.

    Args:
        choose: the settings for a checkpoint with these tensors.
        define: gives tensors that the file holds in another shape the names that the parts know.
        without: parts that the caller puts in place; the file's own are passed over.
    """
    path = weights.files[0]
    found = classify(weights.shapes, weights.metadata)
    refuse(found, path.name, family)
    settings = choose(weights, found)
    define(weights)
    models = []
    for part in layout.parts:
        names = part.in_file(settings.configs[part.folder])
        if part in without:
            weights.taken |= {name for name in weights if name.startswith(ldm.VAE_PREFIX)} if part is VAE else set()
            models.append(nn.Module())
        else:
            models.append(_prepare(part, settings, weights, names, dtype))
    left = sorted(name for name in weights if name not in weights.taken and not ldm.is_extra(name))
    if left:
        shown = ", ".join(left[:5]) + (", ..." if len(left) > 5 else "")
        log.warning("%s holds %d tensors that no part of the model uses: %s", path.name, len(left), shown)
    return _components(settings, models, path.name, path), found


def untrained(layout: Layout, settings: Settings, dtype: torch.dtype) -> Components:
    """Random weights in the shapes that the settings give."""
    models = [
        random_module(lambda part=part: part.make(settings.configs[part.folder]), _dtype(part, dtype))
        for part in layout.parts
    ]
    return _components(settings, models, "random weights", None)


def without_weights(layout: Layout, settings: Settings, dtype: torch.dtype) -> Components:
    """Modules on the meta device in the shapes that the settings give."""
    with torch.device("meta"):
        models = [part.make(settings.configs[part.folder]) for part in layout.parts]
    typed = zip(layout.parts, models, strict=True)
    models = [nn.Module.to(model, _dtype(part, dtype)).eval().requires_grad_(False) for part, model in typed]
    return _components(settings, models, "no weights", None)


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
    vae = prepare(lambda: VAE.make(config), weights, names, torch.float32, VAE.label)
    latent, own = _latent(vae.config), components.latent
    if (latent.channels, latent.factor) != (own.channels, own.factor):
        raise UserError(
            f"The VAE {path.name} makes latents of another shape than {components.name} works on.",
            "Choose a VAE made for this base, or empty model.vae.",
        )
    components.vae, components.latent = vae, latent


def _prepare(part: Part, settings: Settings, weights: Weights, names: ldm.Names, dtype: torch.dtype) -> nn.Module:
    config = settings.configs[part.folder]
    return prepare(lambda: part.make(config), weights, names, _dtype(part, dtype), part.label)


def _dtype(part: Part, dtype: torch.dtype) -> torch.dtype:
    """The VAE is fp32 always: it is small, used once, and fp16 VAEs of some bases overflow (SDXL's does)."""
    return torch.float32 if part is VAE else dtype


def _vae_file(path: Path) -> Weights:
    identity = identify(path)
    weights = Weights([path])
    identity = classify(weights.shapes) if identity.kind == "pickle" else identity
    if identity.kind not in ("VAE", "base") and not identity.lacks_text:
        raise UserError(f"{path.name} is a {identity.label}, not a VAE.", "Choose a VAE file, or empty model.vae.")
    return weights


def _configs(layout: Layout, folder: Path) -> dict[str, dict[str, Any]]:
    return {part.folder: read_json(folder / part.folder / "config.json") for part in layout.parts}


def _scheduler(folder: Path) -> dict[str, Any]:
    found = read_json(folder / "scheduler" / "scheduler_config.json")
    return {key: value for key, value in found.items() if not key.startswith("_")}


def _tokenizer(folder: Path) -> transformers.CLIPTokenizer:
    names = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    if "tokenizer.json" not in names and not {"vocab.json", "merges.txt"} <= names:
        raise UserError(
            f"{folder} lacks the tokenizer's vocabulary.", "Copy or download the model folder again, whole."
        )
    try:
        return transformers.CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"The tokenizer in {folder} cannot be read.", "Copy or download the model folder again."
        ) from error


def _latent(config: Mapping[str, Any]) -> LatentSpec:
    scaling, shift = config.get("scaling_factor", DEFAULT_SCALING), config.get("shift_factor") or 0.0
    return LatentSpec(config["latent_channels"], 2 ** (len(config["block_out_channels"]) - 1), scaling, shift)


def _components(settings: Settings, models: list[nn.Module], name: str, path: Path | None) -> Components:
    denoiser, vae, *encoders = models
    latent = _latent(vae.config if hasattr(vae, "config") else settings.configs["vae"])  # else `replace_vae` brings one
    halvings = len(denoiser.config.block_out_channels) - 1 if "block_out_channels" in denoiser.config else None
    return Components(
        denoiser=denoiser,
        vae=vae,
        text_encoders=tuple(encoders),
        tokenizers=settings.tokenizers,
        scheduler=dict(settings.scheduler),
        latent=latent,
        resolution=denoiser.config.sample_size * latent.factor,
        multiple=denoiser.config.patch_size if halvings is None else 2**halvings,
        name=name,
        path=path,
    )
