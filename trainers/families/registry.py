"""The model families, and which of them a base model belongs to."""

from trainers.config import ModelConfig
from trainers.families.base import Family
from trainers.families.detect import choose_family, classify, identify_base, with_text
from trainers.families.locate import locate, name_of
from trainers.families.sd2 import SD2
from trainers.families.sd3 import SD3
from trainers.families.sd15 import SD15
from trainers.families.sdxl import SDXL
from trainers.families.weights import Weights

FAMILIES: dict[str, Family] = {"sd15": SD15, "sd2": SD2, "sdxl": SDXL, "sd3": SD3}


def find_family(config: ModelConfig) -> Family:
    """The family named in the settings, or the one its base model belongs to. UserError when there is none."""
    if config.family != "auto":
        return FAMILIES[config.family]
    path = locate(config.base)
    found = identify_base(path, config)
    if found.kind == "pickle":
        found = with_text(classify(Weights([path]).shapes), config)
    return FAMILIES[choose_family(found, FAMILIES, name_of(config.base, path))]
