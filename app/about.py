"""What is known of a run besides its settings: its name, a note, its preset. And what a project is called.

The folders of both keep the names they were made with.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import tomlkit

from app.paths import Home
from app.projects import Project, list_projects
from app.runs import Run
from trainers import config_io
from trainers.errors import UserError
from trainers.files import write_whole

NAME_LETTERS, NOTE_LETTERS = 120, 4000


@dataclass(frozen=True)
class About:
    """`name` empty: the run is called after its adapter file. `preset` empty: it is not known, or there was none.

    The preset's title is kept as well: a person may remove the preset.
    """

    name: str = ""
    note: str = ""
    preset: str = ""
    preset_title: str = ""


def about_file(run: Run) -> Path:
    return run.folder / "about.toml"


def read_about(run: Run) -> About:
    """What about.toml of the run folder says; nothing where there is none, or it is damaged."""
    if not about_file(run).exists():
        return About()
    try:
        values = config_io.read_toml(about_file(run))
    except UserError:
        return About()
    return About(**{field: str(values.get(field, "")) for field in asdict(About())})


def rename_run(run: Run, name: str) -> None:
    """Call the run `name`; an empty one gives it the adapter's name back. UserError for a name that is too long."""
    _write(run, replace(read_about(run), name=_one_line(name)))


def annotate(run: Run, note: str) -> None:
    """Keep a text of any lines with the run. UserError where it is too long."""
    if len(note) > NOTE_LETTERS:
        raise UserError(f"The note has {len(note):,} letters.", f"It may have at most {NOTE_LETTERS:,}.")
    _write(run, replace(read_about(run), note=note.strip()))


def record_preset(run: Run, name: str, title: str) -> None:
    """Keep with the run which preset its settings began with; its config.toml is the same without one."""
    _write(run, replace(read_about(run), preset=name, preset_title=title))


def inherit_preset(run: Run, earlier: Run) -> None:
    """The preset of a run whose settings are those of an earlier one, where that is known."""
    old = read_about(earlier)
    if old.preset:
        record_preset(run, old.preset, old.preset_title)


def rename_project(home: Home, project: Project, name: str) -> None:
    """Call the project `name`. UserError where it is empty, too long, or another project's."""
    name = _one_line(name)
    if not name:
        raise UserError("A project needs a name.")
    if any(other.name == name and other.folder != project.folder for other in list_projects(home)):
        raise UserError(f'There is already a project "{name}".', "Choose another name.")
    file = project.folder / "project.toml"
    document = tomlkit.parse(file.read_text("utf-8-sig"))
    document["name"] = name
    write_whole(file, tomlkit.dumps(document).encode())


def _write(run: Run, about: About) -> None:
    write_whole(about_file(run), tomlkit.dumps(asdict(about)).encode())


def _one_line(name: str) -> str:
    name = " ".join(name.split())
    if len(name) > NAME_LETTERS:
        raise UserError(f"The name has {len(name)} letters.", f"It may have at most {NAME_LETTERS}.")
    return name
