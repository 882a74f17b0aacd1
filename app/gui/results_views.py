"""What the Results page shows, as HTML: the grid of checkpoints, the pick, the file and where it can be sent."""

import os
from collections.abc import Sequence

from app.comparisons import Progress, rows_of
from app.drift import Drift
from app.gui.markup import act, empty, enlarged, notice, picture_address, text
from app.picks import Pick
from app.progress import duration
from trainers.comparison import BASE, Cell, Comparison

ALL = -1  # the tab that shows every prompt
SIZES, SMALL = {1: 240, 2: 220, 3: 200, 4: 168}, 152  # columns -> pixels of a picture on the page
SIDE = 320  # pixels of a thumbnail
HOW_TO_CHOOSE = "Pick the earliest checkpoint that looks like your pictures and still follows every prompt."
DRIFT = "should look like the row above: else the adapter changes other pictures too"
FEW = 6  # columns that stand side by side in the window


def no_run() -> str:
    return empty(
        "Results",
        "Train a run: here its checkpoints are compared picture by picture, and the best one becomes the adapter file.",
    )


def no_checkpoints(name: str) -> str:
    sentence = (
        "Once it has saved its first checkpoint, what the checkpoints draw appears here side by side: "
        "same prompts, same seeds. Pick the best one, and it becomes the adapter file."
    )
    return empty(f"{name} has no checkpoint yet", sentence)


def how_many(pictures: int) -> str:
    """What a comparison takes, before it is started."""
    return f'<p class="dr-quiet" role="status">That makes {pictures:,} pictures.</p>'


def sharing(name: str) -> str:
    """Before a comparison is started while that run trains on the same device."""
    hint = "Comparing now is possible: the base model is loaded a second time, which takes memory, and both are slower."
    return notice(f"{name} is training on the same device.", hint)


def drift(found: Drift, compared: Sequence[int]) -> str:
    """Where the validation loss was lowest, and that it decides nothing."""
    said = (
        f"Validation loss is lowest at step {found.best:,} ({found.best_loss:.4g}); at step {found.last:,} it is "
        f"{found.last_loss:.4g}."
    )
    missing = "" if found.best in compared else f"Step {found.best:,} is not in this comparison. "
    hint = "Later checkpoints may repeat your pictures instead of following the prompt. It is a hint: pictures decide."
    return notice(said, missing + hint)


def progress(state: Progress | None) -> str:
    """How far the comparison is; nothing where it is done or there is none."""
    if state is None or state.word == "done":
        return ""
    share = state.drawn / max(1, state.total)
    count = f"{state.drawn:,} of {state.total:,} pictures"
    if state.word == "failed":
        return notice(f"The comparison ended at {count}. {state.message}", state.hint, "error")
    if state.word == "stopped":
        return notice(f"Stopped at {count}.", "Compare goes on from there.")
    left = "" if state.seconds_left is None else f", about {duration(state.seconds_left)} left"
    bar = (
        f'<div class="dr-drawn" role="progressbar" aria-label="Pictures drawn" aria-valuemin="0" '
        f'aria-valuemax="{state.total}" aria-valuenow="{state.drawn}"><span style="width:{share:.1%}"></span></div>'
    )
    return f'<div role="status"><p>{text(state.phase)}: {count}{left}</p>{bar}</div>'


def first_prompt(made: Comparison) -> int:
    """What is shown at first: every prompt where they have room, else the first one."""
    wide = len(made.prompts) * len(made.seeds) * len(made.strengths)
    return ALL if 1 < len(made.prompts) and wide <= FEW else 0


def grid(made: Comparison, shown: int = 0, picked: Pick | None = None, drawing: bool = False, remark: str = "") -> str:
    """The table of one prompt, or of all: rows are checkpoints, columns seeds and strengths. `remark` is HTML."""
    numbers = range(len(made.prompts)) if shown == ALL or shown >= len(made.prompts) else [shown]
    columns = [(number, seed) for number in numbers for seed in made.seeds]
    table = "".join(_row(made, row, columns, picked, drawing) for row in rows_of(made))
    head = _head(made, columns, len(numbers) > 1)
    hint = f'<p class="dr-quiet">{text(HOW_TO_CHOOSE)}</p>'
    size = SIZES.get(len(columns) * len(made.strengths), SMALL)
    sheet = (
        f'<div class="dr-sheet" style="--side: {size}px" tabindex="0" role="region" aria-label="Checkpoints compared">'
        f"<table>{head}"
    )
    return f"{hint}{remark}{_tabs(made, shown)}{sheet}<tbody>{table}</tbody></table></div>"


def title(made: Comparison) -> str:
    """A comparison in a list of them."""
    day, _, hour = made.folder.name.partition("_")
    prompts = f"{len(made.prompts)} prompt{'s' * (len(made.prompts) > 1)}"
    steps = f"{len(made.steps)} checkpoint{'s' * (len(made.steps) > 1)}"
    return f"{day} {hour.replace('-', ':')}: {steps}, {prompts}"


def nothing_compared() -> str:
    return empty(
        "No comparison yet",
        "Press Compare: what each checkpoint draws appears here row by row, the base model first.",
    )


def _tabs(made: Comparison, shown: int) -> str:
    if len(made.prompts) == 1:
        return f'<p class="dr-prompt">{text(made.prompts[0])}</p>'
    names = [*enumerate(made.prompts), (ALL, "All prompts")]
    tabs = "".join(
        f'<button type="button" class="dr-tab" aria-pressed="{str(number == shown).lower()}" '
        f"{act('prompt', number=number)}>{text(name)}</button>"
        for number, name in names
    )
    return f'<div class="dr-tabs" role="group" aria-label="Prompt">{tabs}</div>'


def _head(made: Comparison, columns: list[tuple[int, int]], named: bool) -> str:
    wide = len(made.strengths)
    rows = ""
    if named or len(made.seeds) > 1:
        above = "".join(
            f'<th scope="colgroup" colspan="{wide}">{text(_column(made, number, seed, named))}</th>'
            for number, seed in columns
        )
        rows = f"<tr><td></td>{above}</tr>"
    strengths = "".join(f'<th scope="col">Strength {x:g}</th>' for _ in columns for x in made.strengths)
    return f'<thead>{rows}<tr><th scope="col">Checkpoint</th>{strengths}</tr></thead>'


def _column(made: Comparison, number: int, seed: int, named: bool) -> str:
    parts = [made.prompts[number]] if named else []
    return ", ".join(parts + ([f"seed {seed}"] if len(made.seeds) > 1 else []))


def _row(
    made: Comparison, row: tuple[int, bool, str], columns: list[tuple[int, int]], picked: Pick | None, drawing: bool
) -> str:
    step, plain, label = row
    chosen = picked is not None and step == picked.step and not plain
    cells = {(c.number, c.seed, c.strength): c for c in made.cells if (c.step, c.plain) == (step, plain)}
    pictures = ""
    for number, seed in columns:
        if step == BASE:  # one picture stands for all strengths
            pictures += _cell(made, cells.get((number, seed, 0.0)), label, len(made.strengths), drawing)
            continue
        pictures += "".join(_cell(made, cells.get((number, seed, x)), label, 1, drawing) for x in made.strengths)
    kind = " ".join(name for name, wanted in (("plain", plain), ("base", step == BASE), ("chosen", chosen)) if wanted)
    note = '<span class="dr-quiet">no adapter</span>' if step == BASE else ""
    if step != BASE and not plain:
        note = f"<strong>Picked, at {picked.strength:g}</strong>" if chosen else ""
        note += _pick(made, step, picked.strength if chosen else None)
    elif plain and step != BASE:
        note = f'<span class="dr-quiet">{DRIFT}</span>'
    return f'<tr class="{kind}"><th scope="row"><span>{text(label)}</span>{note}</th>{pictures}</tr>'


def _pick(made: Comparison, step: int, picked: float | None) -> str:
    """A button for each strength but the picked one."""
    choices = "".join(
        f'<button type="button" class="dr-button" aria-label="Pick step {step} at strength {x:g}" '
        f"{act('pick', step=step, strength=x)}>{f'Pick at {x:g}' if len(made.strengths) > 1 else 'Pick'}</button>"
        for x in made.strengths
        if x != picked
    )
    return f'<span class="dr-picks">{choices}</span>' if choices else ""


def _cell(made: Comparison, cell: Cell | None, label: str, wide: int, drawing: bool) -> str:
    span = f' colspan="{wide}"' if wide > 1 else ""
    if cell is None:  # the prompt has no trigger word to leave out
        return f'<td{span}><span class="dr-quiet">same prompt</span></td>'
    file = made.folder / cell.file
    if not os.path.isfile(file):
        waiting = "to be drawn" if drawing else "not drawn"
        return f'<td{span}><div class="dr-blank">{waiting}</div></td>'
    strength = "" if cell.step == BASE else f", strength {cell.strength:g}"
    title = f"{label}{strength}, seed {cell.seed}: {cell.prompt}"
    group, prompt = f"{cell.number} {cell.seed} {cell.plain}", f"{cell.prompt} (seed {cell.seed})"
    large = enlarged(file, group, f"{label}{strength}", prompt, base=cell.step == BASE)
    return (
        f'<td{span}><button type="button" class="dr-cell" {large} aria-label="Enlarge: {text(title)}">'
        f'<img src="{text(picture_address(file, SIDE))}" alt="{text(title)}" loading="lazy"></button></td>'
    )
