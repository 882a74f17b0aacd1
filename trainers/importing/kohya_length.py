"""How long kohya's runs are: steps, epochs, and what happens every so many of them.

Facts from kohya_ss (kohya_gui/lora_gui.py) and sd-scripts (train_network.py, library/train_util.py), read in 2026.
"""

import math
from typing import Any

from trainers.importing.theirs import Theirs
from trainers.importing.values import Noted, NotNeeded, NotSupported, number, percent, plain, whole

NOT_COUNTED = "The pictures are not here to be counted: name their folder with --pictures."


def max_train_epochs(value: Any, theirs: Theirs) -> dict[str, Any]:
    """sd-scripts: epochs, where they are given, beat steps."""
    return _epochs(whole(value), theirs) if whole(value) > 0 else {}


def max_train_steps(value: Any, theirs: Theirs) -> dict[str, Any]:
    if whole(value) <= 0:
        return {}
    if theirs.count("max_train_epochs") > 0:
        raise NotNeeded("max_train_epochs decides.")
    return {"schedule.steps": whole(value)}


def epoch(value: Any, theirs: Theirs) -> dict[str, Any]:
    """kohya_ss's own: it counts only where neither steps nor epochs are given, and not with a data set file."""
    for name in ("max_train_epochs", "max_train_steps"):
        if theirs.count(name) > 0:
            raise NotNeeded(f"{name} decides.")
    if theirs.has_data_set:
        raise NotNeeded("With a data set file, kohya_ss trains 1600 steps.")
    return _epochs(whole(value), theirs)


def _epochs(epochs: int, theirs: Theirs) -> dict[str, Any]:
    views = theirs.length.views_per_epoch
    if views is None:
        raise NotSupported(NOT_COUNTED)
    return {"schedule.views": Noted(epochs * views, f"{views:,} views (repeats x pictures) in each epoch.")}


def every_steps(ours: str) -> Any:
    def decide(value: Any, theirs: Theirs) -> dict[str, Any]:
        return _interval(ours, whole(value), theirs) if whole(value) > 0 else _never(ours, theirs)

    return decide


def every_epochs(ours: str, other: str) -> Any:
    """An interval in epochs; `other` is the same in steps, which goes first."""

    def decide(value: Any, theirs: Theirs) -> dict[str, Any]:
        if whole(value) <= 0:
            return _never(ours, theirs)
        if theirs.count(other) > 0:
            raise NotNeeded(f"{other} decides.")
        if theirs.length.steps_per_epoch is None:
            raise NotSupported(NOT_COUNTED)
        return _interval(ours, whole(value) * theirs.length.steps_per_epoch, theirs)

    return decide


def _never(ours: str, theirs: Theirs) -> dict[str, Any]:
    """No previews where none are wished; checkpoints are always saved, so that nothing is lost."""
    wished = theirs.count("sample_every_n_steps") > 0 or theirs.count("sample_every_n_epochs") > 0
    return {ours: 0} if ours == "preview.every" and not wished else {}


def _interval(ours: str, steps: int, theirs: Theirs) -> dict[str, Any]:
    found = {ours: steps}
    if ours == "saving.every" and theirs.length.steps:  # kohya keeps every file: people choose among them
        found["saving.keep"] = min(max(math.ceil(theirs.length.steps / steps), 1), 1000)
    return found


def warmup_percent(value: Any, theirs: Theirs) -> dict[str, Any]:
    if theirs.count("lr_warmup_steps") > 0:
        raise NotNeeded("lr_warmup_steps decides.")
    return _warmup(percent(value), theirs)


def warmup_steps(value: Any, theirs: Theirs) -> dict[str, Any]:
    """Below 1 it is a share of the run."""
    found = number(value)
    if found == 0 and "lr_warmup" in theirs.values:
        return {}
    if found >= 1:
        if not theirs.length.steps:
            raise NotSupported("The number of steps is not known, so this cannot be turned into a share of the run.")
        share = round(min(found / theirs.length.steps, 1), 6)
        return _warmup(Noted(share, f"Of {theirs.length.steps:,} steps."), theirs)
    return _warmup(found, theirs)


def _warmup(share: float | Noted, theirs: Theirs) -> dict[str, Any]:
    if plain(share) and str(theirs.get("lr_scheduler")) == "constant":
        raise NotNeeded("kohya's constant schedule has no warm-up.")
    return {"schedule.warmup": share}
