"""Which blocks of the base an adapter touches, and how strongly."""

import re
from typing import Any

from trainers.adapters.adapter import DENOISER, Place
from trainers.adapters.names import text_index
from trainers.export.contents import Contents
from trainers.export.modules import clean
from trainers.export.weigh import Weights
from trainers.export.which_base import Base

BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.|transformer_blocks\.(\d+)\.")


def blocks(contents: Contents, base: Base, weights: Weights) -> dict[str, Any]:
    """Block -> its modules and the sum of their delta-W's Frobenius norms (None: the base is needed), in order."""
    found: dict[str, dict[str, Any]] = {}
    places = {name: layer.places[0] for name in contents.modules if (layer := base.known.get(clean(name)))}
    for name in sorted(places, key=lambda name: _order(places[name])):
        block = found.setdefault(label(places[name]), {"modules": 0, "norm": 0.0})
        size = weights.norms[name]
        block["modules"] += 1
        block["norm"] = None if size is None or block["norm"] is None else block["norm"] + size
    return found


def label(place: Place) -> str:
    """down 1, mid, up 0, block 12 (of a transformer), ends, text encoder 1."""
    part, path = place
    if part != DENOISER:
        return f"text encoder {text_index(part) + 1}"
    if path.startswith("mid_block."):
        return "mid"
    found = BLOCK.match(path)
    if not found:
        return "ends"
    return f"{found[1]} {found[2]}" if found[1] else f"block {found[3]}"


def _order(place: Place) -> tuple[int, int]:
    name, _, number = label(place).rpartition(" ")
    ranks = ("down", "block", "mid", "up", "ends", "text encoder")
    return ranks.index(name or number), int(number) if number.isdecimal() else 0
