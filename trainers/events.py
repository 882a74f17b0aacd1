"""What a run says: typed events, an append-only log, and the state that follows from it."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from trainers.clock import awake
from trainers.json_values import is_number, made, parse

MAKING, DRAWING = "Making preview pictures", "Drawing a picture that was asked for"  # phases that others know by name


@dataclass(frozen=True)
class Event:
    type: ClassVar[str]


@dataclass(frozen=True)
class Started(Event):
    type: ClassVar[str] = "started"
    steps: int
    step: int  # where it begins: 0, or the checkpoint's
    device: str
    pictures: int
    name: str


@dataclass(frozen=True)
class Phase(Event):
    """A stage of the run; done of total where it can be counted."""

    type: ClassVar[str] = "phase"
    name: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class Step(Event):
    """loss and seconds are means since the last Step event; memory_gb is the run's own peak so far.

    used_gb and total_gb are of the whole GPU at this moment, other programs included; 0 where it trains on none.
    Seconds in which a step waits for a picture to be encoded do not count. beside_left are those that are to come
    beside the steps: of encoding, previews and validations, as far as it is known how long they take.
    """

    type: ClassVar[str] = "step"
    step: int
    steps: int
    loss: float
    rate: float
    seconds: float
    memory_gb: float
    used_gb: float = 0.0
    total_gb: float = 0.0
    beside_left: float = 0.0


@dataclass(frozen=True)
class Validation(Event):
    type: ClassVar[str] = "validation"
    step: int
    loss: float
    train_loss: float


@dataclass(frozen=True)
class Sample(Event):
    """A picture. `asked`: a person wished for this one; the others are the columns of the preview grid."""

    type: ClassVar[str] = "sample"
    step: int
    prompt: str
    path: str
    seed: int | None = None  # None in events of earlier versions
    strength: float = 1.0
    asked: bool = False


@dataclass(frozen=True)
class Checkpoint(Event):
    type: ClassVar[str] = "checkpoint"
    step: int
    path: str


@dataclass(frozen=True)
class Adjusted(Event):
    """Something the engine changed by itself, and why."""

    type: ClassVar[str] = "adjusted"
    what: str
    why: str


@dataclass(frozen=True)
class Warned(Event):
    type: ClassVar[str] = "warned"
    message: str
    hint: str = ""


@dataclass(frozen=True)
class Spilled(Warned):
    """The card is full and steps have become slow: a person may want the run to use less memory."""

    type: ClassVar[str] = "spilled"


@dataclass(frozen=True)
class Stopped(Event):
    """Ended early at a person's wish, everything saved. `paused`: the person means to go on later."""

    type: ClassVar[str] = "stopped"
    step: int
    paused: bool = False


@dataclass(frozen=True)
class Finished(Event):
    type: ClassVar[str] = "finished"
    step: int
    path: str  # the adapter file
    seconds: float


@dataclass(frozen=True)
class Failed(Event):
    type: ClassVar[str] = "failed"
    message: str
    hint: str = ""


SAID = (Started, Phase, Step, Validation, Sample, Checkpoint, Adjusted, Warned, Spilled, Stopped, Finished, Failed)
EVENTS: dict[str, type[Event]] = {cls.type: cls for cls in SAID}
BLOCK = 4 << 20  # bytes that are read at once, and more than any line has
TOGETHER = 500  # lines parsed at once, which is twice as fast as one by one
FIELDS = {cls: tuple(f.name for f in fields(cls)) for cls in EVENTS.values()}


class EventLog:
    """Appends events to `events.jsonl`, one JSON object per line, flushed at once."""

    def __init__(self, path: Path):
        self.path = path
        self.seq = sum(1 for _ in read(path)) if path.exists() else 0
        self.cut = False  # whether the last line may not have been written to its end
        if path.exists() and path.stat().st_size:
            with path.open("rb+") as file:  # a line cut off by a crash must not swallow the next one
                file.seek(-1, os.SEEK_END)
                if file.read() != b"\n":
                    file.write(b"\n")

    def __call__(self, event: Event) -> None:
        line = {"seq": self.seq, "time": time.time(), "awake": awake(), "type": event.type, **asdict(event)}
        begin, self.cut = "\n" if self.cut else "", True
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{begin}{json.dumps(line, ensure_ascii=False)}\n")
            file.flush()
            os.fsync(file.fileno()) if not isinstance(event, (Step, Phase)) else None
        self.seq, self.cut = self.seq + 1, False


def read_from(path: Path, offset: int = 0) -> tuple[list[tuple[float, Event]], int]:
    """(moment, event) pairs written after byte `offset`, and the offset to go on from; half-written lines wait.

    Moments are seconds on the clock of `awake`, to be compared within one sitting; in events of earlier versions, of
    the day's clock.
    """
    if not path.exists():
        return [], offset
    found: list[tuple[float, Event]] = []
    with path.open("rb") as file:
        file.seek(offset)
        while block := file.read(BLOCK):
            end = block.rfind(b"\n") + 1
            if not end and len(block) == BLOCK:  # no line is so long: it is damage, which the next one ends
                offset += BLOCK
                continue
            found += _events(block[:end])
            offset += end
            if len(block) < BLOCK:
                break
            file.seek(offset)
    return found, offset


def _events(lines: bytes) -> list[tuple[float, Event]]:
    found = []
    for raw in _objects([line for line in lines.splitlines() if line.strip()]):
        try:
            cls = EVENTS[raw["type"]]
            event = made(cls, {name: raw[name] for name in FIELDS[cls] if name in raw})
            moment = raw.get("awake", raw.get("time", 0.0))
        except (KeyError, TypeError, AttributeError, ValueError):  # from another version, or damaged
            continue
        if is_number(moment):
            found.append((moment, event))
    return found


def _objects(lines: list[bytes]) -> Iterator[Any]:
    """What each line of JSON holds; one that was cut off by a crash is left out."""
    for begin in range(0, len(lines), TOGETHER):
        some = lines[begin : begin + TOGETHER]
        try:
            yield from parse(b"[" + b",".join(some) + b"]")
        except ValueError:
            for line in some:
                with suppress(ValueError):
                    yield parse(line)


def read(path: Path) -> Iterator[Event]:
    for _, event in read_from(path)[0]:
        yield event


@dataclass
class RunState:
    """All that events tell about a run."""

    status: str = "new"  # new, running, paused, stopped, finished, failed
    device: str = ""
    phase: str = ""
    phase_done: int = 0
    phase_total: int = 0
    step: int = 0
    steps: int = 0
    loss: float | None = None
    seconds_per_step: float | None = None
    memory_gb: float = 0.0
    used_gb: float = 0.0
    total_gb: float = 0.0
    beside_left: float = 0.0  # seconds that are to come beside the steps
    losses: list[tuple[int, float]] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    checkpoints: list[Checkpoint] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # of the next two, in the order in which they came
    adjustments: list[tuple[str, str]] = field(default_factory=list)  # what, why
    warnings: list[tuple[str, str]] = field(default_factory=list)  # message, hint
    spilled: bool = False  # whether this sitting's card is full and its steps are slow
    adapter: str = ""
    message: str = ""
    hint: str = ""


def fold(events: Iterator[Event] | list[Event], state: RunState | None = None) -> RunState:
    """Apply events to a RunState, in order; the same events always give the same state."""
    state = state or RunState()
    for event in events:
        match event:
            case Started():
                state.status, state.step, state.steps = "running", event.step, event.steps
                state.device, state.message, state.hint, state.spilled = event.device, "", "", False
                # steps after the checkpoint that it goes on from are done again
                state.losses = [one for one in state.losses if one[0] <= event.step]
                state.validation = [one for one in state.validation if one[0] <= event.step]
            case Phase():
                state.phase, state.phase_done, state.phase_total = event.name, event.done, event.total
            case Step():
                state.step, state.steps, state.loss = event.step, event.steps, event.loss
                state.seconds_per_step, state.memory_gb = event.seconds, event.memory_gb
                state.used_gb, state.total_gb, state.beside_left = event.used_gb, event.total_gb, event.beside_left
                state.losses.append((event.step, event.loss))
            case Validation():
                state.validation = [one for one in state.validation if one[0] != event.step]  # measured again
                state.validation.append((event.step, event.loss))
            case Sample():
                state.samples = [one for one in state.samples if one.path != event.path]  # drawn again
                state.samples.append(event)
            case Checkpoint():
                state.checkpoints.append(event)
            case Adjusted():
                state.notes.append(f"{event.what} ({event.why})")
                state.adjustments.append((event.what, event.why))
            case Warned():
                state.notes.append(f"{event.message} {event.hint}".strip())
                state.warnings.append((event.message, event.hint))
                state.spilled = state.spilled or isinstance(event, Spilled)
            case Stopped():
                state.status, state.step = "paused" if event.paused else "stopped", event.step
            case Finished():
                state.status, state.step, state.adapter = "finished", event.step, event.path
            case Failed():
                state.status, state.message, state.hint = "failed", event.message, event.hint
    return state
