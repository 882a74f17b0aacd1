"""Settings that are tables of pattern -> number, matched on module paths."""

import re
from collections.abc import Iterable, Mapping


def fits(pattern: str, path: str) -> bool:
    """Whether a regular expression stands for whole names between dots: `up_blocks.1` fits no `up_blocks.10`."""
    return compiled(pattern).search(path) is not None


def compiled(pattern: str) -> re.Pattern[str]:
    """The pattern as `fits` uses it. Raises re.error."""
    return re.compile(rf"(?:^|\.)(?:{pattern})(?:\.|$)")


def look_up(table: Mapping[str, float], path: str) -> float | None:
    """The number of the last pattern that fits: a later line may refine an earlier one. None where none fits."""
    return next((table[pattern] for pattern in reversed(table) if fits(pattern, path)), None)


def idle(table: Mapping[str, float], paths: Iterable[str]) -> list[str]:
    """Patterns that fit none of the paths."""
    paths = list(paths)
    return [pattern for pattern in table if not any(fits(pattern, path) for path in paths)]
