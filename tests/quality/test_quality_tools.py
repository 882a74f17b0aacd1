"""The measuring tools measure what they say, shown on made-up pictures: the real drawings are not needed for it."""

import pytest
import torch
from diffusers import DDPMScheduler
from PIL import Image

from assets.concepts import draw_mascot, gather_fluent
from tests.quality import renderings
from tests.quality.judge import Judge, varied
from tests.quality.likeness import likeness
from tests.quality.measure import psnr
from tests.quality.plain_peft import read_concept, target_of
from tests.quality.sheets import save_sheet

torch.set_num_threads(1)
CONCEPTS = renderings.RECIPE.parents[1] / "concepts"


def pictures(count: int = 8) -> torch.Tensor:
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    return torch.nn.functional.interpolate(coarse, 64) * 2 - 1


def test_the_held_out_words_are_64_of_the_320_base_words():
    words, held_out = renderings.base_words(), renderings.held_out_words()
    assert len(set(words)) == len(words) == 320
    assert len(set(held_out)) == len(held_out) == 64
    assert set(held_out) < set(words)


def test_the_fluent_concept_shows_40_words_and_none_of_the_held_out():
    pixels, captions = read_concept(CONCEPTS / "fluent", 64)
    assert pixels.shape == (40, 3, 64, 64)
    assert {caption.removeprefix("a fluent style ") for caption in captions} == set(gather_fluent.chosen_words())
    assert not set(gather_fluent.chosen_words()) & set(renderings.held_out_words())


def test_the_mascot_pictures_are_what_the_program_draws():
    for name in draw_mascot.POSES:
        kept = CONCEPTS / "mascot" / f"{name}.png"
        with Image.open(kept) as picture:
            assert picture.size == (256, 256)
        assert "zibbo" in kept.with_suffix(".txt").read_text(encoding="utf-8")
    name, pose = "standing", draw_mascot.POSES["standing"]
    with Image.open(CONCEPTS / "mascot" / f"{name}.png") as kept:
        difference = renderings.as_tensor([draw_mascot.draw(pose), kept])
    assert (difference[0] - difference[1]).abs().mean() < 0.01  # Pillow versions may round an edge differently


def test_style_probabilities_are_one_row_of_three_per_picture_and_sum_to_one():
    probabilities = Judge().style_probability(pictures())
    assert probabilities.shape == (8, 3)
    assert torch.allclose(probabilities.sum(1), torch.ones(8))


def test_varying_keeps_white_pictures_white_up_to_noise():
    white = torch.ones(4, 3, 64, 64)
    assert varied(white, torch.Generator().manual_seed(0)).mean() > 0.95


def test_true_pictures_are_nearest_to_themselves_and_rotated_ones_are_not():
    truth = pictures()
    assert likeness(truth, truth).top(1) == 1
    assert likeness(truth.roll(1, 0), truth).top(1) == 0


def test_psnr_of_a_constant_error_of_a_tenth_of_the_range_is_20_db():
    assert abs(psnr(torch.zeros(2, 3, 8, 8), torch.full((2, 3, 8, 8), 0.2)) - 20) < 1e-4


def test_a_sheet_has_a_labelled_cell_for_every_picture(tmp_path):
    save_sheet(renderings.as_pictures(pictures(9)), [f"word {i}" for i in range(9)], tmp_path / "a" / "sheet.png")
    with Image.open(tmp_path / "a" / "sheet.png") as sheet:
        assert sheet.size == (8 * 128, 2 * 144)


def test_pictures_become_tensors_and_come_back_unchanged():
    pixels = renderings.as_tensor(renderings.as_pictures(pictures()))
    assert torch.allclose(pixels, renderings.as_tensor(renderings.as_pictures(pixels)))


def test_the_reference_loop_aims_at_what_the_base_predicts():
    latents, noise, timesteps = torch.ones(2, 4, 2, 2), torch.zeros(2, 4, 2, 2), torch.tensor([0, 999])
    assert target_of(DDPMScheduler(), latents, noise, timesteps) is noise
    velocity = target_of(DDPMScheduler(prediction_type="v_prediction"), latents, noise, timesteps)
    expected = -(1 - DDPMScheduler().alphas_cumprod[timesteps]).sqrt()  # v = sqrt(a) noise - sqrt(1 - a) latents
    assert torch.allclose(velocity[:, 0, 0, 0], expected)
    with pytest.raises(ValueError, match="sample"):
        target_of(DDPMScheduler(prediction_type="sample"), latents, noise, timesteps)
