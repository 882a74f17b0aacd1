"""A file of another trainer, read: its settings by name, and what must be known beside them."""

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainers.importing.values import NotSupported, is_empty, is_off, number


@dataclass(frozen=True)
class Length:
    """How long a run is. `views_per_epoch` (repeats x pictures) is None where the pictures are not on this machine."""

    views_per_epoch: int | None = None
    batch: int = 1  # pictures per optimizer step
    steps: int | None = None

    @property
    def steps_per_epoch(self) -> int | None:
        return None if self.views_per_epoch is None else max(1, math.ceil(self.views_per_epoch / self.batch))


@dataclass(frozen=True)
class Theirs:
    """`values`: their settings by name, lists taken apart; `place`: the file's folder."""

    values: dict[str, Any]
    place: Path
    length: Length = Length()
    folders: dict[str, Any] = field(default_factory=dict)  # data.folders and data.folder_names
    has_data_set: bool = False  # a data set file names the pictures
    gui: bool = False  # a file of kohya_ss's window, where 0 stands for "not given" in many places
    base: str = ""  # named on the command line, in place of the file's

    def get(self, *names: str) -> Any:
        """The first of these settings that is set; None where none is."""
        return next((self.values[name] for name in names if not is_empty(self.values.get(name))), None)

    def argument(self, name: str) -> Any:
        """A setting of the network: kohya_ss has it beside the others, sd-scripts among the network_args."""
        return self.get(name, f"network_args.{name}")

    def on(self, *names: str) -> bool:
        return any(not is_off(self.values.get(name)) for name in names)

    def count(self, *names: str) -> float:
        """A number that is 0 where it is empty or unreadable."""
        value = self.get(*names)
        try:
            return 0 if value is None else number(value)
        except NotSupported:
            return 0


def resolve(text: str, *places: Path) -> str:
    """A path as a person wrote it, absolute where it exists: from one of the places or from here. Else as it stands."""
    path = os.path.expanduser(text.strip())
    for start in (*places, Path.cwd()):
        found = os.path.join(start, path)
        if os.path.lexists(found):
            return os.path.abspath(found)
    return text.strip()
