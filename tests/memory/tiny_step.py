"""Tiny real denoisers with an adapter on them, and what one forward and backward pass gives."""

from pathlib import Path

import torch
from torch import Tensor

from tests.tiny import tiny_pipeline_folder
from tests.tiny_families import tiny_folder
from trainers.adapters.adapter import Adapter
from trainers.adapters.registry import ADAPTERS
from trainers.config import AdapterConfig, ModelConfig
from trainers.families.base import Components, Conditioning, Family, plain_sizes
from trainers.families.registry import FAMILIES


def folder_of(family: str, path: Path) -> Path:
    return tiny_pipeline_folder(path) if family == "sd15" else tiny_folder(family, path)


def loaded(family: str, folder: Path, **adapter: object) -> tuple[Family, Components, Adapter]:
    """In fp32, with an adapter as `adapted` puts it."""
    kind = FAMILIES[family]
    components = kind.load(ModelConfig(base=str(folder), family=family), torch.float32)
    return adapted(kind, components, **adapter)


def adapted(family: Family, components: Components, **settings: object) -> tuple[Family, Components, Adapter]:
    """With an adapter on them whose second matrices are away from zero, in training: dropout is on where it is set."""
    made = ADAPTERS[settings.get("type", "lora")](components, family.spec, AdapterConfig(rank=4, **settings), 1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for _, _, weight in made.trained():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.02)
    made.train()
    return family, components, made


def told(family: Family, components: Components, batch: int = 2) -> Conditioning:
    with torch.no_grad():
        told = family.encode_text(components.text_encoders, family.tokenize(components, ["a cat"] * batch), 1)
    return told.sized(plain_sizes(family, 16, 16, batch, torch.device("cpu")))


def gradients(
    family: Family, components: Components, adapter: Adapter, text: Conditioning | None = None
) -> list[Tensor | None]:
    """[the prediction, every gradient of the adapter's denoiser layers], which are then dropped."""
    generator = torch.Generator().manual_seed(3)
    latents = torch.randn(2, components.latent.channels, 8, 8, generator=generator)
    torch.manual_seed(4)
    text = text or told(family, components)
    prediction = family.denoise(components.denoiser, latents, torch.tensor([7, 400]), text)
    prediction.pow(2).mean().backward()
    found = [prediction.detach(), *(p.grad for p in adapter.denoiser_parameters())]
    for parameter in adapter.denoiser_parameters():
        parameter.grad = None
    return found
