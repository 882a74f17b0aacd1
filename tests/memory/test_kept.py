"""A run's way of saving memory is kept, and what has become of the file does no harm."""

import json

import pytest

from tests.memory.tiny_step import folder_of
from trainers import config_io
from trainers.families.registry import find_family
from trainers.memory.kept import FILE, keep_saving, kept_saving
from trainers.memory.saving import PLAIN, Saving
from trainers.memory.units import blocks


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return config_io.parse({"model": {"base": str(folder_of("sd15", tmp_path_factory.mktemp("base")))}})


@pytest.fixture(scope="module")
def denoiser(config):
    return find_family(config.model).load(config.model, None).denoiser


def test_what_was_kept_is_found_for_the_same_settings_alone(tmp_path, config, denoiser):
    whole = blocks(denoiser)
    assert kept_saving(tmp_path, config, denoiser) is None
    for saving in (PLAIN, Saving(whole[:2], prepacked=False), Saving(whole, streamed=whole[:1])):
        keep_saving(tmp_path, config, saving)
        assert kept_saving(tmp_path, config, denoiser) == saving
    lighter = config_io.merge(config, {"memory": {"checkpointing": "all"}})
    assert kept_saving(tmp_path, lighter, denoiser) is None
    keep_saving(tmp_path, lighter, PLAIN)
    assert kept_saving(tmp_path, config, denoiser).streamed == whole[:1]


@pytest.mark.parametrize(
    "change",
    [{"recomputed": ["nowhere"]}, {"streamed": ["nowhere"]}, {"slim": "perhaps"}, {"recomputed": None}],
    ids=str,
)
def test_what_fits_no_denoiser_is_not_found(tmp_path, config, denoiser, change):
    keep_saving(tmp_path, config, PLAIN)
    ((key, value),) = json.loads((tmp_path / FILE).read_text()).items()
    (tmp_path / FILE).write_text(json.dumps({key: value | change}))
    assert kept_saving(tmp_path, config, denoiser) is None


def test_a_damaged_file_is_none(tmp_path, config, denoiser):
    (tmp_path / FILE).write_text("[")
    assert kept_saving(tmp_path, config, denoiser) is None
