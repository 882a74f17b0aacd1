"""OneTrainer's lists: concepts, which are our picture folders, and samples, which are our previews.

Names from OneTrainer (modules/util/config/ConceptConfig.py, SampleConfig.py), read in 2026. Our settings hold for all
folders and all previews: the first one's are taken, and where another differs, its line says so.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainers.importing.rows import Lacks, Line, Row, Rule, Table, Unneeded, line_of, row_of
from trainers.importing.theirs import Theirs, resolve
from trainers.importing.values import NotSupported, is_empty, is_off, number, switch, text, whole

ENTRY = re.compile(r"(concepts|samples)\[(\d+)\]\.(.*)")
ONE_FOR_ALL = {
    "concepts": "One value serves all folders: that of the first concept.",
    "samples": "One value serves all previews: that of the first sample.",
}
PROGRAM = Unneeded("It belongs to OneTrainer, not to the run.")
CAPTIONS = Lacks("Captions are used as they are written.")
PICTURES = Lacks("Pictures are changed in no other way than being mirrored.")
MASKS = Lacks("Masks are not supported yet.")


def flatten(content: Any, name: str = "") -> dict[str, Any]:
    """Nested settings by dotted names, entries of lists of tables by number. A list alone is one of concepts."""
    if isinstance(content, list) and not name:
        return flatten(content, "concepts")
    inner: list[tuple[str, Any]] = []
    if isinstance(content, Mapping) and content:
        inner = [(f"{name}.{key}" if name else str(key), value) for key, value in content.items()]
    elif isinstance(content, list) and content and all(isinstance(entry, Mapping) for entry in content):
        inner = [(f"{name}[{i}]", entry) for i, entry in enumerate(content)]
    if not inner:
        return {name: content} if name else {}
    return {key: value for below, entry in inner for key, value in flatten(entry, below).items()}


def find(path: str, place: Path) -> str:
    """A path that may begin at OneTrainer's own folder: its presets lie one or two folders below, its concepts one."""
    return resolve(path, place, *list(place.parents)[:2])


def folders(content: Any, place: Path) -> dict[str, Any]:
    """data.folders and data.folder_names of the concepts that are trained."""
    concepts = content if isinstance(content, list) else content.get("concepts")
    named = {
        find(text(concept["path"]), place): f"{_repeats(concept)}_"
        for concept in (concepts if isinstance(concepts, list) else ())
        if isinstance(concept, dict) and not is_empty(concept.get("path")) and not _why_not(concept)
    }
    return {"data.folders": list(named), "data.folder_names": list(named.values())} if named else {}


def line(key: str, value: Any, theirs: Theirs) -> Line | None:
    """What becomes of a setting of a concept or a sample; None for other settings."""
    match = ENTRY.fullmatch(key)
    if not match:
        return None
    kind, place, name = match.groups()
    if why := _why_not(_entry(theirs.values, kind, place)):
        return Line(key, value, "not needed", {}, why)
    used = [entry for entry in _entries(theirs.values, kind) if not _why_not(entry)]
    row = row_of(name, CONCEPTS if kind == "concepts" else SAMPLES)
    if isinstance(row, Row) and used[0].get(name) != value:
        return Line(key, value, "not supported", {}, ONE_FOR_ALL[kind])
    return line_of(key, value, {key: row} if row else {}, theirs)


def prompts(value: Any, theirs: Theirs) -> dict[str, Any]:
    used = [entry for entry in _entries(theirs.values, "samples") if not _why_not(entry)]
    return {"preview.prompts": [text(entry["prompt"]) for entry in used if not is_empty(entry.get("prompt"))]}


def subfolders(value: Any, theirs: Theirs) -> dict[str, Any]:
    if switch(value):
        return {}
    for folder in map(Path, theirs.folders.get("data.folders", [])):
        if os.path.isdir(folder) and any(path.is_dir() for path in folder.iterdir()):
            raise NotSupported("Subfolders are always included.")
    return {}


def _why_not(entry: Mapping[str, Any]) -> str:
    """Why a concept or sample is left out; "" where it is not."""
    if "enabled" in entry and is_off(entry["enabled"]):
        return "It is switched off."
    if text(entry.get("type", "STANDARD")) != "STANDARD" or not is_off(entry.get("validation_concept")):
        return "Held-out pictures are chosen by data.validation_share, and class pictures drawn by the base."
    return ""


def _entry(values: Mapping[str, Any], kind: str, number: str) -> dict[str, Any]:
    start = f"{kind}[{number}]."
    return {key.removeprefix(start): value for key, value in values.items() if key.startswith(start)}


def _entries(values: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    """In one pass: with hundreds of concepts, each asks for them all."""
    found: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        if key.startswith(f"{kind}[") and (match := ENTRY.fullmatch(key)):
            found.setdefault(match[2], {})[key.removeprefix(f"{kind}[{match[2]}].")] = value
    return list(found.values())


def _repeats(concept: Mapping[str, Any]) -> int:
    value = concept.get("balancing", concept.get("repeats", 1))
    try:
        return min(max(round(number(value)), 1), 9999)
    except NotSupported:
        return 1


CONCEPTS: Table = {
    "path": Rule(lambda value, theirs: theirs.folders),
    "balancing": Rule(lambda value, theirs: theirs.folders),
    "repeats": Rule(lambda value, theirs: theirs.folders),
    "balancing_strategy": Lacks("Repeats say how often a picture is seen, not a number of samples.", ("repeats",)),
    "enabled": Unneeded("This folder is trained."),
    "type": Unneeded("This folder is trained."),
    "include_subdirectories": Rule(subfolders),
    "loss_weight": Lacks("All folders count alike.", (1,)),
    "text.enable_tag_shuffling": Row("data.shuffle_tags", switch),
    "text.keep_tags_count": Row("data.keep_tokens", whole),
    "text.tag_delimiter": Lacks("Tags are separated by commas.", (",",)),
    "text.prompt_source": Lacks("Captions are read beside the pictures.", ("sample",)),
    "text.prompt_path": Lacks("Captions are read beside the pictures."),
    "text.tag_dropout_enable": Lacks("Captions are dropped whole, not tag by tag."),
    "text.caps_randomize_enable": CAPTIONS,
    "text.*": Unneeded("It belongs to a feature that is off."),
    "image.enable_random_flip": Row("data.flip", switch),
    "image.enable_crop_jitter": Lacks("Pictures are cropped at their centre."),
    **{
        f"image.enable_{how}_{what}": PICTURES
        for how in ("random", "fixed")
        for what in ("rotate", "brightness", "contrast", "saturation", "hue")
    },
    "image.enable_fixed_flip": PICTURES,
    "image.enable_resolution_override": Lacks("One resolution serves all folders."),
    "image.enable_random_circular_mask_shrink": MASKS,
    "image.enable_random_mask_rotate_crop": MASKS,
    "image.*": Unneeded("It belongs to a feature that is off."),
    **dict.fromkeys(("name", "seed", "concept_stats*", "__version"), PROGRAM),
    **dict.fromkeys(("image_variations", "text_variations"), Unneeded("Captions and mirroring vary at every view.")),
}
SAMPLES: Table = {
    "prompt": Rule(prompts),
    "negative_prompt": Row("preview.negative", text),
    "width": Row("preview.width", whole),
    "height": Row("preview.height", whole),
    "seed": Row("preview.seed", whole),
    "diffusion_steps": Row("preview.sampling_steps", whole),
    "cfg_scale": Row("preview.guidance", number),
    "random_seed": Lacks("Previews keep their seed, so that they can be compared."),
    "noise_scheduler": Lacks("Previews are drawn with DDIM.", ("ddim",)),
    "enabled": Unneeded("It says which samples count."),
}
