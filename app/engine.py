"""The engine functions that commands call in this process: imported when called, because they load torch."""
# ruff: noqa: PLC0415 - the window and the quick commands must open without torch

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainers import threads
from trainers.config import TrainConfig

threads.wait_passively()  # as runs do: threads that wait otherwise take other times

if TYPE_CHECKING:
    from PIL.Image import Image

    from trainers.events import Event
    from trainers.importing.imported import Imported


def check(
    config: TrainConfig,
    report: Callable[[str], None],
    card: str = "",
    cache: Path | None = None,
    run: Path | None = None,
) -> dict[str, Any]:
    """Data and settings problems, crops, buckets, fit and time; `report` hears what is being looked at.

    `card`: the name of a graphics card that is not here. `cache`: the folder of what was encoded before; the one that
    an engine's process is given, where none is named. `run`: the folder of the run that has these settings, if one has.
    """
    report("Loading the libraries ...")
    from trainers.check import check

    given = os.environ.get("DARKROOM_CACHE")
    return check(config, report, card, cache or (Path(given) if given else None), run=run)


def sample(
    config: TrainConfig, adapter: Path | None, prompts: Sequence[str], seed: int, strength: float = 1.0, count: int = 1
) -> "list[list[Image]]":
    """`count` pictures per prompt, with seeds seed, seed + 1, ...; without an adapter, the base's own."""
    from trainers.sample import sample

    return sample(config, adapter, prompts, seed=seed, strength=strength, count=count)


def export(run: Path, checkpoint: str | None, form: str, to: Path | None, called: str = "") -> dict[str, Any]:
    """Write and verify the adapter of a run's checkpoint; says where the file is and what was found.

    `called`: its name without ending; without one it is named after the run and the step.
    """
    from trainers.export_run import export_run

    return export_run(run, checkpoint, form, to, called)


def compare(run: Path, folder: Path, emit: "Callable[[Event], None]") -> str:
    """Draw what is missing of the comparison in `folder`; returns the path of the sheet with all its pictures."""
    from app.comparisons import write_sheet
    from trainers.compare import compare

    compare(run, folder, emit)
    return str(write_sheet(folder))


def inspect(file: Path) -> dict[str, Any]:
    """What an adapter file is and which image UIs load it."""
    from trainers.export.inspect import inspect

    return inspect(file)


def merge(
    paths: Sequence[Path],
    weights: Sequence[float],
    strength: float | None,
    out: Path,
    how: str,
    rank: int | None,
    keep: float | None,
    dtype: str | None,
    form: str | None,
) -> dict[str, Any]:
    """Adapters into one, adapters into a base, or two bases into one between them."""
    from trainers.tools.factors import Limit
    from trainers.tools.merge import merge

    return merge(paths, weights, strength, out, how, Limit(rank, keep), dtype, form)


def resize(
    adapter: Path, out: Path, rank: int | None, keep: float | None, dtype: str | None, form: str | None
) -> dict[str, Any]:
    """The adapter at a lower rank."""
    from trainers.tools.factors import Limit
    from trainers.tools.resize import resize

    return resize(adapter, out, Limit(rank, keep), dtype, form)


def extract(
    tuned: Path,
    base: Path,
    out: Path,
    rank: int | None,
    keep: float | None,
    conv_rank: int | None,
    dtype: str,
    form: str | None,
    report: Callable[[str], None],
) -> dict[str, Any]:
    """An adapter out of the difference of two base models; `report` hears how far it is."""
    from trainers.tools.extract import Wanted, extract
    from trainers.tools.factors import Limit

    return extract(tuned, base, out, Wanted(Limit(rank, keep), conv_rank), dtype, form, report)


def convert(
    adapter: Path, out: Path | None, form: str | None, dtype: str | None, fix: bool, alpha: float | None
) -> dict[str, Any]:
    """The adapter in another layout or format, its problems mended."""
    from trainers.tools.convert import Wish, convert

    return convert(adapter, out, Wish(form or "", dtype or "", fix, alpha))


def bench(arguments: list[str]) -> int | None:
    from trainers.bench.main import main

    return main(arguments)


def import_settings(files: Sequence[Path], pictures: Path | None) -> "Imported":
    """Settings files of other trainers that belong to one run; `pictures` replaces the folders that they name."""
    from trainers.importing.imported import import_files

    return import_files(files, pictures)
