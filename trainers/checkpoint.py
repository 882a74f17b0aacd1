"""Save and resume: everything a run needs to go on as if it had never stopped.

Noise, order, dropout and timesteps follow from (seed, step), so the position is one number. A checkpoint is a folder
`step_000500` with adapter.safetensors (fp32 masters), ema.safetensors, optimizer.pt and state.json; it is written under
another name and renamed, so that a half-written one is never taken for whole.
"""

import errno
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainers.errors import UserError

FORMAT = 1


@dataclass
class Position:
    step: int = 0
    seconds: float = 0.0  # spent training, all sittings together
    started: float = 0.0  # unix seconds of the first start
    session: str = ""  # random number of the run, kept over resumes


@dataclass
class Saved:
    position: Position
    adapter: dict[str, Tensor]
    ema: dict[str, Tensor] | None
    optimizer: dict
    schedule: dict
    scaler: dict | None


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
        state = {"optimizer": saved.optimizer, "schedule": saved.schedule, "scaler": saved.scaler}
        torch.save(state, partial / "optimizer.pt")
        (partial / "state.json").write_text(json.dumps({"format": FORMAT, **asdict(saved.position)}), encoding="utf-8")
        for file in partial.iterdir():
            _flush(file)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(partial, target)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, RuntimeError) or error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(folder if folder.exists() else folder.parent).free / 2**20
            message = (
                f"The checkpoint of step {saved.position.step} could not be saved: {free:.0f} MB are free in {folder}."
            )
            raise UserError(message, "Make room and resume: the run goes on from its last checkpoint.") from error
        raise
    for old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def _flush(file: Path) -> None:
    with file.open("rb+") as handle:
        os.fsync(handle.fileno())


def list_checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints, oldest first."""
    found = [p for p in folder.glob("step_*") if (p / "state.json").exists()]
    return sorted(found, key=lambda p: int(p.name.split("_")[1]))


def load(folder: Path) -> Saved:
    """Read a checkpoint back. UserError when a file of it is missing or damaged."""
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        state.pop("format")
        rest = torch.load(folder / "optimizer.pt", weights_only=True, map_location="cpu")
        ema = folder / "ema.safetensors"
        return Saved(
            position=Position(**state),
            adapter=load_file(folder / "adapter.safetensors"),
            ema=load_file(ema) if ema.exists() else None,
            **rest,
        )
    except Exception as error:  # any way a file can be damaged
        hint = "Delete that folder: the run resumes from the checkpoint before it."
        raise UserError(f"The checkpoint {folder} is damaged ({type(error).__name__}).", hint) from error
