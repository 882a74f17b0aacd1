"""Presets: what advice for a person, style, object or character changes in the settings, scaled to the pictures.

People's own lie in <home>/presets: what differs from the defaults, but for what belongs to one project.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import tomlkit

from app.paths import BASE, PRESETS, Home
from app.projects import slug
from trainers import config_io
from trainers.config import TrainConfig
from trainers.errors import UserError
from trainers.files import write_whole

EMBEDDED = "embedded"
FAMILIES = (EMBEDDED, "sd2", "sdxl", "sd3")  # that a preset may treat apart
CLASS_WORDS = BASE / "class_words.txt"  # prompts of many kinds that the built-in base draws well
SCALING = ("views_per_picture", "views_min", "views_max")
OF_ONE_PROJECT = (  # what no preset holds
    *("model.base", "model.vae", "model.clip_l", "model.clip_g", "model.t5", "adapter.init_from"),
    *("data.folders", "data.folder_names", "data.leave_out", "data.trigger", "data.kind"),
    *("preview.prompts", "saving.name", "saving.comment"),
)


@dataclass(frozen=True)
class Preset:
    """One file of presets/: `deltas` for every base, and for some families, or the built-in base, more on top.

    Without the three numbers of SCALING, the picture views are those that it names itself.
    """

    name: str
    title: str
    description: str
    deltas: Mapping[str, Any]
    families: Mapping[str, Mapping[str, Any]]  # embedded, sd2, sdxl, sd3 -> deltas
    own: bool = False  # a person's, which can be removed


def load_presets(folder: Path = PRESETS) -> dict[str, Preset]:
    """Every preset by its file's name."""
    return {path.stem: _read(path) for path in sorted(folder.glob("*.toml"))}


def apply(preset: Preset, pictures: int, base: str, family: str = "") -> TrainConfig:
    """The settings that a preset advises for so many pictures on a base model of a family ("": not known yet)."""
    config = config_io.parse({"model": {"base": base}})
    layers = [preset.deltas, preset.families.get(EMBEDDED if base == EMBEDDED else family, {})]
    scaling: dict[str, int] = {}
    for layer in layers:
        scaling |= {key: layer[key] for key in SCALING if key in layer}
        config = config_io.merge(config, {key: value for key, value in layer.items() if key not in SCALING})
    if not scaling:
        return config
    views = scaling["views_per_picture"] * max(pictures, 1)
    views = min(max(views, scaling["views_min"]), scaling["views_max"])
    return config_io.merge(config, {"schedule": {"views": views}})


def find_preset(name: str, presets: Mapping[str, Preset] | None = None) -> Preset:
    """UserError naming all presets where there is none of that name."""
    presets = presets if presets is not None else load_presets()
    if name not in presets:
        raise UserError(f'There is no preset "{name}".', f"Choose one of {', '.join(presets)}.")
    return presets[name]


def all_presets(home: Home) -> dict[str, Preset]:
    """Those that come with Darkroom, then the person's own; one of theirs that is damaged is left out."""
    found = load_presets()
    for path in sorted((home.root / "presets").glob("*.toml")):
        try:
            preset = _read(path, own=True)
            apply(preset, 1, EMBEDDED)
        except (UserError, KeyError, TypeError, AttributeError):
            continue
        if preset.name not in found:
            found[preset.name] = preset
    return found


def save_own(home: Home, title: str, description: str, config: TrainConfig) -> Preset:
    """Keep settings as a preset; one of that title that the person had goes to the trash. UserError without a title."""
    title, description = " ".join(title.split()), " ".join(description.split())
    if not title:
        raise UserError("A preset needs a name.")
    known = all_presets(home)
    if any(preset.title.casefold() == title.casefold() for preset in known.values() if not preset.own):
        raise UserError(f'"{title}" is the name of a preset that comes with Darkroom.', "Choose another name.")
    name = slug(title)
    name = f"{name}-own" if name in known and not known[name].own else name
    path = home.root / "presets" / f"{name}.toml"
    if path.exists():
        remove_own(home, name)
    document = tomlkit.document()
    document.update({"title": title, "description": description})
    for setting, value in config_io.difference(config, TrainConfig()).items():
        section, _, key = setting.rpartition(".")
        if setting in OF_ONE_PROJECT:
            continue
        if section and section not in document:
            document.add(section, tomlkit.table())
        place = document[section] if section else document
        place[key] = _plain(value)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, tomlkit.dumps(document).encode())
    return _read(path, own=True)


def remove_own(home: Home, name: str) -> Path:
    """Move a preset of the person's to the trash; returns where it lies there. UserError where there is none."""
    path = home.root / "presets" / f"{name}.toml"
    if slug(name) != name or not path.is_file():
        raise UserError(f'There is no preset of yours named "{name}".')
    trash = home.root / "trash" / "presets"
    trash.mkdir(parents=True, exist_ok=True)
    return path.rename(trash / f"{datetime.now():%Y-%m-%d_%H-%M-%S_%f}_{path.name}")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        table = tomlkit.inline_table()
        table.update(value)
        return table
    return list(value) if isinstance(value, tuple) else value


def _read(path: Path, own: bool = False) -> Preset:
    content = config_io.read_toml(path)
    title, description = content.pop("title"), content.pop("description")
    families = {family: content.pop(family) for family in FAMILIES if family in content}
    embedded = families.get(EMBEDDED, {})
    if embedded.get("data", {}).get("class_pictures"):
        embedded["data"]["class_words"] = CLASS_WORDS.read_text(encoding="utf-8").splitlines()
    return Preset(path.stem, title, description, content, families, own)
