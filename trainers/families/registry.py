"""The model families, and which of them a base model belongs to."""

from trainers.config import ModelConfig
from trainers.families.base import Family
from trainers.families.detect import choose_family
from trainers.families.locate import locate, name_of
from trainers.families.sd2 import SD2
from trainers.families.sd3 import SD3
from trainers.families.sd15 import SD15
from trainers.families.sdxl import SDXL

FAMILIES: dict[str, Family] = {"sd15": SD15, "sd2": SD2, "sdxl": SDXL, "sd3": SD3}


def find_family(config: ModelConfig) -> Family:
    """The family named in the settings, or the one its base model belongs to. UserError when there is none."""
    if config.family != "auto":
        return FAMILIES[config.family]
    path = locate(config.base)
    return FAMILIES[choose_family(path, FAMILIES, name_of(config.base, path))]
