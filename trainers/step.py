"""One optimizer step: the part of a run that repeats, and that `darkroom bench` times."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from trainers import optimizers
from trainers.adapters.adapter import Adapter
from trainers.adapters.targets import dotted
from trainers.adapters.tokens import NewTokens
from trainers.config import TrainConfig
from trainers.ema import Ema
from trainers.errors import Overflowed
from trainers.events import Adjusted
from trainers.families.base import Components, Conditioning, Family
from trainers.families.frugal import frugal
from trainers.loss import Loss
from trainers.memory import Plan
from trainers.noise import Noise, build_noise
from trainers.preservation import ClassPictures, Preservation
from trainers.ranks import Ranks, cut
from trainers.schedules import build_schedule
from trainers.stores import Batch, Feed

STREAM = 1 << 32  # micro-steps per seed: every one has a random stream of its own
Seen = tuple[Batch, Tensor, Tensor]  # noisy latents [B, C, h, w], timesteps [B]


@dataclass
class TrainingStep:
    """Everything one step touches; calling it with a step number does that step."""

    feed: Feed
    noise: Noise
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
    tokens: NewTokens | None
    ema: Ema | None
    preservation: Preservation | None
    mark: Callable[[str], None] = lambda phase: None  # told what begins: forward, backward, optimizer
    mend: Callable[[Exception], bool] | None = None  # asked when a pass fails: whether to do the step again
    careful: bool = False  # look at every step's numbers before they are used: that waits for the device
    ranks: Ranks = field(default_factory=Ranks)  # who else does a part of each step
    whole: bool = True  # not while the weights are changed: between two steps, and while gradients are computed
    total: Tensor = field(init=False)  # sum of micro-step losses since the last `mean_loss`, on the device
    _generator: torch.Generator = field(init=False)
    _counted: int = 0

    def __post_init__(self) -> None:
        device = self.feed.text.device
        self.total, self._generator = torch.zeros((), device=device), torch.Generator(device)

    def __call__(self, step: int) -> None:
        """Do step number `step` (from 0); its data, noise and dropout follow from (seed, step) alone. No host sync.

        Raises:
            Overflowed: it is `careful`, and a loss or gradient is not finite; nothing is changed then.
        """
        total, failed = self.total, False
        try:
            self.gradients(step)
        except Exception as error:  # whatever a compiler raises
            failed = bool(self.mend and self.mend(error))
            if not failed:
                raise
        if failed:  # out here nothing of the failed pass is held any more
            self.total = total
            self.optimizer.zero_grad()
            self.gradients(step)
        if self.ranks.count > 1:
            self.total = total + self.ranks.add_up(self.parameters, self.total - total)
        self.update(step)

    def gradients(self, step: int) -> None:
        """Forward and backward passes of the step's micro-batches, as far as they are this process's."""
        for micro_step in self.ranks.micro_steps(step, self.accumulation):
            self.mark("forward")
            error, seen = self.micro_step(micro_step)
            self.mark("backward")
            if error.requires_grad:  # not where module dropout has left out every layer
                self.accelerator.backward(error)  # divides by the accumulation, scales fp16
            self.total = self.total + error.detach()  # a new tensor: a step that fails is done again from the old one
            if self.preservation and self.preservation.due(micro_step):
                self.mark("forward")
                kept = self.preservation(micro_step, *seen, self._generator, self.ranks.pictures(self.accumulation))
                self.mark("backward")
                if kept.requires_grad:
                    self.accelerator.backward(kept)

    def update(self, step: int) -> None:
        """Let the optimizer take the gradients."""
        self.mark("optimizer")
        norm = None
        if self.clip_norm:
            self.accelerator.unscale_gradients(self.optimizer)
            norm = optimizers.clip(self.parameters, self.clip_norm)
        if self.careful:
            self._refuse_overflow(step, norm)
        self.whole = False
        self.optimizer.step()
        for rows, factors in self.tokens.stretches() if self.tokens else ():
            optimizers.multiply(self.optimizer, rows, factors)
        self.schedule.step()
        self.optimizer.zero_grad()
        if self.ema:
            self.ema.update(step + 1)
        self.whole = True
        self._counted += self.accumulation

    def _refuse_overflow(self, step: int, norm: Tensor | None) -> None:
        if not self.total.isfinite():
            raise Overflowed(f"The loss became {self.total.item()}", step + 1)
        if norm is not None and not norm.isfinite():
            raise Overflowed(f"The gradient's norm became {norm.item()}", step + 1)

    def micro_step(self, number: int) -> tuple[Tensor, Seen]:
        """The loss of one micro-batch (timesteps, noise, target, prediction, weighted error), and what it looked at."""
        seed = self.seed * STREAM + number
        self._generator.manual_seed(seed)
        torch.manual_seed(seed)  # dropout inside modules draws from here
        batch = self.feed.batch(number, self._generator)
        timesteps = self.noise.timesteps(len(batch.latents), self._generator)
        noise = self.noise.noise_like(batch.latents, self._generator)
        noisy, target = self.noise.corrupt(batch.latents, noise, timesteps)
        noisy = noisy.to(self.dtype)
        return self._error(batch, noisy, target, timesteps), (batch, noisy, timesteps)

    def _error(self, batch: Batch, noisy: Tensor, target: Tensor, timesteps: Tensor) -> Tensor:
        """The share in the batch's mean loss of the pictures that are this process's."""
        whole = (noisy, target, timesteps, batch.captions, batch.sizes)
        share, noisy, target, timesteps, captions, sizes = cut(self.ranks.pictures(self.accumulation), *whole)
        if not share:
            return torch.zeros_like(self.total)
        conditioning = self.feed.text.conditioning(captions).to(self.dtype).sized(sizes)
        prediction = self.family.denoise(self.denoiser, noisy, timesteps, conditioning)
        error = self.loss(prediction, target, timesteps)
        return error if share == 1 else share * error

    def mean_loss(self) -> float:
        """Mean loss since the last call. Waits for the device: call it every few steps only."""
        mean = self.total.item() / max(1, self._counted)
        self.total.zero_()
        self._counted = 0
        return mean


def build_step(
    config: TrainConfig,
    plan: Plan,
    family: Family,
    components: Components,
    adapter: Adapter,
    feed: Feed,
    base_text: Conditioning | None,
    drawn: ClassPictures | None,
    steps: int,
    report: Callable[[Adjusted], None],
) -> TrainingStep:
    """The step that the settings describe, its optimizer and schedule at their start; `steps` is the run's length.

    `base_text` and `drawn` are for output preservation: every caption as the text encoders without an adapter encode
    it, and the base's own pictures.
    """
    frugal(components.denoiser)
    accelerator = Accelerator(
        cpu=plan.device.type == "cpu",
        mixed_precision="fp16" if plan.precision == "fp16" else "no",  # for the gradient scaler; we cast the weights
        gradient_accumulation_steps=config.optimizer.accumulation,
    )
    parameters = [*adapter.denoiser_parameters(), *adapter.text_parameters(), *adapter.token_parameters()]
    weights = [(place[0], dotted(place), name, parameter) for place, name, parameter in adapter.trained()]
    groups = optimizers.parameter_groups(weights, config.optimizer)
    if adapter.tokens:
        groups.append(optimizers.token_group(adapter.token_parameters(), config.optimizer))
    optimizer, adjusted = optimizers.build_optimizer(groups, config.optimizer, plan.device)
    if adjusted:
        report(adjusted)
    schedule = build_schedule(config.schedule, optimizer, steps)
    noise = build_noise(components.scheduler, config.noise, plan.device)
    loss = Loss(config.loss, noise.snr, noise.prediction)
    preservation = None
    if config.loss.preservation:
        kept = (feed, base_text, drawn, noise, loss)
        preservation = Preservation(config.loss, adapter, family, components.denoiser, *kept)
    return TrainingStep(
        feed=feed,
        noise=noise,
        loss=loss,
        family=family,
        denoiser=components.denoiser,
        dtype=plan.dtype,
        accelerator=accelerator,
        optimizer=accelerator.prepare(optimizer),
        schedule=schedule,
        parameters=parameters,
        clip_norm=config.optimizer.clip_norm,
        accumulation=config.optimizer.accumulation,
        seed=config.seed,
        tokens=adapter.tokens,
        ema=Ema(parameters, config.optimizer.ema_decay) if config.optimizer.ema else None,
        preservation=preservation,
    )
