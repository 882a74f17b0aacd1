"""When a run's numbers overflow: back to its last good state, and on from there in a safer way.

A safer way is a few settings that replace the run's own. They are kept in its folder, so that a resume takes them too;
config.toml stays what the person wrote.
"""

import json
from contextlib import suppress
from pathlib import Path

from trainers import config_io
from trainers.config import TrainConfig
from trainers.errors import Overflowed
from trainers.events import Adjusted
from trainers.files import write_whole

FILE = "safer.json"  # in the run folder: setting -> value
SAFER = {"memory.precision": "fp32", "memory.attention": "math"}


def safer(config: TrainConfig, error: Overflowed, precision: str, run: Path) -> tuple[TrainConfig, Adjusted] | None:
    """The settings of the next try, kept in the run's folder, and what is told of it.

    `precision` is what the run computes in. None where there is no safer way, or the person wants no other try.
    """
    if not config.memory.retry or precision == "fp32":
        return None
    write_whole(run / FILE, json.dumps(SAFER).encode())
    likely = "fp16 numbers end at 65,504" if precision == "fp16" else f"{precision} numbers are coarse"
    what = "The run goes back to its last good state, and on from there in fp32 with plain attention"
    return in_safer_way(config, run), Adjusted(what, f"{error.message} Most likely {likely}, or the rate is too high.")


def in_safer_way(config: TrainConfig, run: Path) -> TrainConfig:
    """The settings that a run goes on with: its own, or where it has been safer before, those."""
    known = None
    with suppress(OSError, ValueError):
        known = json.loads((run / FILE).read_text("utf-8"))
    if not isinstance(known, dict):
        return config
    return config_io.override(config, [f"{name}={value}" for name, value in SAFER.items() if known.get(name) == value])
