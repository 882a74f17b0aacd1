"""Sends an adapter file to an image program: into its LoRA folder, with its picture, its facts and its new tokens."""

import filecmp
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from app.paths import Home, absolute
from app.settings import load_settings, save_settings
from trainers.errors import UserError
from trainers.families.headers import read_header

NEEDS = "lora_darkroom.embedding"  # as trainers.export.embedding has it, which loads torch


@dataclass(frozen=True)
class Program:
    """Where an image program keeps things, from its folder on; the first that is there is taken."""

    installs: tuple[str, ...]  # beginnings of the usual names of its folder, in small letters
    loras: tuple[str, ...]
    embeddings: tuple[str, ...]
    not_installs: tuple[str, ...] = ()
    then: str = ""  # what to do there afterwards


REFRESH = "Press Refresh on its Lora tab to see it."
PROGRAMS = {
    "A1111": Program(
        ("stable-diffusion-webui", "sd.webui", "a1111", "automatic1111"),
        ("models/Lora",),
        ("embeddings",),
        ("stable-diffusion-webui-forge", "stable-diffusion-webui-reforge"),
        then=REFRESH,
    ),
    "Forge": Program(
        ("stable-diffusion-webui-forge", "stable-diffusion-webui-reforge", "webui_forge", "sd-webui-forge", "forge"),
        ("models/Lora",),
        ("embeddings",),
        then=REFRESH,
    ),
    "ComfyUI": Program(("comfyui",), ("models/loras",), ("models/embeddings",), then="Press R in it to see it."),
    "InvokeAI": Program(
        ("invokeai",),
        ("autoimport/lora", "models/lora", "models/sd-1/lora", "models"),
        ("autoimport/embedding", "models/embedding", "models/sd-1/embedding"),
        then="Add it under Models, Scan Folder, where it does not appear by itself.",
    ),
    "SD.Next": Program(
        ("sdnext", "sd.next", "automatic", "vladmandic"),
        ("models/Lora",),
        ("models/embeddings",),
        ("automatic1111",),
        then=REFRESH,
    ),
}
PLACES = (  # under a person's home folder, where programs usually are
    "",
    "Desktop",
    "Documents",
    "Downloads",
    "Programs",
    "Applications",
    "ai",
    "AI",
    "git",
    "src",
    "code",
    "projects",
    "StabilityMatrix/Packages",
    "StabilityMatrix/Data/Packages",
    "pinokio/api",
)
INSIDE = ("", "webui", "ComfyUI", "app")  # where the program is, in the folder that its download makes


class NameTaken(UserError):
    """Another file has the name there; `free` is a name that none has."""

    def __init__(self, message: str, free: str):
        super().__init__(message, f"It can be sent as {free}.")
        self.free = free


def lora_folders(home: Home, person: Path | None = None) -> dict[str, Path]:
    """The LoRA folder of each program that has one: the chosen one, else that of an installation under `person`."""
    chosen = {name: Path(folder) for name, folder in _chosen(home).items()}
    found = _installed(person or Path.home()) | {name: folder for name, folder in chosen.items() if folder.is_dir()}
    return {name: found[name] for name in PROGRAMS if name in found}


def choose_folder(home: Home, program: str, text: str) -> Path:
    """Remember where a program's LoRA folder is; its own folder will do. UserError where there is no such folder."""
    if not text.strip():
        raise UserError(f"Name the folder in which {program} keeps LoRA files.")
    folder = absolute(text.strip().strip('"'))
    if os.path.isfile(folder):  # which a name that is too long just is not; pathlib raises then
        raise UserError(f"{folder} is a file.", f"Name the folder in which {program} keeps LoRA files.")
    if not os.path.isdir(folder):
        raise UserError(f"There is no folder {folder}.", "Check the spelling, and whether the drive is connected.")
    folder = _inside(folder, PROGRAMS[program].loras) or folder
    settings = load_settings(home)
    lines = "\n".join(f"{name} = {where}" for name, where in (_chosen(home) | {program: str(folder)}).items())
    save_settings(home, settings.model_copy(update={"lora_folders": lines}))
    return folder


def send(files: Sequence[str | Path], program: str, folder: Path, name: str = "") -> list[Path]:
    """Copy an adapter with its picture and facts into a program's LoRA folder, each whole or not at all.

    Args:
        files: the adapter first; the picture and the facts have its name. The file that holds the vectors of its new
            tokens goes into the program's folder for embeddings, where there is one.
        name: what they are called there, without ending; their own name by default.

    Raises:
        NameTaken: another adapter has the name there.
        UserError: a file is gone, or cannot be written there.
    """
    adapter = Path(files[0])
    if not adapter.is_file():
        raise UserError(f"{adapter} is no longer there.", "Export it again.")
    name = name or adapter.stem
    embedding = adapter.with_name(Path(read_header(adapter)[1].get(NEEDS, "") or "none").name)
    goals = {adapter: folder / f"{name}{adapter.suffix}"}
    if not _free(adapter, goals[adapter]):
        message = f"{program} has another {goals[adapter].name} already."
        raise NameTaken(message, _free_name(folder, name, adapter))
    if embedding.is_file() and embedding != adapter:
        goals[embedding] = embeddings_folder(program, folder) / embedding.name
        if not _free(embedding, goals[embedding]):
            message = f"{goals[embedding]} is there already, and holds other vectors for the trigger word."
            raise UserError(message, "Move it away: its name is the word, so that it cannot have another.")
    for file in map(Path, files[1:]):
        if file.stem == adapter.stem and file.suffix in (".png", ".json") and file.is_file():
            goal = folder / f"{name}{file.suffix}"
            if _free(file, goal):  # a person may have written their own there
                goals[file] = goal
    try:
        return [_copy(source, goal) for source, goal in goals.items()]
    except OSError as error:
        message = f"The files could not be written to {error.filename or folder}: {error.strerror or error}."
        raise UserError(message, "Make room there, or choose another folder.") from error


def embeddings_folder(program: str, loras: Path) -> Path:
    """A program's folder for embeddings, from its LoRA folder; that one itself where there is none."""
    for place in PROGRAMS[program].loras:
        parts = Path(place).parts
        if loras.parts[-len(parts) :] == parts:
            return _inside(Path(*loras.parts[: -len(parts)]), PROGRAMS[program].embeddings) or loras
    return loras


def _installed(person: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in _folders(person):
        for name, program in PROGRAMS.items():
            known = folder.name.lower()
            fits = known.startswith(program.installs) and not known.startswith(program.not_installs or ("\0",))
            for inside in INSIDE if fits and name not in found else ():
                loras = _inside(folder / inside, program.loras)
                if loras and name not in found:
                    found[name] = loras
    return found


def _folders(person: Path) -> Iterator[Path]:
    for place in PLACES:
        with suppress(OSError):  # none, or not ours to read
            yield from sorted(folder for folder in (person / place).iterdir() if folder.is_dir())


def _inside(folder: Path, places: Sequence[str]) -> Path | None:
    return next((folder / place for place in places if (folder / place).is_dir()), None)


def _chosen(home: Home) -> dict[str, str]:
    """Program -> folder, as the settings have them: "ComfyUI = /home/me/ComfyUI/models/loras", one a line."""
    pairs = (line.partition("=") for line in load_settings(home).lora_folders.splitlines())
    return {name.strip(): folder.strip() for name, _, folder in pairs if name.strip() in PROGRAMS and folder.strip()}


def _free(source: Path, goal: Path) -> bool:
    """Whether nothing has the name, or the very same file."""
    return not goal.exists() or (goal.is_file() and filecmp.cmp(source, goal, shallow=False))


def _free_name(folder: Path, name: str, adapter: Path) -> str:
    number = 2
    while not _free(adapter, folder / f"{name}-{number}{adapter.suffix}"):
        number += 1
    return f"{name}-{number}"


def _copy(source: Path, goal: Path) -> Path:
    """Under a temporary name first; hidden, so that no program takes it for a file of its own."""
    partial = goal.with_name(f".{goal.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        shutil.copyfile(source, partial)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, goal)
    finally:
        with suppress(OSError):  # renamed by now, unless something failed
            partial.unlink()
    return goal
