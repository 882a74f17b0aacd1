"""Values as other trainers write them -> plain Python values.

Their files hold numbers as texts or floats ("64.0"), truth values as texts, and "" or "None" where nothing is set. 0 is
a value. Each converter raises NotSupported with the reason when a value is not of its kind.
"""

import math
import shlex
from typing import Any


class NotSupported(Exception):
    """A setting that is not taken over, and why."""


class NotNeeded(Exception):
    """A setting that has nothing to say to us, and why."""


class Noted:
    """A value with something to know about it."""

    def __init__(self, value: Any, note: str):
        self.value, self.note = value, note


def plain(value: Any) -> Any:
    """The value without its note."""
    return value.value if isinstance(value, Noted) else value


def is_empty(value: Any) -> bool:
    """Whether nothing is set: None, "", "None", an empty list."""
    return value is None or value in ([], {}) or (isinstance(value, str) and value.strip() in ("", "None"))


def number(value: Any) -> float:
    """ "1e-4", 3, "64.0" -> float."""
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):  # the last: hundreds of digits
        found = math.nan
    if not math.isfinite(found):
        raise NotSupported("This is not a number.")
    return found


def whole(value: Any) -> int:
    """ "64.0", 64.0, 64 -> 64."""
    found = number(value)
    if found != int(found):
        raise NotSupported("This is not a whole number.")
    return int(found)


def whole_or(default: int, value: Any) -> int:
    """A positive whole number; the default where it is none."""
    try:
        found = whole(value)
    except NotSupported:
        return default
    return found if found > 0 else default


def switch(value: Any) -> bool:
    """true, "True", 1, "on" -> True."""
    text = str(value).strip().lower()
    if text in ("true", "1", "1.0", "yes", "on"):
        return True
    if text in ("false", "0", "0.0", "no", "off", ""):
        return False
    raise NotSupported("This is neither true nor false.")


def text(value: Any) -> str:
    return str(value).strip()


def numbers(value: Any) -> list[float]:
    """One rate, or a list of rates (`[1e-4, 1e-5]`, or "1e-4 1e-5" as a text)."""
    values = value.replace(",", " ").split() if isinstance(value, str) else value
    return [number(one) for one in values] if isinstance(values, (list, tuple)) and values else [number(value)]


def first_number(value: Any) -> float:
    """A rate, or the first of a list of rates."""
    return numbers(value)[0]


def side(value: Any) -> int | Noted:
    """ "512,512", [512, 768], 512, "512" -> the side of the square with that area, in pixels."""
    parts = value.replace("x", ",").split(",") if isinstance(value, str) else value
    sides = [whole(part) for part in parts] if isinstance(parts, (list, tuple)) else [whole(parts)]
    if len(sides) not in (1, 2) or min(sides) <= 0:
        raise NotSupported("This is no size in pixels.")
    if sides[0] == sides[-1]:
        return sides[0]
    root = round(math.sqrt(sides[0] * sides[1]))
    return Noted(root, f"A square with the area of {sides[0]}x{sides[1]}; buckets follow the pictures' shapes.")


def percent(value: Any) -> float:
    """25 -> 0.25."""
    return number(value) / 100


def is_off(value: Any, neutral: tuple = ()) -> bool:
    """Whether a setting changes nothing: empty, false, 0, or one of the `neutral` values."""
    if is_empty(value) or value is False or (isinstance(value, str) and value.strip().lower() == "false"):
        return True
    try:
        found: Any = number(value)
    except NotSupported:
        found = value.strip().lower() if isinstance(value, str) else value
    return found == 0 or found in neutral or value in neutral


def pairs(value: Any) -> dict[str, str]:
    """`["conv_dim=4", "algo=loha"]`, or the same in one text with or without quotes -> {"conv_dim": "4", ...}."""
    if isinstance(value, str):
        try:
            value = shlex.split(value)
        except ValueError:  # an apostrophe alone
            value = value.replace('"', "").split()
    found = {}
    for part in value if isinstance(value, (list, tuple)) else [value]:
        name, equals, rest = str(part).partition("=")
        found[name.strip()] = rest.strip() if equals else ""
    return found
