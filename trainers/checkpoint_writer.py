"""Checkpoints written beside the training: the disk is waited for while the next step computes."""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainers import checkpoint
from trainers.checkpoint import Saved


class CheckpointWriter:
    """One checkpoint at a time. The one before stays until the new one is whole, however the process ends."""

    def __init__(self, folder: Path, keep: int):
        self.folder, self.keep = folder, keep
        self._pool = ThreadPoolExecutor(1)
        self._pending: Future[Path] | None = None

    def start(self, saved: Saved) -> None:
        """Copy all and begin to write: what `saved` holds may change from now on. `finish` the one before first."""
        own = replace(saved, **{field.name: _copied(getattr(saved, field.name)) for field in fields(saved)})
        own.position = replace(saved.position)
        self._pending = self._pool.submit(checkpoint.save, self.folder, own, self.keep)

    def finish(self) -> Path | None:
        """The folder that was being written, whole by now; None where there was none. UserError on a full disk."""
        pending, self._pending = self._pending, None
        return pending.result() if pending else None


def _copied(value: Any) -> Any:
    """The same on the CPU, with no memory shared."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
    if isinstance(value, dict):
        return {key: _copied(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(one) for one in value)
    return value
