"""The settings that a new run begins with: a preset's advice for a project's pictures on a base model.

The command line and the window both start here, and lay what a person changes over it.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from app import presets, projects
from app.presets import Preset
from trainers import config_io
from trainers.config import DataConfig, ModelConfig, TrainConfig
from trainers.data.folders import list_pictures
from trainers.errors import UserError
from trainers.families.locate import Glance, require_base

UNKNOWN_FAMILY = "{0} shows its family only when it is loaded: these are settings for Stable Diffusion 1.x. "


@dataclass(frozen=True)
class Concept:
    """What is to be learnt: the name of its project, and pictures, of which some may be left out."""

    name: str
    pictures: Path
    kind: str
    trigger: str = ""
    left_out: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """Pictures to be trained. UserError where there is none, or no such folder."""
        return max(projects.require_pictures(self.pictures) - len(self.still_left_out), 0)

    @property
    def still_left_out(self) -> tuple[str, ...]:
        """Those of `left_out` that are there; others were renamed or removed since, and no page shows them."""
        return tuple(name for name in self.left_out if os.path.exists(self.pictures / name))


def look_at_base(model: ModelConfig) -> tuple[Glance, str]:
    """What a look at the base shows, and its family, "" where neither file nor settings tell. UserError as it says."""
    found = require_base(model)
    return found, found.family or model.family.replace("auto", "")


def trained_pictures(data: DataConfig) -> int:
    """How many pictures are trained with these settings; 0 where a folder is not there."""
    try:
        return len(list_pictures(data.folders, data.folder_names, data.leave_out)[0])
    except UserError:
        return 0


def settings(concept: Concept, preset: Preset, base: str, family: str, pictures: int) -> TrainConfig:
    """What `darkroom new` writes into a run where nothing is set by hand."""
    config = presets.apply(preset, pictures, base, family)
    data = {"folders": [str(concept.pictures)], "kind": concept.kind, "trigger": concept.trigger}
    data |= {"leave_out": list(concept.still_left_out)}
    return config_io.merge(config, {"data": data, "saving": {"name": projects.slug(concept.name)}})
