"""Learning rates of kohya's and OneTrainer's parts."""

import json

import pytest

from tests.importing.conftest import line, run, values
from tests.tiny_families import tiny_folder
from trainers.importing import report
from trainers.importing.imported import import_files


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory) -> str:
    return tiny_folder("sdxl", tmp_path_factory.mktemp("sdxl") / "base").as_posix()


def text_part(found) -> tuple:
    """(text encoders train, their rate, a rate for each, a rank for each)."""
    adapter, optimizer = found.config.adapter, found.config.optimizer
    return adapter.text_encoder, optimizer.text_rate, optimizer.text_rates, adapter.text_ranks


@pytest.mark.parametrize(
    ("rates", "denoiser", "text", "trained"),
    [
        ((1e-4, 2e-4, 5e-5), 2e-4, 5e-5, True),
        ((1e-4, 0, 0), 1e-4, 1e-4, True),  # 0 is "not given" in kohya_ss ...
        ((1e-4, 2e-4, 0), 2e-4, None, False),  # ... but for the text encoder beside the denoiser
        ((1e-4, "", ""), 1e-4, 1e-4, True),
        ((0, 2e-4, "5e-5"), 2e-4, 5e-5, True),
    ],
)
def test_rates_of_the_window(gui, rates, denoiser, text, trained):
    found = gui(**dict(zip(("learning_rate", "unet_lr", "text_encoder_lr"), rates, strict=True)))
    config = found.config
    assert (config.optimizer.rate, config.optimizer.text_rate) == (denoiser, text)
    assert config.adapter.text_encoder is trained


def test_rates_of_sd_scripts(tmp_path):
    found = run(tmp_path, "learning_rate = 1e-4\nunet_lr = 2e-4\ntext_encoder_lr = [1e-5]")
    assert values(found, "optimizer.rate", "optimizer.text_rate") == [2e-4, 1e-5]
    found = run(tmp_path, "learning_rate = 1e-4\nnetwork_train_unet_only = true")
    assert not found.config.adapter.text_encoder and found.config.optimizer.rate == 1e-4


@pytest.mark.parametrize(
    ("rates", "ours"),
    [
        ("[5e-5, 5e-5]", (True, 5e-5, (), ())),
        ("[5e-5, 1e-5]", (True, None, (5e-5, 1e-5), ())),
        ("[5e-5, 0]", (True, 5e-5, (), (8, 0))),
        ("[0, 5e-5]", (True, 5e-5, (), (0, 8))),
        ("[0, 0]", (False, None, (), ())),
        ("[5e-5, 1e-5, 1e-6]", (True, None, (5e-5, 1e-5), ())),
    ],
)
def test_each_text_encoder_keeps_its_rate(tmp_path, sdxl, rates, ours):
    found = run(tmp_path, f'pretrained_model_name_or_path = "{sdxl}"\ntext_encoder_lr = {rates}')
    assert text_part(found) == ours
    if len(ours[2]) == 2:
        assert "each has its own" in line(found, "text_encoder_lr").note


def test_of_several_rates_a_base_with_one_text_encoder_has_the_first(tmp_path):
    found = run(tmp_path, 'pretrained_model_name_or_path = "embedded"\ntext_encoder_lr = [5e-5, 1e-5]')
    assert text_part(found) == (True, 5e-5, (), ())
    assert line(found, "text_encoder_lr").note == "This base has one text encoder: the first rate counts."


@pytest.mark.parametrize(
    ("first", "second", "ours"),
    [
        ({"train": True, "learning_rate": 5e-5}, {"train": False}, (True, 5e-5, (), (8, 0))),
        ({"train": False}, {"train": True, "learning_rate": 5e-5}, (True, 5e-5, (), (0, 8))),
        ({"train": True, "learning_rate": 5e-5}, {"train": True}, (True, None, (5e-5, 3e-4), ())),
        ({"train": True}, {"train": True}, (True, 3e-4, (), ())),
        ({"train": False}, {"train": False}, (False, None, (), ())),
        ({"train": False}, {}, (True, 3e-4, (), (0, 8))),  # OneTrainer's default
    ],
)
def test_each_text_encoder_of_onetrainer_keeps_its_rate(config, first, second, ours):
    path = config("onetrainer.json")
    parts = {"model_type": "STABLE_DIFFUSION_XL_10_BASE", "text_encoder": first, "text_encoder_2": second}
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | parts), "utf-8")
    assert text_part(import_files([path])) == ours


@pytest.mark.parametrize("name", ["Prodigy", "DAdaptAdam"])
def test_a_small_rate_of_an_optimizer_that_finds_its_own_is_kept_and_remarked(tmp_path, gui, name):
    found = run(tmp_path, f'optimizer_type = "{name}"\nunet_lr = 1e-4')
    remark = "unet_lr = 0.0001: Prodigy multiplies the rate that it finds by this one: 1 is usual, and less slows it."
    assert found.config.optimizer.rate == 1e-4
    assert remark in " ".join(report.as_text(found).split())
    assert "1 is usual" in line(gui(optimizer=name), "unet_lr").note


def test_a_rate_of_1_and_the_rates_of_other_optimizers_bring_no_remark(tmp_path):
    for optimizer, rate in (("Prodigy", 1), ("AdamW", 1e-4)):
        for key in ("unet_lr", "learning_rate"):
            assert line(run(tmp_path, f'optimizer_type = "{optimizer}"\n{key} = {rate}'), key).note == ""


def test_text_encoder_stop_is_taken_with_a_note(gui):
    found = gui(stop_text_encoder_training=30)
    assert found.config.adapter.text_stop == 0.3
    assert "ignores it" in line(found, "stop_text_encoder_training").note
    assert gui(stop_text_encoder_training=0).config.adapter.text_stop == 1
