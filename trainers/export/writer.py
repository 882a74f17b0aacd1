"""Write an adapter file, read it back, and refuse to call it done until it holds what was trained."""

import hashlib
import json
import math
import os
import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from trainers.adapters.lora import Adapter
from trainers.config import TrainConfig
from trainers.errors import UserError
from trainers.export import kohya
from trainers.export.metadata import RunFacts, metadata, tensor_bytes
from trainers.families.base import FamilySpec
from trainers.memory import DTYPES

ROUNDING = {"fp32": 2.0**-23, "bf16": 2.0**-8, "fp16": 2.0**-10}  # relative, per tensor element
SD_VERSION = {"sd15": "SD1"}


def export(
    adapter: Adapter, config: TrainConfig, facts: RunFacts, spec: FamilySpec, path: Path, cover: Path | None
) -> Path:
    """Write `path` (kohya layout) with name.json and, given a cover, name.png beside it; verified before it appears.

    Raises:
        UserError: the weights are not finite or the file does not read back as what was trained.
    """
    tensors = kohya.tensors(adapter, spec, DTYPES[config.saving.dtype])
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise UserError(
            f"The adapter holds numbers that {config.saving.dtype} cannot ({broken[0]}, {len(broken)} in all).",
            "Export an earlier checkpoint, or set saving.dtype = fp32.",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    save_file(tensors, partial, metadata(config, facts, spec, tensors, path.stem))
    verify(partial, adapter, spec, config.saving.dtype)
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)
    _sidecars(path, config, spec, cover)
    return path


def verify(path: Path, adapter: Adapter, spec: FamilySpec, dtype: str) -> None:
    """Read the file back: the same modules, every delta-W as trained within the rounding of `dtype`, a true hash."""
    tensors = load_file(path)
    names = [kohya.module_name(module, spec) for module in adapter.modules]
    expected = {f"{n}.{suffix}" for n in names for suffix in ("lora_down.weight", "lora_up.weight", "alpha")}
    if set(tensors) != expected:
        raise UserError(f"{path.name} does not hold the layers that were trained.", "Export again to another disk.")
    for name, module in zip(names, adapter.modules, strict=True):
        up, down = module.up.detach().float().cpu().flatten(1), module.down.detach().float().cpu().flatten(1)
        trained = module.alpha / module.rank * up @ down
        difference = (kohya.delta(tensors, name).flatten(1) - trained).norm()
        allowed = 4 * ROUNDING[dtype] * module.alpha / module.rank * up.norm() * down.norm() + 1e-8 * math.sqrt(
            trained.numel()
        )
        if difference > allowed:
            raise UserError(f"{name} in {path.name} is not what was trained.", "Export with saving.dtype = fp32.")
    with safe_open(path, "pt") as file:
        stored = file.metadata()["sshs_model_hash"]
    if stored != hashlib.sha256(tensor_bytes(path.read_bytes())).hexdigest():
        raise UserError(f"{path.name} was damaged while it was written.", "Export again to another disk.")


def _sidecars(path: Path, config: TrainConfig, spec: FamilySpec, cover: Path | None) -> None:
    """name.json as A1111, Forge and InvokeAI read it; name.png as every UI shows it."""
    facts = {
        "description": config.saving.comment or f"LoRA of a {config.data.kind}, trained with LoRA Darkroom.",
        "sd version": SD_VERSION[spec.name],
        "activation text": config.data.trigger,
        "preferred weight": 1.0,
        "negative text": "",
        "notes": "",
    }
    partial = path.with_name(f".{path.stem}.json.partial")
    partial.write_text(json.dumps(facts, ensure_ascii=False, indent=2), encoding="utf-8")
    os.replace(partial, path.with_suffix(".json"))
    if cover and cover.exists():
        partial = path.with_name(f".{path.stem}.png.partial")
        shutil.copyfile(cover, partial)
        os.replace(partial, path.with_suffix(".png"))
