"""Calls of engine functions by name, values and answers as JSON: between the window and processes of its own."""

import importlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from trainers import config_io
from trainers.config import TrainConfig

ENGINE = "app.engine"


def _path(value: Any) -> Path | None:
    return None if value is None else Path(value)


def _paths(values: Any) -> list[Path]:
    return [Path(value) for value in values]


# What a parameter is annotated with -> how its value is made from what JSON holds. Others are taken as they are.
FROM_JSON: dict[Any, Callable[[Any], Any]] = {
    TrainConfig: config_io.parse,
    Path: _path,
    Path | None: _path,
    Sequence[Path]: _paths,
    list[Path]: _paths,
    tuple[Path, ...]: _paths,
}


def call(name: str, values: dict[str, Any], given: dict[str, Any], module: str = ENGINE) -> Any:
    """Call a function of a module and return what it returns.

    Args:
        values: as JSON holds them; what the function is annotated to take is made of them.
        given: what the caller offers (`report`, `emit`, ...), for those parameters that the function has.

    Raises:
        UserError: from the function, or for a config that is wrong.
    """
    function = getattr(importlib.import_module(module), name)
    parameters = inspect.signature(function).parameters
    made = {key: _made(parameters, key, value) for key, value in values.items()}
    return function(**{key: value for key, value in given.items() if key in parameters}, **made)


def _made(parameters: Any, key: str, value: Any) -> Any:
    annotation = parameters[key].annotation if key in parameters else None
    return FROM_JSON[annotation](value) if annotation in FROM_JSON else value


def plain(value: Any) -> Any:
    """For `json.dumps(default=plain)`: settings and dataclasses as dicts, paths and the rest as texts."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return list(value) if isinstance(value, (set, frozenset)) else str(value)
