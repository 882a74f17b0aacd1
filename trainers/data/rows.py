"""Many tensors of one shape, a row each: on the device while they are few, in a file from some size on.

So the memory of a run does not grow with its pictures and captions.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from trainers.errors import UserError, disk_error

KEPT = (
    256 << 20
)  # bytes of one store held in memory: 1,000 pictures and captions of Stable Diffusion 1.5 without shuffles


class Budget:
    """Bytes that the rows of one store may take together."""

    def __init__(self, left: int = KEPT):
        self.left = left

    def take(self, size: int) -> bool:
        """Whether so many more fit; they are taken then."""
        if size > self.left:
            return False
        self.left -= size
        return True


class Collector:
    """Takes rows one by one. `folder` is where the file goes that holds them when the budget is spent."""

    def __init__(self, budget: Budget, folder: Path | None):
        self.budget, self.folder = budget, folder
        self.rows: list[Tensor] = []
        self.file: BinaryIO | None = None
        self.count, self.shape, self.dtype = 0, torch.Size(), torch.float32

    def add(self, row: Tensor) -> int:
        """Its number. UserError on a full disk."""
        row = row.detach().cpu().contiguous()
        self.shape, self.dtype = row.shape, row.dtype
        if self.file is None and not self.budget.take(row.nbytes):
            self._spill()
        self._write(row) if self.file else self.rows.append(row)
        self.count += 1
        return self.count - 1

    def sealed(self, device: torch.device) -> "Tensor | FiledRows":
        """[N, ...] on the device, or what reads them from the file and is indexed in the same way."""
        if self.file:
            in_words(self.file.flush, self.folder)
            return FiledRows(self.file, self.count, self.shape, self.dtype, device, self.folder)
        rows, self.rows = self.rows, []
        return torch.stack(rows).to(device)

    def _spill(self) -> None:
        self.file = in_words(lambda: tempfile.TemporaryFile(dir=self.folder), self.folder)
        for row in self.rows:
            self._write(row)
            self.budget.left += row.nbytes
        self.rows.clear()

    def _write(self, row: Tensor) -> None:
        in_words(lambda: self.file.write(row.reshape(-1).view(torch.uint8).numpy().data), self.folder)


class FiledRows:
    """Rows in a file, read when they are asked for."""

    def __init__(
        self,
        file: BinaryIO,
        count: int,
        shape: torch.Size,
        dtype: torch.dtype,
        device: torch.device,
        folder: Path | None = None,
    ):
        self.file, self.count, self.shape, self.dtype, self.device = file, count, shape, dtype, device
        self.folder = folder
        self.size = shape.numel() * dtype.itemsize

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, numbers: Tensor | int) -> Tensor:
        """Numbers [B] -> rows [B, ...]; one number -> one row. Waits for a device on which the numbers lie."""
        if isinstance(numbers, int):
            return self._read([numbers])[0]
        return self._read(numbers.tolist())

    def __setitem__(self, number: int, row: Tensor) -> None:
        """UserError on a full disk: some file systems write anew what is there already."""
        data = row.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
        self.file.seek(number * self.size)
        in_words(lambda: (self.file.write(data), self.file.flush()), self.folder)

    def _read(self, numbers: list[int]) -> Tensor:
        data = np.empty((len(numbers), self.size), np.uint8)
        for place, number in enumerate(numbers):
            self.file.seek(number * self.size)
            if self.file.readinto(data[place].data) < self.size:
                raise UserError("What was encoded can no longer be read.", "Resume: it is encoded anew.")
        rows = torch.from_numpy(data).view(self.dtype).reshape(len(numbers), *self.shape)
        return rows.to(self.device)


def in_words(act: Callable[[], Any], folder: Path | None) -> Any:
    """What `act()` returns; UserError where a file in `folder` cannot be written."""
    try:
        return act()
    except OSError as error:
        hint = f"Make room for what is encoded, in {folder or tempfile.gettempdir()}, and start again."
        message = disk_error(error) or f"What is encoded cannot be kept: {error.strerror or error}."
        raise UserError(getattr(message, "message", message), hint) from error


def held_bytes(rows: Tensor | FiledRows | None) -> int:
    """Of rows that lie in memory and not in a file."""
    return rows.nbytes if isinstance(rows, Tensor) else 0
