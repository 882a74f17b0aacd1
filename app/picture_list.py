"""A project's pictures as the trainer will see them: caption, crop, bucket, and what should be looked at."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from app.framing import Framing, crop_of
from app.picture_facts import BLURRED, Facts, Key, Measured, twins
from app.picture_folder import Files, read_folder
from app.projects import Project
from app.trigger_words import CLIP_READS, EMBEDDED_READS, count, is_too_long
from trainers.data.captions import fallback_caption, mentions, read_caption
from trainers.data.folders import list_pictures
from trainers.data.types import Crop, Problem, printable
from trainers.errors import UserError

CUT = 0.5  # of the area; the middle stays, whatever is to be seen there
ENLARGED = 1.5  # times; above it, details are missing that the trainer would need
PAGE = 24
Show = Literal["all", "warnings", "left out"]


@dataclass(frozen=True)
class Remark:
    """`kind`: unreadable, small, blurred, twin, trigger, empty or long; `remedy`: leave, trigger, or "" for none."""

    kind: str
    sentence: str
    remedy: str = ""


class Picture(NamedTuple):
    """`name` is its path inside the project's pictures; `facts` and `crop` are None until it was measured.

    `crop` stays None where the picture cannot be read, or the settings suit no picture.
    """

    name: str
    file: str
    caption: str | None  # None: no caption file
    used: str  # the caption that training uses
    left_out: bool
    facts: Facts | None = None
    crop: Crop | None = None
    warnings: tuple[Remark, ...] = ()

    @property
    def path(self) -> Path:
        return Path(self.file)

    @property
    def shown(self) -> str:
        return printable(self.name)


@dataclass(frozen=True)
class Overview:
    """All of a project's pictures, in the order of their names."""

    pictures: list[Picture]
    problems: list[Problem]  # of the folder and of files that are no pictures
    framing: Framing
    refused: str = ""  # why nothing can be cut with these settings

    @property
    def trained(self) -> list[Picture]:
        return [picture for picture in self.pictures if not picture.left_out and not _unreadable(picture)]

    @property
    def left_out(self) -> int:
        return sum(picture.left_out for picture in self.pictures)

    @property
    def warnings(self) -> int:
        return sum(len(picture.warnings) for picture in self.pictures)

    @property
    def measured(self) -> int:
        return sum(picture.facts is not None for picture in self.pictures)


def overview(project: Project, measured: Measured, framing: Framing) -> Overview:
    """Look at a project's pictures; facts that are not known yet are being measured. UserError: the folder is gone."""
    files = read_folder(project.pictures)
    usable = _usable(project.pictures, files)[0]
    facts = measured.facts(project.pictures, [_key(one, files) for one in usable])
    return _overview(project, files, facts, [files.caption(one.file) for one in usable], framing)


def _unless_same(make: Callable[..., Overview]) -> Callable[..., Overview]:
    """Give the last Overview again for equal arguments: pages are turned more often than pictures change."""
    last: tuple[tuple, Overview] | None = None

    def given(*arguments: object) -> Overview:
        nonlocal last
        before = last
        if before is None or before[0] != arguments:
            last = before = arguments, make(*arguments)
        return before[1]

    return given


@_unless_same
def _overview(
    project: Project, files: Files, facts: Mapping[Key, Facts], captions: Sequence[str | None], framing: Framing
) -> Overview:
    usable, problems = _usable(project.pictures, files)
    left_out = set(project.left_out)
    fallback, refused = fallback_caption(project.trigger, project.kind), framing.refused
    known = [facts.get(_key(one, files)) for one in usable]
    same = _twins(usable, known, left_out)
    pictures = []
    for one, fact, caption in zip(usable, known, captions, strict=True):
        out = one.name in left_out
        used = caption or one.words or fallback
        crop = crop_of(fact.size, framing) if fact and not fact.reason and not refused else None
        remarks = () if out else _of_facts(fact, crop, same.get(one.name))
        if not out and not (fact and fact.reason):
            remarks += _of_caption(caption, used, project.trigger, framing.embedded)
        pictures.append(Picture(one.name, one.file, caption, used, out, fact, crop, remarks))
    return Overview(pictures, problems, framing, refused)


def chosen(pictures: Sequence[Picture], show: Show, search: str) -> list[Picture]:
    """The pictures that a filter and a search over names and captions leave."""
    words = search.casefold().split()
    return [
        picture
        for picture in pictures
        if (show == "all" or (picture.left_out if show == "left out" else bool(picture.warnings)))
        and all(word in f"{picture.name} {picture.caption or ''}".casefold() for word in words)
    ]


def page_of(pictures: Sequence[Picture], number: int) -> tuple[list[Picture], int, int]:
    """(the pictures of a page, its number within bounds counted from 0, how many pages there are)."""
    pages = max(1, -(-len(pictures) // PAGE))
    number = min(max(number, 0), pages - 1)
    return list(pictures[number * PAGE : (number + 1) * PAGE]), number, pages


def path_of(project: Project, name: str) -> Path:
    """The picture of that name. UserError where the project has none, whatever the name says."""
    folder = Path(project.pictures)
    path = folder / name
    if ".." in Path(name).parts or Path(name).is_absolute() or not path.is_file():
        raise UserError(f"There is no picture {printable(name)} any more.", "Show the page again.")
    return path


def caption_of(picture: Path) -> str:
    """What stands in the caption file beside a picture; "" where there is none."""
    return read_caption(picture) or ""


def captions_by_path(pictures: Sequence[Picture]) -> Mapping[Path, str | None]:
    """What the pictures' captions are; None where there is no file. OSError where one cannot be read."""
    shown = {picture.path: picture.caption for picture in pictures}
    return {path: read_caption(path) if caption is None else caption for path, caption in shown.items()}


class _Found(NamedTuple):
    name: str
    file: str
    words: str  # of a folder in kohya's layout


@functools.lru_cache(8)
def _found(folder: str, outline: tuple[str, ...]) -> tuple[list[_Found], list[Problem]]:
    """The pictures of a folder as the trainer lists them. `outline` is there to ask again when files come or go."""
    found, problems = list_pictures((folder,))
    return [_Found(_name(one.path, folder), str(one.path), printable(one.words)) for one in found], problems


def _usable(folder: str, files: Files) -> tuple[list[_Found], list[Problem]]:
    found, problems = _found(folder, files.outline)
    return [one for one in found if one.file in files.pictures], problems


def _key(picture: _Found, files: Files) -> Key:
    return picture.file, *files.pictures[picture.file]


def _name(path: Path, folder: str) -> str:
    return path.relative_to(folder).as_posix()


def _twins(pictures: Sequence[_Found], known: Sequence[Facts | None], left_out: set[str]) -> dict[str, str]:
    """Name of a near-duplicate -> name of the first picture that looks alike; among those that are trained."""
    usable = [
        (picture.name, fact.likeness)
        for picture, fact in zip(pictures, known, strict=True)
        if fact and not fact.reason and picture.name not in left_out
    ]
    same = _twins_of(tuple(likeness for _, likeness in usable))
    return {usable[number][0]: printable(usable[first][0]) for number, first in same.items()}


_twins_of = functools.lru_cache(8)(twins)


def _unreadable(picture: Picture) -> bool:
    return bool(picture.facts and picture.facts.reason)


def _of_facts(facts: Facts | None, crop: Crop | None, twin: str | None) -> tuple[Remark, ...]:
    if facts is None:
        return ()
    if facts.reason:
        return (Remark("unreadable", f"Cannot be used: {facts.reason}", "leave"),)
    remarks = []
    grown = crop.scaled[0] / facts.size[0] if crop else 1.0
    if grown > ENLARGED:
        remarks.append(Remark("small", f"Too small: it would be enlarged {grown:.1f} times.", "leave"))
    if crop and crop.lost > CUT:
        remarks.append(Remark("cut", f"{crop.lost:.0%} of it is cut away. Cut out yourself what matters.", "leave"))
    if facts.sharpness < BLURRED:
        remarks.append(Remark("blurred", "Looks blurred.", "leave"))
    if twin:
        remarks.append(Remark("twin", f"Nearly the same as {twin}.", "leave"))
    return tuple(remarks)


@functools.lru_cache(16384)
def _of_caption(caption: str | None, used: str, trigger: str, embedded: bool) -> tuple[Remark, ...]:
    if not caption:
        return (Remark("empty", f'No caption: "{used}" is used.'),)
    remarks = []
    if trigger.strip() and not mentions(caption, trigger):
        remarks.append(Remark("trigger", f'The trigger word "{trigger}" is missing.', "trigger"))
    if is_too_long(caption, embedded):
        limit = EMBEDDED_READS if embedded else CLIP_READS
        tokens = count(caption, embedded)
        remarks.append(Remark("long", f"Too long: {tokens} tokens, and {limit} are read. Put what matters first."))
    return tuple(remarks)
