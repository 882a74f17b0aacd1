"""One optimizer step: the part of a run that repeats, and that `darkroom bench` times."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from trainers import devices, optimizers
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
from trainers.ranks import ALL, Ranks, cut
from trainers.schedules import build_schedule
from trainers.stores import Feed, Seen

STREAM = 1 << 32  # micro-steps per seed: every one has a random stream of its own
Inputs = tuple[Tensor | None, ...]
ErrorOf = Callable[..., Tensor]  # inputs -> a loss, a scalar on the device


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
    parts: int  # in which a micro-batch is computed, one after the other
    seed: int
    tokens: NewTokens | None
    ema: Ema | None
    preservation: Preservation | None
    mark: Callable[[str], None] = lambda phase: None  # told what begins: forward, backward, optimizer
    mend: Callable[[Exception], bool] | None = None  # asked when a pass fails: whether to do the step again
    careful: bool = False  # look at every step's numbers before they are used: that waits for the device
    exact: bool = False  # let a GPU add up in the same order every time
    held: Callable[[], AbstractContextManager[None]] = nullcontext  # what holds while it computes, not always (bench)
    ranks: Ranks = field(default_factory=Ranks)  # who else does a part of each step
    recorded: Callable[[ErrorOf, Inputs, float], Tensor] | None = None  # does `both_passes`' work (graphs.py)
    whole: bool = True  # not while the weights are changed: between two steps, and while gradients are computed
    total: Tensor = field(init=False)  # sum of micro-step losses since the last `mean_loss`, on the device
    _generator: torch.Generator = field(init=False)
    _counted: int = 0

    def __post_init__(self) -> None:
        device = self.feed.text.device
        self.total, self._generator = torch.zeros((), device=device), torch.Generator(device)

    def __call__(self, step: int) -> None:
        """Do step number `step` (from 0); its data, noise and dropout follow from (seed, step) alone.

        It never waits for the device, but where a pass is recorded.

        Raises:
            Overflowed: it is `careful`, and a loss or gradient is not finite; nothing is changed then.
        """
        total = self.total
        while not self._gradients_or_mended(step):  # out here nothing of a failed pass is held any more
            self.total = total
            self.optimizer.zero_grad()
        if self.ranks.count > 1:
            self.total = total + self.ranks.add_up(self.parameters, self.total - total)
        self.update(step)

    def _gradients_or_mended(self, step: int) -> bool:
        """Whether the passes are done; False where one failed and can be done again otherwise."""
        try:
            self.gradients(step)
        except Exception as error:  # whatever a compiler raises
            if self.mend and self.mend(error):
                return False
            raise
        return True

    def gradients(self, step: int) -> None:
        """Forward and backward passes of the step's micro-batches, as far as they are this process's."""
        for number in self.ranks.micro_steps(step, self.accumulation):
            self.total = self.total + self.micro_step(number)  # a new tensor: a step that fails begins at the old one

    def micro_step(self, number: int) -> Tensor:
        """Look at one micro-batch and add its gradients, those of output preservation too; its loss without that."""
        with self.held():
            return self._micro_step(number)

    def _micro_step(self, number: int) -> Tensor:
        seen, losses = self.look(number), []
        kept = None
        if self.preservation and self.preservation.due(number):
            kept = self.preservation.look(number, seen, self._generator)
        with devices.exactly(self.exact):
            for pictures in self.ranks.pictures(self.accumulation, self.parts):
                losses.append(self.learn(self.error, *self.inputs(seen, pictures)))
                if kept:
                    self.learn(self.preservation.error, *self.preservation.inputs(kept, pictures))
        return sum(losses[1:], start=losses[0])

    def look(self, number: int) -> Seen:
        """Draw the micro-batch's pictures, captions, timesteps and noise."""
        seed = self.seed * STREAM + number
        self._generator.manual_seed(seed)
        torch.manual_seed(seed)  # dropout inside modules draws from here
        batch = self.feed.batch(number, self._generator)
        timesteps = self.noise.timesteps(len(batch.latents), self._generator)
        noise = self.noise.noise_like(batch.latents, self._generator)
        noisy, target = self.noise.corrupt(batch.latents, noise, timesteps)
        return Seen(batch, noisy.to(self.dtype), target, timesteps)

    def inputs(self, seen: Seen, pictures: slice = ALL) -> tuple[float, Inputs]:
        """(the share of these pictures in the batch, what `error` takes of them)."""
        whole = (seen.noisy, seen.target, seen.timesteps, seen.batch.captions, seen.batch.sizes)
        share, noisy, target, timesteps, captions, sizes = cut(pictures, *whole)
        return share, (noisy, target, timesteps, captions, sizes, *self.feed.text.known(captions, self.dtype))

    def error(
        self,
        noisy: Tensor,
        target: Tensor,
        timesteps: Tensor,
        captions: Tensor,
        sizes: Tensor | None,
        embeds: Tensor | None,
        pooled: Tensor | None,
    ) -> Tensor:
        """The mean loss of some pictures; embeds and pooled are what `TextStore.known` says of their captions."""
        conditioning = self.feed.text.told(captions, embeds, pooled, self.dtype).sized(sizes)
        return self.loss(self.family.denoise(self.denoiser, noisy, timesteps, conditioning), target, timesteps)

    def learn(self, error_of: ErrorOf, share: float, inputs: Inputs) -> Tensor:
        """Add the gradients of a `share` of error_of(*inputs) to the parameters'; returns that share."""
        if self.recorded and share:
            return self.recorded(error_of, inputs, share)
        return self.both_passes(error_of, inputs, share)

    def both_passes(self, error_of: ErrorOf, inputs: Inputs, share: float = 1.0) -> Tensor:
        """`learn`, operator by operator."""
        if not share:
            return torch.zeros_like(self.total)
        self.mark("forward")
        error = error_of(*inputs)
        error = error if share == 1 else share * error
        self.mark("backward")
        if error.requires_grad:  # not where module dropout has left out every layer
            self.accelerator.backward(error)  # divides by the accumulation, scales fp16
        return error.detach()

    @contextmanager
    def unscaled(self) -> Iterator[None]:
        """Inside, gradients in fp16 are not multiplied."""
        scaler, self.accelerator.scaler = self.accelerator.scaler, None
        try:
            yield
        finally:
            self.accelerator.scaler = scaler

    def update(self, step: int) -> None:
        """Let the optimizer take the gradients, where there are any: module dropout can have left out every layer."""
        self.mark("optimizer")
        norm, learnt = None, any(parameter.grad is not None for parameter in self.parameters)
        if learnt and (self.clip_norm or self.careful):
            if scaler := self.accelerator.scaler:
                scaler.unscale_(self.optimizer.optimizer)
            norm = optimizers.clip(self.parameters, self.clip_norm or math.inf)
        if self.careful:
            self._refuse_overflow(step, norm)
        self.whole = False
        if learnt:  # what scales fp16 asks for gradients
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
        cpu=plan.device.type == "cpu", mixed_precision="no", gradient_accumulation_steps=config.optimizer.accumulation
    )
    if plan.precision == "fp16":  # ours: accelerate would keep the process at the first precision that it is told
        accelerator.scaler = torch.amp.GradScaler(plan.device.type)
    parameters = [*adapter.denoiser_parameters(), *adapter.text_parameters(), *adapter.token_parameters()]
    weights = [(place[0], dotted(place), name, parameter) for place, name, parameter in adapter.trained()]
    groups = optimizers.parameter_groups(weights, config.optimizer)
    if adapter.tokens:
        groups.append(optimizers.token_group(adapter.token_parameters(), config.optimizer))
    optimizer, adjusted = optimizers.build_optimizer(groups, config.optimizer, plan.device)
    if adjusted:
        report(adjusted)
    if config.optimizer.ema and not config.optimizer.averages:
        report(Adjusted("No moving average is kept", "The schedule-free optimizer saves an average of its own."))
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
        parts=config.memory.parts,
        seed=config.seed,
        tokens=adapter.tokens,
        ema=Ema(parameters, config.optimizer.ema_decay) if config.optimizer.averages else None,
        preservation=preservation,
    )
