"""Forward diffusion against diffusers' schedulers and closed forms."""

import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler

from trainers.config import LossConfig, NoiseConfig
from trainers.loss import WEIGHTINGS, Loss
from trainers.noise import DdpmNoise, FlowNoise, build_noise

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


def flow(**settings) -> FlowNoise:
    return build_noise({"prediction_type": "flow", "shift": 3.0}, NoiseConfig(**settings), torch.device("cpu"))


def test_flow_mixes_on_a_straight_line_and_predicts_its_direction():
    noise, generator = flow(), torch.Generator().manual_seed(0)
    latents, extra = torch.randn(3, 16, 4, 4, generator=generator), torch.randn(3, 16, 4, 4, generator=generator)
    noisy, target = noise.corrupt(latents, extra, torch.tensor([0.0, 250.0, 1000.0]))
    torch.testing.assert_close(noisy[0], latents[0])
    torch.testing.assert_close(noisy[1], 0.75 * latents[1] + 0.25 * extra[1])
    torch.testing.assert_close(noisy[2], extra[2])
    torch.testing.assert_close(target, extra - latents)


def test_flow_levels_are_shifted_as_in_diffusers():
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)  # its sigmas are the shifted 1000 / 1000 ... 1 / 1000
    ours = flow(density="uniform")._at(torch.arange(1000, 0, -1) / 1000) / 1000
    torch.testing.assert_close(ours, scheduler.sigmas[:1000])


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.5, 0.6)])
def test_flow_levels_follow_the_logit_normal_density(mean, std):
    noise = flow(shift=1.0, logit_mean=mean, logit_std=std)
    levels = noise.timesteps(20_000, torch.Generator().manual_seed(0)) / 1000
    logits = torch.logit(levels.double())
    assert abs(logits.mean() - mean) < 0.01 and abs(logits.std() - std) < 0.01
    drawn = torch.sigmoid(mean + std * torch.randn(20_000, generator=torch.Generator().manual_seed(1)))
    quantiles = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95])
    torch.testing.assert_close(levels.quantile(quantiles), drawn.quantile(quantiles), rtol=0.03, atol=0)


def test_a_flow_has_no_signal_to_noise_weights():
    assert Loss(LossConfig(weighting="min_snr"), flow().snr, "flow").weights is None


def test_flow_levels_keep_to_the_trained_range():
    levels = flow(timestep_min=200, timestep_max=799).timesteps(1000, torch.Generator().manual_seed(0))
    assert levels.min() >= 200 and levels.max() <= 800
