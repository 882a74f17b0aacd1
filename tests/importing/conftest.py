"""Settings files of other trainers, their pictures, and a base model: all on this machine."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from trainers.importing.imported import Imported, import_files
from trainers.importing.rows import Line

CONFIGS = Path(__file__).with_name("configs")
PICTURES = {"10_sks cat": 3, "2_": 2, "plain": 2, "reg": 1}  # folder -> pictures


@pytest.fixture(scope="session")
def parent(tmp_path_factory) -> Path:
    """A folder in kohya's layout, with two folders that kohya passes over."""
    folder = tmp_path_factory.mktemp("kohya ‘pictures’")
    for name, count in PICTURES.items():
        (folder / name).mkdir()
        for i in range(count):
            Image.new("RGB", (32, 32), (60 * i, 10 * len(name), 90)).save(folder / name / f"{i}.png")
    (folder / "10_sks cat" / "0.txt").write_text("sks cat, red", encoding="utf-8")
    return folder


@pytest.fixture
def config(tmp_path: Path, parent: Path) -> Callable[..., Path]:
    """A file of configs/ whose base and pictures are on this machine, beside the data set it names."""

    def write(name: str, base: Path | str = "owner/model") -> Path:
        for file in CONFIGS.iterdir():
            text = file.read_text("utf-8").replace("BASE", Path(base).as_posix()).replace("PICTURES", parent.as_posix())
            (tmp_path / file.name).write_text(text, "utf-8")
        return tmp_path / name

    return write


@pytest.fixture
def imported(config) -> Callable[[str], Imported]:
    return lambda name: import_files([config(name)])


@pytest.fixture
def gui(config):
    """Import the file of kohya_ss with changes; None takes a setting away."""

    def change(**changes):
        path = config("kohya_ss.json")
        content = {key: value for key, value in {**json.loads(path.read_text("utf-8")), **changes}.items()}
        path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}), "utf-8")
        return import_files([path])

    return change


def run(tmp_path, text: str):
    (tmp_path / "run.toml").write_text(f'network_module = "networks.lora"\nnetwork_dim = 8\n{text}', "utf-8")
    return import_files([tmp_path / "run.toml"])


def lycoris(tmp_path, *arguments: str, more: str = ""):
    text = f'network_module = "lycoris.kohya"\nnetwork_dim = 8\nnetwork_args = {list(arguments)}\n{more}'
    (tmp_path / "run.toml").write_text(text, "utf-8")
    return import_files([tmp_path / "run.toml"])


def line(found: Imported, key: str) -> Line:
    (only,) = [line for line in found.lines if line.key == key]
    return only


def values(found: Imported, *names: str) -> list:
    return [found.settings[name] for name in names]
