"""The two loops that are compared: Darkroom's own step, and the barest peft loop there is."""

import copy
import math
import re
from collections.abc import Callable
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from trainers import attention, devices
from trainers.adapters.adapter import DENOISER, Place
from trainers.adapters.registry import ADAPTERS
from trainers.adapters.tokens import start_tokens
from trainers.compiling import compile_blocks
from trainers.config import TrainConfig
from trainers.data.batches import Batches
from trainers.data.types import Bucket, Crop
from trainers.errors import UserError
from trainers.events import Warned
from trainers.families.base import Components, Conditioning, Family, LatentSpec, plain_sizes
from trainers.families.residence import bring, release
from trainers.graphs import record_passes
from trainers.latents import LatentStore
from trainers.libraries import diffusers, peft
from trainers.memory import Plan
from trainers.memory.decide import decide, draws
from trainers.memory.saving import Saving, apply
from trainers.memory.settle import settle
from trainers.prepacked import prepack
from trainers.step import TrainingStep, build_step
from trainers.stores import Feed, TextStore
from trainers.trial import Way

PICTURES = 8  # at least, and as many more as fill the last batch


def engine_step(
    family: Family,
    components: Components,
    config: TrainConfig,
    plan: Plan,
    steps: int,
    before: Saving | None = None,
) -> TrainingStep:
    """Darkroom's step on random latents of the training resolution; everything else is what a run uses.

    `before`: how memory is to be saved if that fits.
    """
    device, latent = plan.device, components.latent
    side = components.side(config.data.resolution or components.resolution)
    bucket = Bucket(side * latent.factor, side * latent.factor)
    generator = torch.Generator().manual_seed(0)
    size = (bucket.height, bucket.width)
    sizes = family.sizes(size, (0, 0), size)
    latents = LatentStore(LatentSpec(latent.channels, latent.factor, 1.0), device)
    count = config.data.batch_size * math.ceil(PICTURES / config.data.batch_size)
    for i in range(count):
        mean = torch.randn(latent.channels, side, side, generator=generator)
        for mirrored in {False, config.data.flip}:
            latents.add(i, mirrored, bucket, mean, torch.full_like(mean, -10.0), sizes)
    latents.seal()
    captions = [[f"a picture of thing {i}"] for i in range(count)]
    preserved = [[""]] * count
    if config.adapter.trains_text:
        for encoder in components.text_encoders:
            bring(encoder, device)
    tokens = start_tokens(components, family.spec, config)
    text = TextStore([*(c[0] for c in captions), ""], family, components, config.model.clip_skip, device)
    base_text = text.encode_all(None, lambda *_: None)
    if not config.adapter.trains_text:
        text.cached = base_text
        for encoder in components.text_encoders:
            release(encoder)
    saving, *_ = decide(family, components, config, plan, before=before)
    settle(components.denoiser, config.memory.quantize, saving, device)
    hollow = isinstance(next(components.denoiser.parameters()), FakeTensor)  # there are no numbers (models.py)
    if not hollow:
        prepack(components.denoiser, config.memory, saving)
    held = _attention(family, components, config, plan, text, hollow)
    adapter = ADAPTERS[config.adapter.type](components, family.spec, config.adapter, config.seed)
    adapter.train_tokens(tokens)
    crop = Crop(bucket, (bucket.width, bucket.height), 0, 0, 0.0)
    batches = Batches([crop] * count, [1] * count, config.data.batch_size, config.seed)
    apply(components.denoiser, saving, draws(config.adapter))
    adapter.train()
    feed = Feed(batches, list(range(count)), latents, text, captions, preserved, config)
    steps = max(steps, 100)
    step = build_step(config, plan, family, components, adapter, feed, base_text, None, steps, lambda adjusted: None)
    step.held = held
    return step


def _attention(
    family: Family, components: Components, config: TrainConfig, plan: Plan, text: TextStore, hollow: bool
) -> attention.Held:
    """The kernels that a run takes; of the wish, what needs no trial, where there are no numbers to try them on."""
    wish, resolution = config.memory.attention, config.data.resolution or components.resolution
    if hollow:
        return attention.held_to(["math"]) if wish == "math" else nullcontext
    shapes = attention.attended(family, components, text, resolution, config.at_once)
    with devices.exactly(plan.exact):  # as the steps will be
        return attention.choose(components.denoiser, wish, plan.device, shapes, None).held


class OtherLoop:
    """Darkroom's step with its passes done another way; between its steps they are as before."""

    def __init__(self, step: TrainingStep, way: Way):
        self.step, self.way = step, way
        self.parameters, self.optimizer, self.ema = step.parameters, step.optimizer, step.ema

    @property
    def mark(self) -> Callable[[str], None]:
        return self.step.mark

    @mark.setter
    def mark(self, told: Callable[[str], None]) -> None:
        self.step.mark = told

    def __call__(self, number: int) -> None:
        self.way.put()
        try:
            self.step(number)
        finally:
            self.way.remove()


class CompiledLoop(OtherLoop):
    """With compiled blocks."""

    calls = 0  # of compiled graphs in the step before, forward and backward

    def __call__(self, number: int) -> None:
        before = self.way.calls
        super().__call__(number)
        self.calls = 2 * (self.way.calls - before)


def compiled_loop(step: TrainingStep, config: TrainConfig) -> CompiledLoop | None:
    """The same step compiled, where the settings want it and it works. Raises UserError where it does not."""
    warned: list[Warned] = []
    regions = compile_blocks(step, config, None, lambda said: warned.append(said) if isinstance(said, Warned) else None)
    if warned:
        raise UserError(warned[0].message, warned[0].hint)
    if regions is None:
        return None
    regions.remove()
    step.mend = None  # what fails is to be seen
    return CompiledLoop(step, regions)


def recorded_loop(step: TrainingStep, config: TrainConfig) -> OtherLoop | None:
    """The same step as CUDA graphs, where a run would use them."""
    recorded = record_passes(step, config, lambda event: None)
    if recorded is None:
        return None
    recorded.remove()
    step.mend = None
    return OtherLoop(step, recorded)


class BareLoop:
    """peft and autocast, no features: what one writes in an afternoon. The same rank, layers, sizes and data."""

    def __init__(
        self,
        family: Family,
        components: Components,
        config: TrainConfig,
        plan: Plan,
        told: Conditioning,
        places: list[Place],
    ):
        """`told`: the conditioning of one batch; `places`: of the adapted layers. The components stay as they are."""
        self.family, self.flow = family, components.scheduler.get("prediction_type") == "flow"
        self.models = [self._adapted(components.denoiser, DENOISER, config, plan, places)]
        if config.adapter.trains_text:
            for i, encoder in enumerate(components.text_encoders):
                self.models.append(self._adapted(encoder, f"text_{i}", config, plan, places))
        self.tokens = tuple(ids.to(plan.device) for ids in family.tokenize(components, [""] * config.data.batch_size))
        self.clip_skip, self.accumulation = config.model.clip_skip, config.optimizer.accumulation
        self.denoiser = self.models[0]
        self.parameters = [p for model in self.models for p in model.parameters() if p.requires_grad]
        for parameter in self.parameters:
            parameter.data = parameter.data.float()
        self.optimizer = torch.optim.AdamW(self.parameters, lr=config.optimizer.rate, fused=True)
        self.scheduler = None if self.flow else diffusers.DDPMScheduler.from_config(components.scheduler)
        side = components.side(config.data.resolution or components.resolution)
        shape = (config.data.batch_size, components.latent.channels, side, side)
        self.latents = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(plan.device)
        pixels = side * components.latent.factor
        sizes = plain_sizes(family, pixels, pixels, config.data.batch_size, plan.device)
        self.told, self.sizes = told.on(plan.device).to(plan.dtype), sizes
        self.plan = plan
        if config.memory.checkpointing == "all":
            self.denoiser.enable_gradient_checkpointing()
        self.denoiser.train()
        self.mark: Callable[[str], None] = lambda phase: None

    def _adapted(self, model: nn.Module, part: str, config: TrainConfig, plan: Plan, places: list[Place]) -> nn.Module:
        """A copy of a frozen model with peft's LoRA on it, on the device."""
        model, rank = copy.deepcopy(model).requires_grad_(False), config.adapter.rank
        nn.Module.to(model, plan.device, plan.dtype)
        paths = [re.escape(path) for owner, path in places if owner == part]
        if paths:
            lora = peft.LoraConfig(r=rank, lora_alpha=config.adapter.alpha or rank, target_modules="|".join(paths))
            peft.inject_adapter_in_model(lora, model)
        return model

    def __call__(self, step: int) -> None:
        for _ in range(self.accumulation):
            self._pass()
        self.mark("optimizer")
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _pass(self) -> None:
        self.mark("forward")
        half = self.plan.precision != "fp32"
        noise = torch.randn_like(self.latents)
        timesteps = torch.randint(0, 1000, (len(self.latents),), device=self.latents.device)
        if self.flow:
            noisy = torch.lerp(self.latents, noise, timesteps.view(-1, 1, 1, 1) / 1000)
            target = noise - self.latents
        else:
            noisy = self.scheduler.add_noise(self.latents, noise, timesteps)
            v = self.scheduler.config.prediction_type == "v_prediction"
            target = self.scheduler.get_velocity(self.latents, noise, timesteps) if v else noise
        with torch.autocast(self.plan.device.type, dtype=self.plan.dtype if half else torch.bfloat16, enabled=half):
            told = self.told
            if len(self.models) > 1:
                told = self.family.encode_text(tuple(self.models[1:]), self.tokens, self.clip_skip)
            prediction = self.family.denoise(self.denoiser, noisy, timesteps, told.sized(self.sizes))
        loss = F.mse_loss(prediction.float(), target)
        self.mark("backward")
        (loss / self.accumulation if self.accumulation > 1 else loss).backward()
