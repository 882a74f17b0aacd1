"""Two runs against each other: the settings that differ, what came out, and their last samples of the same prompts."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from app import runs
from app.new_runs import look_at_base, trained_pictures
from app.presets import Preset, apply, load_presets
from app.runs import Run
from trainers import config_io, events
from trainers.config import TrainConfig
from trainers.config_problems import SETTINGS
from trainers.errors import UserError

SUBJECT = (
    "model.base",
    "data.folders",
    "data.folder_names",
    "data.leave_out",
    "data.trigger",
    "data.kind",
    "saving.name",
)


@dataclass(frozen=True)
class Change:
    """One setting with two values; `left` and `right` as the settings hold them."""

    name: str  # dotted
    title: str
    left: Any
    right: Any


@dataclass(frozen=True)
class Outcome:
    """What a run came to; None where it has not measured that."""

    word: str
    step: int
    steps: int
    loss: float | None  # the last one
    smoothed: float | None  # the mean over the last tenth of the steps
    validation: float | None  # the last one
    seconds_per_step: float | None  # the mean over all steps
    memory_gb: float | None
    samples: dict[str, Path]  # prompt -> the newest picture of it


def changes(left: TrainConfig, right: TrainConfig) -> list[Change]:
    """Every setting that differs, in the order of the settings."""
    differing = config_io.difference(right, left)
    return [
        Change(name, SETTINGS[name].title or name, config_io.get(left, name), differing[name]) for name in differing
    ]


def outcome(run: Run) -> Outcome:
    """Read from the run's events."""
    told = [event for _, event in events.read_from(run.events)[0]]
    status = runs.status(run, events.fold(told))
    state = status.state
    steps = [event for event in told if isinstance(event, events.Step)]
    late = [loss for step, loss in state.losses if step > state.step * 0.9]
    drawn = {sample.prompt: run.folder / sample.path for sample in state.samples if not sample.asked}
    samples = {prompt: file for prompt, file in drawn.items() if file.is_file()}
    return Outcome(
        word=status.word,
        step=state.step,
        steps=state.steps,
        loss=state.loss,
        smoothed=mean(late) if late else None,
        validation=state.validation[-1][1] if state.validation else None,
        seconds_per_step=mean(event.seconds for event in steps) if steps else None,
        memory_gb=state.memory_gb or None,
        samples=samples,
    )


def shared_prompts(left: Outcome, right: Outcome) -> list[str]:
    """Prompts that both runs drew, in the order of the left one."""
    return [prompt for prompt in left.samples if prompt in right.samples]


def against_preset(
    config: TrainConfig, name: str = "", known: Mapping[str, Preset] | None = None
) -> tuple[str, list[Change]]:
    """The title of a preset, and where the settings go their own way; the subject aside.

    It is the one of that name, else the one for this kind of concept; else the defaults, called "the defaults".
    """
    known = load_presets() if known is None else known
    preset = known.get(name) or known.get(config.data.kind)
    if preset is None:
        title, advised = "the defaults", TrainConfig()
    else:
        try:
            _, family = look_at_base(config.model)
        except UserError:  # the base was moved since
            family = ""
        pictures = trained_pictures(config.data)
        title, advised = f'the preset "{preset.title}"', apply(preset, pictures, config.model.base, family)
    return title, [change for change in changes(advised, config) if change.name not in SUBJECT]
