"""The Library page's inspector: what an adapter file is, and which programs load it."""

import time
from pathlib import Path

import gradio as gr

from app.gui.context import QUIET, Context
from app.gui.inspect_views import inspected
from app.gui.kept import kept
from app.gui.markup import in_words, notice, panel, refusal
from trainers.errors import UserError

BUSY = notice("Reading the file ...", "The first one takes up to a minute, because the libraries are loaded for it.")


def build_inspector(context: Context, asked: gr.HTML | None = None) -> None:
    """A panel that answers when a (path, time) is put into `asked`, which is kept; without that, a field for files."""
    upload = asked is None
    asked = kept(("", 0.0)) if upload else asked
    dropped = gr.File(label="Adapter file to inspect", height=120) if upload else None
    found = panel("Inspected adapter file" if upload else "Inspected adapter of the run")

    def answer(asked: tuple[str, float]) -> str:
        path = Path(asked[0])
        if not asked[0]:
            return ""
        try:
            return inspected(path.name, context.worker.ask("inspect", file=str(path)))
        except UserError as error:
            return refusal(error)

    asked.change(lambda asked: BUSY if asked[0] else "", asked, found, **QUIET).then(
        in_words(answer), asked, found, **QUIET
    )
    if dropped:
        dropped.change(lambda file: (file or "", time.time()), dropped, asked, **QUIET)
