"""Imported settings train as they are, on a tiny base and tiny pictures."""

import pytest

from tests.tiny import tiny_pipeline_folder
from trainers import config_io
from trainers.adapters.adapter_file import read_adapter
from trainers.events import Finished
from trainers.importing.imported import import_files
from trainers.train import Folders, train

# What a tiny base needs: pictures of 16 to 32 pixels, and two steps.
TINY = ("data.resolution=16", "data.bucket_min=", "data.bucket_max=", "data.bucket_step=", "schedule.steps=2")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_pipeline_folder(tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize(
    ("name", "rank", "alpha"),
    [
        ("kohya_ss.json", 8, 1),
        ("sd_scripts.toml", 16, 1),
        ("sd_scripts_sections.toml", 8, 4),
        ("onetrainer.json", 8, 4),
    ],
)
def test_imported_settings_train(config, base, tmp_path, name, rank, alpha):
    found = import_files([config(name, base)])
    assert found.missing == {}
    events = []
    train(config_io.override(found.config, TINY), Folders(tmp_path / "run", tmp_path / "cache"), events.append)
    assert isinstance(events[-1], Finished)
    (file,) = (tmp_path / "run" / "output").glob("*.safetensors")
    assert file.stem == found.config.saving.name
    layers = read_adapter(file).layers.values()
    assert {(layer.rank, layer.alpha) for layer in layers} == {(rank, alpha)}
