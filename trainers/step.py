"""One optimizer step: the part of a run that repeats, and that `darkroom bench` times."""

from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from trainers.ema import Ema
from trainers.families.base import Family
from trainers.loss import Loss
from trainers.noise import DdpmNoise
from trainers.stores import Feed

STREAM = 1 << 32  # micro-steps per seed: every one has a random stream of its own


@dataclass
class TrainingStep:
    """Everything one step touches; calling it with a step number does that step."""

    feed: Feed
    noise: DdpmNoise
    loss: Loss
    family: Family
    denoiser: nn.Module
    dtype: torch.dtype
    accelerator: Accelerator
    optimizer: torch.optim.Optimizer
    schedule: LRScheduler
    parameters: list[nn.Parameter]
    clip_norm: float
    accumulation: int
    seed: int
    ema: Ema | None
    total: Tensor = field(init=False)  # sum of micro-step losses since the last `mean_loss`, on the device
    _generator: torch.Generator = field(init=False)
    _counted: int = 0

    def __post_init__(self) -> None:
        device = self.feed.text.device
        self.total, self._generator = torch.zeros((), device=device), torch.Generator(device)

    def __call__(self, step: int) -> None:
        """Do step number `step` (from 0); its data, noise and dropout follow from (seed, step) alone. No host sync."""
        for micro_step in range(step * self.accumulation, (step + 1) * self.accumulation):
            error = self.micro_step(micro_step)
            self.accelerator.backward(error)  # divides by the accumulation, scales fp16
            self.total += error.detach()
        if self.clip_norm:
            self.accelerator.clip_grad_norm_(self.parameters, self.clip_norm)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        if self.ema:
            self.ema.update(step + 1)
        self._counted += self.accumulation

    def micro_step(self, number: int) -> Tensor:
        """The loss of one micro-batch: timesteps, noise, target, prediction, weighted error."""
        seed = self.seed * STREAM + number
        self._generator.manual_seed(seed)
        torch.manual_seed(seed)  # dropout inside modules draws from here
        batch = self.feed.batch(number, self._generator)
        timesteps = self.noise.timesteps(len(batch.latents), self._generator)
        noise = self.noise.noise_like(batch.latents, self._generator)
        noisy, target = self.noise.corrupt(batch.latents, noise, timesteps)
        conditioning = self.feed.text.conditioning(batch.captions).to(self.dtype)
        prediction = self.family.denoise(self.denoiser, noisy.to(self.dtype), timesteps, conditioning)
        return self.loss(prediction, target, timesteps)

    def mean_loss(self) -> float:
        """Mean loss since the last call. Waits for the device: call it every few steps only."""
        mean = self.total.item() / max(1, self._counted)
        self.total.zero_()
        self._counted = 0
        return mean
