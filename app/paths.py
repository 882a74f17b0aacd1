"""Where Darkroom keeps things: the home folder, and what is bundled beside the code."""

import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from trainers.errors import UserError

ROOT = (
    Path(__file__).resolve().parent.parent
)  # holds app, trainers, presets and assets, in a checkout and when installed
PRESETS = ROOT / "presets"
BASE = ROOT / "assets" / "base"
CONCEPTS = ROOT / "assets" / "concepts"


@dataclass(frozen=True)
class Home:
    """One folder with everything a person made; portable when named by --home or DARKROOM_HOME."""

    root: Path

    @property
    def settings(self) -> Path:
        return self.root / "settings.toml"

    @property
    def projects(self) -> Path:
        return self.root / "projects"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def archive(self) -> Path:
        """Zips of runs that were put away."""
        return self.root / "archive"

    @property
    def trash(self) -> Path:
        """What was thrown away; only a person deletes it for good."""
        return self.root / "trash"


def find_home(wish: Path | None = None) -> Home:
    """The home folder: `wish`, else DARKROOM_HOME, else the system's place for user data. Made when it is missing.

    UserError where it cannot be made or written.
    """
    named = wish or os.environ.get("DARKROOM_HOME")
    root = absolute(named) if named else Path(platformdirs.user_data_dir("darkroom", appauthor=False))
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"The home folder {root} cannot be made: {error.strerror or error}.", "Name another with --home."
        ) from error
    if not os.access(root, os.W_OK):
        raise UserError(f"The home folder {root} cannot be written.", "Name another with --home.")
    return Home(root)


def absolute(path: str | os.PathLike[str], start: Path | None = None) -> Path:
    """A path as a person wrote it, `~` and all, as an absolute one; relative ones begin at `start`."""
    return Path(os.path.abspath(os.path.join(start or Path.cwd(), os.path.expanduser(path))))
