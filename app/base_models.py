"""Base models on this machine: in the model folders of installed image programs, and in folders a person adds.

Looks at known places only, a few levels deep, and opens no file.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from app.paths import Home, absolute
from app.settings import load_settings, save_settings
from trainers.errors import UserError

ENDINGS = (".safetensors", ".ckpt")
PROGRAMS = {  # where programs keep base models, below the folder they are installed in
    "models/Stable-diffusion": "A1111, Forge",  # SD.Next too
    "webui/models/Stable-diffusion": "Forge",  # its one-click package
    "models/checkpoints": "ComfyUI",
    "ComfyUI/models/checkpoints": "ComfyUI",  # its portable package
    "models/sd-1/main": "InvokeAI",
    "models/sd-2/main": "InvokeAI",
    "models/sdxl/main": "InvokeAI",
    "models/sd-3/main": "InvokeAI",
    "Data/Models/StableDiffusion": "Stability Matrix",
    "Models/StableDiffusion": "Stability Matrix",
}
AROUND = ("", "Desktop", "Documents", "Downloads", "AI", "ai", "git", "src", "Projects")  # below the home directory
ROOTS = ("/opt", "/workspace", "/content") if os.name != "nt" else ("C:/", "D:/", "E:/", "C:/AI", "D:/AI", "E:/AI")
DEEPEST = 3  # folders below a model folder
MOST_ENTRIES = 2_000  # looked at in one folder, or one model folder: nobody waits for a disk
UPSCALERS_AND_SUCH = ("vae", "lora", "loras", "controlnet", "embeddings", "clip", "upscale_models")


@dataclass(frozen=True)
class Found:
    path: Path
    program: str

    @property
    def label(self) -> str:
        return f"{self.path.name} ({self.program})"


def find_bases(home: Home, places: Iterable[Path] | None = None) -> list[Found]:
    """Model files and diffusers folders, by name; `places` holds the folders in which programs may be installed."""
    found: dict[Path, Found] = {}
    folders = [*_model_folders(_places() if places is None else places)]
    folders += [(Path(folder), Path(folder).name or folder) for folder in load_settings(home).model_folders]
    for folder, program in folders:
        for path in _models(folder):
            found.setdefault(path.resolve(), Found(path, program))
    return sorted(found.values(), key=lambda one: (one.path.name.casefold(), str(one.path)))


def add_folder(home: Home, text: str) -> int:
    """Remember a folder with base models; how many it holds. UserError where there is no such folder, or none."""
    folder = absolute(text.strip().strip('"'))
    if not text.strip() or not os.path.isdir(folder):  # pathlib raises where a name is too long
        raise UserError(f"There is no folder {text.strip() or 'without a name'}.", "Check the spelling.")
    count = len(list(_models(folder)))
    if not count:
        raise UserError(f"There is no base model in {folder}.", "Base models are .safetensors or .ckpt files.")
    settings = load_settings(home)
    folders = tuple(dict.fromkeys([*settings.model_folders, str(folder)]))
    save_settings(home, settings.model_copy(update={"model_folders": folders}))
    return count


def _places() -> list[Path]:
    own = Path.home()
    return [*(own / name for name in AROUND), *map(Path, ROOTS)]


def _model_folders(places: Iterable[Path]) -> Iterator[tuple[Path, str]]:
    """The model folders of programs that lie in one of the places, or are one."""
    seen = set()
    for place in places:
        for folder in [place, *(entry for entry, is_folder in _entries(place) if is_folder)]:
            for below, program in PROGRAMS.items():
                models = folder / below
                if models.is_dir() and (real := models.resolve()) not in seen:
                    seen.add(real)
                    yield models, program


def _models(folder: Path) -> Iterator[Path]:
    left, waiting = MOST_ENTRIES, [(folder, 0)]
    while waiting and left > 0:
        place, depth = waiting.pop(0)
        if depth and (place / "model_index.json").is_file():
            yield place
            continue
        for entry, is_folder in _entries(place):
            left -= 1
            if not is_folder and entry.suffix.lower() in ENDINGS:
                yield entry
            elif is_folder and depth < DEEPEST and entry.name.lower() not in UPSCALERS_AND_SUCH:
                waiting.append((entry, depth + 1))


def _entries(folder: Path) -> list[tuple[Path, bool]]:
    """(path, whether it is a folder) of what is in it, hidden things left out; nothing where it cannot be read."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    found.append((Path(entry.path), entry.is_dir()))
                if len(found) >= MOST_ENTRIES:
                    break
    except OSError:  # missing, forbidden, a drive that is away
        pass
    return sorted(found)
