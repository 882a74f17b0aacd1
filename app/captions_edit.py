"""Captions edited one by one or many at once, each change undoable: the only thing written among a user's pictures."""

import base64
import errno
import hashlib
import json
import os
import threading
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from app.picture_folder import read_folder
from app.projects import Project
from trainers import json_values
from trainers.data.captions import ENDINGS, caption_file, decode, read_bytes, tags
from trainers.errors import UserError, disk_error
from trainers.files import write_whole

HISTORY = "captions_undo.jsonl"  # in the project's folder; one change a line, the next one to take back last
KEPT = 100  # changes that can be taken back
Way = Literal["front", "back", "remove", "replace", "prefix"]

_writing = threading.Lock()  # two browser tabs may edit at the same time


@dataclass(frozen=True)
class Edit:
    """A change to many captions: add a tag in `front` or at the `back`, `remove` a tag, `replace` a text, `prefix`."""

    way: Way
    words: str
    instead: str = ""  # of replace

    def __call__(self, caption: str) -> str:
        """The caption after the change; the same where it does not concern it."""
        words = " ".join(self.words.split())
        if self.way == "replace":
            return one_line(caption.replace(self.words, self.instead)) if self.words else caption
        if not words:
            return caption
        if self.way == "prefix":
            return caption if caption.startswith(words) else f"{words} {caption}".strip()
        has = words.casefold() in (tag.casefold() for tag in tags(caption))
        if self.way == "remove":
            kept = [tag for tag in tags(caption) if tag.casefold() != words.casefold()]
            return ", ".join(kept) if has else caption
        if has or not caption:
            return caption or words
        return f"{words}, {caption}" if self.way == "front" else f"{caption.rstrip(' ,')}, {words}"


@dataclass(frozen=True)
class _Change:
    """`before` holds bytes in base64, None where there was no file; `after` the text that was written."""

    what: str
    before: dict[str, str | None]
    after: dict[str, str]

    def part(self, names: Collection[str]) -> "_Change":
        """What it changed in some captions."""
        kept = [{name: text for name, text in texts.items() if name in names} for texts in (self.before, self.after)]
        return _Change(self.what, *kept)


def changes(captions: Mapping[Path, str | None], edit: Edit) -> dict[Path, str]:
    """What an edit makes of captions by picture (None: no caption file); only those that it changes."""
    after = {picture: edit(caption or "") for picture, caption in captions.items()}
    return {picture: caption for picture, caption in after.items() if caption != (captions[picture] or "")}


def write(project: Project, captions: Mapping[Path, str], what: str) -> int:
    """Note what stands beside pictures, and write captions there as UTF-8; returns how many files changed.

    Args:
        captions: by picture; each becomes one line. An existing caption file keeps its name, whatever its ending.
        what: the change in words, shown where it can be taken back.

    Raises:
        UserError: a caption cannot be read, or the change not noted: no caption is changed then. Or a caption cannot
            be written: those written before it stay, and can be taken back.
    """
    with _writing:
        change = _planned(captions, what)
        if change.after:
            history = _history(project)
            _keep(project, [*history, change])  # first, so that whatever a kill leaves behind can be taken back
            _carry_out(project, history, change)
        return len(change.after)


def undoable(project: Project) -> tuple[str, str]:
    """(the last change in words, what tells it from all others); both "" where there is none to take back."""
    history = _history(project)
    return (history[-1].what, _mark(history)) if history else ("", "")


def undo(project: Project, change: str = "") -> str:
    """Take back the last change, to the byte; says what was done.

    A caption that another program has changed since stays as it is. So does one that lies beside no picture of the
    project now; what was noted of that is kept, and comes up again when all other changes are taken back.

    Args:
        change: which one it must be, as `undoable` told it; whichever it is where that is left out.

    Raises:
        UserError: there is nothing to take back, or another change came since.
    """
    with _writing:
        history = _history(project)
        if not history:
            raise UserError("There is no change to take back.")
        if change and change != _mark(history):
            raise UserError(
                "The captions were changed again since.", f"Undo takes back the last change: {history[-1].what}."
            )
        last, pictures = history.pop(), _stems(project)
        back, others, astray = 0, 0, []
        for name, old in last.before.items():
            file = Path(name)
            try:
                before = None if old is None else base64.b64decode(old)
                if file.suffix not in ENDINGS or file.with_suffix("") not in pictures:  # whatever the list names
                    astray.append(name)
                    continue
                now = read_bytes(file) if os.path.isfile(file) else None
                if now == before:  # the change was cut off before it came to this caption
                    continue
                if now is None or decode(now) != last.after.get(name):
                    others += 1
                elif before is None:
                    file.unlink()
                    back += 1
                else:
                    _replace(file, before)
                    back += 1
            except ValueError:  # no name, or no text: the list is damaged there
                astray.append(name)
            except OSError as error:
                raise _not_written(f"The caption {file}", error) from error
        _keep(project, [*([last.part(set(astray))] if astray else []), *history])
    told = f"Taken back: {last.what} ({_captions(back)})."
    told += _left_alone(others, "changed elsewhere since")
    return told + _left_alone(len(astray), "found beside no picture of this project")


def one_line(caption: str) -> str:
    """A caption as the trainer reads it."""
    return " ".join(caption.replace("\0", " ").split())


def _planned(captions: Mapping[Path, str], what: str) -> _Change:
    """What `write` will change, with all that stands there now. UserError where a caption cannot be read."""
    before: dict[str, str | None] = {}
    after: dict[str, str] = {}
    for picture, caption in captions.items():
        file = caption_file(picture) or picture.with_suffix(".txt")
        new = one_line(caption)
        try:
            old = _content(file)
        except OSError as error:
            raise _not_written(f"The caption {file}", error) from error
        if new != (decode(old) if old is not None else "") and str(file) not in after:
            before[str(file)] = None if old is None else base64.b64encode(old).decode()
            after[str(file)] = new
    return _Change(what, before, after)


def _carry_out(project: Project, history: list[_Change], change: _Change) -> None:
    """Write the captions of a change; where one cannot be written, only those before it stay noted."""
    done: list[str] = []
    for name, caption in change.after.items():
        try:
            _replace(Path(name), caption.encode())
        except OSError as error:
            with suppress(UserError):  # `undo` tells by itself which captions were changed
                _keep(project, [*history, change.part(set(done))] if done else history)
            raise _not_written(f"The caption {name}", error) from error
        done.append(name)


def _content(file: Path) -> bytes | None:
    """What a caption file holds; None where there is none. OSError where it is a folder, or a pipe without an end."""
    if os.path.isfile(file):
        return read_bytes(file)
    if os.path.exists(file):
        raise OSError(errno.EINVAL, "it is not an ordinary file", str(file))
    return None


def _not_written(what: str, error: OSError) -> UserError:
    full = disk_error(error)
    reason, hint = (full, "Make room.") if full else (f"{error.strerror or error}.", "Is the folder read-only?")
    return UserError(f"{what} cannot be written: {reason}", hint)


def _stems(project: Project) -> set[Path]:
    """The project's pictures without their endings; those of linked folders go by the link, as `write` is told them."""
    return {Path(picture).with_suffix("") for picture in read_folder(project.pictures).pictures}


def _left_alone(count: int, why: str) -> str:
    return f" {_captions(count)} {'was' if count == 1 else 'were'} {why} and left alone." if count else ""


def _captions(count: int) -> str:
    return "1 caption" if count == 1 else f"{count:,} captions"


def _history(project: Project) -> list[_Change]:
    found = []
    with suppress(OSError):
        for line in (project.folder / HISTORY).read_bytes().splitlines():
            with suppress(ValueError):
                found.append(json_values.made(_Change, json_values.parse(line)))
    return found


def _mark(history: list[_Change]) -> str:
    last = json.dumps(asdict(history[-1]), sort_keys=True).encode("utf-8", "surrogatepass")
    return f"{len(history)}-{hashlib.sha256(last).hexdigest()[:16]}"


def _keep(project: Project, history: list[_Change]) -> None:
    lines = "".join(json.dumps(asdict(entry)) + "\n" for entry in history[-KEPT:])
    file = project.folder / HISTORY
    try:
        write_whole(file, lines.encode())
    except OSError as error:
        raise _not_written(f"The list of changes {file}", error) from error


def _replace(file: Path, content: bytes) -> None:
    """Whole or not at all; not flushed to the disk one by one, which would take seconds for thousands of captions."""
    partial = file.with_name(f".caption-{os.urandom(6).hex()}.partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, file)
    finally:
        with suppress(OSError):
            partial.unlink()
