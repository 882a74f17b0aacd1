"""Read a written adapter back as a stranger would, and compare it with what was trained."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from trainers.adapters.adapter import Place, Weights
from trainers.adapters.adapter_file import read_adapter, resolve
from trainers.adapters.reading import PEFT, read_modules
from trainers.errors import UserError
from trainers.export.distance import allowed, apart, distance, norm
from trainers.export.hashes import hash_of_file
from trainers.memory import DTYPES

AGAIN = "Export it again, to another disk if it happens twice."


def check_file(
    path: Path, name: str, tensors: Mapping[str, Tensor], modules: Mapping[Place, Weights], dtype: str
) -> float:
    """The file at `path` (called `name`) holds exactly `tensors`, a true hash, and every module's delta-W.

    Returns the largest relative change of a delta-W. UserError when anything is off.
    """
    file = read_adapter(path)
    if file.tensors.keys() != tensors.keys() or not all(_same(file.tensors[key], tensors[key]) for key in tensors):
        raise UserError(f"{name} does not read back as it was written.", AGAIN)
    if file.metadata.get("sshs_model_hash") != hash_of_file(path):
        raise UserError(f"The hash in {name} is not that of its content.", AGAIN)
    return compare(file.modules, modules, name, dtype)


def check_peft_folder(
    folder: Path, tensors: Mapping[str, Tensor], modules: Mapping[Place, Weights], dtype: str
) -> float:
    """The same for one model's folder in peft's layout: its alphas are in adapter_config.json."""
    stored = load_file(folder / "adapter_model.safetensors")
    if stored.keys() != tensors.keys() or not all(_same(stored[key], tensors[key]) for key in tensors):
        raise UserError(f"{folder.name} does not read back as it was written.", AGAIN)
    config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    places = {f"{PEFT}.{path}": (part, path) for part, path in modules}
    return compare(read_modules(stored, peft_config=config), modules, folder.name, dtype, places)


def compare(
    layers: Mapping[str, Weights],
    modules: Mapping[Place, Weights],
    name: str,
    dtype: str,
    places: Mapping[str, Place] | None = None,
) -> float:
    """Largest relative change of delta-W over all modules. UserError when one is missing or changed beyond rounding."""
    if places:
        resolved = {key: {places[key]: layer} if key in places else {} for key, layer in layers.items()}
    else:
        resolved = resolve(layers, modules)
    found = {place: layer for updates in resolved.values() for place, layer in updates.items()}
    if found.keys() != modules.keys() or not all(resolved.values()):
        raise UserError(f"{name} does not hold the layers that were trained.", AGAIN)
    worst = 0.0
    for place, trained in modules.items():
        other = found[place]
        if other.label != trained.label or getattr(other, "by_output", None) != getattr(trained, "by_output", None):
            raise UserError(f"{place[1]} in {name} is a {other.label}, and not the {trained.label} it was.", AGAIN)
        for one, read in zip(apart(trained), apart(other), strict=True):
            difference, size = distance(one, read), norm(one)
            if not difference <= allowed(one, DTYPES[dtype]):
                raise UserError(f"{place[1]} in {name} is not what was to be written.", "Write it in fp32.")
            worst = max(worst, difference / size if size else 0.0)
    return worst


def _same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
