"""One row of a table says what becomes of one setting of another trainer; `convert` follows the rows.

A table is a dict: their name -> Row, Rule, Lacks or Unneeded. A name ending in `*` stands for all that begin so.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from trainers import config_io
from trainers.choices import CHOICES
from trainers.config import TrainConfig
from trainers.config_problems import SETTINGS, wanted
from trainers.errors import UserError
from trainers.importing.theirs import Theirs
from trainers.importing.values import Noted, NotNeeded, NotSupported, is_empty, is_off, plain

# "not needed": another setting of the file decides; "of their program": it says nothing about a training
Status = Literal[
    "taken over",
    "renamed",
    "same as our default",
    "not supported",
    "no counterpart",
    "not needed",
    "of their program",
]
SECRET = re.compile(r"(token|api_?key|password|secret)$|^secrets\.|key_file$", re.IGNORECASE)
SECRET_WITHIN = re.compile(r"(token|key|password|secret)[\"']?[ =:]", re.IGNORECASE)  # in command-line arguments
DEFAULTS = TrainConfig()


@dataclass(frozen=True)
class Row:
    """Their setting is ours by another name; `convert` reads its value."""

    ours: str
    convert: Callable[[Any], Any]


@dataclass(frozen=True)
class Rule:
    """A setting whose meaning hangs on others: (value, the whole file) -> our settings by name."""

    decide: Callable[[Any, Theirs], dict[str, Any]]


def only_where(holds: Callable[[Theirs], bool], reason: str, read: Callable[[Any], dict[str, Any]]) -> Rule:
    """A setting that counts only in some files, though their program writes it into every one."""

    def decide(value: Any, theirs: Theirs) -> dict[str, Any]:
        if not holds(theirs):
            raise NotNeeded(reason)
        return read(value)

    return Rule(decide)


@dataclass(frozen=True)
class Lacks:
    """A feature that we do not have. Off, empty, or one of the `neutral` values, it is not missed."""

    reason: str
    neutral: tuple = ()


def as_in_paper(value: str, neutral: tuple = ()) -> Lacks:
    """A number that the optimizers' papers give, and that no setting changes."""
    return Lacks(f"This cannot be set here: it stays at {value}, as in the optimizer's paper.", neutral)


@dataclass(frozen=True)
class Unneeded:
    """Something that trains nothing: where their program keeps things, or what is done by itself here."""

    reason: str


Table = Mapping[str, Row | Rule | Lacks | Unneeded]


@dataclass(frozen=True)
class Line:
    """What became of one setting of the file. `value` is empty for secrets, which are never read."""

    key: str
    value: Any
    status: Status
    settings: Mapping[str, Any]
    note: str = ""


def convert(table: Table, theirs: Theirs) -> list[Line]:
    """One line for every setting of the file, in its order."""
    return [line_of(key, value, table, theirs) for key, value in theirs.values.items()]


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """{"adapter.rank": 8, "seed": 1} -> {"adapter": {"rank": 8}, "seed": 1}."""
    sections: dict[str, Any] = {}
    for name, value in settings.items():
        section, _, key = name.rpartition(".")
        (sections.setdefault(section, {}) if section else sections)[key] = value
    return sections


def refusal(settings: Mapping[str, Any]) -> str:
    """Why we cannot have these settings; "" where we can."""
    for name, value in settings.items():
        if name not in SETTINGS:
            return "This is not supported yet."
        if name in CHOICES and value not in CHOICES[name]:
            return f"{value} is not supported yet; {name} takes {', '.join(CHOICES[name])}."
    try:
        config_io.parse(nested(settings))
    except UserError as error:
        bounds = len(settings) == 1 and "must be" in error.message
        return f"{name} takes {wanted(name)}." if bounds else error.message
    return ""


def family(name: str) -> dict[str, str]:
    """{"model.family": name}. NotSupported where no such family is trained here."""
    known = get_args(SETTINGS["model.family"].annotation)
    if name not in known:
        raise NotSupported("Base models of this kind are not supported yet.")
    return {"model.family": name}


def line_of(key: str, value: Any, table: Table, theirs: Theirs) -> Line:
    """What becomes of one setting."""
    if SECRET.search(key):
        return Line(key, "", "of their program", {}, "Tokens and keys are not read.")
    row = row_of(key, table)
    if isinstance(row, Lacks | Unneeded) and isinstance(value, str) and SECRET_WITHIN.search(value):
        value = "(with a token or key)"
    if row is None:
        return Line(key, value, "no counterpart", {})
    if isinstance(row, Unneeded):
        return Line(key, value, "of their program", {}, row.reason)
    if isinstance(row, Lacks):
        off = is_off(value, row.neutral)
        return Line(key, value, "same as our default" if off else "not supported", {}, "" if off else row.reason)
    if is_empty(value):
        return Line(key, value, "same as our default", {})
    try:
        found = row.decide(value, theirs) if isinstance(row, Rule) else {row.ours: row.convert(value)}
    except NotSupported as reason:
        return Line(key, value, "not supported", {}, str(reason))
    except NotNeeded as reason:
        return Line(key, value, "not needed", {}, str(reason))
    notes = [inner.note for inner in found.values() if isinstance(inner, Noted)]
    settings = {name: plain(inner) for name, inner in found.items()}
    if why := refusal(settings):
        return Line(key, value, "not supported", {}, why)
    return Line(key, value, _status(key, settings), settings, " ".join(dict.fromkeys(notes)))


def row_of(key: str, table: Table) -> Row | Rule | Lacks | Unneeded | None:
    """The row of a setting, by its name or by how that begins."""
    if key in table:
        return table[key]
    return next((row for name, row in table.items() if name.endswith("*") and key.startswith(name[:-1])), None)


def _status(key: str, settings: Mapping[str, Any]) -> Status:
    if all(config_io.get(DEFAULTS, name) == value for name, value in settings.items()):
        return "same as our default"
    return "taken over" if [name.rpartition(".")[2] for name in settings] == [key.rpartition(".")[2]] else "renamed"
