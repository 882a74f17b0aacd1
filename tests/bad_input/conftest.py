"""Three pictures, an empty home, and the command line in this process."""

from pathlib import Path

import pytest
from PIL import Image

from app import jobs
from tests.commands import Said, here


@pytest.fixture
def pictures(tmp_path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(3):
        Image.new("RGB", (64, 64), (80 * i, 90, 40)).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def place(tmp_path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def darkroom(place, capsys, monkeypatch):
    """The command line in this process; an engine that starts all the same is a failure."""
    monkeypatch.setattr(jobs, "ENGINE", ("no", "engine"))
    call = here(capsys)
    return lambda *arguments: call("--home", place, *arguments)


@pytest.fixture
def new(darkroom, pictures):
    def make(*arguments: object) -> Said:
        return darkroom("new", "cat", "--pictures", pictures, "--kind", "object", *arguments)

    return make


@pytest.fixture
def run(new) -> Path:
    return Path(new().out.strip())
