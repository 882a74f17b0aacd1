"""kohya's sample prompts: one a line, `a cat --n blurry --w 512 --h 512 --d 1 --s 28 --l 7.5`; also TOML and JSON.

Flags stand after the first ` --` and nowhere else: a prompt that begins "n " or "h 100 " is a prompt.
"""

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainers.errors import UserError
from trainers.importing.read import read_structure, read_text
from trainers.importing.rows import Line, refusal
from trainers.importing.values import Noted, NotSupported, number, plain, text, whole

ENDINGS = (".txt", ".toml", ".json")
FLAG = re.compile(r"([a-z]+)\s+(.*)", re.IGNORECASE | re.DOTALL)
# flag, name in TOML and JSON, our setting, its reader
FLAGS: tuple[tuple[str, str, str, Callable[[Any], Any]], ...] = (
    ("n", "negative_prompt", "preview.negative", text),
    ("w", "width", "preview.width", whole),
    ("h", "height", "preview.height", whole),
    ("d", "seed", "preview.seed", whole),
    ("s", "sample_steps", "preview.sampling_steps", lambda steps: min(max(whole(steps), 1), 200)),
    ("l", "scale", "preview.guidance", number),
)
READERS = {key: (ours, read) for flag, name, ours, read in FLAGS for key in (flag, name)}


@dataclass(frozen=True)
class Prompt:
    """`settings` are our preview settings by name; `left_out` the flags that have no counterpart."""

    text: str
    settings: dict[str, Any] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()


def parse_line(line: str) -> Prompt:
    """One line of a prompt file."""
    words, *flags = line.strip().split(" --")
    found = [FLAG.fullmatch(flag.strip()) for flag in flags]
    named = {match[1].lower(): match[2].strip() for match in found if match}
    unread = [flag.strip() for flag, match in zip(flags, found, strict=True) if not match]
    return _prompt(words.strip(), named, [f"--{flag}" for flag in unread], "--")


def from_lines(lines: Iterable[str]) -> list[Prompt]:
    return [parse_line(line) for line in lines if line.strip() and not line.startswith("#")]


def from_structure(content: Any) -> list[Prompt]:
    """`[prompt]` with `[[prompt.subset]]` of a TOML file, or the list of a JSON file."""
    if isinstance(content, dict):
        shared = {key: value for key, value in content.get("prompt", {}).items() if key != "subset"}
        content = [{**shared, **subset} for subset in content.get("prompt", {}).get("subset", [])]
    return [
        parse_line(entry)
        if isinstance(entry, str)
        else _prompt(text(entry.get("prompt", "")), {k: v for k, v in entry.items() if k != "prompt"}, [], "")
        for entry in content
    ]


def from_file(path: Path) -> list[Prompt]:
    """UserError where it cannot be read."""
    if path.suffix.lower() in (".toml", ".json"):
        return from_structure(read_structure(path))
    return from_lines(read_text(path).splitlines())


def from_setting(value: str, place: Path) -> list[Prompt] | None:
    """What `sample_prompts` says: the prompts, or a file of them. None where that file is missing or unreadable."""
    if "\n" not in value and value.lower().endswith(ENDINGS):
        candidates = [path for path in (place / value, Path(value)) if os.path.isfile(path)]
        try:
            return from_file(candidates[0]) if candidates else None
        except UserError:
            return None
    return from_lines(value.splitlines())


def settings(found: list[Prompt]) -> dict[str, Any]:
    """Our preview settings. One size, seed, scale and negative prompt serve all previews: the first that is given."""
    merged: dict[str, Any] = {}
    notes = []
    for prompt in found:
        for name, value in prompt.settings.items():
            if merged.setdefault(name, value) != value:
                notes.append(f"One {name} for all prompts: the first.")
    left_out = list(dict.fromkeys(flag for prompt in found for flag in prompt.left_out))
    if left_out:
        notes.append(f"Without {', '.join(left_out)}.")
    texts: Any = [prompt.text for prompt in found if prompt.text]
    return {"preview.prompts": Noted(texts, " ".join(dict.fromkeys(notes))) if notes else texts, **merged}


def lines(found: list[Prompt]) -> list[Line]:
    """What becomes of each prompt of a file of its own."""
    taken = settings(found)
    note = next((value.note for value in taken.values() if isinstance(value, Noted)), "")
    ours = {name: plain(value) for name, value in taken.items()}
    if why := refusal(ours):
        return [Line(f"prompt {i}", one.text, "not supported", {}, why) for i, one in enumerate(found, 1)]
    return [
        Line(f"prompt {i}", one.text, "taken over", ours if i == 1 else {}, note if i == 1 else "")
        for i, one in enumerate(found, 1)
    ]


def _prompt(words: str, flags: dict[str, Any], unread: list[str], dashes: str) -> Prompt:
    read: dict[str, Any] = {}
    for key, value in flags.items():
        try:
            ours, reader = READERS[key]
            read[ours] = reader(value)
        except (KeyError, NotSupported):
            unread.append(dashes + key)
    return Prompt(words, read, tuple(unread))
