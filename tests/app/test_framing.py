"""Crops on the Concept page are those of the run that the Train page would make."""

import pytest
from PIL import Image

from app import drafts, picture_list, projects
from app.framing import OWN, Framing, crop_of, framing_of
from app.gui import concept_views as views
from app.picture_facts import Facts, Measured
from tests.bad_input.files import SDXL, safetensors
from trainers import config_io
from trainers.data.buckets import plan
from trainers.data.examples import scan
from trainers.data.types import Bucket

LDM = "model.diffusion_model.input_blocks.0.0.weight"
OPENCLIP = "cond_stage_model.model.ln_final.weight"
CLIP = "cond_stage_model.transformer.text_model.final_layer_norm.weight"
BASES = {  # shapes of a single file -> how it is called, its side
    "sdxl": (SDXL, "Stable Diffusion XL", 1024),
    "sd15": ({LDM: (320, 4, 3, 3), CLIP: (768,)}, "Stable Diffusion 1.x", 512),
    "sd2": ({LDM: (320, 4, 3, 3), OPENCLIP: (1024,)}, "Stable Diffusion 2.x", 768),
}


@pytest.fixture
def project(place, pictures):
    return projects.create(place, "My cat", pictures, "object", "zibbo")


def test_a_new_project_is_cut_for_the_built_in_base(place, project):
    framing = framing_of(place, project)
    assert framing == Framing(64, 16, "built-in", True, flip=True)  # the object preset mirrors
    assert views.crop_choices(framing)[0] == ("This project's base (built-in, 64 px)", OWN)


@pytest.mark.parametrize("name", BASES)
def test_a_base_brings_its_own_resolution(place, project, tmp_path, name):
    shapes, label, side = BASES[name]
    drafts.update(place, project, base=str(safetensors(tmp_path / f"{name}.safetensors", shapes)))
    framing = framing_of(place, project)
    assert (framing.base, framing.resolution, framing.embedded) == (label, side, False)
    if name == "sd2":
        drafts.change(place, project, "model.prediction", "epsilon")
        assert framing_of(place, project).resolution == 512


def test_settings_of_the_draft_decide_and_crops_are_those_of_its_run(place, project, pictures):
    for number, size in enumerate([(300, 200), (50, 90), (400, 40)]):
        Image.new("RGB", size, (80 * number, 0, 0)).save(pictures / f"{number}.png")
    for name, text in {
        "data.resolution": "96",
        "data.bucket_step": "32",
        "data.bucket_min": "32",
        "data.bucket_max": "128",
        "data.no_upscale": "true",
    }.items():
        drafts.change(place, project, name, text)
    config = config_io.load(drafts.make_run(place, project).config)
    examples = scan(config.data).examples
    ours = [crop_of(example.size, framing_of(place, project)) for example in examples]
    assert ours == plan(examples, config.data, 96, 16)
    drafts.change(place, project, "data.bucketing", "false")
    assert crop_of((300, 200), framing_of(place, project)).bucket == Bucket(96, 96)


def test_a_wrong_setting_elsewhere_leaves_the_crops_of_the_others(place, project):
    drafts.change(place, project, "data.resolution", "128")
    drafts.change(place, project, "optimizer.rate", "fast")
    drafts.change(place, project, "data.bucket_step", "wide")
    framing = framing_of(place, project)
    assert (framing.resolution, framing.bucket_step) == (128, None)


def test_a_base_that_is_not_there_is_said_in_the_choice(place, project):
    drafts.update(place, project, base="/nowhere/model.safetensors")
    framing = framing_of(place, project)
    assert views.crop_choices(framing)[0][0] == "This project's base (not found, 512 px)"
    drafts.update(place, project, base="owner/name")
    assert views.crop_choices(framing_of(place, project))[0][0].startswith("This project's base (its family shows")


def test_other_resolutions_keep_the_settings_on_a_base_that_has_them():
    own = Framing(64, 16, bucketing=False)
    assert own.at(OWN) == own.at(64) == own
    assert own.at(512) == Framing(512, 64, embedded=False, bucketing=False)
    xl = Framing(1024, 32, "Stable Diffusion XL", embedded=False)
    assert xl.at(768).multiple == 32 and xl.at(64) == xl._replace(resolution=64, multiple=16, embedded=True)


def test_settings_that_suit_no_picture_are_a_sentence_and_no_picture_is_called_unreadable(place, project):
    drafts.change(place, project, "data.bucket_step", "24")
    measured = Measured(place, lambda path: Facts((300, 200)))
    picture_list.overview(project, measured, framing_of(place, project))
    measured.wait()
    seen = picture_list.overview(project, measured, framing_of(place, project))
    assert "Bucket step 24 does not fit this base" in views.summary(seen)
    assert all(picture.crop is None for picture in seen.pictures)
    assert not any(remark.kind == "unreadable" for picture in seen.pictures for remark in picture.warnings)


def test_what_is_done_to_all_pictures_is_told(place, project):
    seen = picture_list.Overview([], [], Framing(bucketing=False, flip=True))
    assert "All are cut to squares. Half of the views are mirrored." in views.framed(seen)
    assert views.framed(picture_list.Overview([], [], Framing())) == ""
