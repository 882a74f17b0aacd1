"""What the handlers of the Results page share: changes by name, and the run and comparison that are looked at."""

from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr

from app import comparisons, runs
from app.gui.markup import acted, in_words
from app.paths import Home
from app.runs import Run
from trainers.comparison import Comparison
from trainers.errors import UserError

HIDDEN = ["dr-hidden"]

Changes = dict[str, Any]  # name of a part of the page -> what it becomes; the others stay as they are


def filled_in(parts: Mapping[str, Any], handler: Callable[..., Changes]) -> Callable[..., list[Any]]:
    """A handler of changes as Gradio wants it: a value for every part."""

    def call(*inputs: Any) -> list[Any]:
        changed = handler(*inputs)
        return [changed.get(name, gr.skip()) for name in parts]

    return in_words(call)


def heard(parts: Mapping[str, Any], handler: Callable[..., Changes]) -> Callable[..., list[Any]]:
    """The same for a handler of a panel's actions."""

    def call(event: gr.EventData, *inputs: Any) -> list[Any]:
        return filled_in(parts, handler)(acted(event), *inputs)

    return call


def said(html: str) -> dict[str, Any]:
    """A region that takes no room where it says nothing; it stays there, and goes on listening."""
    return gr.update(value=html, elem_classes=[] if html else HIDDEN)


def visible(wanted: bool) -> dict[str, Any]:
    """Hidden by our own style: what is not in the browser misses updates, and a parent that shows itself shows all."""
    return gr.update(elem_classes=[] if wanted else HIDDEN)


def run_at(home: Home, at: str) -> Run:
    """The run of a key. UserError where it is gone."""
    run = runs.by_key(home, at)
    if run is None:
        raise UserError("The run is no longer there.", "Choose another one.")
    return run


def comparison_of(run: Run, name: str | None) -> Comparison | None:
    """A comparison of the run by its folder's name."""
    return next((one for one in comparisons.list_comparisons(run) if one.folder.name == name), None)
