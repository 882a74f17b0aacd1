"""What `darkroom inspect` prints: the facts on an adapter file, short enough to read at one glance."""

from typing import Any

from app.cli_output import show

FEW = 3  # names and keys shown of a longer list
MANY_BLOCKS = 12  # more than these are shown by the strongest
STRONGEST = 6


def adapter_facts(values: dict[str, Any], as_json: bool) -> None:
    """As text, what belongs together stands on one line, and long lists are cut with their count."""
    if as_json:
        show(values, True)
        return
    short = {SAID_AS.get(name, name): LINES[name](value) if name in LINES else value for name, value in values.items()}
    show(short, False)


def _counts(value: Any) -> Any:
    """{16: 700, 8: 22} -> "16 (700 of them), 8 (22 of them)"; of more than four the range."""
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        return str(next(iter(value)))
    if len(value) <= 4:
        return ", ".join(f"{one} ({count:,} of them)" for one, count in value.items())
    numbers = [one for one in value if not isinstance(one, str)]
    common, count = next(iter(value.items()))
    return f"{min(numbers):g} to {max(numbers):g}, {len(value)} different, mostly {common} ({count:,} of them)"


def _modules(value: dict[str, int]) -> str:
    return ", ".join(f"{count:,} in the {part}" for part, count in value.items())


def _blocks(value: dict[str, dict[str, Any]]) -> str:
    """`down 1 2.31, mid 0.84, ...`; of a transformer's many blocks the strongest."""
    if any(block["norm"] is None for block in value.values()):
        return f"{_few(list(value), MANY_BLOCKS)} (how strongly, only the base could tell)"
    known = {name: f"{name} {block['norm']:.3g}" for name, block in value.items()}
    if len(value) <= MANY_BLOCKS:
        return ", ".join(known.values())
    strongest = sorted(value, key=lambda name: -value[name]["norm"])[:STRONGEST]
    return f"{len(value)}, the strongest {', '.join(known[name] for name in value if name in strongest)}"


def _words(value: dict[str, Any]) -> str:
    parts = [f"trigger {value['trigger']}"] if "trigger" in value else []
    if tags := value.get("tags"):
        some = ", ".join(f"{tag} ({count:,})" for tag, count in list(tags.items())[:8])
        parts.append(f"{some}; {value['different tags']:,} different tags")
    return "; ".join(parts)


def _pairs(value: dict[str, Any]) -> str:
    return ", ".join(f"{name} {one}" for name, one in value.items())


def _sentences(value: list[dict[str, Any]]) -> list[str]:
    return [problem["says"] for problem in value]


def _few(value: list[str], shown: int = FEW) -> str:
    more = len(value) - shown
    return ", ".join(value[:shown]) + (f" and {more:,} more" if more > 0 else "")


def _missed(value: dict[str, list[str]]) -> dict[str, str]:
    """Programs that miss the same keys share a line."""
    shared: dict[tuple[str, ...], list[str]] = {}
    for program, keys in value.items():
        shared.setdefault(tuple(keys), []).append(program)
    return {", ".join(programs): ", ".join(keys[:FEW]) for keys, programs in shared.items()}


SAID_AS = {"blocks": "strength by block", "problems": "what is wrong"}
LINES = {  # a fact -> how it is written as text
    "rank": _counts,
    "alpha": _counts,
    "dtype": _counts,
    "modules": _modules,
    "blocks": _blocks,
    "words": _words,
    "trained": _pairs,
    "metadata": _pairs,
    "embeddings": _few,
    "problems": _sentences,
    "unknown keys": _few,
    "unmatched keys": _missed,
}
