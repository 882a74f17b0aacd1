"""What is wrong with settings, in sentences: unknown names with the nearest one, values with their bounds."""

import difflib
import math
import re
import types
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from trainers import patterns
from trainers.choices import CHOICES
from trainers.config import DataConfig, TrainConfig
from trainers.errors import UserError

FOLDER_NAME = re.compile(r"([1-9]\d{0,3})_(.*)", re.DOTALL)  # repeats (1 to 9999), caption
NAME_BYTES = 200  # a file's name has room for 255; endings and steps are added to it
FORBIDDEN_IN_NAMES = '<>:"/\\|?*'  # Windows refuses all of them in a file name, other systems some


class Problem(NamedTuple):
    message: str
    hint: str = ""


def settings() -> dict[str, FieldInfo]:
    """Every setting by its dotted name: {"adapter.rank": FieldInfo, ..., "seed": FieldInfo}."""
    found: dict[str, FieldInfo] = {}
    for name, field in TrainConfig.model_fields.items():
        section = section_class(name)
        if section is None:
            found[name] = field
        else:
            found |= {f"{name}.{key}": inner for key, inner in section.model_fields.items()}
    return found


def section_class(name: str) -> type[BaseModel] | None:
    """The class of a section ("adapter"); None where `name` is no section."""
    field = TrainConfig.model_fields.get(name)
    kind = field.annotation if field else None
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


LISTED = 50  # problems in one message
LONGEST_NAME = 80  # letters; ours have 30


def as_error(problems: Iterable[Problem]) -> UserError:
    """All problems as one UserError; one alone keeps its hint apart."""
    problems = list(dict.fromkeys(problems))
    if len(problems) == 1:
        return UserError(*problems[0])
    lines = "".join(f"\n- {message} {hint}".rstrip() for message, hint in problems[:LISTED])
    lines += f"\n... and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
    return UserError(f"There are {len(problems)} problems with the settings:{lines}")


def unknown(name: str) -> Problem:
    """An unknown setting or section, with the nearest name there is."""
    if len(name) > LONGEST_NAME:
        return Problem(f"Unknown setting {name[:LONGEST_NAME]}... of {len(name):,} letters.", "")
    near = nearest_setting(name)
    return Problem(f"Unknown setting {name}.", f"Did you mean {near}?" if near else "")


def all_unknown(names: Sequence[str]) -> list[Problem]:
    """The same of several; of many, the nearest ones of the first alone, since that takes a while."""
    rest = [Problem(f"Unknown setting {name[:LONGEST_NAME]}.", "") for name in names[LISTED:]]
    return [unknown(name) for name in names[:LISTED]] + rest


def nearest_setting(name: str) -> str | None:
    """The setting or section that was probably meant: by key, by its title on screen, or by spelling."""
    known = list(SETTINGS)
    section, _, key = name.rpartition(".")
    same_key = [other for other in known if other.rpartition(".")[2] == key]
    same_title = [other for other in known if _plain(SETTINGS[other].title or "") == _plain(key)]
    beside = {other.rpartition(".")[2]: other for other in known if section and other.rpartition(".")[0] == section}
    sections = [other for other in TrainConfig.model_fields if section_class(other)]
    for found in (
        same_key if len(same_key) == 1 else [],
        same_title,
        [beside[match] for match in difflib.get_close_matches(key, beside, 1, 0.6)],
        [] if section else difflib.get_close_matches(name, sections, 1, 0.7),
        difflib.get_close_matches(name, known, 1, 0.7),
    ):
        if found:
            return found[0]
    return None


def kinds(field: FieldInfo) -> set[Any]:
    """The plain types a setting takes: {int, NoneType} for `int | None`."""
    return {get_origin(kind) or kind for kind in _alternatives(field)}


def held(field: FieldInfo) -> set[Any]:
    """The plain types that a list or a table holds: {int} for `dict[str, int]`; empty for other settings."""
    inner = [get_args(kind) for kind in _alternatives(field) if (get_origin(kind) or kind) in (tuple, dict)]
    values = [arguments[1] if arguments[1] is not ... else arguments[0] for arguments in inner]
    return {get_args(value)[0] if get_origin(value) is Annotated else value for value in values}


def choices(name: str) -> tuple[str, ...]:
    """What a setting may be, where it is one of a few; else nothing."""
    literals = (get_args(kind) for kind in _alternatives(SETTINGS[name]) if get_origin(kind) is Literal)
    return CHOICES.get(name) or next(literals, ())


def wrong_values(sections: dict[str, Any]) -> list[Problem]:
    """What pydantic would let through: truth values for numbers, nan, infinity, and choices the engine lacks."""
    problems = []
    for name, field in SETTINGS.items():
        section, _, key = name.rpartition(".")
        inside = sections.get(section) if section else sections
        if not isinstance(inside, dict) or key not in inside:
            continue
        value = inside[key]
        numeric = {int, float} & (kinds(field) | held(field))
        parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else [value]
        if numeric and any(_no_number(part) for part in parts):
            problems.append(wrong(name, value))
        if name in CHOICES and isinstance(value, str) and value not in CHOICES[name]:
            problems.append(wrong(name, value))
    return problems


def wrong(name: str, value: object) -> Problem:
    """A value its setting cannot take: the value given, and what it must be."""
    field = SETTINGS.get(name)
    if field is None:
        return Problem(f"{name} must be a section of settings, written as [{name}].")
    near = difflib.get_close_matches(str(value).lower(), choices(name), 1, 0.6)
    return Problem(f"{name} is {shown(value)}, but must be {wanted(name)}.", f"Did you mean {near[0]}?" if near else "")


def wanted(name: str) -> str:
    """What a setting takes, in words: "a whole number between 1 and 1024"."""
    field = SETTINGS[name]
    offered = choices(name)
    if offered:
        return ("one of " if len(offered) > 1 else "") + ", ".join(offered)
    if held(field):
        return _collection(field)
    noun = next(noun for kind, noun in NOUNS.items() if kind in kinds(field))
    limits = {key: getattr(part, key) for part in field.metadata for key in LIMITS if hasattr(part, key)}
    return f"{noun} {_range(limits)}".strip()


def shown(value: object) -> str:
    """A value as people write it in TOML, cut when long."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        text = f"{{ {', '.join(f'{shown(key)} = {shown(inner)}' for key, inner in value.items())} }}"
    elif isinstance(value, (list, tuple)):
        text = f"[{', '.join(map(shown, value))}]"
    else:
        text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def from_pydantic(errors: list[dict[str, Any]]) -> list[Problem]:
    """Pydantic's findings as sentences."""
    problems = []
    for error in errors:
        parts = [part for part in error["loc"] if isinstance(part, str)]
        names = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
        name = next((name for name in names if name in SETTINGS), names[0])
        key = ".".join(parts)[len(name) + 1 :]  # in a table
        problems.append(wrong(name, {key: error["input"]} if key else error["input"]))
    return problems


def contradictions(config: TrainConfig) -> list[Problem]:
    """Values that are fine alone and wrong together, and names that cannot be file names."""
    noise, data, name = config.noise, config.data, config.saving.name
    problems = [_not_unicode(key) for key, text in _texts(config) if any("\ud800" <= c <= "\udfff" for c in text)]
    if noise.timestep_min > noise.timestep_max:
        values = f"{noise.timestep_min} is above noise.timestep_max = {noise.timestep_max}"
        problems.append(Problem(f"noise.timestep_min = {values}."))
    if data.bucket_min and data.bucket_max and data.bucket_min > data.bucket_max:
        problems.append(Problem(f"data.bucket_min = {data.bucket_min} is above data.bucket_max = {data.bucket_max}."))
    problems += _folder_names(data)
    if data.class_pictures and not (data.class_words and config.loss.preservation):
        missing = "data.class_words" if config.loss.preservation else "loss.preservation"
        what = "what the base should draw" if config.loss.preservation else "how much they count"
        problems.append(Problem(f"data.class_pictures = {data.class_pictures} needs {missing} to say {what}."))
    problems += _adapter_contradictions(config) + _new_tokens(config)
    bad = [letter for letter in name if letter in FORBIDDEN_IN_NAMES or not letter.isprintable()]
    if bad or name != name.strip(" .") or not name.strip(" ."):
        what = f"it holds {shown(bad[0])}" if bad else "it begins or ends with a space or a dot"
        problems.append(Problem(f"saving.name is {shown(name)}, which cannot be a file name: {what}."))
    if len(name.encode("utf-8", "replace")) > NAME_BYTES:
        problems.append(Problem(f"saving.name is too long for a file name: {shown(name)}.", "Choose a shorter one."))
    return problems


SETTINGS = settings()
NOUNS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
LIMITS = ("ge", "gt", "le", "lt", "min_length", "max_length")


def _adapter_contradictions(config: TrainConfig) -> list[Problem]:
    problems = []
    if config.memory.quantize != "none" and config.adapter.type == "dora":
        what = f"memory.quantize = {config.memory.quantize} is not for dora, which is made of the base's own weights"
        problems.append(Problem(f"{what}.", "Set it to none, or train a lora."))
    if config.optimizer.lora_plus != 1 and config.adapter.type in ("loha", "lokr"):
        what = f"optimizer.lora_plus = {config.optimizer.lora_plus:g} is for pairs of matrices"
        problems.append(Problem(f"{what}, and {config.adapter.type} has none.", "Leave it at 1, or train a lora."))
    tables = {"adapter.block_ranks": config.adapter.block_ranks, "optimizer.block_rates": config.optimizer.block_rates}
    for name, pattern in ((name, pattern) for name, table in tables.items() for pattern in table):
        try:
            patterns.compiled(pattern)
        except re.error as error:
            problems.append(Problem(f"{name} has {shown(pattern)}, which is no regular expression: {error}."))
    return problems


def _new_tokens(config: TrainConfig) -> list[Problem]:
    """The trigger word is the name of a file, and what programs look for in a prompt: one word, and its own."""
    count, trigger, name = config.adapter.new_tokens, config.data.trigger.strip(), config.saving.name
    if not count:
        return []
    if not trigger:
        hint = "Set data.trigger to a word of your own, such as zibble."
        return [Problem(f"adapter.new_tokens = {count} needs a trigger word that they stand for.", hint)]
    bad = [letter for letter in trigger if letter.isspace() or letter in FORBIDDEN_IN_NAMES or not letter.isprintable()]
    if bad or trigger.strip(".") != trigger or not any(map(str.isalnum, trigger)):
        what = f"data.trigger is {shown(trigger)}, and new tokens go by the name of their file"
        return [Problem(f"{what}: it must be one word that can be a file name.", "Letters and digits are safe.")]
    if trigger.casefold() in (name.casefold(), *(f"{name}-{form}".casefold() for form in ("kohya", "diffusers"))):
        what = f"the adapter's file ({shown(name)}) and that of the new tokens ({shown(trigger)}) have one name"
        return [Problem(f"saving.name: {what}.", f"Set saving.name to another, such as {trigger}-lora.")]
    return []


def _folder_names(data: DataConfig) -> list[Problem]:
    names, count = data.folder_names, len(data.folders)
    problems = [
        Problem(
            f"data.folder_names holds {shown(name)}.", "Write repeats and caption as `10_sks dog`, or leave it empty."
        )
        for name in names
        if name and not FOLDER_NAME.fullmatch(name)
    ]
    if names and len(names) != count:
        problems.append(Problem(f"data.folder_names names {len(names)} folders, but data.folders holds {count}."))
    return problems


def _texts(config: TrainConfig) -> Iterator[tuple[str, str]]:
    for name in SETTINGS:
        section, _, key = name.rpartition(".")
        value = getattr(getattr(config, section) if section else config, key)
        yield from ((name, text) for text in (value if isinstance(value, tuple) else [value]) if isinstance(text, str))


def _not_unicode(name: str) -> Problem:
    """On Linux a path may hold bytes that no text file can hold."""
    return Problem(f"{name} holds bytes that are not UTF-8.", "Rename the file or folder that it names.")


def _alternatives(field: FieldInfo) -> tuple[Any, ...]:
    union = get_origin(field.annotation) in (Union, types.UnionType)
    return get_args(field.annotation) if union else (field.annotation,)


def _range(limits: dict[str, float]) -> str:
    if "max_length" in limits:
        return f"of {limits.get('min_length', 0)} to {limits['max_length']} letters"
    open_top = "lt" in limits and limits["lt"] <= limits.get("le", math.inf)
    top = f"below {limits['lt']:g}" if open_top else f"at most {limits['le']}" if "le" in limits else ""
    if "ge" in limits and "le" in limits and not open_top:
        return f"between {limits['ge']} and {limits['le']}"
    bottom = f"above {limits['gt']}" if "gt" in limits else f"of at least {limits['ge']}" if "ge" in limits else ""
    return " and ".join(part for part in (bottom, top) if part)


def _no_number(value: object) -> bool:
    return isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value))


def _collection(field: FieldInfo) -> str:
    """A list or a table in words: what it holds, and how it is written."""
    several = {int: "whole numbers", float: "numbers", str: "texts"}[next(iter(held(field)))]
    if tuple in kinds(field):
        return f"a list of {several}"
    rank = int in held(field)
    limits = "from 0 to 1024" if rank else "above 0"
    return f'a table of module paths and {several} {limits}, such as {{ "up_blocks.1" = {8 if rank else 0.5} }}'


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())
