"""The model families, and which of them a base model belongs to."""

from trainers.config import ModelConfig
from trainers.errors import UserError
from trainers.families.base import Family
from trainers.families.detect import identify, refuse
from trainers.families.locate import locate
from trainers.families.sd15 import SD15

FAMILIES: dict[str, Family] = {"sd15": SD15}


def find_family(config: ModelConfig) -> Family:
    """The family named in the settings, or the one its base model belongs to. UserError when there is none."""
    if config.family != "auto":
        return FAMILIES[config.family]
    path = locate(config.base)
    found = identify(path)
    if found.kind == "pickle":  # what is in it shows when it is loaded
        return SD15
    wanted = found.family if found.family in FAMILIES else "sd15"
    try:
        refuse(found, path.name, wanted)
    except UserError as error:
        known = ", ".join(family.spec.label for family in FAMILIES.values())
        hint = error.hint if found.family in FAMILIES or found.kind != "base" else f"Trained here: {known}."
        raise UserError(error.message, hint) from error
    return FAMILIES[wanted]
