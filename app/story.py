"""The story of a run: its events folded into one state, of which only what is new is read again, and its log."""

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass, fields, replace
from pathlib import Path

from trainers import events
from trainers.events import Failed, Finished, Phase, RunState, Stopped

KEPT = 32  # runs whose states stay in memory
BEGINS = "Reading the pictures"  # the phase with which the engine begins each sitting
LOG_BYTES = 64 * 1024  # of the end of a log; a line is rarely longer than 300 bytes


@dataclass(frozen=True)
class Story:
    """Not to be changed by who reads it: others are given the same one."""

    state: RunState
    seconds: float = 0.0  # between the events of each sitting: no pauses, and no sleep of the machine
    spoke: float = 0.0  # when the engine spoke last, on the clock of trainers.clock
    over: bool = True  # whether the newest sitting ended with a word
    offset: int = 0  # byte of the log from which to go on
    born: tuple[int, int] = (0, 0)  # device and number of the log file


class _Shelf:
    """A cache, not a state: without it every story would be read from its beginning each time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.stories: OrderedDict[Path, Story] = OrderedDict()

    def read(self, path: Path) -> Story:
        with self.lock:
            story = _go_on(path, self.stories.get(path) or Story(RunState()))
            self.stories[path] = story
            self.stories.move_to_end(path)
            while len(self.stories) > KEPT:
                self.stories.popitem(last=False)
            return story


_SHELF = _Shelf()


def read_story(path: Path) -> Story:
    """What an event log tells so far; the very same object while nothing was added to it."""
    return _SHELF.read(path)


def last_lines(path: Path, count: int = 200) -> str:
    """The end of a text file, at most `count` lines of it; "" where there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LOG_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return "\n".join((lines[1:] if size > LOG_BYTES else lines)[-count:])  # the first of a cut is half a line


def _go_on(path: Path, story: Story) -> Story:
    try:
        facts = path.stat()
    except OSError:
        return story if not story.offset else Story(RunState())
    born = (facts.st_dev, facts.st_ino)
    if facts.st_size < story.offset or born != story.born:  # another file: a run restored from an archive
        story = Story(RunState(), born=born)
    if facts.st_size == story.offset:
        return story
    new, offset = events.read_from(path, story.offset)
    if offset == story.offset:  # half a line
        return story
    seconds, spoke, over = story.seconds, story.spoke, story.over
    for moment, event in new:
        if not over and not (isinstance(event, Phase) and event.name == BEGINS):
            seconds += max(0.0, moment - spoke)
        spoke, over = moment, isinstance(event, (Stopped, Finished, Failed))
    state = events.fold([event for _, event in new], _copy(story.state))
    return Story(state, seconds, spoke, over, offset, born)


def _copy(state: RunState) -> RunState:
    """One whose lists can grow while others read the old one's."""
    values = {f.name: getattr(state, f.name) for f in fields(state)}
    return replace(state, **{name: list(value) for name, value in values.items() if isinstance(value, list)})
