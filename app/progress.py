"""Events as a progress bar on a terminal, or as plain lines anywhere else."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn

from trainers.events import Adjusted, Checkpoint, Event, Phase, Sample, Started, Step, Validation, Warned

EVERY = 10.0  # seconds between lines where there is no terminal


class Display(AbstractContextManager):
    """Call it with new events; `note` prints a line above the bar."""

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic):
        self.console = console or Console(stderr=True, highlight=False)
        self.clock = clock
        self.spoke = float("-inf")
        self.phase = ""
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[text]}"),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
        )
        self.task = self.bar.add_task("Starting", total=None, text="")

    def __enter__(self) -> "Display":
        self.bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bar.stop()

    def __call__(self, events: list[Event]) -> None:
        for event in events:
            self._show(event)

    def note(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)

    def _show(self, event: Event) -> None:
        match event:
            case Started():
                self.note(started(event))
            case Phase():
                total = event.total or None
                text = f"{event.done} of {event.total}" if total else ""
                if event.name == "Training":  # the steps that follow say more
                    self.bar.update(self.task, description=event.name, text=text)
                    return
                self.bar.update(self.task, description=escape(event.name), completed=event.done, total=total, text=text)
                if event.name != self.phase:
                    self._line(f"{event.name} ...")
                self.phase = event.name
            case Step():
                self.phase = "Training"
                self.bar.update(
                    self.task, description="Training", completed=event.step, total=event.steps, text=step_text(event)
                )
                if self.clock() - self.spoke >= EVERY or event.step == event.steps:
                    self.spoke = self.clock()
                    self._line(step_text(event))
            case Validation():
                self.note(
                    f"Step {event.step}: held-out loss {event.loss:.4f}, training pictures {event.train_loss:.4f}."
                )
            case Checkpoint():
                self.note(f"Saved a checkpoint at step {event.step}.")
            case Sample():
                self._line(f"Preview {event.path}: {event.prompt}")
            case Adjusted():
                self.note(f"{event.what} ({event.why.removesuffix('.')}).")
            case Warned():
                self.note(f"Note: {event.message} {event.hint}".rstrip())

    def _line(self, text: str) -> None:
        """Only where no bar shows it."""
        if not self.console.is_terminal:
            self.note(text)


def started(event: Started) -> str:
    begin = f", going on from step {event.step:,}" if event.step else ""
    pictures = "1 picture" if event.pictures == 1 else f"{event.pictures} pictures"
    return f"Training {event.name} on {pictures}: {event.steps:,} steps on {event.device}{begin}."


def step_text(event: Step) -> str:
    """ "Step 420 of 1,600, loss 0.1234, rate 1.0e-04, 1.3 s/step, about 26 min left"."""
    parts = [f"Step {event.step:,} of {event.steps:,}", f"loss {event.loss:.4f}", f"rate {event.rate:.1e}"]
    parts.append(f"{event.seconds:.2f} s/step")
    left = (event.steps - event.step) * event.seconds + event.beside_left
    return ", ".join(parts) + (f", about {duration(left)} left" if left > 0 else "")


def duration(seconds: float) -> str:
    """Seconds as people say them: 40 s, 26 min, 3 h 20 min."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
