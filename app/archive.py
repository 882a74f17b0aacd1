"""Archives: a run as one zip with the hash of every file, checked before the original goes, and made whole again."""

import hashlib
import json
import os
import shutil
import stat
import time
import uuid
import zipfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit

from app.library import is_on_another_computer, project_of
from app.paths import Home
from app.projects import OWN_PICTURES, RESERVED, slug
from app.runs import Run
from app.trash import Thrown, require_idle, throw_run
from app.zips import DAMAGED, TAKEN
from trainers import config_io, json_values
from trainers.errors import UserError, disk_error
from trainers.files import write_whole

CONTENTS = "darkroom-archive.json"  # in the zip: the project, the run folder's name, and every file's size and hash
CONTENTS_BYTES = 16 * 2**20
FILES = 100_000
MOST_PACKED = 200  # times the zip's own size; logs of real runs reach about a tenth of it
SPARE = 64 * 2**20  # bytes left free on the disk
CHUNK = 1 << 20
STORED = (".safetensors", ".pt", ".bin", ".png", ".jpg", ".webp")  # numbers and pictures, which do not get smaller
LEFT_OUT = ("control", "process.json", "lock")  # of the process that trained it
PARTIAL = ".partial"
PROJECT = ("name", "pictures", "kind", "trigger")  # what is kept of project.toml

Report = Callable[[int, int], None]  # bytes done, of all


@dataclass(frozen=True)
class Contents:
    """What an archive says of itself; everything in it comes from a file that somebody may have made up."""

    project: str  # its slug
    settings: dict[str, str]  # of project.toml
    run: str  # the run folder's name
    files: dict[str, tuple[int, str]]  # path inside the run folder, with / -> bytes, SHA-256


def save_zip(home: Home, run: Run, waiting: Collection[Run], report: Report = lambda done, total: None) -> Path:
    """Write the run into <home>/archive and read the zip back against the hashes of the run's files; returns the zip.

    UserError where the run is being trained or waits in the queue, or the disk refuses.
    """
    require_idle(run, waiting)
    project = project_of(home, run)
    files = dict(_files(run.folder))
    total = 2 * sum(file.stat().st_size for file in files.values())  # written, and read again
    zip_file = _free_name(home.archive, run.folder.name)
    partial = zip_file.with_name(f".{zip_file.name}.{uuid.uuid4().hex[:8]}{PARTIAL}")
    progress = _Progress(report, total)
    try:
        home.archive.mkdir(parents=True, exist_ok=True)
        known = {}
        with zipfile.ZipFile(partial, "w", allowZip64=True) as packed:
            for name, file in files.items():
                known[name] = _pack(packed, file, f"{run.folder.name}/{name}", progress)
            settings = config_io.read_toml(project.folder / "project.toml")
            settings = {key: str(settings.get(key, "")) for key in PROJECT}
            contents = {"project": project.slug, "settings": settings, "run": run.folder.name, "files": known}
            packed.writestr(CONTENTS, json.dumps({"version": 1, **contents}, ensure_ascii=False, indent=1))
        _verify(partial, progress)
        require_idle(run, waiting)
        os.replace(partial, zip_file)
    except OSError as error:
        raise disk_error(error) or UserError(f"{run.folder.name} cannot be archived: {error}.") from error
    finally:
        with suppress(OSError):
            partial.unlink()
    return zip_file


def archive(
    home: Home, run: Run, waiting: Callable[[], Collection[Run]], report: Report = lambda done, total: None
) -> tuple[Path, Thrown]:
    """`save_zip`, and then the run's folder goes to the trash, unless it has changed since; returns both."""
    zip_file = save_zip(home, run, waiting(), report)
    with zipfile.ZipFile(zip_file) as packed:
        known = read_contents(packed).files
    for name, file in _files(run.folder):
        if name not in known or known[name] != _hashed(file):
            raise UserError(f"{name} changed while the run was archived.", "The run stays where it is; try again.")
    return zip_file, throw_run(home, run, waiting())


def list_archives(home: Home) -> list[Path]:
    """The zips of the archive folder, the newest first."""
    found = [file for file in home.archive.glob("*.zip") if file.is_file() and not file.name.startswith(".")]
    return sorted(found, key=lambda file: file.stat().st_mtime, reverse=True)


def restore(home: Home, zip_file: Path, report: Report = lambda done, total: None) -> Run:
    """Unpack an archive as the run it was; its project is made again where it is not there.

    Nothing that is there is overwritten, and nothing is written outside the run's new folder. What a process left in
    the run stays in the zip; early archives hold its lock. A link to pictures on another computer is not kept.
    UserError, with nothing left behind, for a file that is no archive, is damaged, or holds what an archive does not.
    """
    with _opened(home, zip_file) as (packed, contents, place):
        return _unpack(home, packed, contents, place, report)


def require_restorable(home: Home, zip_file: Path) -> None:
    """UserError for what the zip's own lists give away: no archive, or one of a run that is there. Reads no file."""
    with _opened(home, zip_file):
        pass


@contextmanager
def _opened(home: Home, zip_file: Path) -> Iterator[tuple[zipfile.ZipFile, Contents, Path]]:
    """The zip, what it holds, and the run folder that it becomes."""
    try:
        with zipfile.ZipFile(zip_file) as packed:
            contents = read_contents(packed)
            place = home.projects / contents.project / "runs" / contents.run
            if os.path.lexists(place):
                raise UserError(f"The run {contents.run} is in the library already.", "It was left as it is.")
            yield packed, contents, place
    except (*DAMAGED, RuntimeError) as error:  # the latter for a password
        raise UserError(f"{zip_file.name} is no zip that can be read: {error}.") from error
    except FileNotFoundError as error:
        raise UserError(f"There is no file {zip_file}.") from error
    except OSError as error:
        raise disk_error(error) or UserError(f"{zip_file.name} cannot be restored: {error}.") from error


def read_contents(packed: zipfile.ZipFile) -> Contents:
    """What the archive says it holds, checked against what the zip holds. UserError where it is not to be trusted."""
    name = Path(str(packed.filename)).name
    if CONTENTS not in packed.namelist():
        raise UserError(f"{name} is no archive of a run.", f"Darkroom's own hold a file {CONTENTS}.")
    if odd := next((entry for entry in packed.infolist() if entry.compress_type not in TAKEN), None):
        told = f"{name} holds a file that is packed in an unusual way: {odd.filename[:100]}."
        raise UserError(told, "Darkroom's own archives are packed with Deflate.")
    size = packed.getinfo(CONTENTS).file_size
    if size > CONTENTS_BYTES:
        raise UserError(f"{name} is no archive of a run: its list of files is too long.")
    try:
        with packed.open(CONTENTS) as source:
            said = json_values.parse(source.read(size))  # without a number, all is unpacked before it is cut to size
        files = {str(path): (int(size), str(digest)) for path, (size, digest) in said["files"].items()}
        settings = {key: str(said["settings"][key]) for key in PROJECT}
        contents = Contents(str(said["project"]), settings, str(said["run"]), files)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{name} is no archive of a run: its list of files is damaged.") from error
    if contents.project != slug(contents.project) or not _is_plain(contents.run):
        raise UserError(f"{name} names a folder that cannot be made here.")
    if "config.toml" not in files:
        raise UserError(f"{name} holds no settings of a run.")
    _require_harmless(packed, contents, name)
    return contents


def _require_harmless(packed: zipfile.ZipFile, contents: Contents, name: str) -> None:
    entries = packed.infolist()
    expected = {CONTENTS, *(f"{contents.run}/{path}" for path in contents.files)}
    if len(entries) > FILES or len({entry.filename for entry in entries}) != len(entries):
        raise UserError(f"{name} holds too many files, or one twice.")
    for entry in entries:
        if not all(_is_plain(part) for part in entry.filename.split("/")):
            raise UserError(f"{name} holds a file that would land outside its folder: {entry.filename[:100]}.")
        if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
            raise UserError(f"{name} holds a link, which an archive of a run never does: {entry.filename[:100]}.")
        if entry.filename not in expected:
            raise UserError(f"{name} holds a file that its list does not name: {entry.filename[:100]}.")
    if missing := expected - {entry.filename for entry in entries}:
        raise UserError(f"{name} lacks {min(missing)[:100]}.")
    if len({path.casefold() for path in contents.files}) != len(contents.files):
        raise UserError(f"{name} holds two files of one name.")
    size = sum(entry.file_size for entry in entries)
    if size > MOST_PACKED * max(Path(str(packed.filename)).stat().st_size, CHUNK):
        raise UserError(f"{name} would unpack to {size / 1e9:,.1f} GB, far more than a run of its size.")


def _unpack(home: Home, packed: zipfile.ZipFile, contents: Contents, place: Path, report: Report) -> Run:
    files = {name: facts for name, facts in contents.files.items() if not _is_of_a_process(name)}
    total = sum(size for size, _ in files.values())
    home.archive.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(home.archive).free < total + SPARE:
        raise UserError(f"The disk has no room for the {total / 1e9:,.1f} GB of this run.")
    progress = _Progress(report, total)
    # Beside the projects, so that no half run shows.
    workshop = home.archive / f".restoring-{uuid.uuid4().hex[:8]}{PARTIAL}"
    workshop.mkdir()
    try:
        for name, (size, digest) in files.items():
            file = workshop / name
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("xb") as target:
                found = _read(packed, f"{contents.run}/{name}", size, progress, target.write)
            if found != (size, digest):
                raise UserError(f"{name[:100]} in the archive is damaged.", "The run was not restored.")
        config_io.read_toml(workshop / "config.toml")
        _make_project(home, contents)
        if os.path.lexists(place):
            raise UserError(f"The run {contents.run} is in the library already.", "It was left as it is.")
        os.rename(workshop, place)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)  # what was unpacked just now; gone when it got its name
    return Run(place)


def _make_project(home: Home, contents: Contents) -> None:
    folder = home.projects / contents.project
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    if not (folder / "project.toml").exists():
        settings = dict(contents.settings)
        if is_on_another_computer(settings["pictures"]):  # which somebody else may have chosen
            settings["pictures"] = OWN_PICTURES
        write_whole(folder / "project.toml", tomlkit.dumps(settings).encode())


def _verify(zip_file: Path, progress: "_Progress") -> None:
    """UserError unless every file reads back as it was when it was packed."""
    with zipfile.ZipFile(zip_file) as packed:
        contents = read_contents(packed)
        for name, (size, digest) in contents.files.items():
            if _read(packed, f"{contents.run}/{name}", size, progress) != (size, digest):
                raise UserError(f"{name} does not read back from the zip as it was.", "The run stays where it is.")


def _pack(packed: zipfile.ZipFile, file: Path, name: str, progress: "_Progress") -> tuple[int, str]:
    how = zipfile.ZIP_STORED if file.suffix.lower() in STORED else zipfile.ZIP_DEFLATED
    moment = max(time.localtime(file.stat().st_mtime)[:6], (1980, 1, 1, 0, 0, 0))  # a zip knows no earlier one
    entry = zipfile.ZipInfo(name, moment)
    entry.compress_type, entry.external_attr = how, (stat.S_IFREG | 0o644) << 16
    digest, size = hashlib.sha256(), 0
    with file.open("rb") as source, packed.open(entry, "w", force_zip64=True) as target:
        while chunk := source.read(CHUNK):
            digest.update(chunk)
            target.write(chunk)
            size += len(chunk)
            progress.add(len(chunk))
    return size, digest.hexdigest()


def _read(
    packed: zipfile.ZipFile, name: str, size: int, progress: "_Progress", write: Callable[[bytes], Any] | None = None
) -> tuple[int, str]:
    """Size and hash of a packed file; one that goes on beyond `size` is left there, whatever its header said."""
    digest, done = hashlib.sha256(), 0
    with packed.open(name) as source:
        while done <= size and (chunk := source.read(CHUNK)):
            digest.update(chunk)
            done += len(chunk)
            progress.add(len(chunk))
            if write:
                write(chunk)
    return done, digest.hexdigest()


def _hashed(file: Path) -> tuple[int, str]:
    with file.open("rb") as source:
        return file.stat().st_size, hashlib.file_digest(source, "sha256").hexdigest()


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Path inside the folder, with / -> file, for all that belongs to the run's story."""
    for place, folders, names in os.walk(folder):
        inside = Path(place) == folder
        folders[:] = sorted(name for name in folders if not (inside and name in LEFT_OUT))
        for name in sorted(names):
            file = Path(place, name)
            if not (inside and name in LEFT_OUT) and not name.endswith(PARTIAL) and file.is_file():
                yield file.relative_to(folder).as_posix(), file


def _is_of_a_process(name: str) -> bool:
    """Whether a path inside a run lies in what is left out, as Windows reads names: any letters, no dots at the end."""
    return name.partition("/")[0].rstrip(". ").casefold() in LEFT_OUT


def _free_name(folder: Path, name: str) -> Path:
    file, number = folder / f"{name}.zip", 1
    while file.exists():
        number += 1
        file = folder / f"{name}-{number}.zip"
    return file


def _is_plain(part: str) -> bool:
    """Whether it names a file or folder here, and nowhere else, on any system."""
    odd = any(ord(letter) < 32 or letter in '\\:*?"<>|' for letter in part)
    named = part.partition(".")[0].strip().lower() in RESERVED
    return bool(part) and part not in (".", "..") and "/" not in part and not odd and not named


class _Progress:
    def __init__(self, report: Report, total: int):
        self.report, self.total, self.done = report, total, 0

    def add(self, size: int) -> None:
        self.done += size
        self.report(self.done, self.total)
