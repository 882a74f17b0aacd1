"""The Library page's inspector: what an adapter file is, and which programs load it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from app.gui.context import QUIET, Context
from app.gui.inspect_views import inspected
from app.gui.kept import Kept, kept, mark
from app.gui.markup import in_words, notice, panel, refusal
from app.library import Shelf, run_of
from trainers.errors import UserError

BUSY = notice("Reading the file ...", "The first one takes up to a minute, because the libraries are loaded for it.")


class Asked(NamedTuple):
    """An adapter file of a run, by its name; `at`: when it was asked for."""

    key: str = ""
    file: str = ""
    at: float = 0.0


def build_inspector(context: Context) -> None:
    """A field to drop an adapter file on, and what it is."""
    dropped = gr.File(label="Adapter file to inspect", height=120)
    _answer(context, dropped, panel("Inspected adapter file"), lambda file: Path(file) if file else None)


def build_run_inspector(context: Context, shelf: Shelf, asked: Kept) -> None:
    """A panel that answers when an Asked is put into `asked`."""

    def place(asked: Asked) -> Path | None:
        return file_of(context, shelf, asked.key, asked.file) if asked.key else None

    _answer(context, asked, panel("Inspected adapter of the run"), place)


def file_of(context: Context, shelf: Shelf, key: str, name: str) -> Path:
    """An adapter file of a run. UserError where it is gone."""
    for file, _ in shelf.entry(run_of(context.home, key)).files:
        if file.name == name:
            return file
    raise UserError(f"{name} is no longer there.", "Open the run again.")


def _answer(context: Context, asked: Any, found: gr.HTML, place: Callable[[Any], Path | None]) -> None:
    """Read the file that is asked for. An answer that comes when another one is asked for is not shown."""
    answered = kept(("", ""))  # the mark of what was asked for, and the answer

    def read(asked: Any) -> tuple[str, str]:
        try:
            path = place(asked)
            answer = inspected(path.name, context.worker.ask("inspect", file=str(path))) if path else ""
        except UserError as error:
            answer = refusal(error)
        return mark(asked), answer

    def show(asked: Any, answered: tuple[str, str]) -> Any:
        return answered[1] if answered[0] == mark(asked) else gr.skip()

    busy = asked.change(in_words(lambda asked: BUSY if place(asked) else ""), asked, found, **QUIET)
    done = busy.then(in_words(read), asked, answered, trigger_mode="always_last", **QUIET)
    done.then(show, [asked, answered], found, trigger_mode="always_last", **QUIET)
