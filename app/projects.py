"""Projects: a name, a folder of pictures that is only read, and the runs made from them."""

import os
import shutil
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tomlkit

from app.paths import Home, absolute
from app.picture_folder import count_pictures
from trainers import config_io
from trainers.data.decoding import ENDINGS as PICTURE_ENDINGS
from trainers.data.folders import is_whole_disk
from trainers.errors import UserError
from trainers.files import write_whole

RESERVED = frozenset(["con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(10))])
SLUG_BYTES = 80  # file systems allow 255 bytes a name; dates and endings are added to it
OWN_PICTURES = "pictures"  # the folder of a project that holds its own

_writing = threading.Lock()  # two browser tabs may change one project at the same time


@dataclass(frozen=True)
class Project:
    folder: Path
    name: str
    pictures: str  # its own folder, or a linked one that is never written
    kind: str
    trigger: str = ""
    left_out: tuple[str, ...] = ()  # pictures that are not trained: paths inside `pictures`, with forward slashes

    @property
    def slug(self) -> str:
        return self.folder.name

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    @property
    def owns_pictures(self) -> bool:
        """Whether its pictures are copies of its own, to which more can be added."""
        return Path(self.pictures) == self.folder / OWN_PICTURES


def create(home: Home, name: str, pictures: Path, kind: str, trigger: str = "") -> Project:
    """Make a project of linked pictures, or give back the one of that name if its pictures are the same.

    UserError where the folder of pictures is missing or empty, or the name is taken by other pictures.
    """
    name = _name(name)
    pictures = absolute(pictures)
    require_pictures(pictures)
    known = named(home, name)
    if known and known.pictures == str(pictures):
        return known
    if known:
        raise UserError(
            f'There is already a project "{name}", with the pictures of {known.pictures}.', "Choose another name."
        )
    with new_folder(home.projects, slug(name)) as folder:
        project = Project(folder, name, str(pictures), kind, trigger)
        _write(project, {"pictures": project.pictures})
    return project


def create_own(home: Home, name: str, kind: str, trigger: str = "") -> Project:
    """Make a project with an empty folder of its own for pictures. UserError where the name is empty or taken."""
    name = _name(name)
    if named(home, name):
        raise UserError(f'There is already a project "{name}".', "Choose another name.")
    with new_folder(home.projects, slug(name)) as folder:
        (folder / OWN_PICTURES).mkdir()
        project = Project(folder, name, str(folder / OWN_PICTURES), kind, trigger)
        _write(project, {"pictures": OWN_PICTURES})  # so that the home folder can be moved
    return project


def update(project: Project, **changes: str | tuple[str, ...]) -> Project:
    """Change kind, trigger or left_out, here and in project.toml; what else stands in the file stays.

    UserError where project.toml is gone or damaged.
    """
    with _writing:
        document = config_io.read_toml(project.folder / "project.toml")
        document.update({key: list(value) if isinstance(value, tuple) else value for key, value in changes.items()})
        write_whole(project.folder / "project.toml", tomlkit.dumps(document).encode())
    return replace(project, **changes)


def data_settings(project: Project) -> dict[str, Any]:
    """The settings of a run, section data, that the project decides."""
    return {
        "folders": [project.pictures],
        "left_out": list(project.left_out),
        "trigger": project.trigger,
        "kind": project.kind,
    }


def find(home: Home, name: str) -> Project | None:
    """The project with that slug."""
    return next((project for project in list_projects(home) if project.slug == name), None)


def named(home: Home, name: str) -> Project | None:
    """The project that a person gave that name."""
    return next((project for project in list_projects(home) if project.name == name), None)


def list_projects(home: Home) -> list[Project]:
    """All readable projects, by name."""
    found = []
    for file in home.projects.glob("*/project.toml"):
        try:
            values = config_io.read_toml(file)
            texts = {key: str(values[key]) for key in ("name", "kind", "trigger") if key in values}
            pictures = str(absolute(str(values["pictures"]), file.parent))
            left_out = tuple(str(name) for name in values.get("left_out", ()))
            found.append(Project(file.parent, pictures=pictures, left_out=left_out, **texts))
        except (UserError, TypeError, KeyError):  # a damaged project must not hide the others
            continue
    return sorted(found, key=lambda project: project.name.casefold())


def slug(name: str) -> str:
    """A name as a folder's name on any system: letters, marks and digits of any script, the rest as dashes."""
    letters = unicodedata.normalize("NFC", unicodedata.normalize("NFKC", name).casefold())
    plain = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in letters)
    text = "-".join(plain.split())
    while len(text.encode()) > SLUG_BYTES:
        text = text[:-1]
    text = text.strip("-") or "project"
    return f"{text}-1" if text in RESERVED else text


def require_pictures(folder: Path) -> int:
    """How many pictures the folder holds. UserError when it is no folder, or holds none."""
    if os.path.isfile(folder):  # which a name that is too long just is not; pathlib raises then
        raise UserError(f"{folder} is a file.", "Name the folder that holds your pictures.")
    if not os.path.isdir(folder):
        raise UserError(f"There is no folder {folder}.", "Check the spelling, and whether the drive is connected.")
    if is_whole_disk(folder):
        raise UserError(f"{folder} is the whole disk.", "Name the folder that holds your pictures.")
    count = count_pictures(str(folder))
    if not count:
        kinds = ", ".join(sorted(ending[1:].upper() for ending in PICTURE_ENDINGS))
        raise UserError(f"There is no picture in {folder}.", f"Pictures are files of these kinds: {kinds}.")
    return count


@contextmanager
def new_folder(parent: Path, name: str) -> Iterator[Path]:
    """Make a folder that was not there: name, name-2, name-3, ...; it goes again when it could not be filled."""
    parent.mkdir(parents=True, exist_ok=True)
    folder, number = parent / name, 1
    while True:
        try:
            folder.mkdir()
            break
        except FileExistsError:
            number += 1
            folder = parent / f"{name}-{number}"
    try:
        yield folder
    except OSError:  # a full disk
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _name(name: str) -> str:
    name = " ".join(name.split())
    if not name:
        raise UserError("A project needs a name.")
    return name


def _write(project: Project, values: dict[str, str]) -> None:
    values = {"name": project.name, **values, "kind": project.kind, "trigger": project.trigger}
    write_whole(project.folder / "project.toml", tomlkit.dumps(values).encode())
