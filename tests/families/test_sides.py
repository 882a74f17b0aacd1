"""The sides that are told from config files are those of the loaded base."""

import pytest
import torch

from tests.tiny import tiny_pipeline_folder
from tests.tiny_families import tiny_folder
from trainers.config import ModelConfig
from trainers.errors import UserError
from trainers.families.locate import EMBEDDED
from trainers.families.registry import find_family
from trainers.families.sides import Sides, sides_of


def loaded(config: ModelConfig) -> Sides:
    base = find_family(config).load(config, torch.float32)
    return Sides(base.resolution, *base.bounds)


def test_folders_tell_what_loading_them_finds(tmp_path):
    folder = tiny_pipeline_folder(tmp_path / "base", levels=3, sample_size=12)
    for config in (ModelConfig(base=EMBEDDED), ModelConfig(base=str(folder))):
        assert sides_of(config, "sd15") == loaded(config)
    third = ModelConfig(base=str(tiny_folder("sd3", tmp_path / "sd3")))
    assert sides_of(third, "sd3") == loaded(third) == (16, 4, 12 * 4)


@pytest.mark.parametrize(
    ("family", "prediction", "sides"),
    [
        ("", "auto", (512, 64, None)),
        ("sd15", "auto", (512, 64, None)),
        ("sd2", "auto", (768, 64, None)),
        ("sd2", "epsilon", (512, 64, None)),
        ("sdxl", "auto", (1024, 32, None)),
        ("sd3", "auto", (1024, 16, 192 * 16)),
    ],
)
def test_a_hub_id_has_the_sides_of_its_family(family, prediction, sides):
    assert sides_of(ModelConfig(base="owner/name", prediction=prediction), family) == sides


def test_a_missing_base_is_a_sentence():
    with pytest.raises(UserError, match="There is no base model"):
        sides_of(ModelConfig(base="/nowhere/model.safetensors"), "")
