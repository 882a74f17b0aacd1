import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.tools import bases


@pytest.fixture(scope="session", params=bases.NAMES)
def model(request, tmp_path_factory) -> SimpleNamespace:
    """A tiny base of each family as a diffusers folder and as a checkpoint file, and the shapes of its layers."""
    family, place = request.param, tmp_path_factory.mktemp(request.param)
    folder = bases.make_folder(family, place / "base")
    file = bases.make_file(family, folder, place / "base.safetensors")
    shapes = bases.shapes_of(bases.load(family, folder))
    small = {place: shape for place, shape in shapes.items() if min(shape[:2]) <= 128}  # an SVD of these is no work
    return SimpleNamespace(family=family, folder=folder, file=file, shapes=shapes, small=small)


@pytest.fixture
def own_settings(model, tmp_path, monkeypatch) -> None:
    """Checkpoint files of the tiny base can be loaded: the bundled settings are replaced by its own."""
    configs: Path = tmp_path / "configs"
    for name in (model.family, "sd2-768", "sd2-512", "sd3.5-medium", "sd3-medium"):
        shutil.copytree(model.folder, configs / name, ignore=shutil.ignore_patterns("*.safetensors"))
    monkeypatch.setattr("trainers.families.loading.CONFIGS", configs)
    monkeypatch.setattr("trainers.families.read_sd.TOKENIZER", model.folder / "tokenizer")
