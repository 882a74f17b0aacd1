"""What an adapter file holds, from its header and its alphas: the matrices stay on the disk."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from trainers.adapters.adapter_file import WEIGHTS
from trainers.adapters.reading import HEADER_CONFIG, PEFT, PEFT_CONFIG, read_layers
from trainers.errors import UserError
from trainers.export.modules import BUNDLE, Module, read_modules
from trainers.families.detect import identify
from trainers.families.folders import read_json
from trainers.families.headers import read_header

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Contents:
    """An adapter file without its matrices."""

    shapes: dict[str, Shape]  # of every tensor
    dtypes: dict[str, str]  # "F16", ... of every tensor
    metadata: dict[str, str]
    modules: dict[str, Module]
    stray: tuple[str, ...]  # keys that belong to no module
    alphas: dict[str, float | None]  # by module; None: nothing tells it, so the scale is 1
    in_config: bool  # alphas stand in diffusers' header entry or in peft's config, not in keys
    config_damaged: bool = False  # that entry cannot be read

    @property
    def embeddings(self) -> list[str]:
        """Names of textual inversions that the file brings along."""
        return sorted({key.removeprefix(BUNDLE).split(".")[0] for key in self.shapes if key.startswith(BUNDLE)})


def read_contents(path: Path) -> Contents:
    """Look into an adapter file, or the folder that peft wrote. UserError when it is damaged or something else."""
    path = path / WEIGHTS if path.is_dir() else path
    if path.suffix != ".safetensors":
        identify(path)
    header, metadata = read_header(path)
    shapes = {key: tuple(entry["shape"]) for key, entry in header.items()}
    try:
        with safe_open(path, "pt") as file:
            alphas = {key: float(file.get_tensor(key).reshape(-1)[0]) for key in shapes if _is_alpha(key, shapes)}
    except (OSError, SafetensorError) as error:
        message = f"{path.name} cannot be read as a .safetensors file ({str(error)[:200]})."
        raise UserError(message, "Download or export it again.") from error
    beside = path.parent / PEFT_CONFIG
    in_peft = any(key.startswith(f"{PEFT}.") for key in shapes) and beside.is_file()
    dtypes = {key: entry["dtype"] for key, entry in header.items()}
    found = contents_of(shapes, dtypes, metadata, alphas, read_json(beside) if in_peft else {})
    if not found.modules:
        kind = identify(path)
        article = "an" if kind.label[0] in "AEIOaeio" else "a"
        what = f"is {article} {kind.label}, not a LoRA adapter" if kind.kind != "unknown" else "holds no LoRA adapter"
        raise UserError(f"{path.name} {what}.", "Choose an adapter file that Darkroom, kohya, diffusers or peft wrote.")
    return found


def contents_of_tensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Contents:
    """The same of tensors in memory."""
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    alphas = {key: float(tensors[key].reshape(-1)[0]) for key in shapes if _is_alpha(key, shapes)}
    return contents_of(shapes, {key: str(t.dtype) for key, t in tensors.items()}, metadata, alphas)


def contents_of(
    shapes: Mapping[str, Shape],
    dtypes: Mapping[str, str],
    metadata: Mapping[str, str],
    alphas: Mapping[str, float],
    peft_config: Mapping[str, Any] | None = None,
) -> Contents:
    """`alphas` by key, from the tensors."""
    modules, stray = read_modules(shapes)
    found = {name: _alpha(module, alphas) for name, module in modules.items()}
    in_config, damaged = HEADER_CONFIG in metadata or bool(peft_config), False
    if in_config:
        try:
            told = read_layers(blank(shapes), metadata, peft_config)
        except UserError:
            if peft_config:
                raise
            told, in_config, damaged = {}, False, True
        found = {name: told[name].alpha if alpha is None and name in told else alpha for name, alpha in found.items()}
    return Contents(dict(shapes), dict(dtypes), dict(metadata), modules, tuple(stray), found, in_config, damaged)


def blank(shapes: Mapping[str, Shape]) -> dict[str, Tensor]:
    """Tensors in these shapes without memory, for code that looks at shapes alone; alphas are left out."""
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items() if not key.endswith(".alpha")}


def _is_alpha(key: str, shapes: Mapping[str, Shape]) -> bool:
    return key.endswith(".alpha") and shapes[key] in ((), (1,))


def _alpha(module: Module, alphas: Mapping[str, float]) -> float | None:
    """kohya reads alpha 0 as "equal to the rank"."""
    value = alphas.get(module.keys.get("alpha", ""))
    return float(module.rank or 1) if value == 0 else value
