"""Read a written adapter back as a stranger would, and compare it with what was trained."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from trainers.adapters.adapter import LoraWeights, Place
from trainers.adapters.adapter_file import read_adapter, read_layers
from trainers.adapters.names import lookup
from trainers.errors import UserError
from trainers.export.hashes import hash_of_file
from trainers.memory import DTYPES

AGAIN = "Export it again, to another disk if it happens twice."


def check_file(
    path: Path, name: str, tensors: Mapping[str, Tensor], modules: Mapping[Place, LoraWeights], dtype: str
) -> float:
    """The file at `path` (called `name`) holds exactly `tensors`, a true hash, and every module's delta-W.

    Returns the largest relative change of a delta-W. UserError when anything is off.
    """
    file = read_adapter(path)
    if file.tensors.keys() != tensors.keys() or not all(_same(file.tensors[key], tensors[key]) for key in tensors):
        raise UserError(f"{name} does not read back as it was written.", AGAIN)
    if file.metadata.get("sshs_model_hash") != hash_of_file(path):
        raise UserError(f"The hash in {name} is not that of its content.", AGAIN)
    return compare(file.layers, modules, name, dtype)


def check_peft_folder(
    folder: Path, tensors: Mapping[str, Tensor], modules: Mapping[Place, LoraWeights], dtype: str
) -> float:
    """The same for one model's folder in peft's layout: its alphas are in adapter_config.json."""
    stored = load_file(folder / "adapter_model.safetensors")
    if stored.keys() != tensors.keys() or not all(_same(stored[key], tensors[key]) for key in tensors):
        raise UserError(f"{folder.name} does not read back as it was written.", AGAIN)
    config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    layers = {}
    for key, layer in read_layers(stored).items():
        path = key.removeprefix("base_model.model.")
        layers[path] = replace(layer, alpha=config["alpha_pattern"].get(path, config["lora_alpha"]))
    return compare(layers, modules, folder.name, dtype, {path: (part, path) for part, path in modules})


def compare(
    layers: Mapping[str, LoraWeights],
    modules: Mapping[Place, LoraWeights],
    name: str,
    dtype: str,
    places: Mapping[str, Place] | None = None,
) -> float:
    """Largest relative change of delta-W over all modules. UserError when one is missing or changed beyond rounding."""
    places = places or lookup(modules)
    found = {places[key]: layer for key, layer in layers.items() if key in places}
    if found.keys() != modules.keys() or len(found) != len(layers):
        raise UserError(f"{name} does not hold the layers that were trained.", AGAIN)
    worst = 0.0
    for place, trained in modules.items():
        difference, size = distance(trained, found[place]), norm(trained)
        if difference > allowed(trained, DTYPES[dtype]):
            raise UserError(f"{place[1]} in {name} is not what was trained.", "Export with saving.dtype = fp32.")
        worst = max(worst, difference / size if size else 0.0)
    return worst


def distance(one: LoraWeights, other: LoraWeights) -> float:
    """Frobenius norm of the difference of two delta-W, without building them.

    |A B|^2 = sum (A'A * BB') with A = [s1 up1, -s2 up2] and B = [down1; down2], in fp64 since it cancels.
    """
    up_1, down_1 = _factors(one)
    up_2, down_2 = _factors(other)
    left, right = torch.cat([up_1, -up_2], 1), torch.cat([down_1, down_2])
    return math.sqrt(max(0.0, float(((left.T @ left) * (right @ right.T)).sum())))


def norm(layer: LoraWeights) -> float:
    up, down = _factors(layer)
    return math.sqrt(max(0.0, float(((up.T @ up) * (down @ down.T)).sum())))


def allowed(trained: LoraWeights, dtype: torch.dtype) -> float:
    """How far rounding both matrices (and alpha) to `dtype` may move delta-W, in Frobenius norm."""
    info = torch.finfo(dtype)
    unit, tiny = info.eps / 2, info.smallest_normal * info.eps
    up, down = _factors(trained)
    scale = max(1.0, trained.alpha / trained.rank)
    ups, downs = float(up.norm()), float(down.norm())
    up_error = unit * ups + tiny * scale * math.sqrt(up.numel())
    down_error = unit * downs + tiny * math.sqrt(down.numel())
    slack = 1e-7 * ups * downs  # the Gram matrices' own error
    return 2 * (up_error * downs + ups * down_error + up_error * down_error + unit * ups * downs) + slack


def _factors(layer: LoraWeights) -> tuple[Tensor, Tensor]:
    """(alpha / rank * up [out, rank], down [rank, in * kh * kw]) in fp64 on the CPU."""
    up, down = (w.detach().to("cpu", torch.float64).flatten(1) for w in (layer.up, layer.down))
    return up * (layer.alpha / layer.rank), down


def _same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
