"""From folders of pictures to examples: everything usable, and everything wrong, in one go."""

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from trainers.config import DataConfig
from trainers.data.captions import caption_file, fallback_caption, is_guessed, mentions, read_caption
from trainers.data.decoding import Unreadable, inspect, read_bytes
from trainers.data.folders import NO_PERMISSION, Found, list_pictures
from trainers.data.types import Example, Problem, Scan, printable, shown
from trainers.errors import UserError

SMALLEST = 16  # pixels of the shorter side; the least resolution that can be set
THREADS = min(4, os.cpu_count() or 1)  # decoding releases Python's lock; each holds a whole picture
LISTED = 20  # problems in one error message


def scan(config: DataConfig, progress: Callable[[int, int], None] | None = None) -> Scan:
    """Read the picture folders: sorted examples, and all problems together. Nothing in the folders is written.

    Every picture is decoded to its end, so that a damaged one is known now and not in the middle of a run.

    Args:
        progress: called with (pictures read, pictures in all).

    Raises:
        UserError: for missing folders, or when no picture is usable; it names them all.
    """
    pictures, problems = list_pictures(config.folders, config.folder_names, config.leave_out)
    examples: list[Example] = []
    first: dict[str, Path] = {}  # content hash -> the first picture with it
    lacking: list[Path] = []  # captions without the trigger word
    guessed: list[Path] = []  # captions in an encoding that nothing tells
    for done, read in enumerate(_read_all(pictures, config), start=1):
        problems += read.problems
        if read.example:
            examples.append(read.example)
            earlier = first.setdefault(read.example.content_hash, read.example.path)
            if earlier != read.example.path:
                message, hint = f"the same picture as {shown(earlier)}.", "Remove one of them: it counts twice."
                problems.append(Problem(read.example.path, message, hint, fatal=False))
            if config.trigger.strip() and read.captioned and not mentions(read.example.caption, config.trigger):
                lacking.append(read.example.path)
            if read.guessed:
                guessed.append(read.example.path)
        if progress:
            progress(done, len(pictures))
    if lacking:
        more = len(lacking) - 1
        whose = f"its caption and {more} more lack" if more else "its caption lacks"
        message = f'{whose} the trigger word "{config.trigger}".'
        hint = "Captions are used as written: add the word to those that show what it stands for."
        problems.append(Problem(lacking[0], message, hint, fatal=False))
    if guessed:
        more = len(guessed) - 1
        whose = f"its caption file and {more} more are" if more else "its caption file is"
        message = f"{whose} not UTF-8, and read as Windows-1252."
        hint = "Look at the caption; save the file as UTF-8 where letters are wrong."
        problems.append(Problem(guessed[0], message, hint, fatal=False))
    if not examples:
        raise _nothing_usable(config, problems)
    return Scan(examples, problems)


@dataclass(frozen=True)
class _Read:
    example: Example | None
    problems: list[Problem]
    captioned: bool = False
    guessed: bool = False


def _read_all(pictures: list[Found], config: DataConfig) -> Iterator[_Read]:
    with ThreadPoolExecutor(THREADS) as pool:
        yield from pool.map(lambda found: _read(found, config), pictures)


def _read(found: Found, config: DataConfig) -> _Read:
    move = "Move it out of the folder."
    try:
        data = read_bytes(found.path)
        size = inspect(data)
    except PermissionError:
        return _Read(None, [Problem(found.path, "you have no permission to read it.", NO_PERMISSION)])
    except OSError as error:
        return _Read(None, [Problem(found.path, f"it cannot be read: {error.strerror or error}.", move)])
    except Unreadable as error:
        return _Read(
            None, [Problem(found.path, str(error), "Save it again as PNG or JPEG, or move it out of the folder.")]
        )
    if min(size) < SMALLEST:
        message = f"{size[0]}x{size[1]} pixels are too few to train on: each side needs {SMALLEST} or more."
        return _Read(None, [Problem(found.path, message, move)])
    caption, captioned, problems = _caption(found, config)
    content = hashlib.sha256(data).hexdigest()
    example = Example(found.path, caption, size, content, found.repeats or config.repeats)
    return _Read(example, problems, captioned, captioned and is_guessed(found.path))


def _caption(found: Found, config: DataConfig) -> tuple[str, bool, list[Problem]]:
    """(caption, whether it is the person's own words, problems)."""
    fallback = printable(found.words) or fallback_caption(config.trigger, config.kind)
    try:
        written = read_caption(found.path)
        problem = "the caption file is empty" if written == "" else ""
    except OSError as error:
        written, problem = None, f"the caption file cannot be read ({error.strerror or error})"
    if written:
        return written, True, []
    if not problem:
        return fallback, bool(found.words), []
    place = caption_file(found.path) or found.path
    return (
        fallback,
        False,
        [Problem(place, f'{problem}, so "{fallback}" is used.', "Write a caption into it.", fatal=False)],
    )


def _nothing_usable(config: DataConfig, problems: list[Problem]) -> UserError:
    where = printable(", ".join(config.folders))
    reasons = [str(problem) for problem in problems if problem.fatal]
    if not reasons and config.leave_out:
        return UserError(f"There are no pictures in {where} but those that are left out.", "Leave out fewer of them.")
    if not reasons:
        return UserError(
            f"There are no pictures in {where}.", "Put PNG, JPEG, WebP, BMP, GIF, TIFF, AVIF or HEIC files there."
        )
    more = f"\n... and {len(reasons) - LISTED} more" if len(reasons) > LISTED else ""
    return UserError(f"None of the pictures in {where} can be used:\n" + "\n".join(reasons[:LISTED]) + more)
