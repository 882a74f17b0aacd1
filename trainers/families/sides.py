"""The sides of the pictures that a base is trained on, told from its config files alone. Loads no torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from trainers.config import ModelConfig
from trainers.families.detect import identify_base
from trainers.families.folders import read_json
from trainers.families.locate import find_here

CONFIGS = Path(__file__).parent / "configs"
# Of Stable Diffusion 3, 3.5 Medium alone differs: a side may be longer there. For sd2 see below.
CONFIGS_OF = {"sdxl": "sdxl", "sd3": "sd3-medium"}


class Sides(NamedTuple):
    """What data/buckets.py asks of a base, in pixels."""

    resolution: int  # its native side
    multiple: int  # sides must be divisible by it: the VAE's factor times the denoiser's
    most: int | None = None  # how long a side may be; None: any length


def longest_side(config: Mapping[str, Any], factor: int) -> int | None:
    """In pixels, by a denoiser's diffusers config: of one with a table of positions what that has rows for."""
    rows = config.get("pos_embed_max_size")
    return rows and rows * config["patch_size"] * factor


def sides_of(config: ModelConfig, family: str) -> Sides:
    """As loading the base would find it; of a hub id as its family usually has it ("": Stable Diffusion 1.x).

    UserError where there is no such base, or its folder lacks config files.
    """
    path = find_here(config.base)
    if path is not None and path.is_dir():
        return _read(path)
    return _read(CONFIGS / _usual(path, config, family))


def _usual(path: Path | None, config: ModelConfig, family: str) -> str:
    """The folder of configs that a single file of a family is read with."""
    if family != "sd2":
        return CONFIGS_OF.get(family, "sd15")
    prediction = (identify_base(path, config).prediction if path else "") or config.prediction
    return "sd2-512" if prediction == "epsilon" else "sd2-768"


def _read(folder: Path) -> Sides:
    vae = read_json(folder / "vae" / "config.json")
    name = "transformer" if (folder / "transformer").is_dir() else "unet"
    denoiser = read_json(folder / name / "config.json")
    factor, levels = 2 ** (len(vae["block_out_channels"]) - 1), denoiser.get("block_out_channels")
    halved = 2 ** (len(levels) - 1) if levels else denoiser["patch_size"]
    return Sides(denoiser["sample_size"] * factor, factor * halved, longest_side(denoiser, factor))
