"""`darkroom inspect`: what an adapter file is."""

from pathlib import Path
from typing import Annotated, Any

import typer

from app import engine
from app.adapter_facts import in_words
from app.cli_options import Json
from app.cli_output import show
from app.paths import absolute
from trainers.errors import UserError


def register(app: typer.Typer) -> None:
    app.command()(inspect)


def inspect(
    file: Annotated[Path, typer.Argument(help="An adapter file, or a folder that peft wrote.")], as_json: Json = False
) -> None:
    """Say what an adapter file is, what is wrong with it, and which image programs load it."""
    path = absolute(file)
    if not path.exists():
        raise UserError(f"There is no file {path}.", "Check the spelling.")
    adapter_facts(engine.inspect(path), as_json)


def adapter_facts(values: dict[str, Any], as_json: bool) -> None:
    """As text, what belongs together stands on one line; as JSON, all of it."""
    if not as_json:
        parts = {name: in_words(one) for name, one in values.get("parts", {}).items()}
        values = {"file": values["file"], **parts} if parts else in_words(values)
    show(values, as_json)
