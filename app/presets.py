"""Presets: what advice for a person, style, object or character changes in the settings, scaled to the pictures."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.paths import BASE, PRESETS
from trainers import config_io
from trainers.config import TrainConfig
from trainers.errors import UserError

EMBEDDED = "embedded"
FAMILIES = (EMBEDDED, "sd2", "sdxl", "sd3")  # that a preset may treat apart
CLASS_WORDS = BASE / "class_words.txt"  # prompts of many kinds that the built-in base draws well
SCALING = ("views_per_picture", "views_min", "views_max")


@dataclass(frozen=True)
class Preset:
    """One file of presets/: `deltas` for every base, and for some families, or the built-in base, more on top."""

    name: str
    title: str
    description: str
    deltas: Mapping[str, Any]
    families: Mapping[str, Mapping[str, Any]]  # embedded, sd2, sdxl, sd3 -> deltas


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
    views = scaling["views_per_picture"] * max(pictures, 1)
    views = min(max(views, scaling["views_min"]), scaling["views_max"])
    return config_io.merge(config, {"schedule": {"views": views}})


def find_preset(name: str, presets: Mapping[str, Preset] | None = None) -> Preset:
    """UserError naming all presets where there is none of that name."""
    presets = presets if presets is not None else load_presets()
    if name not in presets:
        raise UserError(f'There is no preset "{name}".', f"Choose one of {', '.join(presets)}.")
    return presets[name]


def _read(path: Path) -> Preset:
    content = config_io.read_toml(path)
    title, description = content.pop("title"), content.pop("description")
    families = {family: content.pop(family) for family in FAMILIES if family in content}
    embedded = families[EMBEDDED]
    if embedded.get("data", {}).get("class_pictures"):
        embedded["data"]["class_words"] = CLASS_WORDS.read_text(encoding="utf-8").splitlines()
    return Preset(path.stem, title, description, content, families)
