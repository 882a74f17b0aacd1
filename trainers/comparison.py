"""A comparison of a run's checkpoints: its pictures as data, kept in comparison.json beside them.

Rows are the base model alone and the checkpoints; columns are prompt x seed x strength. At the end two rows show every
prompt without its trigger word, from the base and from the last checkpoint: they should be alike.
"""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from trainers import json_values
from trainers.config import TrainConfig
from trainers.errors import UserError
from trainers.files import write_whole
from trainers.json_values import made
from trainers.prompts import plain_prompt

FILE = "comparison.json"
LONGEST = 500  # checkpoints, prompts, strengths or seeds
MOST = 5_000  # pictures: days of drawing, and more than a page or a sheet can show
BASE = 0  # the step of pictures from the base model alone


@dataclass(frozen=True)
class Cell:
    """One picture. The base's has strength 0, and stands for all strengths."""

    step: int
    number: int  # of the prompt, from 0
    prompt: str  # what is drawn, which is without the trigger word where `plain` says so
    plain: bool
    strength: float
    seed: int
    file: str


@dataclass(frozen=True)
class Comparison:
    folder: Path
    steps: tuple[int, ...]
    prompts: tuple[str, ...]
    strengths: tuple[float, ...]
    seeds: tuple[int, ...]
    cells: tuple[Cell, ...]

    def missing(self) -> list[Cell]:
        """The cells that have no picture yet."""
        return [cell for cell in self.cells if not os.path.isfile(self.folder / cell.file)]


@dataclass(frozen=True)
class _Kept:
    """comparison.json as it stands."""

    steps: tuple[int, ...]
    prompts: tuple[str, ...]
    strengths: tuple[float, ...]
    seeds: tuple[int, ...]
    cells: tuple[Any, ...]


def cells_of(
    config: TrainConfig, steps: Sequence[int], prompts: Sequence[str], strengths: Sequence[float], seeds: Sequence[int]
) -> tuple[Cell, ...]:
    """All pictures of a comparison, in the order in which they are drawn: the base's first."""
    found = []

    def add(step: int, plain: bool, wished: Sequence[float]) -> None:
        for number, prompt in enumerate(prompts):
            text = plain_prompt(prompt, config.data) if plain else prompt
            for seed in seeds if text else ():
                for strength in wished:
                    name = f"{_row(step)}_{number}{'_plain' * plain}_strength{strength:g}_seed{seed}.png"
                    found.append(Cell(step, number, text, plain, strength, seed, name))

    add(BASE, False, [0.0])
    add(BASE, True, [0.0])
    for step in steps:
        add(step, False, strengths)
    add(max(steps), True, strengths)
    return tuple(found)


def save(comparison: Comparison) -> Path:
    """Write comparison.json into the comparison's folder."""
    values = {name: value for name, value in asdict(comparison).items() if name != "folder"}
    return write_whole(comparison.folder / FILE, json.dumps(values, ensure_ascii=False, indent=1).encode())


def load(folder: Path) -> Comparison:
    """Read a comparison back. UserError where it is missing or damaged."""
    try:
        found = made(_Kept, json_values.read(folder / FILE))
        cells = tuple(made(Cell, cell) for cell in found.cells)
        cells = tuple(replace(cell, file=Path(cell.file).name) for cell in cells)
        lists = (found.steps, found.prompts, found.strengths, found.seeds)
        long = max(map(len, lists)) > LONGEST or math.prod(map(len, lists)) > MOST
        strange = any(cell.number not in range(len(found.prompts)) for cell in cells)
        if not all(lists) or strange or long:
            raise ValueError("nothing to compare")
        return Comparison(folder, *lists, cells)
    except (OSError, ValueError) as error:
        raise UserError(f"The comparison in {folder} cannot be read.", "Make a new one.") from error


def _row(step: int) -> str:
    return f"step_{step:06d}" if step else "base"
