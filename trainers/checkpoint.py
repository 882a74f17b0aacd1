"""Save and resume: everything a run needs to go on as if it had never stopped.

Noise, order, dropout and timesteps follow from (seed, step), so the position is one number. A checkpoint is a folder
`step_000500` with adapter.safetensors (fp32 masters), ema.safetensors, optimizer.pt and state.json; for the adapter
file of that step it has facts.json and, where the run averages, exported.safetensors. It is written under another name
and renamed, so that a half-written one is never taken for whole.
"""

import json
import os
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainers.errors import UserError, disk_error

FORMAT = 1
TORCH_WRITES = re.compile("inline_container|PytorchStreamWriter")  # torch.save on a full disk: a RuntimeError


@dataclass
class Position:
    step: int = 0
    seconds: float = 0.0  # spent training, all sittings together
    started: float = 0.0  # unix seconds of the first start
    session: str = ""  # random number of the run, kept over resumes
    threads: int = 0  # of the CPU; another number gives other last bits


@dataclass
class Saved:
    position: Position
    adapter: dict[str, Tensor]
    ema: dict[str, Tensor] | None
    optimizer: dict
    schedule: dict
    scaler: dict | None
    exported: dict[str, Tensor] | None = None  # what an adapter file of this step holds; None: the masters
    facts: dict[str, Any] | None = None  # what such a file says of the run, as JSON values; see export/facts.py


def save(folder: Path, saved: Saved, keep: int) -> Path:
    """Write a checkpoint under `folder`, then remove all but the newest `keep`. UserError on a full disk."""
    target = folder / f"step_{saved.position.step:06d}"
    partial = folder / f".partial_{target.name}"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_file(saved.adapter, partial / "adapter.safetensors")
        if saved.ema is not None:
            save_file(saved.ema, partial / "ema.safetensors")
        if saved.exported is not None and not _equal(saved.exported, saved.adapter):
            save_file(saved.exported, partial / "exported.safetensors")
        if saved.facts is not None:
            (partial / "facts.json").write_text(json.dumps(saved.facts), encoding="utf-8")
        state = {"optimizer": saved.optimizer, "schedule": saved.schedule, "scaler": saved.scaler}
        torch.save(state, partial / "optimizer.pt")
        (partial / "state.json").write_text(json.dumps({"format": FORMAT, **asdict(saved.position)}), encoding="utf-8")
        for file in partial.iterdir():
            _flush(file)
        _remove(target)
        os.replace(partial, target)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch reports a full disk as a RuntimeError
        shutil.rmtree(partial, ignore_errors=True)
        if TORCH_WRITES.search(str(error)) or disk_error(error):
            free = shutil.disk_usage(folder if folder.exists() else folder.parent).free / 2**20
            message = (
                f"The checkpoint of step {saved.position.step} could not be saved: {free:.0f} MB are free in {folder}."
            )
            raise UserError(message, "Make room and resume: the run goes on from its last checkpoint.") from error
        raise
    for old in list_checkpoints(folder)[:-keep]:
        _remove(old)
    return target


def _remove(folder: Path) -> None:
    """Under another name first: a checkpoint is whole or not there, however slowly its files go."""
    if folder.exists():
        leaving = folder.with_name(f".partial_{folder.name}_old")
        shutil.rmtree(leaving, ignore_errors=True)
        os.replace(folder, leaving)
        shutil.rmtree(leaving, ignore_errors=True)


def _equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def _flush(file: Path) -> None:
    with file.open("rb+") as handle:
        os.fsync(handle.fileno())


def list_checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints, oldest first."""
    found = [p for p in folder.glob("step_*") if (p / "state.json").exists()]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The step whose checkpoint a folder is."""
    return int(checkpoint.name.split("_")[1])


def newest_step(folder: Path) -> int:
    """The step from which a run goes on; 0 without checkpoints."""
    found = list_checkpoints(folder)
    return step_of(found[-1]) if found else 0


def threads_of(folder: Path) -> int:
    """With how many threads the run computes; 0 where no checkpoint tells."""
    found = list_checkpoints(folder)
    try:
        return int(json.loads((found[-1] / "state.json").read_text("utf-8")).get("threads", 0)) if found else 0
    except (OSError, ValueError, AttributeError, TypeError):
        return 0  # damaged: `load` says so


def load(folder: Path) -> Saved:
    """Read a checkpoint back. UserError when a file of it is missing or damaged."""
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        written = state.pop("format")
        if written != FORMAT:
            message = f"The checkpoint {folder} is in format {written}, and this version reads format {FORMAT}."
            raise UserError(message, "Go on with the version of LoRA Darkroom that the run was begun with.")
        rest = torch.load(folder / "optimizer.pt", weights_only=True, map_location="cpu")
        ema = folder / "ema.safetensors"
        return Saved(
            position=Position(**state),
            adapter=load_file(folder / "adapter.safetensors"),
            ema=load_file(ema) if ema.exists() else None,
            **rest,
        )
    except UserError:
        raise
    except Exception as error:  # any way a file can be damaged
        raise _damaged(folder, error) from error


def load_exported(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(what `Adapter.state` returned, facts) for an adapter file of that step, without the optimizer's state.

    UserError when a file of it is missing or damaged.
    """
    facts = folder / "facts.json"
    if not facts.exists():
        message = f"The checkpoint {folder} was saved by an earlier version, without the facts that a file needs."
        raise UserError(message, "Resume the run: the checkpoints that it saves from then on have them.")
    try:
        averaged = folder / "exported.safetensors"
        tensors = load_file(averaged if averaged.exists() else folder / "adapter.safetensors")
        return tensors, json.loads(facts.read_text(encoding="utf-8"))
    except Exception as error:  # any way a file can be damaged
        raise _damaged(folder, error) from error


def _damaged(folder: Path, error: Exception) -> UserError:
    hint = "Delete that folder: the run resumes from the checkpoint before it."
    return UserError(f"The checkpoint {folder} is damaged ({type(error).__name__}).", hint)
