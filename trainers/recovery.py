"""What a run does by itself when its numbers overflow or the memory runs out: on from its last good state, otherwise.

That is a few settings in place of the run's own. They are kept in its folder, so that a resume takes them too;
config.toml stays what the person wrote.
"""

import json
import math
from contextlib import suppress
from pathlib import Path

from trainers import config_io, json_values, memory
from trainers.config import TrainConfig
from trainers.errors import Crowded, Overflowed, UserError
from trainers.events import Adjusted
from trainers.failure import is_out_of_memory
from trainers.files import write_whole
from trainers.ranks import shared_by

FILE = "instead.json"  # in the run folder: setting -> [value that it takes the place of, value]
REPLACED = {
    "memory.precision",
    "memory.attention",
    "memory.checkpointing",
    "memory.offload",
    "memory.stream",
    "memory.parts",
}
QUARTERS = 4  # parts; after that, every way begins the run anew for little
Way = tuple[dict[str, str | int], str]  # settings, and what that means


def settings_of(config: TrainConfig, run: Path) -> tuple[TrainConfig, Adjusted | None]:
    """What a run with these settings goes on with, and what is told where that is not all its own.

    A setting that a person has changed since is the person's again.
    """
    changes = _in_force(config, run)
    if not changes:
        return config, None
    lines = [f"{name}={value}" for name, value in changes.items()]
    told = Adjusted(
        f"The run goes on with {', '.join(lines)}",
        "That is how it went on before; its own settings come back when they are changed.",
    )
    return config_io.override(config, lines), told


def another_way(config: TrainConfig, error: Exception, run: Path, devices: int = 1) -> Adjusted | None:
    """Find the next way for a run that failed, and keep it in the run's folder; returns what is told of it.

    `config` has the run's own settings; it was trained with those of `settings_of`, on so many devices. None where
    there is no other way, or the person wants none.
    """
    if not config.memory.retry and not isinstance(error, Crowded):
        return None
    went, _ = settings_of(config, run)
    plan = memory.plan(went.memory)
    if isinstance(error, Overflowed):
        found, reason = _safer(plan.precision), error.message
    elif isinstance(error, Crowded):
        found, reason = _smaller(went, plan.device.type, devices), "A person wants it to use less memory."
    elif is_out_of_memory(error):
        found, reason = _smaller(went, plan.device.type, devices), "The memory ran out."
        if found is None:
            (run / FILE).unlink(missing_ok=True)  # a resume may find more memory, and begins with its own
    else:
        return None
    if found is None:
        return None
    changes, what = found
    kept = {name: [_text(config, name), value] for name, value in (_in_force(config, run) | changes).items()}
    write_whole(run / FILE, json.dumps(kept).encode())
    return Adjusted(f"The run goes on from its last good state, {what}", reason)


def can_be_smaller(config: TrainConfig, devices: int = 1) -> bool:
    """Whether there is a way to train it with less memory."""
    return _smaller(config, memory.plan(config.memory).device.type, devices) is not None


def _safer(precision: str) -> Way | None:
    if precision == "fp32":
        return None
    why = "whose numbers end at 65,504" if precision == "fp16" else "whose numbers are coarse"
    return {"memory.precision": "fp32", "memory.attention": "math"}, (
        f"in fp32 with plain attention, instead of {precision}, {why}. If that does not help, the rate is too high"
    )


def _smaller(config: TrainConfig, device: str, devices: int) -> Way | None:
    """The next of: batches in more parts; activations computed again; moved; weights streamed."""
    batch = math.ceil(config.data.batch_size / shared_by(config.optimizer.accumulation, devices))
    if config.memory.parts < batch:
        parts = min(2 * config.memory.parts, batch) if config.memory.parts < QUARTERS else batch
        return {"memory.parts": parts}, f"with each batch computed in {parts} parts, the same steps otherwise"
    if config.memory.checkpointing != "all":
        return {"memory.checkpointing": "all"}, "with activations computed again in the backward pass (checkpointing)"
    if not config.memory.offload and device != "cpu":
        return {"memory.offload": "true"}, "with activations in the computer's memory"
    packed_here = device == "cpu" and config.memory.quantize != "none"  # streaming reads the base's file again
    if config.memory.stream != "all" and not packed_here:
        return {"memory.stream": "all"}, "with the frozen weights streamed block by block"
    return None


def _in_force(config: TrainConfig, run: Path) -> dict[str, str | int]:
    """The kept settings that still take the place of a run's own: setting -> value."""
    return {name: value for name, (was, value) in _kept(run).items() if _text(config, name) == was}


def _kept(run: Path) -> dict[str, list[str]]:
    """The settings that have taken others' place; none where the run went its own way."""
    with suppress(OSError, ValueError, AttributeError, TypeError, UserError):
        found = json_values.read(run / FILE)
        known = {name: [str(was), str(value)] for name, (was, value) in found.items() if name in REPLACED}
        config_io.override(TrainConfig(), [f"{name}={value}" for name, (_, value) in known.items()])  # or it is damaged
        return known
    return {}


def _text(config: TrainConfig, name: str) -> str:
    return str(config_io.get(config, name))
