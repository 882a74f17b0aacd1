"""A project's pictures as the trainer will see them: caption, crop, bucket, and what should be looked at."""

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from app.paths import Home
from app.picture_facts import BLURRED, Facts, Key, Measured, twins
from app.presets import EMBEDDED
from app.projects import Project
from app.settings import load_settings
from app.trigger_words import CLIP_READS, EMBEDDED_READS, count, is_too_long
from trainers import config_io
from trainers.config import DataConfig
from trainers.data.buckets import plan
from trainers.data.captions import ENDINGS, decode, fallback_caption, mentions, read_caption
from trainers.data.folders import list_pictures
from trainers.data.types import Crop, Example, Problem, printable
from trainers.errors import UserError

RESOLUTIONS = (64, 512, 768, 1024)
EMBEDDED_RESOLUTION = 64  # of the built-in base
MULTIPLES = {EMBEDDED_RESOLUTION: 16}  # its VAE halves twice, its denoiser twice; elsewhere 64, as in data/buckets.py
ENLARGED = 1.5  # times; above it, details are missing that the trainer would need
PAGE = 24
Show = Literal["all", "warnings", "left out"]


@dataclass(frozen=True)
class Remark:
    """`kind`: unreadable, small, blurred, twin, trigger, empty or long; `remedy`: leave, trigger, or "" for none."""

    kind: str
    sentence: str
    remedy: str = ""


@dataclass(frozen=True)
class Picture:
    """`name` is its path inside the project's pictures; `facts` and `crop` are None until it was measured."""

    name: str
    path: Path
    caption: str | None  # None: no caption file
    used: str  # the caption that training uses
    left_out: bool
    facts: Facts | None = None
    crop: Crop | None = None
    warnings: tuple[Remark, ...] = ()

    @property
    def shown(self) -> str:
        return printable(self.name)


@dataclass(frozen=True)
class Overview:
    """All of a project's pictures, in the order of their names."""

    pictures: list[Picture]
    problems: list[Problem]  # of the folder and of files that are no pictures
    resolution: int

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


def overview(project: Project, measured: Measured, resolution: int) -> Overview:
    """Look at a project's pictures; facts that are not known yet are being measured. UserError: the folder is gone."""
    found, problems = list_pictures((project.pictures,))
    folder = Path(project.pictures)
    names = [one.path.relative_to(folder).as_posix() for one in found]
    captions = _captions([one.path for one in found])
    keys = [_key(one.path) for one in found]
    facts = measured.facts(project.pictures, keys)
    left_out = set(project.left_out)
    pictures = []
    for one, name, key in zip(found, names, keys, strict=True):
        caption = captions[one.path]
        used = caption or printable(one.words) or fallback_caption(project.trigger, project.kind)
        known = facts.get(key)
        crop = crop_of(known.size, resolution) if known and not known.reason else None
        pictures.append(Picture(name, one.path, caption, used, name in left_out, known, crop))
    same = _twins(pictures)
    settings = (project.trigger, resolution == EMBEDDED_RESOLUTION)
    looked = [_with(picture, _warnings(picture, same.get(picture.name), *settings)) for picture in pictures]
    return Overview(looked, problems, resolution)


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


def resolution_for(home: Home, project: Project) -> int:
    """That of the project's newest run, else of the base that new projects use."""
    base = load_settings(home).base
    for config in sorted(project.runs.glob("*/config.toml"), reverse=True):
        try:
            stored = config_io.load(config)
        except UserError:
            continue
        if stored.data.resolution in RESOLUTIONS:
            return int(stored.data.resolution)
        base = stored.model.base
        break
    return EMBEDDED_RESOLUTION if base == EMBEDDED else 512


@functools.lru_cache(4096)
def crop_of(size: tuple[int, int], resolution: int) -> Crop:
    """What of a picture of that size is trained, with the usual bucket settings."""
    example = Example(Path(), "", size, "")
    return plan([example], DataConfig(), resolution, MULTIPLES.get(resolution, 64))[0]


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
    """What the pictures' captions are; None where there is no file."""
    return {picture.path: picture.caption for picture in pictures}


def _captions(paths: Sequence[Path]) -> dict[Path, str | None]:
    """Captions of many pictures: folders are listed once, files read again only when they have changed."""
    listed: dict[Path, dict[str, os.DirEntry[str]]] = {}
    found: dict[Path, str | None] = {}
    for path in paths:
        if path.parent not in listed:
            listed[path.parent] = {entry.name: entry for entry in os.scandir(path.parent)}
        entries = listed[path.parent]
        entry = next((entries[path.stem + ending] for ending in ENDINGS if path.stem + ending in entries), None)
        try:
            facts = entry.stat() if entry and entry.is_file() else None
            found[path] = _read(entry.path, facts.st_mtime_ns, facts.st_size) if entry and facts else None
        except OSError:
            found[path] = None
    return found


@functools.lru_cache(16384)
def _read(path: str, changed: int, size: int) -> str:
    return decode(Path(path).read_bytes())


def _key(path: Path) -> Key:
    try:
        facts = path.stat()
        return str(path), facts.st_mtime_ns, facts.st_size
    except OSError:
        return str(path), 0, 0


def _twins(pictures: Sequence[Picture]) -> dict[str, str]:
    """Name of a near-duplicate -> name of the first picture that looks alike; among those that are trained."""
    usable = [p for p in pictures if not p.left_out and p.facts and not p.facts.reason]
    same = _twins_of(tuple(picture.facts.likeness for picture in usable if picture.facts))
    return {usable[number].name: usable[first].shown for number, first in same.items()}


_twins_of = functools.lru_cache(8)(twins)


def _unreadable(picture: Picture) -> bool:
    return bool(picture.facts and picture.facts.reason)


def _with(picture: Picture, warnings: tuple[Remark, ...]) -> Picture:
    return replace(picture, warnings=warnings)


def _warnings(picture: Picture, twin: str | None, trigger: str, embedded: bool) -> tuple[Remark, ...]:
    if picture.left_out:
        return ()
    facts, crop = picture.facts, picture.crop
    if facts and facts.reason:
        return (Remark("unreadable", f"Cannot be used: {facts.reason}", "leave"),)
    warnings = []
    if facts and crop:
        grown = crop.scaled[0] / facts.size[0]
        if grown > ENLARGED:
            warnings.append(Remark("small", f"Too small: it would be enlarged {grown:.1f} times.", "leave"))
        if facts.sharpness < BLURRED:
            warnings.append(Remark("blurred", "Looks blurred.", "leave"))
    if twin:
        warnings.append(Remark("twin", f"Nearly the same as {twin}.", "leave"))
    if not picture.caption:
        warnings.append(Remark("empty", f'No caption: "{picture.used}" is used.'))
    elif trigger.strip() and not mentions(picture.caption, trigger):
        warnings.append(Remark("trigger", f'The trigger word "{trigger}" is missing.', "trigger"))
    if picture.caption and is_too_long(picture.caption, embedded):
        limit = EMBEDDED_READS if embedded else CLIP_READS
        tokens = count(picture.caption, embedded)
        warnings.append(Remark("long", f"Too long: {tokens} tokens, and {limit} are read. Put what matters first."))
    return tuple(warnings)
