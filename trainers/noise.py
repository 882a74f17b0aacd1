"""Forward diffusion: how noise is mixed in, at which levels, and what the denoiser should then predict."""

from typing import Protocol

import torch
from torch import Tensor

from trainers.config import NoiseConfig

TRAIN_STEPS = 1000


class Noise(Protocol):
    """What the recipe asks of a forward process; timesteps are [B] in 0..1000, of a dtype the denoiser takes."""

    prediction: str  # epsilon, v or flow
    snr: Tensor | None  # [1000]: what weightings are made of; None where every level counts alike

    def timesteps(self, count: int, generator: torch.Generator) -> Tensor:
        """[count] random levels, stratified: one per equal share of the trained range."""

    def levels(self, count: int) -> Tensor:
        """[count] fixed levels spread over the trained range."""

    def noise_like(self, latents: Tensor, generator: torch.Generator) -> Tensor:
        """Noise for latents [B, C, h, w]."""

    def corrupt(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """Noisy latents and what the denoiser should predict, both [B, C, h, w]."""


def build_noise(scheduler: dict, config: NoiseConfig, device: torch.device) -> Noise:
    """The forward process that a base's scheduler config describes."""
    kind = FlowNoise if scheduler.get("prediction_type") == "flow" else DdpmNoise
    return kind(scheduler, config, device)


def alphas_cumprod(scheduler: dict) -> Tensor:
    """The table of alpha-bar [1000] that a diffusers scheduler config describes, in fp32 [Ho et al. 2020]."""
    steps = scheduler.get("num_train_timesteps", TRAIN_STEPS)
    low, high = scheduler.get("beta_start", 0.00085), scheduler.get("beta_end", 0.012)
    match scheduler.get("beta_schedule", "scaled_linear"):
        case "scaled_linear":
            betas = torch.linspace(low**0.5, high**0.5, steps, dtype=torch.float32) ** 2
        case "linear":
            betas = torch.linspace(low, high, steps, dtype=torch.float32)
        case other:
            raise ValueError(f"beta schedule {other}")
    alphas = torch.cumprod(1 - betas, dim=0)
    return _to_zero_snr(alphas) if scheduler.get("rescale_betas_zero_snr") else alphas


def _to_zero_snr(alphas: Tensor) -> Tensor:
    """Shift and scale sqrt(alpha-bar) so that the last is 0 and the first stays [Lin et al. 2024, algorithm 1]."""
    roots = alphas.sqrt()
    first, last = roots[0], roots[-1]
    return ((roots - last) * first / (first - last)) ** 2


class DdpmNoise:
    """Variance-preserving diffusion with epsilon or v targets; all tables live on `device`."""

    def __init__(self, scheduler: dict, config: NoiseConfig, device: torch.device):
        alphas = alphas_cumprod(scheduler)
        self.prediction = "v" if scheduler.get("prediction_type", "epsilon").startswith("v") else "epsilon"
        self.snr = (alphas / (1 - alphas)).to(device)  # [1000]
        self.signal, self.sigma = alphas.sqrt().to(device), (1 - alphas).sqrt().to(device)  # [1000] each
        self.low, self.high = config.timestep_min, config.timestep_max
        self.offset = config.offset

    def timesteps(self, count: int, generator: torch.Generator) -> Tensor:
        """[count] int64 on the generator's device, one per equal slice of the trained range (stratified)."""
        place = stratified(count, generator)
        return (place * (self.high - self.low + 1)).long().clamp_(max=self.high - self.low) + self.low

    def levels(self, count: int) -> Tensor:
        """[count] int64: the middles of `count` equal slices of the trained range."""
        middles = (torch.arange(count) + 0.5) / count
        return (middles * (self.high - self.low + 1)).long() + self.low

    def noise_like(self, latents: Tensor, generator: torch.Generator) -> Tensor:
        return offset_noise(latents, self.offset, generator)

    def corrupt(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """Mix noise into clean latents and say what the denoiser should predict.

        x_t = signal_t x_0 + sigma_t noise; target = noise (epsilon), or signal_t noise - sigma_t x_0 (v)
        [Ho et al. 2020; Salimans & Ho 2022].

        Args:
            latents: [B, C, h, w], scaled by the family's LatentSpec, fp32.
            noise: [B, C, h, w].
            timesteps: [B] int64 in 0..999.

        Returns:
            x_t and target, both [B, C, h, w].
        """
        signal = self.signal[timesteps].view(-1, 1, 1, 1)
        sigma = self.sigma[timesteps].view(-1, 1, 1, 1)
        noisy = torch.addcmul(signal * latents, sigma, noise)
        if self.prediction == "epsilon":
            return noisy, noise
        return noisy, torch.addcmul(signal * noise, sigma, latents, value=-1)


class FlowNoise:
    """Rectified flow: straight lines from picture to noise [Liu et al. 2023; Esser et al. 2024]."""

    prediction = "flow"
    snr = None

    def __init__(self, scheduler: dict, config: NoiseConfig, device: torch.device):
        self.shift = config.shift or scheduler.get("shift", 1.0)
        self.density, self.mean, self.std = config.density, config.logit_mean, config.logit_std
        self.low, self.high, self.offset = config.timestep_min, config.timestep_max, config.offset

    def timesteps(self, count: int, generator: torch.Generator) -> Tensor:
        """[count] fp32: levels drawn from the density, then shifted."""
        return self._at(stratified(count, generator))

    def levels(self, count: int) -> Tensor:
        """[count] fp32: the quantiles of the density in the middle of equal shares."""
        return self._at((torch.arange(count) + 0.5) / count)

    def noise_like(self, latents: Tensor, generator: torch.Generator) -> Tensor:
        return offset_noise(latents, self.offset, generator)

    def corrupt(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """x_s = (1 - s) x_0 + s noise with s = timestep / 1000; target = noise - x_0.

        Args:
            latents: [B, C, h, w], shifted and scaled by the family's LatentSpec, fp32.
            noise: [B, C, h, w].
            timesteps: [B] in 0..1000.
        """
        level = (timesteps / TRAIN_STEPS).view(-1, 1, 1, 1)
        return torch.lerp(latents, noise, level), noise - latents

    def _at(self, share: Tensor) -> Tensor:
        """Quantiles [B] in 0..1 of the density -> timesteps; s -> shift s / (1 + (shift - 1) s) [Esser et al. 2024]."""
        level = share
        if self.density == "logit_normal":
            inside = share.clamp(1e-5, 1 - 1e-5)
            level = torch.sigmoid(self.mean + self.std * _normal_quantiles(inside))
        level = self.shift * level / (1 + (self.shift - 1) * level)
        return self.low + (self.high + 1 - self.low) * level


def _normal_quantiles(share: Tensor) -> Tensor:
    """Of the standard normal distribution. torch has them for CPUs and CUDA; elsewhere a CPU makes these few."""
    place = share.device
    return torch.special.ndtri(share if place.type == "cuda" else share.cpu()).to(place)


def stratified(count: int, generator: torch.Generator) -> Tensor:
    """[count] in 0..1 on the generator's device, one per equal slice."""
    place = torch.rand(count, generator=generator, device=generator.device)
    return (place + torch.arange(count, device=generator.device)) / count


def offset_noise(latents: Tensor, offset: float, generator: torch.Generator) -> Tensor:
    """Unit normal like `latents`, plus `offset` times one normal number per channel [Guttenberg 2023]."""
    noise = torch.randn(latents.shape, generator=generator, device=latents.device, dtype=latents.dtype)
    if offset:
        shape = (*latents.shape[:2], 1, 1)
        noise += offset * torch.randn(shape, generator=generator, device=latents.device, dtype=latents.dtype)
    return noise
