"""Read an adapter file in kohya's layout, and put it into a base model for sampling."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from trainers.errors import UserError
from trainers.export.kohya import LEVEL, delta
from trainers.families.base import Components, FamilySpec


@dataclass(frozen=True)
class AdapterFile:
    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, str]

    @property
    def modules(self) -> list[str]:
        """Names of the adapted layers, such as lora_unet_mid_block_attentions_0_proj_in."""
        return sorted(
            {name.removesuffix(".lora_down.weight") for name in self.tensors if name.endswith(".lora_down.weight")}
        )


def read_adapter(path: Path) -> AdapterFile:
    """Open a LoRA file in kohya's layout. UserError when it is damaged or something else."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - safe_open is no dict
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{path.name} cannot be read as a .safetensors file ({error}).", "Download or export it again."
        ) from error
    found = AdapterFile(path, tensors, metadata)
    if not found.modules:
        raise UserError(
            f"{path.name} holds no LoRA in kohya's layout.", "Choose an adapter file that Darkroom or kohya wrote."
        )
    return found


def layers(components: Components, spec: FamilySpec) -> dict[str, nn.Module]:
    """Every layer an adapter can name, by its name in kohya's layout."""
    parts = [(spec.denoiser_prefix, "", components.denoiser)]
    parts += [(p, LEVEL, encoder) for p, encoder in zip(spec.text_prefixes, components.text_encoders, strict=True)]
    return {
        f"{prefix}_{path if path.startswith(level) else level + path}".replace(".", "_"): module
        for prefix, level, model in parts
        for path, module in model.named_modules()
        if isinstance(module, (nn.Linear, nn.Conv2d))
    }


@torch.no_grad()
def merge_into(components: Components, spec: FamilySpec, file: AdapterFile, strength: float) -> None:
    """Add strength times the file's delta-W to the base's weights in place.

    Raises:
        UserError: the file names layers that this base does not have, or of other shapes.
    """
    places = layers(components, spec)
    foreign = [name for name in file.modules if name not in places]
    if not foreign:
        foreign = [n for n in file.modules if delta(file.tensors, n).numel() != places[n].weight.numel()]
    if foreign:
        count = f"{len(foreign)} of {len(file.modules)} layers"
        message = f"{file.path.name} does not fit {components.name}: {count} ({foreign[0]}, ...)."
        raise UserError(message, "Choose the base model it was trained on (`darkroom inspect` names it).")
    for name in file.modules:
        weight = places[name].weight
        weight += delta(file.tensors, name, strength).reshape(weight.shape).to(weight.dtype)
