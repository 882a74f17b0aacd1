"""Forward diffusion against diffusers' schedulers and closed forms."""

import pytest
import torch
from diffusers import DDPMScheduler

from trainers.config import LossConfig, NoiseConfig
from trainers.loss import WEIGHTINGS, Loss
from trainers.noise import DdpmNoise

CPU = torch.device("cpu")
SD15 = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}


def noise_for(prediction: str = "epsilon", **settings: object) -> DdpmNoise:
    return DdpmNoise(SD15 | {"prediction_type": prediction}, NoiseConfig(**settings), CPU)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_corruption_and_targets_are_those_of_diffusers(prediction):
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 8, 4, 4, 4, generator=generator).unbind()
    timesteps = torch.tensor([0, 1, 10, 250, 500, 750, 998, 999])
    reference = DDPMScheduler(**SD15, prediction_type=prediction)
    noisy, target = noise_for(prediction).corrupt(latents, noise, timesteps)
    torch.testing.assert_close(noisy, reference.add_noise(latents, noise, timesteps))
    wanted = noise if prediction == "epsilon" else reference.get_velocity(latents, noise, timesteps)
    torch.testing.assert_close(target, wanted)


def test_snr_is_alpha_over_one_minus_alpha():
    reference = DDPMScheduler(**SD15).alphas_cumprod
    torch.testing.assert_close(noise_for().snr, reference / (1 - reference))


def test_zero_terminal_snr_is_that_of_diffusers_and_ends_in_pure_noise():
    scheduler = SD15 | {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    noise, reference = DdpmNoise(scheduler, NoiseConfig(), CPU), DDPMScheduler(**scheduler)
    torch.testing.assert_close(noise.signal**2, reference.alphas_cumprod, rtol=1e-4, atol=1e-6)
    assert noise.snr[-1] == 0
    for weighting in WEIGHTINGS:
        weights = Loss(LossConfig(weighting=weighting), noise.snr, noise.prediction).weights
        assert weights is None or weights.isfinite().all()


def test_every_batch_covers_the_range_in_equal_slices():
    timesteps = noise_for().timesteps(10, torch.Generator().manual_seed(3))
    assert (timesteps // 100).tolist() == list(range(10))


def test_timesteps_stay_within_the_asked_range():
    noise = noise_for(timestep_min=200, timestep_max=299)
    drawn = torch.cat([noise.timesteps(7, torch.Generator().manual_seed(i)) for i in range(200)])
    assert drawn.min() == 200 and drawn.max() == 299


def test_offset_shifts_whole_channels():
    latents = torch.zeros(2, 4, 8, 8)
    plain = noise_for().noise_like(latents, torch.Generator().manual_seed(1))
    shifted = noise_for(offset=0.1).noise_like(latents, torch.Generator().manual_seed(1))
    difference = shifted - plain
    torch.testing.assert_close(difference, difference[..., :1, :1].expand_as(difference))
    assert difference.std() > 0.01
