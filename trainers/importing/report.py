"""What an import took over and what it did not: as text for people, and as plain values for JSON."""

import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from trainers.config_problems import shown
from trainers.data.types import printable

if TYPE_CHECKING:  # it brings the picture libraries along, which the command line does without
    from trainers.importing.imported import Imported
    from trainers.importing.rows import Line

WIDTH = 108  # columns
LONGEST = 40  # letters of one value
LEFT = 54  # columns of the left side, where a name is not longer
TAKEN = ("taken over", "renamed")


def as_values(found: "Imported") -> dict[str, Any]:
    """The whole report: one entry for every setting of the files."""
    return {
        "files": found.sources,
        "settings": [
            {"name": line.key, "value": line.value, "status": line.status, "becomes": line.settings, "note": line.note}
            for line in found.lines
        ],
        "assumed": found.assumed_settings,
        "missing": found.missing,
    }


def as_text(found: "Imported") -> str:
    """Every setting of the files once, under what became of it."""

    def those(*statuses: str) -> "list[Line]":
        return [line for line in found.lines if line.status in statuses]

    taken, same = those(*TAKEN), those("same as our default")
    noted = [line for line in same if line.note]
    lost = [f"{name}: {_value(path)}" for name, paths in found.missing.items() for path in paths]
    assumed = [f"{name} = {_value(value)}" for name, value in found.assumed_settings.items()]
    parts = [
        [f"{', '.join(found.sources)}: {len(taken)} of {len(found.lines)} settings change something here."],
        _part("Not on this machine", lost),
        _part("Taken over", _pairs(taken)),
        _part("Not taken from the file, so as its program has it", _wrapped(assumed)),
        _part("Not supported", _reasons(those("not supported"))),
        _part("No counterpart here", _wrapped(line.key for line in those("no counterpart"))),
        _part("Not needed", _reasons(those("not needed"))),
        _part("As our defaults, or off", [*_wrapped(line.key for line in same if not line.note), *_reasons(noted)]),
        _part("Of their program, not of a training", _wrapped(line.key for line in those("of their program"))),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _part(title: str, lines: list[str]) -> list[str]:
    return [title, *(f"  {line}" for line in lines)] if lines else []


def _pairs(lines: "list[Line]") -> list[str]:
    """`network_dim = 32        adapter.rank = 32` in two columns; a note stands below its line."""
    left = [f"{line.key} = {_value(line.value)}" for line in lines]
    width = max((len(text) for text in left if len(text) <= LEFT), default=LEFT)
    result, seen = [], []  # what several lines set together, such as a list of folders, is written once
    for text, line in zip(left, lines, strict=True):
        new = [item for item in line.settings.items() if item not in seen]
        seen += new
        first, *more = [f"{name} = {_value(value)}" for name, value in new] or ["(as above)"]
        result += [f"{text:<{width}}  {first}"] if len(text) <= width else [text, f"{'':<{width}}  {first}"]
        result += [f"{'':<{width}}  {setting}" for setting in more]
        result += textwrap.wrap(line.note, WIDTH, initial_indent="    ", subsequent_indent="    ")
    return result


def _reasons(lines: "list[Line]") -> list[str]:
    """One entry for each reason, after the settings it is given for."""
    reasons: dict[str, list[str]] = {}
    for line in lines:
        reasons.setdefault(line.note, []).append(f"{line.key} = {_value(line.value)}")
    return [
        row
        for reason, settings in reasons.items()
        for row in textwrap.wrap(
            f"{', '.join(settings)}: {reason}", WIDTH, subsequent_indent="    ", break_on_hyphens=False
        )
    ]


def _wrapped(words: Iterable[str]) -> list[str]:
    """Words with commas, as many on a line as fit; `a = 1` counts as one word."""
    spaced = ", ".join(words).replace(" = ", "\0=\0")
    rows = textwrap.wrap(spaced, WIDTH, break_long_words=False, break_on_hyphens=False)
    return [row.replace("\0", " ") for row in rows]


def _value(value: Any) -> str:
    text = ", ".join(map(shown, value)) if isinstance(value, (list, tuple)) else shown(value)
    text = printable(text)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
