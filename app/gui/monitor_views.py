"""What the Monitor page says: the head, the buttons that fit the state, advice, notes and the end, as HTML."""

from collections.abc import Sequence
from pathlib import Path

from app.gui.markup import button, empty, notice, text
from app.progress import duration
from app.runs import Run
from app.watching import Watched

WORDS = {  # status word -> what the page calls it
    "new": "Not begun",
    "waiting": "Waiting in the queue",
    "starting": "Starting",
    "running": "Training",
    "pausing": "Saving ...",
    "paused": "Paused",
    "stopping": "Saving ...",
    "stopped": "Stopped and kept",
    "interrupted": "Interrupted",
    "finished": "Finished",
    "failed": "Failed",
}
MEANINGS = {
    "new": "This run has not begun.",
    "waiting": "It begins by itself when those before it have ended.",
    "starting": "The base model and the pictures are being prepared; the first steps follow.",
    "pausing": "The step it is in is finished and everything is saved. Then {} is free.",
    "paused": "Everything is saved and {} is free. Resume goes on with the very same weights.",
    "stopping": "The step it is in is finished, and the adapter of that step is written and checked.",
    "running": "Pause saves everything and frees {}. Stop and keep ends the training here and writes "
    "the adapter as it is now.",
    "stopped": "Everything is saved. Resume goes on from there.",
    "interrupted": "Resume goes on from the last checkpoint, with the very same weights.",
}
DEVICES = {"cpu": "Processor (CPU)", "cuda": "Graphics card", "xpu": "Graphics card", "mps": "Apple graphics"}
BEFORE = {"new": "No step yet", "waiting": "No step yet"}
FREED = {"cuda": "the graphics card", "xpu": "the graphics card", "mps": "the graphics chip"}  # else the processor
WAYS_OUT = {  # what can be done in a state: (words, action, kind)
    "new": [("Train", "resume", "primary")],
    "waiting": [("Take out of the queue", "unqueue", "")],
    "starting": [("Pause", "pause", ""), ("Cancel", "end", "")],
    "running": [("Pause", "pause", "primary"), ("Stop and keep", "stop", "")],
    "paused": [("Resume", "resume", "primary"), ("Compare checkpoints", "compare", "")],
    "stopped": [("Resume", "resume", "primary"), ("Compare checkpoints", "compare", "")],
    "interrupted": [("Resume", "resume", "primary"), ("Change the settings", "settings", "")],
    "failed": [("Change the settings", "settings", "primary"), ("Try again", "resume", "")],
    "finished": [("Compare checkpoints", "compare", "primary")],
}
MENDED_BY_TRYING = ("resume", "make room", "internet", "network")  # words of hints after which nothing need be changed


NOTHING = empty(
    "No training yet",
    "Here you will see a run while it trains: how far it is, its samples as they develop, its loss, and what to do "
    "when something goes wrong. Begin one on the Train page.",
)


def head(watched: Watched) -> str:
    """The status word, where the run is, and its progress bar."""
    state = watched.status.state
    name, project = text(watched.config.saving.name), text(watched.project)
    share, told = progress(watched)
    facts = [
        f"{duration(watched.seconds)} of training" if watched.seconds >= 1 else "",
        *memory(watched),
        device(state.device) if state.device else "",
    ]
    items = "".join(f"<span>{text(fact)}</span>" for fact in facts if fact)
    bar = (
        f'<div class="dr-progress" role="progressbar" aria-label="Progress of the run" aria-valuemin="0" '
        f'aria-valuemax="100" aria-valuenow="{100 * share:.0f}" aria-valuetext="{text(told)}">'
        f'<div style="width: {share:.1%}"></div></div>'
    )
    return (
        f'<div class="dr-head {watched.word}"><div class="dr-row"><span class="dr-word">{WORDS[watched.word]}</span>'
        f'<h2 class="dr-title">{name}</h2><span class="dr-quiet">{project}</span></div>'
        f'<p class="dr-line">{text(told)}</p>{bar}<p class="dr-facts">{items}</p>'
        f"{queue_line(watched.queue, watched.held)}</div>"
    )


def memory(watched: Watched) -> list[str]:
    """The run's own peak, and what all programs use of the card while it trains; on no card, that of its process."""
    state = watched.status.state
    if not state.memory_gb:
        return []
    if not state.device.startswith("cuda"):
        return [f"Memory of the process: {state.memory_gb:.1f} GB at most"]
    found = [f"GPU memory of the run: {state.memory_gb:.1f} GB at most"]
    if watched.status.alive and state.total_gb:
        found.append(f"All programs: {state.used_gb:.1f} of {state.total_gb:.1f} GB")
    return found


def progress(watched: Watched) -> tuple[float, str]:
    """The share that is done, and "Step 420 of 1,600, 1.3 s/step, about 26 min left" or the phase it is in."""
    state = watched.status.state
    share = state.step / state.steps if state.steps else 0.0
    step = f"Step {state.step:,} of {state.steps:,}" if state.steps else ""
    if not watched.status.alive:
        return share, step or BEFORE.get(watched.word, "It ended before the first step.")
    if watched.word == "starting" or (state.phase and state.phase != "Training"):
        said = f"{state.phase} ..." if watched.spoken and state.phase else "Loading the libraries ..."
        if watched.spoken and state.phase_total:
            said = f"{state.phase}: {state.phase_done:,} of {state.phase_total:,}"
            share = share or state.phase_done / state.phase_total
        return share, f"{step}. {said}" if step else said
    pace_now = pace(state.seconds_per_step) if state.seconds_per_step is not None else ""
    left = f"about {duration(watched.status.seconds_left)} left" if watched.status.seconds_left else ""
    return share, ", ".join(filter(None, [step, pace_now, left]))


def pace(seconds: float) -> str:
    """ "1.3 s/step", or "0.04 s/step"."""
    return f"{seconds:.1f} s/step" if seconds >= 0.95 else f"{seconds:.2g} s/step"


def device(name: str) -> str:
    return DEVICES.get(name.split(":")[0], name)


def actions(watched: Watched) -> str:
    """The buttons that fit the state, and what they do."""
    found = list(WAYS_OUT.get(watched.word, []))
    if watched.word == "failed" and any(word in watched.status.state.hint.casefold() for word in MENDED_BY_TRYING):
        found = [("Resume", "resume", "primary"), ("Change the settings", "settings", "")]
    if watched.word == "running" and watched.status.state.spilled:
        found.append(("Use less memory", "lighter", ""))
    if watched.held:
        found.append(("Train the next run", "next", ""))
    if watched.word in ("stopping", "pausing") and watched.late:
        found = [("End it at once", "end", "quiet")]
    if watched.word == "stopped" and watched.status.state.step >= watched.status.state.steps:
        found = WAYS_OUT["finished"]
    buttons = "".join(button(words, name, kind, run=watched.run.key) for words, name, kind in found)
    freed = FREED.get(watched.status.state.device.split(":")[0], "the processor")
    meaning = MEANINGS.get(watched.word, "").format(freed)
    if watched.word in ("stopping", "pausing") and watched.late:
        meaning += " This takes longer than usual. Ending it at once loses the steps since the last checkpoint."
    return f'<div class="dr-row">{buttons}<span class="dr-quiet dr-meaning">{text(meaning)}</span></div>'


def advice(watched: Watched) -> str:
    """What happened and what to do, where something went wrong."""
    state = watched.status.state
    if watched.word == "failed":
        return notice(state.message or "The training failed.", state.hint or "See the log under Details.", "error")
    if watched.problem:
        return notice("This run could not be started.", watched.problem, "error")
    if watched.ended:
        return notice("You ended this training at once.", "Resume goes on from the last checkpoint.")
    if watched.word == "interrupted":
        return notice(watched.sudden, "Nothing before the last checkpoint is lost: press Resume.", "error")
    return ""


def ending(watched: Watched) -> str:
    """The adapter file and how it is used, once it is written."""
    adapter = watched.status.adapter if watched.word in ("finished", "stopped", "paused") else None
    if adapter is None:
        return ""
    trigger = watched.config.data.trigger
    if trigger:
        word = (
            f"<dt>Trigger word</dt><dd><code data-copied>{text(trigger)}</code> "
            f'<button type="button" class="dr-button" data-copy="{text(trigger)}">Copy trigger word</button></dd>'
        )
    else:
        kind = watched.config.data.kind
        told = f"None was set: the words of captions and folders call it up, or “{kind}” where there were none."
        word = f"<dt>Trigger word</dt><dd>{text(told)}</dd>"
    return (
        '<section class="dr-card dr-ending" aria-label="The adapter file">'
        f"<strong>Saved as {text(adapter.name)}</strong>"
        f"<dl>{word}<dt>Suggested strength</dt><dd>1.0; less where it is too strong</dd>"
        f'<dt>Folder</dt><dd><span class="dr-mono">{text(adapter.parent)}</span> '
        f"{button('Open folder', 'open', run=watched.run.key)}</dd></dl></section>"
    )


def loss(plot: str) -> str:
    """The drawing, and what it is no measure of."""
    drawn = plot or empty("Loss", "The curve begins with the first steps.")
    return (
        f'<section class="dr-card" aria-label="Loss"><h3 class="dr-title">Loss</h3>{drawn}<p class="dr-quiet">The loss '
        "shows whether the training is steady. It is no measure of quality: good and bad adapters have the same. Judge "
        "by the samples.</p></section>"
    )


def notes(watched: Watched) -> str:
    """What the engine changed by itself, and its warnings."""
    state = watched.status.state
    changed, warned = unique(state.adjustments), unique(state.warnings)
    lists = [
        _list("Changed by the engine", changed, "Nothing: it trains with your settings as they are."),
        _list("Warnings", warned, "None."),
    ]
    return f'<div class="dr-notes">{"".join(lists)}</div>'


def unique(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Each once: a run that is resumed says them again."""
    return list(dict.fromkeys(pairs))


def queue_line(next_ones: Sequence[str], held: bool = False) -> str:
    """What waits: names, the next one first. `held`: until a person goes on, after a pause."""
    if not next_ones:
        return ""
    more = f" and {len(next_ones) - 3:,} more" if len(next_ones) > 3 else ""
    waits = " It waits because a run was paused." if held else ""
    return f'<p class="dr-quiet">Next in the queue: {text(", ".join(next_ones[:3]))}{more}.{waits}</p>'


def log_view(path: Path, lines: str) -> str:
    """The end of the log, as text."""
    said = text(lines) if lines.strip() else "The log is empty: nothing unusual was said."
    return (
        f'<p class="dr-quiet">The last lines of <span class="dr-mono">{text(path)}</span></p>'
        f'<pre class="dr-log" tabindex="0" aria-label="Log">{said}</pre>'
    )


def run_label(run: Run, project: str) -> str:
    """ "Whiskers, 26 Nov 14:05" from the name of a run's folder."""
    day, _, rest = run.folder.name.partition("_")
    clock = rest.partition("_")[0].split("-")
    months = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
    try:
        year, month, number = map(int, day.split("-"))
        return f"{project}, {number} {months[month - 1]} {year}, {clock[0]}:{clock[1]}:{clock[2]}"
    except (ValueError, IndexError):  # renamed by hand
        return f"{project}, {run.folder.name}"


def _list(title: str, pairs: Sequence[tuple[str, str]], nothing: str) -> str:
    items = "".join(
        f"<li><span>{text(first)}</span>{f'<small>{text(second)}</small>' if second else ''}</li>"
        for first, second in pairs
    )
    body = f"<ul>{items}</ul>" if items else f'<p class="dr-quiet">{nothing}</p>'
    return f'<section class="dr-card"><h3 class="dr-title">{title} ({len(pairs)})</h3>{body}</section>'
