"""Settings as the texts of a form, by dotted name, and back.

Lists stand one entry per line, tables as in TOML ({ "up_blocks.1" = 8 }), an empty text is "empty means ...".
"""

from collections.abc import Mapping
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from trainers.config_problems import SETTINGS, kinds
from trainers.config_problems import held as held_by


def to_text(name: str, value: Any) -> str:
    """How a value stands in its field."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return _toml(dict(value)) if value else ""
    if isinstance(value, (tuple, list)):
        lines = "\n".join(to_text(name, entry) for entry in value)
        return lines if from_text(name, lines) == list(value) else _toml(list(value))
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def from_text(name: str, text: str) -> Any:
    """What a text in a field means. One that means nothing stays a text, which the settings' check complains of."""
    wanted, held = kinds(SETTINGS[name]), held_by(SETTINGS[name])
    plain = text.strip()
    if tuple in wanted:
        listed = _read(plain) if plain.startswith("[") else None
        if isinstance(listed, list):
            return listed
        lines = [line.strip() for line in (text if str in held else text.replace(",", "\n")).splitlines()]
        lines = [line for line in lines if line]
        return lines if str in held else [_read(line, line) for line in lines]
    if str in wanted or not wanted & {bool, int, float, dict}:
        return plain
    if not plain:
        return {} if dict in wanted else None if type(None) in wanted else ""
    if bool in wanted:
        return {"true": True, "false": False}.get(plain.lower(), plain)
    if dict in wanted and not plain.startswith("{"):
        return _read(f"{{ {plain} }}", plain)
    return _read(plain, plain)


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """{"adapter.rank": 8} as {"adapter": {"rank": 8}}."""
    sections: dict[str, Any] = {}
    for name, value in values.items():
        section, _, key = name.rpartition(".")
        (sections.setdefault(section, {}) if section else sections)[key] = value
    return sections


def _read(text: str, otherwise: Any = None) -> Any:
    """TOML's meaning of a text, and of numbers what people write besides: 5., .5, 1E-4."""
    try:
        return tomlkit.value(text).unwrap()
    except (TOMLKitError, ValueError):
        pass
    try:
        return float(text) if text.isascii() and "_" not in text else otherwise
    except ValueError:
        return otherwise


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        table = tomlkit.inline_table()
        table.update(value)
        return table.as_string()
    return tomlkit.item(value).as_string()
