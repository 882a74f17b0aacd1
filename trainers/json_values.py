"""JSON from a disk or from somebody else: what is wrong with it is a ValueError, and a dataclass gets what it wants.

`json.loads` itself also ends in RecursionError, and gives halves of letters (a lone "\\ud800") that no file can hold.
"""

import functools
import json
import types
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

Made = TypeVar("Made")
Fits = Callable[[Any], bool]

LONGEST = 16 << 20  # bytes: facts of 80,000 pictures; lists of lists take thirty times their length in memory
WHOLE = range(-(2**63), 2**64)  # what files and libraries hold of a whole number
LARGEST = 1e100  # of other numbers: nothing that is measured comes near it, and products of two are still finite


def parse(text: str | bytes) -> Any:
    """What a text of JSON holds. ValueError where it is none."""
    try:
        found = json.loads(text)
        if ("\\ud" if isinstance(text, str) else b"\\ud") in text.lower():
            json.dumps(found, ensure_ascii=False).encode()  # UnicodeEncodeError, a ValueError: half a letter
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return found


def read(path: Path) -> Any:
    """What a JSON file holds. OSError where it cannot be opened, ValueError where it is none, or far too long."""
    if path.stat().st_size > LONGEST:
        raise ValueError("it is too long")
    return parse(path.read_bytes().decode("utf-8"))


def made(kind: type[Made], values: Any) -> Made:
    """The dataclass with these values, lists as the tuples that it wants.

    ValueError where one is missing, unknown, of another type than it is annotated with, or no number that is measured.
    """
    if not isinstance(values, dict):
        raise ValueError(f"no {kind.__name__}")
    checks = _checks(kind)
    for name, value in values.items():
        if name not in checks or not checks[name](value):
            raise ValueError(f"{name} of a {kind.__name__} is wrong")
    try:
        return kind(**{name: tuple(value) if type(value) is list else value for name, value in values.items()})
    except TypeError as error:  # one is missing
        raise ValueError(str(error)) from error


@functools.cache
def _checks(kind: type) -> dict[str, Fits]:
    hints = get_type_hints(kind)
    return {field.name: fits(hints[field.name]) for field in fields(kind)}


def fits(hint: Any) -> Fits:
    """Whether a value of JSON is what an annotation says: numbers, texts, tuples, dicts, or one of several."""
    if hint in PLAIN:
        return PLAIN[hint]
    inside = get_args(hint)
    if get_origin(hint) in (Union, types.UnionType):
        either = [fits(one) for one in inside]
        return lambda value: any(one(value) for one in either)
    if get_origin(hint) is tuple and inside[-1] is Ellipsis:
        each = fits(inside[0])
        return lambda value: type(value) in (list, tuple) and all(map(each, value))
    if get_origin(hint) is tuple:
        those = [fits(one) for one in inside]
        return lambda value: (
            type(value) in (list, tuple)
            and len(value) == len(those)
            and all(one(part) for one, part in zip(those, value, strict=True))
        )
    if get_origin(hint) is dict:
        key, held = map(fits, inside)
        return lambda value: type(value) is dict and all(key(k) and held(v) for k, v in value.items())
    raise TypeError(f"no value of JSON is a {hint}")


def is_number(value: Any) -> bool:
    """A finite one that something may have been measured as."""
    return type(value) in (int, float) and -LARGEST < value < LARGEST


PLAIN: dict[Any, Fits] = {
    int: lambda value: type(value) is int and value in WHOLE,
    float: is_number,
    str: lambda value: type(value) is str,
    bool: lambda value: type(value) is bool,
    type(None): lambda value: value is None,
    Any: lambda value: True,
}
