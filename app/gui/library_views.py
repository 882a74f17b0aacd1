"""The library in words and HTML: cards, filters, sizes and dates."""

from datetime import datetime

from app.gui.markup import act, button, empty, notice, picture_address, text
from app.library import Entry

PAGE = 12  # cards shown at first, and more at each wish
EVERY = "All"
WORDS = {  # a status word -> how a card says it
    "new": "Not started",
    "starting": "Starting",
    "running": "Training",
    "pausing": "Pausing",
    "paused": "Paused",
    "stopping": "Stopping",
    "stopped": "Stopped",
    "interrupted": "Interrupted",
    "finished": "Finished",
    "failed": "Failed",
}
ACTIVE = ("starting", "running", "pausing", "stopping")


def cards(found: list[Entry], count: int, chosen: tuple[str, ...], all_of_them: int) -> str:
    """The first `count` of the entries found as cards; `chosen` are marked for a comparison."""
    if not all_of_them:
        return empty(
            "No run yet", "Every training shows here: its newest picture, what it was made from, and its file."
        )
    if not found:
        return empty("Nothing fits", "Clear the search, or choose All in the lists beside it.")
    shown = "".join(_card(entry, entry.key in chosen) for entry in found[:count])
    more = ""
    if len(found) > count:
        more = f'<div class="dr-row dr-more">{button(f"Show {min(PAGE, len(found) - count)} more", "more")}</div>'
    told = f"{len(found):,} of {all_of_them:,} runs" if len(found) < all_of_them else counted(all_of_them, "run")
    return f'<p class="dr-quiet" role="status">{told}</p><div class="dr-grid dr-shelf">{shown}</div>{more}'


def chosen_bar(names: list[str]) -> str:
    """What the marked cards can be used for; empty where none is marked."""
    if not names:
        return ""
    told = " and ".join(f"<strong>{text(name)}</strong>" for name in names)
    do = button("Compare them", "compare", "primary") if len(names) == 2 else "<span>Choose one more to compare.</span>"
    return f'<div class="dr-row dr-chosen"><span>{told}</span>{do}{button("Clear", "clear", "quiet")}</div>'


def moved_to_trash(name: str, folder: str) -> str:
    """Said after something went to the trash, with the way back."""
    told = notice(f"{name} was moved to the trash.", "Nothing was deleted.", "good")
    return f'<div class="dr-beside">{told}{button("Put back", "put_back", folder=folder)}</div>'


def filters(entries: list[Entry]) -> tuple[list[tuple[str, str]], list[tuple[str, str]], list[tuple[str, str]]]:
    """The choices of status, kind and family that the entries give, as (shown, value)."""
    words = {entry.word for entry in entries}
    return (
        [(EVERY, ""), *((shown, word) for word, shown in WORDS.items() if word in words)],
        [(EVERY, ""), *((one.capitalize(), one) for one in sorted({entry.kind for entry in entries} - {""}))],
        [(EVERY, ""), *((one, one) for one in sorted({entry.family for entry in entries} - {""}))],
    )


def labelled(made: str, told: str) -> str:
    """A button whose shown text repeats in a list, told apart for those who do not see it."""
    return made.replace("<button ", f'<button aria-label="{text(told)}" ', 1)


def badge(word: str) -> str:
    return f'<span class="dr-badge {text(word)}">{text(WORDS.get(word, word))}</span>'


def size(count: int) -> str:
    """`820 KB`, `3.2 MB`, `1.4 GB`."""
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "KB")):
        if count >= limit:
            number = count / limit
            return f"{number:.1f} {unit}" if number < 10 and unit != "KB" else f"{number:,.0f} {unit}"
    return counted(count, "byte")


def counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def day(moment: datetime) -> str:
    """`3 Nov 2026, 14:05`."""
    return f"{moment.day} {moment:%b %Y, %H:%M}"


def steps(entry: Entry) -> str:
    """While it trains, the queue's section says how far it is."""
    if entry.word in ("running", "starting", "new") or not entry.step:
        return counted(entry.steps, "step") if entry.steps else ""
    if entry.step < entry.steps:
        return f"Step {entry.step:,} of {entry.steps:,}"
    return counted(entry.step, "step")


def steps_so_far(entry: Entry) -> str:
    """How far it is, also while it trains."""
    if entry.word in ACTIVE and entry.step and entry.steps:
        return f"Step {entry.step:,} of {entry.steps:,}"
    return steps(entry)


def subject(entry: Entry) -> str:
    """The kind, and the preset: once where they are called alike."""
    preset = f"Preset {entry.preset}" if entry.preset else ""
    kind = "" if entry.preset.casefold() == entry.kind.casefold() else entry.kind.capitalize()
    return " · ".join(filter(None, (kind, preset)))


def picture(entry: Entry, side: int) -> str:
    if entry.cover is None:
        return '<span class="dr-nothing">No picture yet</span>'
    source = picture_address(entry.cover, side)
    return f'<img src="{text(source)}" alt="Newest picture of {text(entry.name)}" loading="lazy">'


def _card(entry: Entry, chosen: bool) -> str:
    facts = [entry.family if entry.family == entry.base else " · ".join(filter(None, (entry.family, entry.base)))]
    facts += [" · ".join(filter(None, (subject(entry), entry.adapter, steps(entry))))]
    facts += [" · ".join(filter(None, (day(entry.made), size(entry.bytes))))]
    trigger = f'<span class="dr-mono">{text(entry.trigger)}</span>' if entry.trigger else ""
    lines = "".join(f"<p>{text(line)}</p>" for line in facts if line)
    return (
        f'<article class="dr-card dr-run{" chosen" * chosen}" aria-label="{text(entry.name)}">'
        f'<button type="button" class="dr-cover" aria-label="Details of {text(entry.name)}" '
        f"{act('details', key=entry.key)}>{picture(entry, 320)}</button>"
        f'<div class="dr-run-text"><div class="dr-row"><strong class="dr-grow dr-cut">{text(entry.name)}</strong>'
        f'{badge(entry.word)}</div><p class="dr-cut">{text(entry.project)} {trigger}</p>{lines}</div>'
        f'<div class="dr-row">{button("Open", "open", key=entry.key)}{button("Details", "details", key=entry.key)}'
        f'<button type="button" class="dr-button quiet" aria-pressed="{str(chosen).lower()}" '
        f"{act('choose', key=entry.key)}>{'Chosen' if chosen else 'Choose'}</button></div></article>"
    )
