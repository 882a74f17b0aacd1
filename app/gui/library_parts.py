"""What the sections of the Library page share: what one tab shows of it, and ways to go and to complain."""

import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import gradio as gr

from app.chores import Chores
from app.gui.context import Context, Here, Where, going
from app.gui.library_views import PAGE
from app.library import Shelf, Wish

MAYBE = ["dr-maybe"]  # takes no room while it is empty
IN_SIGHT = """
watch('value', () => element.querySelector('[role=alert]')?.scrollIntoView({block: 'nearest'}));
"""
PLACES = {"open": "monitor", "results": "results", "train": "train"}  # an action -> the page that it leads to


class Shown(NamedTuple):
    """What one tab shows: all runs, one of them, or two compared. Keys of runs."""

    run: str = ""
    compared: tuple[str, ...] = ()
    chosen: tuple[str, ...] = ()  # for a comparison, two at most
    count: int = PAGE
    asked: float = 0.0  # when; a new number brings everything up to date

    @property
    def everything(self) -> bool:
        return not self.run and not self.compared

    def again(self) -> "Shown":
        return self._replace(asked=time.time())

    def choose(self, key: str) -> "Shown":
        """With the run marked, or no longer; of three, the one marked first gives way."""
        left = tuple(one for one in self.chosen if one != key)
        return self._replace(chosen=left if key in self.chosen else (*left, key)[-2:])


@dataclass(frozen=True)
class Library:
    """Of the whole page: what it reads from, and the parts that every section answers with."""

    context: Context
    here: Here
    shelf: Shelf
    chores: Chores
    shown: gr.HTML  # keeps a Shown
    said: gr.HTML  # a sentence on top of the page


def wish(search: str, word: str, kind: str, family: str, order: str) -> Wish:
    return Wish(search or "", word or "", kind or "", family or "", order)


def refusals(label: str) -> gr.HTML:
    """Beside fields: says why what was typed there is refused, and comes into sight then."""
    return gr.HTML(label=label, js_on_load=IN_SIGHT, apply_default_css=False, elem_classes=MAYBE)


def go_to(where: Where, done: dict[str, Any]) -> Where:
    """Where an action on a run leads."""
    key = done["key"]
    return going(where, page=PLACES[done["act"]], project=key.partition("/")[0], run=key)
