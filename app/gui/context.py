"""What every page of the window is given: the home folder, the queue, the worker, and where the person is."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import gradio as gr

from app.gui.markup import in_words
from app.paths import Home
from app.queue import Queue
from app.worker import Worker

QUIET = {"show_progress": "hidden", "api_visibility": "private"}  # for events: no spinner, no public endpoint
TURN = "in turn: "  # before names that Gradio keeps for us with the events


def in_turn(name: str) -> dict[str, Any]:
    """Options of events of which none is lost, and none is asked for before the last of that name is answered."""
    return {**QUIET, "trigger_mode": "multiple", "concurrency_id": TURN + name}


def clock(name: str) -> dict[str, Any]:
    """Options of a timer's tick: nothing is shown of an answer that an event of that name has overtaken."""
    return {**in_turn(name), "trigger_mode": "once"}  # it does not wait for itself either


def turns(window: gr.Blocks) -> dict[int, str]:
    """Number of each event that waits its turn -> the name of those it waits for."""
    named = {number: str(fn.concurrency_id) for number, fn in window.fns.items()}
    return {number: name.removeprefix(TURN) for number, name in named.items() if name.startswith(TURN)}


def clocks(window: gr.Blocks) -> dict[int, int]:
    """Number of each of them that is a timer's tick -> how many outputs it has."""
    ticks = {number for number, fn in window.fns.items() if any(event == "tick" for _, event in fn.targets)}
    return {number: len(window.fns[number].outputs) for number in turns(window) if number in ticks}


@dataclass(frozen=True)
class Context:
    """Of the whole app; pages keep no state of their own: all of it is on disk."""

    home: Home
    queue: Queue
    worker: Worker


class Where(NamedTuple):
    """Where one browser tab is; its address says the same, so that a reload comes back to it."""

    page: str = "concept"  # one of window.PAGES
    project: str = ""  # a project's slug
    run: str = ""  # "<slug>/<name of the run folder>"
    asked: float = 0.0  # when, in seconds; a later time brings the page up to date, and an earlier one is not heeded


class Show(NamedTuple):
    """What brings a page up to date: `refresh(where, *inputs)` for `outputs`."""

    page: str
    refresh: Callable[..., Any]
    inputs: Sequence[Any]
    outputs: Sequence[Any]
    options: dict[str, Any]


@dataclass(frozen=True)
class Here:
    """The browser tab's place. A handler with `where` among its inputs and outputs goes to what it returns for it."""

    where: gr.HTML  # keeps a Where
    shows: list[Show] = field(default_factory=list)
    timers: list[tuple[str, gr.Timer]] = field(default_factory=list)

    def on_show(
        self, page: str, refresh: Callable[..., Any], outputs: Sequence[Any], inputs: Sequence[Any] = (), **options: Any
    ) -> None:
        """Call `refresh(where, *inputs)` for `outputs` whenever a page is shown, or another project or run on it."""

        def when_shown(where: Where, *values: Any) -> Any:
            return refresh(
                where._replace(page=page), *values
            )  # the browser turns pages; `where` may be told of it later

        shown = in_words(when_shown)
        self.shows.append(
            Show(page, shown, [self.where, *inputs], outputs, {**QUIET, "trigger_mode": "multiple", **options})
        )

    def while_shown(self, page: str, timer: gr.Timer) -> None:
        """Let a timer tick only while a page is in sight."""
        self.timers.append((page, timer))


def going(where: Where, **changes: str) -> Where:
    """Another place: going(where, page="monitor", run=...). Also the same one again, brought up to date."""
    later = where.asked + 0.001  # where the clock was put back
    return where._replace(**changes, asked=max(time.time(), later))
