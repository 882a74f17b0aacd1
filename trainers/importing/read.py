"""Files of other trainers: text, TOML and JSON, and what kind of settings they hold."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainers import config_io, json_values
from trainers.config import TrainConfig
from trainers.config_problems import section_class
from trainers.errors import UserError

LARGEST = 20_000_000  # bytes; settings are far smaller, models far larger
DEEPEST = 30  # levels of tables and lists; files of other trainers have five
TAKES = "It reads settings of kohya_ss (JSON), sd-scripts (TOML) and OneTrainer (JSON), and kohya's prompt files (TXT)."


def read_text(path: Path) -> str:
    """UserError where it is missing, a folder, or no text."""
    if os.path.isdir(path):
        raise UserError(f"{path.name or path} is a folder, not a settings file.")
    if not os.path.isfile(path):
        raise UserError(f"There is no file {path}.", "Check the spelling.")
    if path.stat().st_size > LARGEST:
        raise UserError(f"{path.name} is too large to be a settings file.", TAKES)
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path.name} is not a text file in UTF-8.", TAKES) from None


def read_structure(path: Path) -> Any:
    """A JSON or TOML file as plain dicts and lists. UserError where it is neither."""
    content = read_text(path)
    is_json = path.suffix.lower() == ".json" or content.lstrip().startswith("{")
    found = _json(path, content) if is_json else config_io.read_toml(path)
    if _is_deeper(found, DEEPEST):
        raise UserError(f"{path.name} is nested too deeply to be a settings file.", TAKES)
    return found


def _json(path: Path, content: str) -> Any:
    try:
        return json_values.parse(content)
    except ValueError as error:
        where = f"line {error.lineno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise UserError(f"{path.name} is not valid JSON ({where}).", TAKES) from error


def _is_deeper(value: Any, levels: int) -> bool:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels == 0 or any(_is_deeper(one, levels - 1) for one in inside)


def kind_of(content: Any, known: Callable[[str], bool]) -> str:
    """kohya_ss, sd-scripts, data set, OneTrainer, concepts, or prompts; else a reason in words, ending in a full stop.

    Args:
        known: whether a name is a setting of sd-scripts, whose files carry no mark of their own.
    """
    if isinstance(content, list):
        entries = [entry for entry in content if isinstance(entry, dict)]
        if entries and all("path" in entry and ("text" in entry or "image" in entry) for entry in entries):
            return "concepts"
        prompted = content and all(
            isinstance(entry, str) or (isinstance(entry, dict) and "prompt" in entry) for entry in content
        )
        return "prompts" if prompted else "is a list, but neither of prompts nor of concepts."
    if not isinstance(content, dict):
        return "holds no settings that are known here."
    for is_it, kind in KINDS:
        if is_it(content):
            return kind
    flat = {
        key: value
        for name, inner in content.items()
        for key, value in (inner.items() if isinstance(inner, dict) else [(name, inner)])
    }
    return "sd-scripts" if sum(map(known, flat)) >= 2 else "holds no settings that are known here."


def _is_comfyui(content: dict) -> bool:
    nodes = [value for value in content.values() if isinstance(value, dict)]
    return ("nodes" in content and "links" in content) or bool(nodes and all("class_type" in node for node in nodes))


def _is_ours(content: dict) -> bool:
    def fits(name: str, value: Any) -> bool:
        kind = section_class(name)
        if kind is None:
            return name in TrainConfig.model_fields
        return isinstance(value, dict) and all(key in kind.model_fields for key in value)

    return any(isinstance(value, dict) for value in content.values()) and all(map(fits, content, content.values()))


KINDS: tuple[tuple[Callable[[dict], bool], str], ...] = (
    (_is_comfyui, "is a ComfyUI workflow, not settings of a trainer."),
    (_is_ours, "is a settings file of LoRA Darkroom already: give it to `darkroom train`."),
    (lambda content: "LoRA_type" in content or {"network_dim", "max_resolution"} <= content.keys(), "kohya_ss"),
    (
        lambda content: {"epoch", "max_resolution"} <= content.keys(),
        "is for DreamBooth or fine-tuning, not for a LoRA.",
    ),
    (lambda content: "datasets" in content, "data set"),
    (lambda content: isinstance(content.get("prompt"), dict) and "subset" in content["prompt"], "prompts"),
    (lambda content: bool({"training_method", "base_model_name", "concept_file_name"} & content.keys()), "OneTrainer"),
    (lambda content: "optimizer_type" not in content and "train_text_encoder" in content, "OneTrainer"),
)
