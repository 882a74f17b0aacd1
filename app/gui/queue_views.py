"""The queue in words and HTML: what is trained now, what waits, and what could not start."""

from dataclasses import dataclass

from app.gui.library_views import labelled
from app.gui.markup import button, empty, notice, text
from app.gui.monitor_views import pace
from app.progress import duration
from app.runs import Run, Status

LEAVING = {"stopping": "Saving and stopping", "pausing": "Saving and pausing"}


@dataclass(frozen=True)
class Waiting:
    run: Run
    name: str
    project: str


def running(now: tuple[Waiting, Status] | None, waiting: int, held: bool) -> str:
    """The run in training; apart from `waiting_runs`, because it changes every second. `held`: by a pause."""
    if now:
        return _running(*now)
    if held:
        told = notice("The queue waits because you paused a run.", "The device is free until you let it go on.")
        return f'<div class="dr-beside">{told}{button("Start the next run", "go_on")}</div>'
    if waiting:
        return '<p class="dr-quiet">The next run starts in a moment.</p>'
    told = "What you train next runs at once. While something runs, further runs wait here, one after the other."
    return empty("Nothing is being trained.", told)


def waiting_runs(waiting: list[Waiting], problems: list[tuple[Waiting, str]]) -> str:
    """What could not start, and what waits, the next one first."""
    last = len(waiting) - 1
    rows = "".join(_row(one, place, last) for place, one in enumerate(waiting))
    listed = f'<ol class="dr-list" aria-label="Waiting runs">{rows}</ol>' if rows else ""
    return "".join(_problem(one, said) for one, said in problems) + listed


def progress_words(status: Status) -> str:
    """`Step 420 of 1,600, 1.3 s/step, about 26 min left`, or what it does before the first step."""
    state = status.state
    if not state.step:
        counted = f" {state.phase_done:,} of {state.phase_total:,}" if state.phase_total else ""
        return f"{state.phase}{counted}" if state.phase else "Starting"
    parts = [f"Step {state.step:,} of {state.steps:,}"]
    if state.seconds_per_step:
        parts.append(pace(state.seconds_per_step))
    if status.seconds_left:
        parts.append(f"about {duration(status.seconds_left)} left")
    return ", ".join(parts)


def _running(one: Waiting, status: Status) -> str:
    state = status.state
    share = 100 * state.step / state.steps if state.steps else 0
    word = LEAVING.get(status.word) or progress_words(status)
    return (
        f'<div class="dr-now"><div><strong>{text(one.name)}</strong> <span class="dr-quiet">{text(one.project)}</span>'
        f'<div class="dr-meter" role="progressbar" aria-label="Progress of {text(one.name)}" aria-valuemin="0" '
        f'aria-valuemax="100" aria-valuenow="{share:.0f}"><i style="width: {share:.1f}%"></i></div>'
        f"<span>{text(word)}</span></div>{button('Open', 'open', key=one.run.key)}</div>"
    )


def _row(one: Waiting, place: int, last: int) -> str:
    key, called = one.run.key, one.name
    return (
        f'<li><span class="dr-place">{place + 1}</span><span class="dr-grow"><strong>{text(called)}</strong> '
        f'<span class="dr-quiet">{text(one.project)}</span></span><span class="dr-row">'
        + _move("Train next", f"Train {called} next", key, 0, place == 0)
        + _move("Up", f"Move {called} up", key, place - 1, place == 0)
        + _move("Down", f"Move {called} down", key, place + 1, place == last)
        + labelled(button("Remove", "remove", key=key), f"Remove {called} from the queue")
        + "</span></li>"
    )


def _move(label: str, told: str, key: str, place: int, off: bool) -> str:
    made = labelled(button(label, "move", key=key, place=place), told)
    return made.replace("<button ", "<button disabled ", 1) if off else made


def _problem(one: Waiting, said: str) -> str:
    told = notice(f"{one.name} could not start.", said, "error")
    return f'<div class="dr-beside">{told}{button("Understood", "dismiss", key=one.run.key)}</div>'
