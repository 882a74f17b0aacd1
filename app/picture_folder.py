"""A folder's files at a glance: states of pictures and captions, quick enough to be read at every click."""

import functools
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from trainers.data.captions import ENDINGS as CAPTIONS
from trainers.data.captions import decode, read_bytes
from trainers.data.decoding import ENDINGS as PICTURES
from trainers.data.folders import SYSTEM_FOLDERS, is_whole_disk

State = tuple[int, int]  # time of the last change in ns, bytes


@dataclass(frozen=True)
class Files:
    """`pictures` and `captions` by path; `outline` changes when files come or go, and not when captions are edited."""

    pictures: dict[str, State]
    captions: dict[str, State]
    outline: tuple[str, ...]

    def caption(self, picture: str) -> str | None:
        """The caption beside a picture; None where there is none, or it cannot be read."""
        stem = picture.rpartition(".")[0]
        for ending in CAPTIONS:
            state = self.captions.get(stem + ending)
            if state is not None:
                with suppress(OSError):
                    return _read(stem + ending, *state)
        return None


def read_folder(folder: str) -> Files:
    """List a folder and what is below it. Folders that cannot be opened hold nothing here; the trainer names them."""
    pictures: dict[str, State] = {}
    captions: dict[str, State] = {}
    others: list[str] = []
    stems, written = set(), []
    for entry in _walk(folder, set()) if not is_whole_disk(folder) else ():
        stem, dot, ending = entry.path.rpartition(".")  # os.path.splitext takes eight times as long
        ending = dot + ending
        is_picture = ending.lower() in PICTURES
        if not is_picture and ending not in CAPTIONS:
            others.append(entry.path)
            continue
        facts = _ordinary(entry)
        if facts is None:
            others.append(entry.path)
            continue
        (pictures if is_picture else captions)[entry.path] = (facts.st_mtime_ns, facts.st_size)
        if is_picture:
            stems.add(stem)
        else:
            written.append((stem, entry.path))
    lonely = [caption for stem, caption in written if stem not in stems]
    return Files(pictures, captions, tuple(sorted([*pictures, *others, *lonely])))


def count_pictures(folder: str) -> int:
    """As many as `read_folder` finds."""
    count = 0
    for entry in _walk(folder, set()) if not is_whole_disk(folder) else ():
        if "." + entry.path.rpartition(".")[2].lower() in PICTURES:
            with suppress(OSError):
                count += entry.is_file()
    return count


def _ordinary(entry: os.DirEntry[str]) -> os.stat_result | None:
    """What is known of a file, or of the one it links to; None for a broken link, and a pipe, which may never end."""
    try:
        facts = entry.stat()
    except OSError:
        return None
    return facts if stat.S_ISREG(facts.st_mode) else None


def _walk(folder: str, seen: set[str]) -> Iterator[os.DirEntry[str]]:
    real = os.path.realpath(folder)
    if real in seen:  # links may lead in circles
        return
    seen.add(real)
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        try:
            is_folder = entry.is_dir()
        except OSError:
            is_folder = False
        if not is_folder:
            yield entry
        elif entry.name.lower() not in SYSTEM_FOLDERS:
            yield from _walk(entry.path, seen)


@functools.lru_cache(16384)
def _read(path: str, changed: int, size: int) -> str:
    """OSError where it cannot be read, which is not remembered: the next time it may be."""
    return decode(read_bytes(Path(path)))
