"""What `inspect` found in an adapter file, in words: short enough to read at one glance."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FEW = 3  # names and keys shown of a longer list
MANY_BLOCKS = 12  # more than these are shown by the strongest
STRONGEST = 6
SAID = {"loads in part": "partly", "does not load": "no", "loads": "whole"}  # how a verdict begins


@dataclass(frozen=True)
class Verdict:
    """Whether a program loads the file: whole, partly or no; "" where it cannot be told. `said` is the sentence."""

    program: str
    loads: str
    said: str
    unmatched: tuple[str, ...] = ()  # the first keys that it would not use


def in_words(values: Mapping[str, Any]) -> dict[str, Any]:
    """Facts by what they are called; what belongs together stands in one text, and long lists are cut with their count.

    `values` may have been through JSON, which makes texts of all keys.
    """
    return {SAID_AS.get(name, name): LINES[name](value) if name in LINES else value for name, value in values.items()}


def verdicts(values: Mapping[str, Any]) -> list[Verdict]:
    """One verdict per program; a single one for all of them where the file is of no family that their rules know."""
    found, keys = values.get("interfaces") or {}, values.get("unmatched keys") or {}
    if isinstance(found, str):
        return [Verdict("Image programs", "", found)]
    return [
        Verdict(
            program,
            next((how for start, how in SAID.items() if said.startswith(start)), ""),
            said,
            tuple(keys.get(program, ())),
        )
        for program, said in found.items()
    ]


def counts(value: Any) -> Any:
    """{16: 700, 8: 22} -> "16 (700 of them), 8 (22 of them)"; of more than four the range."""
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        return str(next(iter(value)))
    if len(value) <= 4:
        return ", ".join(f"{one} ({count:,} of them)" for one, count in value.items())
    numbers = [number for number in map(_number, value) if number is not None]
    common, count = next(iter(value.items()))
    return f"{min(numbers):g} to {max(numbers):g}, {len(value)} different, mostly {common} ({count:,} of them)"


def modules(value: dict[str, int]) -> str:
    return ", ".join(f"{count:,} in the {part}" for part, count in value.items())


def blocks(value: dict[str, dict[str, Any]]) -> str:
    """`down 1 2.31, mid 0.84, ...`; of a transformer's many blocks the strongest."""
    if any(block["norm"] is None for block in value.values()):
        return f"{few(list(value), MANY_BLOCKS)} (how strongly, only the base could tell)"
    known = {name: f"{name} {block['norm']:.3g}" for name, block in value.items()}
    if len(value) <= MANY_BLOCKS:
        return ", ".join(known.values())
    strongest = sorted(value, key=lambda name: -value[name]["norm"])[:STRONGEST]
    return f"{len(value)}, the strongest {', '.join(known[name] for name in value if name in strongest)}"


def words(value: dict[str, Any]) -> str:
    parts = [f"trigger {value['trigger']}"] if "trigger" in value else []
    if tags := value.get("tags"):
        some = ", ".join(f"{tag} ({count:,})" for tag, count in list(tags.items())[:8])
        parts.append(f"{some}; {value['different tags']:,} different tags")
    return "; ".join(parts)


def pairs(value: dict[str, Any]) -> str:
    return ", ".join(f"{name} {one}" for name, one in value.items())


def sentences(value: list[dict[str, Any]]) -> list[str]:
    return [problem["says"] for problem in value]


def few(value: list[str], shown: int = FEW) -> str:
    more = len(value) - shown
    return ", ".join(value[:shown]) + (f" and {more:,} more" if more > 0 else "")


def missed(value: dict[str, list[str]]) -> dict[str, str]:
    """Programs that miss the same keys share a line."""
    shared: dict[tuple[str, ...], list[str]] = {}
    for program, keys in value.items():
        shared.setdefault(tuple(keys), []).append(program)
    return {", ".join(programs): ", ".join(keys[:FEW]) for keys, programs in shared.items()}


def _number(value: object) -> float | None:
    try:
        return float(str(value))
    except ValueError:  # "none: scale 1"
        return None


SAID_AS = {"blocks": "strength by block", "problems": "what is wrong"}
LINES = {  # a fact -> how it is written as text
    "rank": counts,
    "alpha": counts,
    "dtype": counts,
    "modules": modules,
    "blocks": blocks,
    "words": words,
    "trained": pairs,
    "metadata": pairs,
    "embeddings": few,
    "problems": sentences,
    "unknown keys": few,
    "unmatched keys": missed,
}
