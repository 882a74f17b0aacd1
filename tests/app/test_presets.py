"""Presets are advice for every base: valid, short, and scaled to the number of pictures."""

import pytest

from app import demo, presets
from app.paths import BASE
from trainers import config_io
from trainers.config import TrainConfig
from trainers.errors import UserError

PRESETS = presets.load_presets()
BASES = ("embedded", "models/sd15.safetensors")


def test_there_is_one_preset_per_kind():
    assert set(PRESETS) == {"person", "style", "object", "character"}


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
@pytest.mark.parametrize("pictures", [0, 1, 12, 40, 100_000])
def test_preset_gives_valid_settings_for_its_kind(preset, base, pictures):
    config = presets.apply(preset, pictures, base)
    assert config.data.kind == preset.name and config.model.base == base
    assert config_io.parse(config.model_dump()) == config


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_preset_says_what_it_is_for_and_changes_little(preset):
    assert preset.title and preset.description.endswith(".") and preset.description.count(".") == 1
    for base in BASES:
        assert len(config_io.difference(presets.apply(preset, 20, base), TrainConfig())) <= 12


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_more_pictures_never_mean_fewer_views(preset, base):
    views = [presets.apply(preset, pictures, base).schedule.views for pictures in (1, 10, 30, 100, 1000)]
    assert views == sorted(views) and views[0] >= 800


def test_full_size_bases_follow_the_consensus():
    for preset in PRESETS.values():
        config = presets.apply(preset, 20, "models/sd15.safetensors")
        assert config.optimizer.rate == 1e-4 and config.loss.weighting == "min_snr"
        assert 8 <= config.adapter.rank <= 32


def test_unknown_preset_names_all():
    with pytest.raises(UserError, match="character, object, person, style"):
        presets.find_preset("landscape")


def test_class_words_are_prompts_that_the_base_knows_and_nothing_is_measured_or_shown_on_them():
    known, held_out = (
        set((BASE / "recipe" / f).read_text("utf-8").splitlines()) for f in ("words.txt", "held_out.txt")
    )
    prompts = presets.CLASS_WORDS.read_text("utf-8").splitlines()
    shown = {prompt for concept in demo.CONCEPTS_BY_NAME.values() for prompt in concept.prompts}
    for prompt in prompts:
        _, style, _, word = prompt.split(" ", 3)
        assert style in ("noto", "twemoji") and word in known - held_out
        assert not any(other.endswith(f" style {word}") for other in shown)
    assert len(set(prompts)) == 40


def test_only_presets_with_class_pictures_have_class_words():
    for preset in PRESETS.values():
        data = presets.apply(preset, 20, "embedded").data
        assert bool(data.class_pictures) == bool(data.class_words)
        assert not presets.apply(preset, 20, "models/sd15.safetensors").data.class_pictures


@pytest.mark.parametrize("family", ["sd2", "sdxl", "sd3"])
@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_beyond_stable_diffusion_1_text_encoders_are_left_alone(preset, family):
    config = presets.apply(preset, 20, "models/big.safetensors", family)
    assert not config.adapter.text_encoder and config.optimizer.rate == 1e-4
    if family == "sd3":
        assert 1500 <= config.schedule.views <= 2500 and config.noise.offset == 0
