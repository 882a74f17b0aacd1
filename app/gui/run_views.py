"""One run, and two against each other, in words and HTML."""

from pathlib import Path
from typing import Any

from app.compare import Change, Outcome, shared_prompts
from app.gui.library_views import WORDS, badge, day, labelled, picture, size, steps_so_far
from app.gui.markup import button, edit, notice, picture_address, text
from app.library import Entry
from trainers.config_problems import SETTINGS

NOTHING = "–"
FEW = 4  # entries shown of a list


def title(entry: Entry) -> str:
    return (
        f'<div class="dr-row dr-one-title" data-run="{text(entry.key)}">'
        f'<h2 class="dr-title">{text(entry.name)}</h2>{badge(entry.word)}'
        f'<span class="dr-quiet">{text(entry.project)}</span></div>'
    )


def about(entry: Entry) -> str:
    """Name and note, changed in place."""
    return (
        '<div class="dr-about"><label>Name of this run'
        f'<input class="dr-field" value="{text(entry.name)}" maxlength="120" {edit("rename", key=entry.key)}></label>'
        '<label>Note<textarea class="dr-field" rows="2" placeholder="What you want to remember about it" '
        f'maxlength="4000" {edit("note", key=entry.key)}>{text(entry.note)}</textarea></label></div>'
    )


def details(entry: Entry) -> str:
    """Facts, files and what can be done with the run."""
    rows = {
        "Kind": entry.kind.capitalize(),
        "Trigger word": entry.trigger,
        "Base model": entry.base if entry.family in ("", entry.base) else f"{entry.base} ({entry.family})",
        "Adapter": entry.adapter,
        "Preset": entry.preset,
        "Steps": steps_so_far(entry),
        "Made": day(entry.made),
        "Size on disk": size(entry.bytes),
        "Folder": str(entry.run.folder),
    }
    told = "".join(f"<dt>{name}</dt><dd>{text(value)}</dd>" for name, value in rows.items() if value)
    return (
        f'<div class="dr-one"><div class="dr-cover">{picture(entry, 640)}</div><div>'
        f'<dl class="dr-run-facts">{told}</dl>{_files(entry)}{_actions(entry)}</div></div>'
    )


def value_words(name: str, value: Any) -> str:
    """A setting's value for reading: with its unit, `on` and `off`, and a dash for empty."""
    if value is None or value == "" or value == () or value == {}:
        return "empty"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (tuple, list)):
        return ", ".join(map(str, value[:FEW])) + (f" and {len(value) - FEW:,} more" if len(value) > FEW else "")
    if isinstance(value, dict):
        return ", ".join(f"{key}: {one}" for key, one in value.items())
    unit = (SETTINGS[name].json_schema_extra or {}).get("unit", "") if name in SETTINGS else ""
    number = f"{value:g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
    return f"{number} {unit}".strip()


def change_words(change: Change) -> str:
    """`Rank 32 instead of 16`."""
    new, old = value_words(change.name, change.right), value_words(change.name, change.left)
    return f"{change.title}: {new} instead of {old}"


def change_shown(change: Change) -> str:
    """What the next run will have differently, before it starts."""
    return notice("The new run differs in one setting.", change_words(change), "good")


def differences(found: list[Change], left: str, right: str) -> str:
    """A table of settings; empty texts in `left` and `right` leave the head out."""
    rows = "".join(
        f'<tr><th scope="row">{text(one.title)}<span class="dr-mono dr-quiet">{text(one.name)}</span></th>'
        f"<td>{text(value_words(one.name, one.left))}</td><td>{text(value_words(one.name, one.right))}</td></tr>"
        for one in found
    )
    head = f'<thead><tr><th scope="col">Setting</th><th scope="col">{text(left)}</th>'
    return f'<table class="dr-table">{head}<th scope="col">{text(right)}</th></tr></thead><tbody>{rows}</tbody></table>'


def against_preset(told: str, found: list[Change]) -> str:
    """How the run's settings differ from what was advised."""
    if not found:
        return f'<p class="dr-quiet">Its settings are those of {text(told)}.</p>'
    head = f'<p class="dr-quiet">Its settings differ from {text(told)} in:</p>'
    return head + differences(found, told[0].upper() + told[1:], "This run")


def comparison(entries: tuple[Entry, Entry], found: list[Change], outcomes: tuple[Outcome, Outcome]) -> str:
    """Two runs side by side: results, settings, samples."""
    names = [entry.name for entry in entries]
    if names[0] == names[1]:
        names = [f"{entry.name}, {day(entry.made)}" for entry in entries]
    settings = differences(found, *names) if found else '<p class="dr-quiet">Their settings are the same.</p>'
    return (
        f'<h2 class="dr-title" data-run="{text(" ".join(one.key for one in entries))}">'
        f'{text(names[0])} and {text(names[1])}</h2><h3 class="dr-title">Results</h3>'
        f"{_outcomes(names, outcomes)}<h3 class='dr-title'>Settings that differ</h3>{settings}"
        f"<h3 class='dr-title'>Last samples of the same prompts</h3>{_samples(names, outcomes)}"
    )


def _outcomes(names: list[str], outcomes: tuple[Outcome, Outcome]) -> str:
    def number(value: float | None, form: str = ".4f", unit: str = "") -> str:
        return NOTHING if value is None else f"{value:{form}}{unit}"

    rows = {
        "Status": [WORDS.get(one.word, one.word) for one in outcomes],
        "Step": [f"{one.step:,} of {one.steps:,}" if one.steps else NOTHING for one in outcomes],
        "Last loss": [number(one.loss) for one in outcomes],
        "Loss, mean of the last tenth": [number(one.smoothed) for one in outcomes],
        "Validation loss": [number(one.validation) for one in outcomes],
        "Seconds per step": [number(one.seconds_per_step, ".3g", " s") for one in outcomes],
        "Peak memory": [number(one.memory_gb, ".1f", " GB") for one in outcomes],
    }
    body = "".join(
        f'<tr><th scope="row">{name}</th><td>{text(left)}</td><td>{text(right)}</td></tr>'
        for name, (left, right) in rows.items()
    )
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in names)
    return f'<table class="dr-table"><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>'


def _samples(names: list[str], outcomes: tuple[Outcome, Outcome]) -> str:
    prompts = shared_prompts(*outcomes)
    if not prompts:
        return '<p class="dr-quiet">They have drawn no prompt in common.</p>'
    return "".join(
        f'<figure class="dr-two"><figcaption>{text(prompt)}</figcaption>'
        + "".join(_sample(one.samples[prompt], name) for one, name in zip(outcomes, names, strict=True))
        + "</figure>"
        for prompt in prompts
    )


def _sample(file: Path, name: str) -> str:
    source = text(picture_address(file, 640))
    return f'<div><img src="{source}" alt="Last sample of {text(name)}" loading="lazy"><p>{text(name)}</p></div>'


def _files(entry: Entry) -> str:
    if not entry.files:
        return '<p class="dr-quiet">Its adapter file will lie here when the training has written it.</p>'
    rows = "".join(
        f'<li><span class="dr-grow dr-mono">{text(file.name)}</span><span>{size(count)}</span>'
        f"{labelled(button('Inspect', 'inspect', key=entry.key, file=file.name), f'Inspect {file.name}')}</li>"
        for file, count in entry.files
    )
    return f'<ul class="dr-list" aria-label="Adapter files">{rows}</ul>'


def _actions(entry: Entry) -> str:
    key = entry.key
    return (
        f'<div class="dr-row">{button("Open in Monitor", "open", key=key)}'
        f"{button('Compare checkpoints', 'results', key=key)}{button('Open in Train', 'train', key=key)}</div>"
        f'<div class="dr-row">{button("Save as zip", "zip", key=key)}{button("Archive", "archive", key=key)}'
        f"{button('Move to trash', 'trash', key=key)}</div>"
        '<p class="dr-quiet">Archive saves a zip, checks it, and then moves the run to the trash.</p>'
    )
