"""All runs of the home folder as a library: what each is, found cheaply and kept until its files change."""

import os
import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from app.about import about_file, read_about
from app.paths import Home
from app.projects import Project, list_projects
from app.runs import WEIGHT_FILES, Run, Status, by_key, list_runs, status
from trainers import config_io, events
from trainers.config import TrainConfig
from trainers.errors import UserError
from trainers.events import RunState
from trainers.families.detect import FAMILY_LABELS, identify
from trainers.families.locate import EMBEDDED, find_here

BUILT_IN = "Built-in base"
TAIL = 16 * 1024  # bytes of the events that are read: about the last hundred, and all that happened since is in them
DATED = re.compile(r"(\d{4}-\d\d-\d\d)_(\d\d)-(\d\d)-(\d\d)")  # how the folder of a run begins
ORDERS = ("Newest first", "Oldest first", "Name")


@dataclass(frozen=True)
class Entry:
    """What a card shows. Texts are as people wrote them: escape before showing."""

    run: Run
    key: str  # of the run
    name: str
    note: str
    project: str
    kind: str
    trigger: str
    family: str  # in words; "" where it cannot be told
    base: str  # in words
    adapter: str  # "lora, rank 16"
    preset: str  # its title; "" where it is not known
    word: str  # as in app.runs.Status
    step: int
    steps: int
    made: datetime
    bytes: int
    cover: Path | None
    files: tuple[tuple[Path, int], ...]  # adapter files of the output folder, and their sizes in bytes

    def said(self) -> str:
        """Everything that a search looks at, in small letters."""
        size = f"{self.bytes / 1e6:.1f} MB"
        facts = [self.name, self.note, self.project, self.kind, self.trigger, self.family, self.base, self.adapter]
        facts += [self.preset, self.word, f"{self.made:%Y-%m-%d}", f"{self.steps} steps", size, self.run.folder.name]
        return " ".join([*facts, *(file.name for file, _ in self.files)]).casefold()


@dataclass(frozen=True)
class Wish:
    """What the library is asked for; empty texts stand for everything."""

    search: str = ""
    word: str = ""
    kind: str = ""
    family: str = ""
    order: str = ORDERS[0]


class Shelf:
    """The entries of a home folder; each is read again only when a file of its run has changed."""

    def __init__(self, home: Home):
        self.home = home
        self._known: dict[Path, tuple[Any, Entry]] = {}
        self._families: dict[str, tuple[Any, str]] = {}
        self._reading = threading.RLock()  # several tabs, and several events of one, ask at once

    def entries(self) -> list[Entry]:
        """All runs, the newest first."""
        names = self._projects()
        with self._reading:
            found = []
            for run in list_runs(self.home):
                with suppress(FileNotFoundError):  # thrown away at this moment
                    found.append(self._entry(run, names))
            there = {entry.run.folder for entry in found}
            self._known = {folder: known for folder, known in self._known.items() if folder in there}
            return found

    def entry(self, run: Run) -> Entry:
        with self._reading:
            return self._entry(run, self._projects())

    def _projects(self) -> dict[Path, str]:
        return {project.folder: project.name for project in list_projects(self.home)}

    def _entry(self, run: Run, names: dict[Path, str]) -> Entry:
        project = run.folder.parent.parent
        name = names.get(project, project.name)
        parts = (run.config, run.events, run.process, run.stop_file, run.pause_file, about_file(run))
        folders = [run.folder, run.folder / "samples", run.folder / "output", run.folder / "checkpoints"]
        folders += sorted((run.folder / "comparisons").glob("*"))
        state = (name, *(_stamp(path) for path in (*parts, *folders)))
        seen, entry = self._known.get(run.folder, (None, None))
        # One that trains may end without a word: it is asked again. One that is over stays so till its files change.
        if entry is None or seen != state or entry.word in ("starting", "running", "stopping", "pausing"):
            entry = self._read(run, name)
            self._known[run.folder] = (state, entry)
        return entry

    def _read(self, run: Run, project: str) -> Entry:
        settings, about, now = _settings(run), read_about(run), quick_status(run)
        part = {name: settings.get(name) or {} for name in TrainConfig.model_fields if name != "seed"}
        base = str(part["model"].get("base", EMBEDDED))
        files = tuple(sorted(_adapters(run.folder / "output")))
        return Entry(
            run=run,
            key=run.key,
            name=about.name or str(part["saving"].get("name", run.folder.name)),
            note=about.note,
            project=project,
            kind=str(part["data"].get("kind", "")),
            trigger=str(part["data"].get("trigger", "")),
            family=self._family(base, str(part["model"].get("family", "auto"))),
            base=base_in_words(base),
            adapter=f"{part['adapter'].get('type', 'lora')}, rank {part['adapter'].get('rank', 16)}",
            preset=about.preset_title or about.preset,
            word=now.word,
            step=now.state.step,
            steps=now.state.steps or int(part["schedule"].get("steps", 0)),
            made=made(run),
            bytes=folder_bytes(run.folder),
            cover=cover(run),
            files=files,
        )

    def _family(self, base: str, family: str) -> str:
        if base == EMBEDDED:
            return BUILT_IN
        if family != "auto":
            return FAMILY_LABELS.get(family, family)
        if is_on_another_computer(base):
            return ""
        stamp = _stamp(Path(base))
        seen, label = self._families.get(base, (None, ""))
        if seen != (stamp,):
            label = _family_of_file(base)
            self._families[base] = ((stamp,), label)
        return label


def find(entries: list[Entry], wish: Wish) -> list[Entry]:
    """The entries that hold every word of the search and fit the filters, in the wished order.

    A number is looked for where numbers begin: "rank 8" does not find rank 28.
    """
    words = [
        re.compile((r"(?<![\d.])" if word.isdecimal() else "") + re.escape(word))
        for word in wish.search.casefold().split()
    ]
    found = [
        entry
        for entry in entries
        if wish.word in ("", entry.word)
        and wish.kind in ("", entry.kind)
        and wish.family in ("", entry.family)
        and all(word.search(entry.said()) for word in words)
    ]
    if wish.order == "Name":
        return sorted(found, key=lambda entry: (entry.name.casefold(), entry.made))
    return sorted(found, key=lambda entry: entry.made, reverse=wish.order != "Oldest first")


def run_of(home: Home, key: str) -> Run:
    """The run of a key. UserError where there is none (any more)."""
    if run := by_key(home, key):
        return run
    raise UserError(f"There is no run {key} in the library.", "It may have been moved to the trash.")


def project_of(home: Home, run: Run) -> Project:
    """UserError where the project's own file is missing or damaged."""
    for project in list_projects(home):
        if project.folder == run.folder.parent.parent:
            return project
    raise UserError(f"The project of {run.folder.name} cannot be read.", "Its project.toml is missing or damaged.")


def quick_status(run: Run) -> Status:
    """The status of a run from the tail of its events: step, status and what came last, but no whole curves."""
    size = run.events.stat().st_size if run.events.exists() else 0
    start = max(size - TAIL, 0)
    state = events.fold([event for _, event in events.read_from(run.events, start)[0]], RunState())
    if start and state.status == "new":  # it began before the tail, and has not ended in it
        state.status = "running"
    return status(run, state)


def cover(run: Run) -> Path | None:
    """The picture beside the adapter file, else the first sample of the newest step."""
    beside = sorted((run.folder / "output").glob("*.png"), key=lambda file: file.stat().st_mtime)
    if beside:
        return beside[-1]
    samples = [file.name for file in (run.folder / "samples").glob("step_*.png")]
    if not samples:
        return None
    newest = max(name.rpartition("_")[0] for name in samples)
    return run.folder / "samples" / min(name for name in samples if name.startswith(f"{newest}_"))


def folder_bytes(folder: Path) -> int:
    """Size on disk of all files in a folder; links are not followed."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size
            except OSError:  # gone in this moment
                continue
    return total


def made(run: Run) -> datetime:
    """When the run was made, from its folder's name; else from its settings file."""
    if match := DATED.match(run.folder.name):
        try:
            return datetime.strptime(match[0], "%Y-%m-%d_%H-%M-%S")
        except ValueError:
            pass
    return datetime.fromtimestamp(run.config.stat().st_mtime)


def base_in_words(base: str) -> str:
    """The built-in base, a file's name, or a hub id."""
    if base == EMBEDDED:
        return BUILT_IN
    local = base.startswith(("/", "\\", "~", ".")) or base[1:2] == ":" or base.lower().endswith(WEIGHT_FILES)
    return re.split(r"[/\\]", base.rstrip("/\\"))[-1] if local else base


def is_on_another_computer(path: str) -> bool:
    """Whether Windows would look for it in the network, and sign in there: \\\\host, //host, \\??\\UNC\\host."""
    return bool(re.match(r"[/\\]([/\\]|\?\?)", path))


def _settings(run: Run) -> dict[str, Any]:
    """config.toml as it stands: checking all settings of hundreds of runs would take seconds."""
    try:
        found = config_io.read_toml(run.config)
    except UserError:
        return {}
    return {name: value for name, value in found.items() if isinstance(value, dict)}


def _adapters(folder: Path) -> Iterator[tuple[Path, int]]:
    for file in folder.glob("*"):
        if file.suffix.lower() in (".safetensors", ".pt", ".bin") and file.is_file():
            yield file, file.stat().st_size


def _family_of_file(base: str) -> str:
    try:
        path = find_here(base)
        return FAMILY_LABELS.get(identify(path).family, "") if path else ""
    except (UserError, OSError, ValueError):
        return ""


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        facts = os.stat(path)
    except (OSError, ValueError):  # not there, or no path at all
        return None
    return facts.st_mtime_ns, facts.st_size
