"""Dropped files: pictures, captions and zip files that come into a project's own folder, under safe names."""

import hashlib
import os
import shutil
import threading
import unicodedata
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from app.picture_folder import read_folder
from app.projects import PICTURE_ENDINGS, RESERVED, Project
from app.zips import DAMAGED, TAKEN
from trainers.data.captions import ENDINGS as CAPTION_ENDINGS
from trainers.data.captions import caption_file
from trainers.errors import UserError, disk_error

NAME_BYTES = 150  # of a file's name before its ending; thumbnails and temporary names are made from it
ZIP_FILES = 20_000
ZIP_BYTES = 20 * 2**30  # unpacked
BOMB, MOST_PACKED = 2**30, 100  # bytes, and how many times the zip file they may be: pictures hardly get smaller
CHUNK = 2**20

_adding: dict[str, threading.Lock] = {}  # by project; two browser tabs may drop files into one at the same time


@dataclass
class Added:
    """What became of the files that were dropped; `skipped` are sentences."""

    pictures: int = 0
    captions: int = 0
    known: int = 0  # pictures that the project had already
    skipped: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Dropped:
    """A file on its way in: `place` is its folder, as far as it is told, so that captions find their pictures."""

    name: str
    place: str
    source: Path | zipfile.ZipInfo


@dataclass
class _There:
    """What captions may belong to: the pictures of a folder, and of files on their way in, which file is where now."""

    by_stem: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    placed: dict[tuple[str, str], list[tuple[int, Path]]] = field(default_factory=lambda: defaultdict(list))
    captions: dict[tuple[str, str], list[int]] = field(default_factory=lambda: defaultdict(list))


def add(project: Project, files: Sequence[str | Path]) -> Added:
    """Copy dropped pictures, captions, and what zip files hold of them, into the project's own folder.

    What is no picture is left and named. Names stay readable and become unique; captions go with their pictures.

    Raises:
        UserError: the project links its pictures, or the disk is full.
    """
    if not project.owns_pictures:
        raise UserError(
            f"The pictures of this project are linked from {project.pictures}.", "Put more pictures into that folder."
        )
    added, paths = Added(), [Path(file) for file in files]
    try:
        with _adding.setdefault(str(project.folder), threading.Lock()):  # names are free until a file has them
            _take(project, [_Dropped(path.name, "", path) for path in paths if not _is_zip(path)], None, added)
            for file in filter(_is_zip, paths):
                _unpack(project, file, added)
    except OSError as error:
        raise disk_error(error) or UserError(f"The pictures cannot be copied: {error.strerror or error}.") from error
    return added


def safe_name(name: str) -> str:
    """A file's name that every system allows, as near to the given one as it can be."""
    name = unicodedata.normalize("NFC", name)
    name = "".join("_" if c in '<>:"/\\|?*' or unicodedata.category(c)[0] == "C" else c for c in name)
    stem, ending = os.path.splitext(name)
    while len(stem.encode()) > NAME_BYTES:
        stem = stem[:-1]
    stem = stem.strip(" .") or "picture"
    return (f"{stem}_" if stem.casefold() in RESERVED else stem) + ending


def _is_zip(file: Path) -> bool:
    return file.suffix.lower() == ".zip"


def _unpack(project: Project, file: Path, added: Added) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            entries = [entry for entry in archive.infolist() if not entry.filename.endswith("/")]
            size = sum(entry.file_size for entry in entries)
            if size > max(BOMB, MOST_PACKED * file.stat().st_size):
                told = f"would unpack to {size / 2**30:,.1f} GB"
                added.skipped.append(f"{file.name} {told}: it is made to fill the disk.")
                return
            if len(entries) > ZIP_FILES or size > ZIP_BYTES:
                added.skipped.append(f"{file.name} holds more than {ZIP_FILES:,} files or {ZIP_BYTES >> 30} GB.")
                return
            inside = []
            for entry in entries:
                path = PurePosixPath(_entry_name(entry).replace("\\", "/"))  # only its last part names a file of ours
                if not any(part.startswith((".", "__MACOSX")) and part != ".." for part in path.parts):
                    inside.append(_Dropped(path.name, str(path.parent), entry))
            _take(project, _without_odd(inside, file, added), archive, added)
    except DAMAGED as error:
        added.skipped.append(f"{file.name} is damaged, or no zip file. {str(error).rstrip('.')}.")


def _without_odd(inside: list[_Dropped], file: Path, added: Added) -> list[_Dropped]:
    """The files of a zip file that are packed in a usual way; of the others, one sentence tells."""
    odd = [one.name for one in inside if one.source.compress_type not in TAKEN]
    if odd:
        first = f"{odd[0]} and {len(odd) - 1:,} more" if odd[1:] else odd[0]
        told = f"{first} in {file.name} cannot be unpacked: packed in an unusual way."
        added.skipped.append(f"{told} Make the zip file again in the usual one, Deflate.")
    return [one for one in inside if one.source.compress_type in TAKEN]


def _entry_name(entry: zipfile.ZipInfo) -> str:
    """Many programs write UTF-8 without saying so; zipfile then reads it as code page 437."""
    if entry.flag_bits & 0x800:
        return entry.filename
    try:
        return entry.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return entry.filename


def _take(project: Project, files: list[_Dropped], archive: zipfile.ZipFile | None, added: Added) -> None:
    """Copy pictures, then captions to those they belong to."""
    folder = Path(project.pictures)
    folder.mkdir(exist_ok=True)
    taken = {_stem(name) for name in os.listdir(folder)}
    sizes: dict[int, list[Path]] = defaultdict(list)
    digests: dict[Path, bytes] = {}
    there = _There()
    for path, size in _own(folder):
        sizes[size].append(path)
        there.by_stem[_stem(path.name)].append(path)
    for number, file in enumerate(files):
        ending = os.path.splitext(file.name)[1].lower()
        if _is_caption(file):
            there.captions[_sign(file)].append(number)
            continue
        if file.name.startswith("."):
            continue
        if ending not in PICTURE_ENDINGS:
            what = "lies inside a zip file and is one itself" if ending == ".zip" else "is no picture that can be used"
            added.skipped.append(f"{file.name} {what}.")
            continue
        incoming = _incoming(file, archive, folder, added)
        if incoming is None:
            continue
        size = incoming.stat().st_size
        same = _same(incoming, sizes[size], digests)
        if same:
            incoming.unlink()
            added.known += 1
            there.placed[_sign(file)].append((number, same))
            continue
        target = folder / _unique(safe_name(file.name), taken)
        os.replace(incoming, target)
        if incoming in digests:
            digests[target] = digests.pop(incoming)
        sizes[size].append(target)
        there.by_stem[_stem(target.name)].append(target)
        there.placed[_sign(file)].append((number, target))
        added.pictures += 1
    for number, file in enumerate(files):
        if _is_caption(file):
            _take_caption(number, file, archive, there, added)


def _own(folder: Path) -> Iterator[tuple[Path, int]]:
    """The pictures in a folder and below, sorted, and their bytes; not those of folders that it links to."""
    real = Path(os.path.realpath(folder))
    for path, (_, size) in sorted(read_folder(str(folder)).pictures.items()):
        if Path(os.path.realpath(os.path.dirname(path))).is_relative_to(real):
            yield Path(path), size


def _take_caption(number: int, file: _Dropped, archive: zipfile.ZipFile | None, there: _There, added: Added) -> None:
    """Put a caption beside its picture: the one of the same name and, where that is told, of the same folder.

    A browser tells no folders, so several may fit: where there are as many captions of that name, each gets the one
    that came in its turn, else the nearest.
    """
    rivals = [(abs(number - other), path) for other, path in there.placed[_sign(file)]]
    turns = there.captions[_sign(file)]
    if len(turns) == len(rivals):
        rivals = [rivals[turns.index(number)]]
    rivals = [(distance, path) for distance, path in rivals if caption_file(path) is None]
    if not rivals:  # the picture may have been dropped earlier
        earlier = there.by_stem[_stem(safe_name(file.name))]
        rivals = [(0, path) for path in earlier if caption_file(path) is None]
        if earlier and not rivals:
            added.skipped.append(f"{file.name}: its picture has a caption already, which stays.")
            return
    if not rivals:
        added.skipped.append(f"{file.name}: there is no picture of that name for this caption.")
        return
    beside = min(rivals)[1]
    incoming = _incoming(file, archive, beside.parent, added)
    if incoming is None:
        return
    os.replace(incoming, beside.with_suffix(".txt"))
    added.captions += 1


class _Refused(Exception):
    """Why a file of a zip file cannot be had."""


def _incoming(file: _Dropped, archive: zipfile.ZipFile | None, folder: Path, added: Added) -> Path | None:
    """The file's bytes under a temporary name; None, and a sentence among what was skipped, where it has none."""
    try:
        return _copied(file, archive, folder)
    except _Refused as error:
        added.skipped.append(f"{file.name} cannot be unpacked: {error}.")
        return None


def _copied(file: _Dropped, archive: zipfile.ZipFile | None, folder: Path) -> Path:
    """The file's bytes under a temporary name in the folder."""
    incoming = folder / f".incoming-{os.urandom(6).hex()}"
    try:
        with incoming.open("wb") as target:
            if archive is None:
                with Path(file.source).open("rb") as source:
                    shutil.copyfileobj(source, target, CHUNK)
            else:
                _extract(archive, file.source, target)
        return incoming
    except BaseException:
        incoming.unlink(missing_ok=True)
        raise


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: BinaryIO) -> None:
    try:
        with archive.open(entry) as source:
            written = 0
            while block := source.read(CHUNK):
                written += len(block)
                if written > entry.file_size:  # the sum of these sizes was looked at; a lie about it ends here
                    raise _Refused("it is larger than the zip file says")
                target.write(block)
    except RuntimeError as error:  # zipfile's word for a password
        raise _Refused("it is protected by a password") from error
    except DAMAGED as error:
        raise _Refused("it is damaged, or packed in an unusual way") from error


def _is_caption(file: _Dropped) -> bool:
    return os.path.splitext(file.name)[1].lower() in CAPTION_ENDINGS and not file.name.startswith(".")


def _sign(file: _Dropped) -> tuple[str, str]:
    """The same for a picture and its caption."""
    return _stem(file.name), file.place


def _stem(name: str) -> str:
    return unicodedata.normalize("NFC", os.path.splitext(name)[0]).casefold()


def _unique(name: str, taken: set[str]) -> str:
    """The name, or name-2, name-3, ...: pictures that differ in their ending alone would share one caption file."""
    stem, ending = os.path.splitext(name)
    for tried in _numbered(stem):
        if _stem(f"{tried}{ending}") not in taken:
            taken.add(_stem(f"{tried}{ending}"))
            return f"{tried}{ending}"
    raise AssertionError


def _numbered(stem: str) -> Iterator[str]:
    yield stem
    number = 1
    while True:
        number += 1
        yield f"{stem}-{number}"


def _same(file: Path, others: Sequence[Path], digests: dict[Path, bytes]) -> Path | None:
    """Which of the files has the very same bytes; `digests` remembers what is known of any."""

    def known(one: Path) -> bytes:
        if one not in digests:
            digests[one] = _digest(one)
        return digests[one]

    return next((other for other in others if known(other) == known(file)), None)


def _digest(file: Path) -> bytes:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").digest()
