"""What a run does by itself when its numbers overflow or the memory runs out: on from its last good state, otherwise.

That is a few settings in place of the run's own. They are kept in its folder, so that a resume takes them too;
config.toml stays what the person wrote.
"""

import json
from contextlib import suppress
from pathlib import Path

from trainers import config_io, memory
from trainers.config import TrainConfig
from trainers.errors import Overflowed, UserError
from trainers.events import Adjusted
from trainers.failure import is_out_of_memory
from trainers.files import write_whole

FILE = "instead.json"  # in the run folder: setting -> value
REPLACED = {
    "memory.precision",
    "memory.attention",
    "memory.checkpointing",
    "memory.offload",
    "memory.stream",
    "data.batch_size",
    "optimizer.accumulation",
}
Way = tuple[dict[str, str | int], str]  # settings, and what that means


def settings_of(config: TrainConfig, run: Path) -> TrainConfig:
    """What a run goes on with: its own settings, and those that have taken their place before."""
    changes = _kept(run)
    return config_io.override(config, [f"{name}={value}" for name, value in changes.items()]) if changes else config


def another_way(config: TrainConfig, error: Exception, run: Path) -> Adjusted | None:
    """Find the next way for a run that failed, and keep it in the run's folder; returns what is told of it.

    `config` is what the run has been trained with. None where there is no other way, or the person wants none.
    """
    if not config.memory.retry:
        return None
    if isinstance(error, Overflowed):
        found, reason = _safer(memory.plan(config.memory).precision), error.message
    elif is_out_of_memory(error):
        found, reason = _smaller(config), "The memory ran out."
    else:
        return None
    if found is None:
        return None
    changes, what = found
    write_whole(run / FILE, json.dumps(_kept(run) | changes).encode())
    return Adjusted(f"The run goes on from its last good state, {what}", reason)


def _safer(precision: str) -> Way | None:
    if precision == "fp32":
        return None
    why = "whose numbers end at 65,504" if precision == "fp16" else "whose numbers are coarse"
    return {"memory.precision": "fp32", "memory.attention": "math"}, (
        f"in fp32 with plain attention, instead of {precision}, {why}. If that does not help, the rate is too high"
    )


def _smaller(config: TrainConfig) -> Way | None:
    """The next of: fewer pictures at once, as many per step; activations computed again; moved; weights streamed."""
    at_once, times = config.data.batch_size, config.optimizer.accumulation
    if at_once > 1:
        parts = next(number for number in range(2, at_once + 1) if at_once % number == 0)
        changes = {"data.batch_size": at_once // parts, "optimizer.accumulation": times * parts}
        return (
            changes,
            f"with {at_once // parts} instead of {at_once} pictures at once, and as many as before in a step",
        )
    if config.memory.checkpointing != "all":
        return {"memory.checkpointing": "all"}, "with activations computed again in the backward pass (checkpointing)"
    if not config.memory.offload:
        return {"memory.offload": "true"}, "with activations in the computer's memory"
    if config.memory.stream != "all":
        return {"memory.stream": "all"}, "with the frozen weights streamed block by block"
    return None


def _kept(run: Path) -> dict[str, str | int]:
    """The settings that have taken others' place; none where the run went its own way."""
    with suppress(OSError, ValueError, AttributeError, UserError):
        known = {name: value for name, value in json.loads((run / FILE).read_text("utf-8")).items() if name in REPLACED}
        config_io.override(TrainConfig(), [f"{name}={value}" for name, value in known.items()])  # or it is damaged
        return known
    return {}
