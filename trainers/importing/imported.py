"""Files of other trainers in, our settings and a report out: `import_files` does it all."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trainers import config_io
from trainers.config import TrainConfig
from trainers.errors import UserError
from trainers.families.locate import find_here
from trainers.importing import kohya, kohya_dataset, kohya_folders, kohya_run, onetrainer, onetrainer_lists, prompts
from trainers.importing.read import TAKES, kind_of, read_structure
from trainers.importing.rows import DEFAULTS, Line, nested
from trainers.importing.theirs import resolve
from trainers.importing.values import is_empty, plain, text

LABELS = {"data set": "an sd-scripts data set", "prompts": "kohya sample prompts", "concepts": "OneTrainer concepts"}
KOHYA = ("kohya_ss", "sd-scripts")
RUNS = (*KOHYA, "OneTrainer")
PICTURES = {"data.folders", "data.folder_names", "data.trigger"}
ORDER = ("kohya_ss", "sd-scripts", "OneTrainer", "concepts", "data set", "prompts")  # later ones win


@dataclass(frozen=True)
class Imported:
    """Our settings by name, and how they came about.

    `assumed` are the other program's own defaults, where its file says nothing and ours would differ.
    """

    files: "list[File]" = field(repr=False)
    lines: list[Line]
    assumed: dict[str, Any] = field(default_factory=dict)
    chosen: dict[str, Any] = field(default_factory=dict)  # on the command line

    @property
    def sources(self) -> list[str]:
        return [f"{file.path.name} ({LABELS.get(file.kind, file.kind)})" for file in self.files]

    @property
    def settings(self) -> dict[str, Any]:
        merged = dict(self.assumed)
        for line in self.lines:
            merged |= line.settings
        return merged | self.chosen

    @property
    def assumed_settings(self) -> dict[str, Any]:
        """Those of `assumed` that no line sets, and that our defaults are not."""
        said = {name for line in self.lines for name in line.settings} | self.chosen.keys()
        return {
            name: value
            for name, value in self.assumed.items()
            if name not in said and config_io.get(DEFAULTS, name) != value
        }

    @property
    def config(self) -> TrainConfig:
        """UserError where the settings contradict one another."""
        return config_io.parse(nested(self.settings))

    def with_base(self, base: str) -> "Imported":
        """The same with another base model: settings that hang on it are decided again."""
        return _together(self.files, self.chosen | {"model.base": base})

    @property
    def missing(self) -> dict[str, list[str]]:
        """Setting -> what it names and this machine does not have."""
        found = {}
        for name in ("model.base", "model.vae", "model.clip_l", "model.clip_g", "adapter.init_from", "data.folders"):
            value = self.settings.get(name) or []
            paths = [value] if isinstance(value, str) else value
            if lost := [path for path in paths if not _is_here(name, path)]:
                found[name] = lost
        return found


def import_files(paths: Sequence[Path], pictures: Path | None = None) -> Imported:
    """Read files that belong to one run, such as a run's and its data set's.

    Args:
        pictures: the folder of the pictures, in place of those that the files name.

    Raises:
        UserError: for a file that is no settings file of another trainer, in one sentence.
    """
    files = sorted((_open(path) for path in paths), key=lambda file: ORDER.index(file.kind))
    kinds = [file.kind for file in files]
    if len(set(kinds)) < len(kinds) or len(set(RUNS) & set(kinds)) > 1:
        raise UserError("These files belong to different runs.", "Import one run at a time.")
    chosen = kohya_folders.in_parent(str(pictures), Path.cwd()) if pictures else {}
    files = sorted([*files, *_companions(files)], key=lambda file: ORDER.index(file.kind))
    return _together(files, chosen)


@dataclass(frozen=True)
class File:
    path: Path
    kind: str
    content: Any

    @property
    def place(self) -> Path:
        return self.path.absolute().parent


def _together(files: list[File], chosen: dict[str, Any]) -> Imported:
    """What the files of one run come to, in the order in which later ones win; `chosen` goes before them all."""
    where = {name: value for name, value in chosen.items() if name in PICTURES} or _folders(files)
    lines: list[Line] = []
    assumed: dict[str, Any] = {}
    for file in files:
        found, silent = _convert(file, files, where, chosen.get("model.base", ""))
        lines = [*_overruled(lines, found, f"{file.path.name} says otherwise."), *found]
        assumed = silent | assumed
    if "data.folders" in chosen:
        lines = _replaced(lines, PICTURES, "Other pictures were named.")
    if "model.base" in chosen:
        lines = _replaced(lines, {"model.base"}, "Another base model was named.")
    return Imported(files, lines, assumed, {name: plain(value) for name, value in chosen.items()})


def trainer_of(path: Path) -> str:
    """Whose settings of a run a file holds: kohya_ss, sd-scripts or OneTrainer; "" where it is none."""
    try:
        kind = _open(path).kind
    except UserError:
        return ""
    return kind if kind in RUNS else ""


def _open(path: Path) -> File:
    if path.suffix.lower() == ".txt":
        found = prompts.from_file(path)
        if not found:
            raise UserError(f"{path.name} holds no prompts.", TAKES)
        return File(path, "prompts", found)
    content = read_structure(path)
    kind = kind_of(content, lambda name: name in kohya.KOHYA)
    if kind.endswith("."):
        raise UserError(f"{path.name} {kind}", "" if "darkroom train" in kind else TAKES)
    return File(path, kind, prompts.from_structure(content) if kind == "prompts" else content)


def _companions(files: list[File]) -> list[File]:
    """The file of pictures that a run names, where it is on this machine and was not given."""
    run = next((file for file in files if file.kind in RUNS), None)
    if run is None:
        return []
    if run.kind == "OneTrainer":
        kind, find = "concepts", onetrainer_lists.find
        name = None if run.content.get("concepts") else run.content.get("concept_file_name")
    else:
        kind, find = "data set", resolve
        name = kohya_run.flatten(run.content).get("dataset_config")
    if is_empty(name) or any(file.kind == kind for file in files):
        return []
    path = Path(find(text(name), run.place))
    found = [_open(path)] if os.path.isfile(path) else []
    return [file for file in found if file.kind == kind]


def _folders(files: list[File]) -> dict[str, Any]:
    """data.folders, their names and data.trigger, as the files have them; a data set file goes first."""
    for file in reversed(files):
        match file.kind:
            case "data set":
                return kohya_dataset.folders(file.content, file.place)
            case "OneTrainer" | "concepts":
                return onetrainer_lists.folders(file.content, file.place)
            case "kohya_ss" | "sd-scripts":
                value = kohya_run.flatten(file.content).get("train_data_dir")
                return {} if is_empty(value) else kohya_folders.in_parent(text(value), file.place)
    return {}


def _convert(file: File, files: list[File], where: dict[str, Any], base: str) -> tuple[list[Line], dict[str, Any]]:
    """The lines of one file, and what its program does where the file is silent."""
    views = kohya_folders.views_per_epoch(where)
    match file.kind:
        case "data set":
            return kohya_dataset.lines(file.content, file.place), kohya_dataset.DEFAULTS
        case "prompts":
            return prompts.lines(file.content), {}
        case "concepts":
            return onetrainer.convert_file(file.content, file.place, where, views)[0], {}
        case "OneTrainer":
            return onetrainer.convert_file(file.content, file.place, where, views)
    data = next((other for other in files if other.kind == "data set"), None)
    batch = kohya_dataset.batch_size(data.content) if data else 0
    gui = file.kind == "kohya_ss"
    return kohya_run.convert_file(file.content, file.place, gui, where, views, bool(data), batch, base)


def _overruled(lines: list[Line], later: list[Line], reason: str) -> list[Line]:
    """Lines whose settings a later file all sets to other values say so, and set nothing."""
    last = {name: value for line in later for name, value in line.settings.items()}

    def changed(line: Line) -> bool:
        return all(name in last and last[name] != value for name, value in line.settings.items())

    return [_unneeded(line, reason) if line.settings and changed(line) else line for line in lines]


def _replaced(lines: list[Line], names: set[str], reason: str) -> list[Line]:
    """Lines that set nothing but these settings, which were named on the command line."""
    return [_unneeded(line, reason) if line.settings and line.settings.keys() <= names else line for line in lines]


def _unneeded(line: Line, reason: str) -> Line:
    return replace(line, status="not needed", settings={}, note=reason)


def _is_here(name: str, path: str) -> bool:
    if name != "model.base":
        return os.path.exists(path)
    try:
        find_here(path)
    except UserError:
        return False
    return True
