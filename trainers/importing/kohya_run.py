"""A run's file of kohya's: its settings by name, what becomes of each, and what holds where it is silent."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainers.importing import kohya
from trainers.importing import kohya_rules as rules
from trainers.importing.kohya_family import is_sd3
from trainers.importing.kohya_network import convolutions, trains_unet_only
from trainers.importing.rows import Line, convert
from trainers.importing.theirs import Length, Theirs
from trainers.importing.values import is_empty, pairs

TAKEN_APART = ("network_args", "optimizer_args", "lr_scheduler_args")  # lists of name=value


def flatten(content: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by name. sd-scripts ignores the names of sections; lists of name=value become settings of their own."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        flat |= value if isinstance(value, Mapping) else {name: value}
    found: dict[str, Any] = {}
    for name, value in flat.items():
        if name in TAKEN_APART and not is_empty(value):
            found |= {f"{name}.{inner}": own for inner, own in pairs(value).items()}
        else:
            found[name] = value
    return found


def convert_file(
    content: Mapping[str, Any],
    place: Path,
    gui: bool,
    folders: dict[str, Any],
    views_per_epoch: int | None,
    has_data_set: bool,
    batch_size: int,
    base: str = "",
) -> tuple[list[Line], dict[str, Any]]:
    """The lines of a run's file, and what kohya does where it is silent.

    Args:
        batch_size: that of the data set; 0 for the run's own.
        base: named in place of the file's.
    """
    values = flatten(content)
    has_data_set = has_data_set or not is_empty(values.get("dataset_config"))
    theirs = Theirs(values, place, folders=folders, has_data_set=has_data_set, gui=gui, base=base)
    theirs = replace(theirs, length=_length(theirs, views_per_epoch, batch_size))
    return convert(kohya.KOHYA, theirs), defaults(theirs)


def _length(theirs: Theirs, views_per_epoch: int | None, batch_size: int) -> Length:
    batch = max(int(batch_size or theirs.count("train_batch_size")), 1)
    length = Length(views_per_epoch, batch * max(int(theirs.count("gradient_accumulation_steps")), 1))
    steps, epochs = int(theirs.count("max_train_steps")), int(theirs.count("max_train_epochs"))
    if not steps and not epochs and theirs.gui and not theirs.has_data_set:
        epochs = int(theirs.count("epoch"))
    if epochs:
        steps = epochs * (length.steps_per_epoch or 0)
    return replace(length, steps=steps or (None if epochs else 1600))


def defaults(theirs: Theirs) -> dict[str, Any]:
    """What kohya does where the file says nothing, and we would do otherwise.

    Only what changes the training or the file. Left out: its largest bucket side of 1024, which would cut every SDXL
    bucket that is not square.
    """
    found: dict[str, Any] = {
        "adapter.rank": 4,
        "adapter.alpha": 1.0,
        "adapter.text_alpha": 1.0,
        "adapter.text_encoder": not trains_unet_only(theirs),
        "data.keep_tokens": 0,
        "data.validation_share": 0.0,
        "data.bucketing": False,
        "loss.weighting": "none",
        "optimizer.rate": 2e-6,
        "optimizer.weight_decay": rules.decay(theirs),
        "schedule.type": "constant",
        "schedule.warmup": 0.0,
        "saving.dtype": "fp32",
    }
    found |= convolutions(theirs)
    if is_sd3(theirs):
        found |= {"noise.density": "uniform", "noise.shift": 1.0}
    if not any(theirs.count(name) > 0 for name in ("max_train_steps", "max_train_epochs")):
        if not theirs.gui or theirs.has_data_set:
            found["schedule.steps"] = 1600
    return found
