"""Tiny base models of every family, random adapters for them, and what they predict."""

from pathlib import Path

import torch
from torch import Tensor

from tests.tiny import tiny_pipeline_folder, write_ldm_file
from tests.tiny_families import tiny_folder, write_checkpoint
from trainers.adapters.adapter import Place
from trainers.adapters.adapter_file import apply_file, module_shapes
from trainers.adapters.weights import DoraWeights, LohaWeights, LokrWeights, LoraWeights, Weights
from trainers.config import ModelConfig
from trainers.export.writer import write
from trainers.families.base import Components, plain_sizes
from trainers.families.registry import FAMILIES

NAMES = tuple(FAMILIES)
BLOCKS = ("down_blocks.", "mid_block.", "up_blocks.", "transformer_blocks.", "encoder.layers.", "text_model.encoder.")
Modules = dict[Place, Weights]


def make_folder(family: str, path: Path) -> Path:
    return tiny_pipeline_folder(path) if family == "sd15" else tiny_folder(family, path, true_width=True)


def make_file(family: str, folder: Path, path: Path) -> Path:
    return write_ldm_file(folder, path) if family == "sd15" else write_checkpoint(family, folder, path)


def load(family: str, base: Path) -> Components:
    prediction = "v" if family == "sd2" else "auto"  # a checkpoint file does not say it
    return FAMILIES[family].load(ModelConfig(base=str(base), prediction=prediction), torch.float32)


def shapes_of(components: Components) -> dict[Place, tuple[int, ...]]:
    """Every layer that an adapter of any program sits on."""
    return {place: shape for place, shape in module_shapes(components).items() if place[1].startswith(BLOCKS)}


def random_modules(shapes: dict[Place, tuple[int, ...]], rank: int = 2, seed: int = 0, alpha: float = 1.5) -> Modules:
    draw = torch.Generator().manual_seed(seed)
    return {place: random_lora(shape, rank, draw, alpha) for place, shape in shapes.items()}


def random_lora(shape: tuple[int, ...], rank: int, draw: torch.Generator, alpha: float = 1.5) -> LoraWeights:
    down = torch.randn((rank, *shape[1:]), generator=draw) * 0.2
    up = torch.randn((shape[0], rank, *(1 for _ in shape[2:])), generator=draw) * 0.2
    return LoraWeights(down, up, alpha)


def of_other_types(shapes: dict[Place, tuple[int, ...]], base: Components) -> Modules:
    """DoRA, LoHa and LoKr in turn."""
    draw, found = torch.Generator().manual_seed(5), {}
    weights = {place: weight_of(base, place) for place in shapes}
    for i, (place, shape) in enumerate(shapes.items()):
        wide, draws = torch.Size(shape[1:]).numel(), lambda *size: torch.randn(size, generator=draw) * 0.3
        if i % 3 == 0:
            lora = random_lora(shape, 2, draw)
            magnitude = weights[place].flatten(1).norm(dim=1).reshape(-1, *(1 for _ in shape[1:])) * 1.1
            found[place] = DoraWeights(lora.down, lora.up, lora.alpha, magnitude)
        elif i % 3 == 1 or shape[0] % 2 or shape[1] % 2:
            found[place] = LohaWeights(draws(shape[0], 2), draws(2, wide), draws(shape[0], 2), draws(2, wide), 1.0)
        else:
            second = draws(shape[0] // 2, shape[1] // 2, *shape[2:])
            found[place] = LokrWeights(1.0, lokr_w1=draws(2, 2), lokr_w2=second)
    return found


def weight_of(components: Components, place: Place) -> Tensor:
    part, path = place
    model = components.denoiser if part == "denoiser" else components.text_encoders[int(part.removeprefix("text_"))]
    return model.get_submodule(path).weight.detach()


def save(family: str, modules: Modules, path: Path, form: str = "", dtype: str = "fp32", **entries: str) -> Path:
    spec = FAMILIES[family].spec
    form = form or ("kohya" if any(not isinstance(m, LoraWeights) for m in modules.values()) else spec.layouts[0])
    return write(modules, entries, spec, path, dtype, form).path


@torch.no_grad()
def predict(family: str, components: Components) -> Tensor:
    """Read from what the text encoders say: every part takes part."""
    model = FAMILIES[family]
    said = model.encode_text(components.text_encoders, model.tokenize(components, ["a red ball"]), 1)
    said = said.sized(plain_sizes(model, 16, 16, 1, torch.device("cpu")))
    noisy = torch.randn(1, components.latent.channels, 8, 8, generator=torch.Generator().manual_seed(7))
    return model.denoise(components.denoiser, noisy, torch.tensor([500]), said)


def predict_with(family: str, base: Path, *adapters: tuple[Path, float]) -> Tensor:
    """With adapters attached, each at a strength, one after the other."""
    components = load(family, base)
    for path, strength in adapters:
        apply_file(components, path, strength, strict=True)
    return predict(family, components)
