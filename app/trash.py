"""The trash: runs and projects that were thrown away lie in <home>/trash until a person deletes them there."""

import os
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import tomlkit

from app.about import read_about
from app.library import folder_bytes
from app.paths import Home
from app.projects import Project, list_projects, new_folder, slug
from app.runs import Run, is_alive
from trainers import config_io
from trainers.errors import UserError
from trainers.files import write_whole

NOTE = "trashed.toml"


@dataclass(frozen=True)
class Thrown:
    """One thing in the trash: its folder there holds the thing itself and a note of where it came from."""

    folder: Path
    kind: str  # run or project
    name: str
    came_from: str  # relative to the home folder, with /
    when: str
    bytes: int  # its size on disk when it was thrown away

    @property
    def content(self) -> Path:
        return self.folder / self.came_from.rpartition("/")[2]


def require_idle(run: Run, waiting: Collection[Run]) -> None:
    """UserError where the run is being trained or waits in the queue: its folder must stay where it is."""
    if is_alive(run):
        raise UserError(f"{run.folder.name} is being trained.", "Stop it first.")
    if run.folder in {one.folder for one in waiting}:
        raise UserError(f"{run.folder.name} waits in the queue.", "Remove it from the queue first.")


def throw_run(home: Home, run: Run, waiting: Collection[Run]) -> Thrown:
    """Move a run to the trash. UserError where it is being trained or waits, or the disk refuses."""
    require_idle(run, waiting)
    return _throw(home, run.folder, "run", read_about(run).name or run.folder.name)


def throw_project(home: Home, project: Project, waiting: Collection[Run]) -> Thrown:
    """Move a project with its runs, and the pictures that lie inside it; linked pictures stay where they are."""
    for file in project.runs.glob("*/config.toml"):
        require_idle(Run(file.parent), waiting)
    for other in list_projects(home):
        if other.folder != project.folder and Path(other.pictures).is_relative_to(project.folder):
            raise UserError(f"The project {other.name} uses the pictures of {project.name}.", "Move that one first.")
    return _throw(home, project.folder, "project", project.name)


def list_trash(home: Home) -> list[Thrown]:
    """What lies in the trash, the newest first; folders that hold no note are left out."""
    found = [_read(file) for file in home.trash.glob(f"*/{NOTE}")]
    return sorted((one for one in found if one), key=lambda one: one.when, reverse=True)


def put_back(home: Home, name: str) -> Path:
    """Move what the trash folder `name` holds back to where it came from.

    UserError where it is not there, its place is taken, or its project lies in the trash as well.
    """
    thrown = next((one for one in list_trash(home) if one.folder.name == name), None)
    if thrown is None or not thrown.content.is_dir():
        raise UserError(f"{name} is no longer in the trash.")
    place = home.root / thrown.came_from
    if os.path.lexists(place):
        raise UserError(f"{place} is taken.", "Rename or move what lies there first.")
    if thrown.kind == "run" and not (place.parent.parent / "project.toml").is_file():
        raise UserError(f"The project of {thrown.name} is not there.", "Put the project back first.")
    place.parent.mkdir(exist_ok=True)
    _move(thrown.content, place)
    (thrown.folder / NOTE).unlink()
    thrown.folder.rmdir()
    return place


def _throw(home: Home, folder: Path, kind: str, name: str) -> Thrown:
    now = datetime.now()
    came_from = folder.relative_to(home.root).as_posix()
    with new_folder(home.trash, f"{now:%Y-%m-%d_%H-%M-%S}_{slug(name)}") as place:
        told = {"kind": kind, "name": name, "came_from": came_from, "when": f"{now:%Y-%m-%d %H:%M:%S}"}
        note: dict[str, Any] = {**told, "bytes": folder_bytes(folder)}
        write_whole(place / NOTE, tomlkit.dumps(note).encode())
    thrown = Thrown(place, **note)
    try:
        _move(folder, thrown.content)
    except UserError:
        (place / NOTE).unlink()
        place.rmdir()
        raise
    return thrown


def _move(folder: Path, place: Path) -> None:
    """Renamed in one step, never copied and deleted: whatever fails, all of it lies in one of the two places."""
    try:
        os.rename(folder, place)
    except OSError as error:  # on Windows also a file that another program holds open
        reason = error.strerror or error
        raise UserError(f"{folder} cannot be moved: {reason}.", "Close programs that use its files.") from error


def _read(file: Path) -> Thrown | None:
    try:
        values = config_io.read_toml(file)
        texts = (str(values[key]) for key in ("kind", "name", "came_from", "when"))
        thrown = Thrown(file.parent, *texts, int(values["bytes"]))
    except (UserError, KeyError, ValueError, TypeError):
        return None
    parts = thrown.came_from.split("/")
    plain = all(part not in ("", ".", "..") and "\\" not in part for part in parts)
    fits = {"project": len(parts) == 2, "run": len(parts) == 4 and parts[2:3] == ["runs"]}.get(thrown.kind, False)
    return thrown if plain and fits and parts[0] == "projects" else None
