"""Comparisons of a run's checkpoints: what to compare, where the pictures lie, how far they are."""

import os
import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from PIL import Image

from app import grid, runs, tasks
from app.paths import Home
from app.projects import new_folder
from app.runs import Run
from trainers import comparison, config_io, events
from trainers.clock import awake
from trainers.comparison import BASE, Comparison, cells_of
from trainers.data.decoding import Unreadable, decode, read_bytes
from trainers.errors import UserError
from trainers.files import encoded, write_whole
from trainers.prompts import default_prompts

SPREAD = 4  # checkpoints taken by default, beside the last
STRENGTHS = (0.6, 1.0)
PROMPTS = 3  # taken by default: the trigger alone, and two far from the pictures
LABEL = 300  # letters of a prompt above a column of the sheet
SHEET = "sheet.png"
SMALLEST = 128  # pixels a picture's side takes on the sheet


@dataclass(frozen=True)
class Wish:
    """What a person wants to compare."""

    steps: tuple[int, ...]
    prompts: tuple[str, ...]
    strengths: tuple[float, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Progress:
    """How far a comparison is. `word`: none, running, done, stopped or failed; seconds_left is None until known."""

    word: str
    drawn: int
    total: int
    phase: str = ""
    seconds_left: float | None = None
    message: str = ""
    hint: str = ""


def shown_run(home: Home, place: str) -> Run | None:
    """The run at a place, else the newest that has checkpoints, else the newest."""
    if found := runs.by_key(home, place):
        return found
    known = runs.list_runs(home)
    return next((run for run in known if checkpoint_steps(run)), known[0] if known else None)


def checkpoint_steps(run: Run) -> list[int]:
    """The steps that the run has checkpoints of; they are renamed into place, so what is there is whole."""
    names = (folder.name for folder in (run.folder / "checkpoints").glob("step_*"))
    return sorted(int(name[5:]) for name in names if re.fullmatch(r"step_\d+", name))


def spread(steps: Sequence[int], count: int = SPREAD) -> list[int]:
    """Up to `count` of the steps, evenly spaced from the first on, and the last."""
    if len(steps) <= count + 1:
        return list(steps)
    return [steps[round(i * (len(steps) - 1) / count)] for i in range(count + 1)]


def default_wish(run: Run) -> Wish:
    """What is compared when a person chooses nothing: prompts are those of the run's previews."""
    config = config_io.load(run.config)
    prompts = config.preview.prompts or default_prompts(config.data)[:PROMPTS]
    return Wish(tuple(spread(checkpoint_steps(run))), tuple(prompts), STRENGTHS, (config.preview.seed,))


def last_wish(run: Run) -> Wish:
    """That of the newest comparison, as far as its checkpoints are still there; else the default."""
    there = set(checkpoint_steps(run))
    for made in list_comparisons(run)[:1]:
        if kept := tuple(step for step in made.steps if step in there):
            return Wish(kept, made.prompts, made.strengths, made.seeds)
    return default_wish(run)


def read_wish(run: Run, steps: Sequence[int], prompts: str, strengths: str, seeds: str) -> Wish:
    """What stands in the fields: prompts one per line, the others apart by commas or spaces.

    UserError for the first that is missing or out of bounds.
    """
    there = checkpoint_steps(run)
    chosen = tuple(sorted(step for step in {int(step) for step in steps} if step in there))
    if not chosen:
        raise UserError("Choose at least one checkpoint.")
    lines = tuple(dict.fromkeys(" ".join(line.split()) for line in prompts.splitlines() if line.strip()))
    if not lines:
        raise UserError("Write at least one prompt.")
    factors = _numbers(strengths, float, lambda value: 0 < value <= 4)
    if factors is None:
        raise UserError("Strengths are numbers above 0 and up to 4.", "For example: 0.6, 1.0")
    numbers = _numbers(seeds, int, lambda value: 0 <= value < 2**63)
    if numbers is None:
        raise UserError("Seeds are whole numbers from 0 to 9223372036854775807.", "For example: 42, 43")
    pictures = len(chosen) * len(lines) * len(factors) * len(numbers)
    if pictures > comparison.MOST or max(map(len, (chosen, lines, factors, numbers))) > comparison.LONGEST:
        raise UserError(f"That would be {pictures:,} pictures.", f"At most {comparison.MOST:,} are compared at once.")
    return Wish(chosen, lines, tuple(sorted(factors)), numbers)


def count(run: Run, wish: Wish) -> int:
    """How many pictures that makes."""
    return len(cells_of(config_io.load(run.config), wish.steps, wish.prompts, wish.strengths, wish.seeds))


def create(run: Run, wish: Wish) -> Comparison:
    """A new comparison in the run folder, with the pictures that earlier ones have drawn; or the one that wishes it."""
    config = config_io.load(run.config)
    cells = cells_of(config, wish.steps, wish.prompts, wish.strengths, wish.seeds)
    earlier = list_comparisons(run)
    for one in earlier:
        if one.cells == cells:
            return one
    with new_folder(run.folder / "comparisons", f"{datetime.now():%Y-%m-%d_%H-%M-%S}") as folder:
        made = Comparison(folder, wish.steps, wish.prompts, wish.strengths, wish.seeds, cells)
        _take_over(made, earlier)
        comparison.save(made)
    return made


def list_comparisons(run: Run) -> list[Comparison]:
    """All readable ones of a run, the newest first."""
    found = []
    for file in sorted((run.folder / "comparisons").glob(f"*/{comparison.FILE}"), reverse=True):
        with suppress(UserError):  # a damaged one must not hide the others
            found.append(comparison.load(file.parent))
    return found


def start(run: Run, made: Comparison, home: Home) -> None:
    """Draw what is missing, in a process of its own. UserError where that cannot be started."""
    if not is_running(made):
        tasks.start(made.folder, "compare", {"run": str(run.folder)}, home)


def stop(made: Comparison) -> None:
    """Stop drawing; what is drawn stays, and `start` goes on from there."""
    tasks.stop(made.folder)


def require_idle(made: Comparison) -> None:
    """UserError where a process draws it already."""
    if is_running(made):
        raise UserError("These checkpoints are being compared already.", f"The pictures are in {made.folder}.")


def is_running(made: Comparison) -> bool:
    return tasks.status(made.folder).alive


def progress(made: Comparison) -> Progress:
    """How far it is, from its pictures, its events and its process."""
    total, missing = len(made.cells), len(made.missing())
    drawn = total - missing
    status = tasks.status(made.folder)
    if status.alive:
        left = _seconds_left(made.folder, missing)
        return Progress("running", drawn, total, status.state.phase or "Starting", left)
    if not missing:
        return Progress("done", drawn, total)
    if status.word == "failed":
        return Progress("failed", drawn, total, message=status.state.message, hint=status.state.hint)
    if status.word == "interrupted":
        hint = f"Compare goes on from there. Its last words are in {made.folder / 'log.txt'}."
        return Progress("failed", drawn, total, message="The process that drew them ended without a word.", hint=hint)
    return Progress("stopped", drawn, total)


def write_sheet(folder: Path) -> Path:
    """All pictures of a comparison on one, for a look outside of the window."""
    made = comparison.load(folder)
    rows, labels = [], []
    columns = [(n, seed, x) for n in range(len(made.prompts)) for seed in made.seeds for x in made.strengths]
    for step, plain, label in rows_of(made):
        cells = {(c.number, c.seed, c.strength): c for c in made.cells if (c.step, c.plain) == (step, plain)}
        found = [cells.get((n, seed, 0.0 if step == BASE else x)) for n, seed, x in columns]
        rows.append([_opened(folder, cell.file if cell else "") for cell in found])
        labels.append(label)
    heads = [f"{made.prompts[n][:LABEL]} ({x:g}{f', seed {seed}' * (len(made.seeds) > 1)})" for n, seed, x in columns]
    side = max((picture.width for row in rows for picture in row), default=1)
    blank = (side, side)
    rows = [[picture if picture.width > 1 else Image.new("RGB", blank, "white") for picture in row] for row in rows]
    sheet = grid.before_after(rows, labels, heads, max(1, SMALLEST // side), "Checkpoints: same prompts, same seeds")
    return write_whole(folder / SHEET, encoded(sheet))


def rows_of(made: Comparison) -> list[tuple[int, bool, str]]:
    """(step, without the trigger, label) of each row; the last two are there where a prompt has a trigger word."""
    rows = [(BASE, False, "Base model"), *((step, False, f"Step {step:,}") for step in made.steps)]
    if any(cell.plain for cell in made.cells):
        last = max(made.steps)
        rows += [(BASE, True, "Base model, no trigger"), (last, True, f"Step {last:,}, no trigger")]
    return rows


def _take_over(made: Comparison, earlier: list[Comparison]) -> None:
    """Pictures of the same cells: links where the disk has them, else copies."""
    drawn = {(c.step, c.prompt, c.strength, c.seed): one.folder / c.file for one in earlier for c in one.cells}
    for cell in made.cells:
        source = drawn.get((cell.step, cell.prompt, cell.strength, cell.seed))
        if source and source.is_file():
            try:
                os.link(source, made.folder / cell.file)
            except OSError:  # a disk without links
                shutil.copyfile(source, made.folder / cell.file)


def _numbers(text: str, kind: type, fits: Callable[[float], bool]) -> tuple | None:
    """The numbers of a text; None where there is none, or one that does not fit."""
    try:
        found = tuple(dict.fromkeys(kind(part) for part in re.split(r"[\s,;]+", text.strip()) if part))
    except ValueError:
        return None
    return found if found and all(fits(value) for value in found) else None


def _seconds_left(folder: Path, missing: int) -> float | None:
    """From the pace of the pictures that this sitting has drawn."""
    times = []
    for moment, event in events.read_from(folder / "events.jsonl")[0]:
        if isinstance(event, events.Phase) and event.name.startswith("Loading"):
            times = []  # a new sitting
        elif isinstance(event, events.Phase) and event.total:
            times.append(moment)
    if len(times) < 2:
        return None
    pace = (times[-1] - times[0]) / (len(times) - 1)
    return max(0.0, missing * pace - max(0.0, awake() - times[-1]))


def _opened(folder: Path, file: str) -> Image.Image:
    try:
        return decode(read_bytes(folder / file))
    except (OSError, ValueError, Unreadable):  # not drawn, no such cell, or damaged
        return Image.new("RGB", (1, 1), "white")
