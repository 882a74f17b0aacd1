"""Stands in for app.engine in tests of the processes that call its functions."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trainers.config import TrainConfig
from trainers.errors import UserError
from trainers.events import Event, Phase, Sample


def add(one: int, other: int) -> int:
    print("a library is chatty")  # noqa: T201
    sys.stdout.flush()
    return one + other


def kinds(config: TrainConfig, file: Path, files: Sequence[Path], none: Path | None) -> dict[str, Any]:
    assert isinstance(config, TrainConfig) and isinstance(file, Path) and isinstance(files[0], Path) and none is None
    return {"rank": config.adapter.rank, "file": file.parent, "files": len(files)}


def busy(report: Callable[[str], None], words: list[str]) -> str:
    for word in words:
        report(word)
    return "done"


def refuse() -> None:
    raise UserError("The file is no adapter.", "Choose another. 漢字")


def stumble() -> None:
    raise ZeroDivisionError("by nothing")


def who() -> int:
    return os.getpid()


def die() -> None:
    os._exit(7)


def wait(folder: Path | None = None) -> None:
    if folder:
        (folder / "waiting").touch()
    while True:
        time.sleep(0.01)


def draw(folder: Path, emit: Callable[[Event], None], prompts: list[str]) -> dict[str, int]:
    for i, prompt in enumerate(prompts):
        emit(Phase("Drawing", i, len(prompts)))
        (folder / f"{i}.png").write_bytes(b"picture")
        emit(Sample(0, prompt, f"{i}.png"))
    return {"drawn": len(prompts)}
