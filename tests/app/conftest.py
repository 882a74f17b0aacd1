"""A folder of pictures, a fake engine, and the command line as a function."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from app import cli, jobs, projects, runs
from app.paths import Home
from trainers.config import DataConfig, SavingConfig, TrainConfig

FAKE = Path(__file__).with_name("fake_engine.py")
NASTY_NAME = "Ünïcode ‘quotes’ 漢字 🎉"


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "my ‘pictures’ 漢字"
    folder.mkdir()
    for i in range(3):
        Image.new("RGB", (16, 16), (80 * i, 0, 0)).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def place(home: Path) -> Home:
    return Home(home)


@pytest.fixture
def run(place: Home, pictures: Path) -> runs.Run:
    """A run of a project with a nasty name, not begun."""
    config = TrainConfig(data=DataConfig(folders=(str(pictures),)), saving=SavingConfig(name="cat"))
    return runs.create(projects.create(place, NASTY_NAME, pictures, "object"), config)


@pytest.fixture
def engine_mode(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[str, ...]]:
    """Call it with a mode: from then on, jobs start the fake engine in that mode."""

    def choose(mode: str) -> tuple[str, ...]:
        command = (sys.executable, str(FAKE), mode)
        monkeypatch.setattr(jobs, "ENGINE", command)
        return command

    choose("finish")
    return choose


@pytest.fixture
def darkroom(place: Home, engine_mode, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run the command line in this process."""

    def call(*arguments: object) -> Said:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Said(int(ended.value.code or 0), out, err)

    return call
