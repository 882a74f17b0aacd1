"""Settings as TOML: read, check, override, write, compare.

Every problem of a file is reported at once, in one UserError.
"""

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tomlkit
from pydantic import BaseModel, ValidationError
from tomlkit.exceptions import TOMLKitError

from trainers import config_problems as problems
from trainers.config import TrainConfig
from trainers.config_problems import SETTINGS, Problem
from trainers.errors import UserError
from trainers.files import write_whole

LONGEST = 5_000_000  # bytes of a settings file
DEEP = re.compile(r"(?<![\w-])(?:[\w-]++\s*+\.\s*+){100}")  # a.b.c...: the time to read it goes by the square
EMPTY = ("", "none", "null")  # in `--set adapter.alpha=`: back to "empty means ..."


def load(path: Path) -> TrainConfig:
    """The settings of a TOML file. UserError naming everything that is wrong with it."""
    return parse(read_toml(path))


def parse(sections: dict[str, Any]) -> TrainConfig:
    """Nested settings, {"adapter": {"rank": 8}}, as a TrainConfig; what is left out keeps its default.

    UserError with all problems together: unknown names, wrong types, values out of range, contradictions.
    """
    return _checked(sections, [])


def merge(config: TrainConfig, sections: dict[str, Any]) -> TrainConfig:
    """`config` with the nested `sections` laid over it, as a preset's deltas are."""
    return _checked(_laid_over(config.model_dump(), sections), [])


def examine(config: TrainConfig, sections: dict[str, Any]) -> tuple[TrainConfig | None, list[Problem]]:
    """`merge` for a form: what it gives, None where something is wrong, and all that is wrong."""
    return _examined(_laid_over(config.model_dump(), sections), [])


def override(config: TrainConfig, assignments: Iterable[str]) -> TrainConfig:
    """`config` with `section.key=value` texts applied in order; an empty value empties an optional setting."""
    sections: dict[str, Any] = {}
    found = []
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        name = name.strip()
        if not equals:
            found.append(
                Problem(f'"{assignment}" is not of the form section.key=value.', "For example adapter.rank=8.")
            )
        elif name not in SETTINGS:
            found.append(problems.unknown(name))
        else:
            section, _, key = name.rpartition(".")
            (sections.setdefault(section, {}) if section else sections)[key] = _value(name, text.strip())
    return _checked(_laid_over(config.model_dump(), sections), found)


def difference(config: TrainConfig, base: TrainConfig) -> dict[str, Any]:
    """What `config` changes: dotted name -> its value, for every setting that differs from `base`."""
    return {name: get(config, name) for name in SETTINGS if get(config, name) != get(base, name)}


def get(config: TrainConfig, name: str) -> Any:
    """The value of a setting by its dotted name."""
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return value


def save(config: TrainConfig, path: Path) -> None:
    """Write all settings with their descriptions as comments; whole or not at all."""
    write_whole(path, dump(config).encode())


def dump(config: TrainConfig) -> str:
    """All settings as TOML; those that are empty stand there as comments."""
    document = tomlkit.document()
    document.add(tomlkit.comment("All settings of one run. A run's own copy is never edited: it says what was done."))
    for name in TrainConfig.model_fields:
        if problems.section_class(name) is None:
            _add(document, name, name, getattr(config, name))
    for name in TrainConfig.model_fields:
        if problems.section_class(name) is not None:
            section: BaseModel = getattr(config, name)
            table = tomlkit.table()
            for key in type(section).model_fields:
                _add(table, f"{name}.{key}", key, getattr(section, key))
            document.add(tomlkit.nl())
            document.add(name, table)
    return tomlkit.dumps(document)


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as plain dicts. UserError where it is missing, not text, or not TOML."""
    try:
        if path.stat().st_size > LONGEST:
            raise UserError(f"{path} is too large to be a settings file.")
        text = path.read_bytes().decode("utf-8-sig")  # Notepad writes a byte order mark
    except FileNotFoundError:
        raise UserError(f"There is no file {path}.", "Check the spelling.") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder, not a settings file.") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a text file in UTF-8.", "Save it again as UTF-8.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
    if DEEP.search(text):
        raise UserError(f"{path} is nested too deeply to be a settings file.")
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise UserError(f"{path} is not valid TOML: it is nested too deeply.") from error
    except ValueError as error:  # not valid, or a number of thousands of digits
        hint = "Mend that line: texts stand in quotes, true and false in small letters."
        hint = "Write Windows paths with / or in 'single quotes'." if "\\" in text else hint
        raise UserError(f"{path} is not valid TOML: {error}.", hint) from error


def _checked(sections: dict[str, Any], found: list[Problem]) -> TrainConfig:
    config, found = _examined(sections, found)
    if config is None:
        raise problems.as_error(found)
    return config


def _examined(sections: dict[str, Any], found: list[Problem]) -> tuple[TrainConfig | None, list[Problem]]:
    known: dict[str, Any] = {}
    strange = []
    for name, value in sections.items():
        kind = problems.section_class(name)
        if name not in TrainConfig.model_fields:
            strange.append(name)
        elif kind is not None and isinstance(value, dict):
            strange += [f"{name}.{key}" for key in value if key not in kind.model_fields]
            known[name] = {key: inner for key, inner in value.items() if key in kind.model_fields}
        else:
            known[name] = value
    found += problems.all_unknown(strange)
    found += problems.wrong_values(known)
    config = None
    try:
        config = TrainConfig.model_validate(known)
    except ValidationError as error:
        found += problems.from_pydantic(error.errors())
    if config is not None:
        found += problems.contradictions(config)
    return (None if found else config), list(dict.fromkeys(found))


def _laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Sections are merged; a setting that is a table is replaced as a whole."""
    merged = dict(below)
    for name, value in above.items():
        both = problems.section_class(name) and isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = merged[name] | value if both else value
    return merged


def _value(name: str, text: str) -> Any:
    """The text after `=`: TOML where the setting is a number or the text is quoted or a list, else as it stands."""
    kinds = problems.kinds(SETTINGS[name])
    if type(None) in kinds and text.lower() in EMPTY:
        return None
    if not text and (tuple in kinds or dict in kinds):
        return {} if dict in kinds else []
    if tuple in kinds and str not in problems.held(SETTINGS[name]):
        text = text if text.startswith("[") else f"[{text}]"  # numbers
    if (str in kinds or tuple in kinds) and not text.startswith(("[", '"', "'")):
        return text
    try:
        return tomlkit.value(text).unwrap()
    except (TOMLKitError, ValueError):
        return text  # pydantic reads "True" and ".5", and complains about the rest


def _add(table: Any, name: str, key: str, value: Any) -> None:
    field = SETTINGS[name]
    unit = (field.json_schema_extra or {}).get("unit", "")
    table.add(tomlkit.comment(f"{field.title}{f' ({unit})' if unit else ''}: {field.description}"))
    if value is None:
        table.add(tomlkit.comment(f"{key} ="))
    else:
        table.add(key, _as_toml(value))


def _as_toml(value: Any) -> Any:
    if isinstance(value, dict):
        table = tomlkit.inline_table()
        table.update(value)
        return table
    return list(value) if isinstance(value, tuple) else value
