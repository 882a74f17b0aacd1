"""Concepts: projects made for pictures of one's own, from a linked folder, or from a bundled sample."""

import shutil
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from app import projects
from app.demo import CONCEPTS_BY_NAME
from app.paths import Home, absolute
from app.presets import find_preset
from app.projects import PICTURE_ENDINGS, Project
from trainers.data.captions import ENDINGS as CAPTION_ENDINGS
from trainers.errors import UserError, disk_error

SAMPLES = {  # name in CONCEPTS_BY_NAME -> name of the project, what it shows
    "style": ("Fluent style", "Emoji in one way of drawing. The adapter draws other things that way."),
    "mascot": ("Zibbo the mascot", "A small invented figure in many places. The adapter puts it into new ones."),
}

_making = threading.Lock()  # two browser tabs may ask for a project of one name at the same time


def newest_first(found: Sequence[Project]) -> list[Project]:
    """Projects in the order in which they were last worked on."""

    def moment(project: Project) -> float:
        times = [0.0]
        for path in (project.folder / "project.toml", project.runs):
            with suppress(OSError):
                times.append(path.stat().st_mtime)
        return max(times)

    return sorted(found, key=moment, reverse=True)


def make(home: Home, name: str, kind: str, linked: str = "") -> Project:
    """A new project: of a linked folder where one is named, else with a folder of its own that is still empty.

    UserError where the name is empty or taken, or the folder is missing, a file, or without pictures.
    """
    name = " ".join(name.split())
    try:
        with _making:
            if not linked.strip():
                return projects.create_own(home, name, kind)
            if any(project.name == name for project in projects.list_projects(home)):
                raise UserError(f'There is already a project "{name}".', "Choose another name.")
            return projects.create(home, name, absolute(linked.strip().strip("\"'")), kind)
    except OSError as error:
        raise disk_error(error) or UserError(f"The project cannot be made: {error.strerror or error}.") from error


def use_sample(home: Home, name: str) -> Project:
    """The project of a bundled sample, made at first use. Its pictures are copies, so that captions can be edited.

    UserError where no sample has that name.
    """
    if name not in SAMPLES:
        raise UserError(f'There is no sample "{name}".', f"Choose one of {', '.join(SAMPLES)}.")
    title = SAMPLES[name][0]
    with _making:  # a second browser tab waits for its pictures
        known = next((project for project in projects.list_projects(home) if project.name == title), None)
        return known or _copy_sample(home, name, title)


def _copy_sample(home: Home, name: str, title: str) -> Project:
    concept = CONCEPTS_BY_NAME[name]
    kind = str(find_preset(concept.preset).deltas["data"]["kind"])
    project = projects.create_own(home, title, kind, concept.trigger)
    for file in sorted(concept.folder.iterdir()):
        if file.suffix in PICTURE_ENDINGS or file.suffix in CAPTION_ENDINGS:
            shutil.copyfile(file, Path(project.pictures) / file.name)
    return project
