"""Which family kohya's settings are for, and clip_skip, which only some have."""

import pytest

from tests.importing.conftest import line, run
from tests.tiny_families import tiny_folder

HUB_ID = "stabilityai/stable-diffusion-xl-base-1.0"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {family: tiny_folder(family, tmp_path_factory.mktemp(family) / "base") for family in ("sd2", "sdxl", "sd3")}


def based_on(tmp_path, base, more: str = ""):
    return run(tmp_path, f'pretrained_model_name_or_path = "{base}"\nclip_skip = 2\n{more}')


@pytest.mark.parametrize(("switch", "name"), [("sdxl", "sdxl"), ("v2", "sd2"), ("sd3_checkbox", "sd3")])
def test_families_that_are_not_trained_here_are_named(gui, switch, name):
    found = gui(**{switch: True})
    if "model.family" in found.settings:
        assert found.config.model.family == name
    else:
        assert line(found, switch).note == "Base models of this kind are not supported yet."


@pytest.mark.parametrize(("family", "layer"), [("sd2", 2), ("sdxl", 1), ("sd3", 1)])
def test_clip_skip_counts_where_the_base_is_one_that_has_it(tmp_path, folders, family, layer):
    assert based_on(tmp_path, folders[family].as_posix()).config.model.clip_skip == layer


def test_the_window_says_of_what_family_a_run_is(gui):
    assert gui(pretrained_model_name_or_path="gone.safetensors").config.model.clip_skip == 2
    found = gui(sdxl=True)
    assert found.config.model.clip_skip == 1 and line(found, "clip_skip").status == "not needed"


@pytest.mark.parametrize("base", [HUB_ID, "D:/models/gone.safetensors"])
def test_clip_skip_of_a_base_that_cannot_be_seen_is_left_to_the_person(tmp_path, base):
    found = based_on(tmp_path, base)
    assert found.config.model.clip_skip == 1
    assert "set model.clip_skip = 2 if it is one of them" in line(found, "clip_skip").note
    assert based_on(tmp_path, base, "v2 = true").config.model.clip_skip == 2
    assert line(based_on(tmp_path, base, "cache_text_encoder_outputs = true"), "clip_skip").status == "not needed"


@pytest.mark.parametrize("base", ["runwayml/stable-diffusion-v1-5", "stable-diffusion-v1-5/stable-diffusion-v1-5"])
def test_the_first_stable_diffusion_is_known_by_its_name(tmp_path, base):
    assert based_on(tmp_path, base).config.model.clip_skip == 2
    assert based_on(tmp_path, HUB_ID).with_base(base).config.model.clip_skip == 2


def test_another_base_decides_anew(tmp_path, gui, folders):
    found = based_on(tmp_path, HUB_ID)
    assert found.with_base("embedded").config.model.clip_skip == 2
    assert found.with_base("embedded").with_base(str(folders["sdxl"])).config.model.clip_skip == 1
    assert gui().config.model.clip_skip == 2 and gui().with_base(HUB_ID).config.model.clip_skip == 1
