"""Settings of the app itself, kept in settings.toml: what a person wants the same way every time."""

from pathlib import Path

import tomlkit
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.paths import Home, absolute
from trainers import config_io
from trainers.errors import UserError
from trainers.files import write_whole


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    base: str = Field("embedded", title="Base model", description="Used by new projects that name none.")
    cache: str = Field("", title="Cache folder", description="Encoded pictures; empty means inside the home folder.")
    lora_folders: str = Field(
        "",
        title="LoRA folders",
        description='Of image programs, one a line: "ComfyUI = /home/me/ComfyUI/models/loras".',
    )

    model_folders: tuple[str, ...] = Field((), title="Model folders", description="Searched for base models as well.")

    def cache_folder(self, home: Home) -> Path:
        return absolute(self.cache, home.root) if self.cache else home.cache


def load_settings(home: Home) -> Settings:
    """What settings.toml says; the defaults where there is none. UserError where it is damaged."""
    if not home.settings.exists():
        return Settings()
    try:
        return Settings.model_validate(config_io.read_toml(home.settings))
    except ValidationError as error:
        wrong = ", ".join(list(dict.fromkeys(str(e["loc"][0])[:80] for e in error.errors()))[:20])
        known = ", ".join(Settings.model_fields)
        raise UserError(
            f"{home.settings} has wrong entries: {wrong}.", f"It may hold {known}; texts stand in quotes."
        ) from error


def save_settings(home: Home, settings: Settings) -> None:
    document = tomlkit.document()
    for name, field in type(settings).model_fields.items():
        document.add(tomlkit.comment(f"{field.title}: {field.description}"))
        value = getattr(settings, name)
        document.add(name, list(value) if isinstance(value, tuple) else value)
    write_whole(home.settings, tomlkit.dumps(document).encode())
