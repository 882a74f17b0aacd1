"""The training recipe, top to bottom: read it like a story."""

import logging
import math
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator

from trainers import checkpoint, memory, optimizers, preview
from trainers.adapters.registry import ADAPTERS
from trainers.checkpoint import Position, Saved
from trainers.config import TrainConfig
from trainers.data.batches import Batches, split_validation
from trainers.data.buckets import plan as plan_crops
from trainers.data.cache import Cache
from trainers.data.examples import scan
from trainers.ema import Ema
from trainers.errors import UserError
from trainers.events import Checkpoint, Event, Finished, Phase, Sample, Started, Step, Stopped, Validation, Warned
from trainers.export.facts import pack
from trainers.export.metadata import RunFacts
from trainers.families.registry import find_family
from trainers.finish import gather, write_adapter
from trainers.loss import Loss
from trainers.noise import DdpmNoise
from trainers.schedules import build_schedule
from trainers.step import TrainingStep
from trainers.stores import Feed, TextStore, caption_variants, encode_pictures
from trainers.validate import Validator

log = logging.getLogger(__name__)
REPORT = 10  # steps between reads of the loss: reading waits for the device


@dataclass(frozen=True)
class Folders:
    """Where a run keeps its things; `cache` is shared by all runs."""

    run: Path
    cache: Path

    @property
    def checkpoints(self) -> Path:
        return self.run / "checkpoints"

    @property
    def samples(self) -> Path:
        return self.run / "samples"

    def asked(self, word: str) -> bool:
        """Whether the app put a file of that name into control/."""
        return (self.run / "control" / word).exists()


def train(config: TrainConfig, folders: Folders, emit: Callable[[Event], None]) -> None:
    """Run `config` to its end, or to a stop, resuming from the newest checkpoint of the run folder.

    Writes events, samples, checkpoints and the adapter file. Raises UserError for what the user can mend.
    """
    # --- the machine, the base model, the pictures -------------------------------------------------------------------
    plan = memory.plan(config.memory)
    device = plan.device
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="fp16"
        if plan.precision == "fp16"
        else "no",  # brings the gradient scaler; weights are cast by us
        gradient_accumulation_steps=config.optimizer.accumulation,
    )
    emit(Phase("Reading the pictures"))
    found = scan(config.data)
    for problem in found.problems:
        emit(Warned(f"{problem.name}: {problem.message}", problem.hint))
    emit(Phase("Loading the base model"))
    family = find_family(config.model)
    components = family.load(config.model, plan.dtype)
    resolution = config.data.resolution or components.resolution
    crops = plan_crops(found.examples, config.data, resolution, components.latent.factor * components.multiple)

    # --- encode once -------------------------------------------------------------------------------------------------
    cache = Cache(folders.cache) if config.memory.cache_latents else None
    progress = _throttled(emit)
    latents = encode_pictures(found.examples, crops, family, components, config.data.flip, cache, device, progress)
    training, held_out = split_validation(found.examples, config.data.validation_share, config.seed)
    variants = [caption_variants(example, config.data, config.seed) for example in found.examples]
    prompts = list(config.preview.prompts) or preview.default_prompts(config.data)
    text = TextStore([*(c for v in variants for c in v), ""], family, components, config.model.clip_skip, device)
    for encoder in components.text_encoders:
        encoder.to(device)
    if not config.adapter.text_encoder:
        text.encode_all(cache, progress)
        for encoder in components.text_encoders:
            encoder.to("cpu")

    # --- the adapter -------------------------------------------------------------------------------------------------
    components.denoiser.to(device)
    adjusted = memory.set_attention(components.denoiser, config.memory.attention, device)
    if adjusted:
        emit(adjusted)
    adapter = ADAPTERS[config.adapter.type](components, family.spec, config.adapter, config.seed)
    if config.memory.checkpointing:
        components.denoiser.enable_gradient_checkpointing()
    parameters = [*adapter.denoiser_parameters(), *adapter.text_parameters()]
    ema = Ema(parameters, config.optimizer.ema_decay) if config.optimizer.ema else None

    # --- the optimizer, its schedule, the noise, the loss -----------------------------------------------------------
    batches = Batches(
        [crops[i] for i in training], [found.examples[i].repeats for i in training], config.data.batch_size, config.seed
    )
    feed = Feed(batches, training, latents, text, variants, config)
    steps = config.schedule.steps or math.ceil(
        config.schedule.views / (config.data.batch_size * config.optimizer.accumulation)
    )
    groups = optimizers.parameter_groups(adapter.denoiser_parameters(), adapter.text_parameters(), config.optimizer)
    optimizer, adjusted = optimizers.build_optimizer(groups, config.optimizer, device)
    if adjusted:
        emit(adjusted)
    schedule = build_schedule(config.schedule, optimizer, steps)
    optimizer = accelerator.prepare(optimizer)
    noise = DdpmNoise(components.scheduler, config.noise, device)
    loss = Loss(config.loss, noise.snr, noise.prediction)
    training_step = TrainingStep(
        feed=feed,
        noise=noise,
        loss=loss,
        family=family,
        denoiser=components.denoiser,
        dtype=plan.dtype,
        accelerator=accelerator,
        optimizer=optimizer,
        schedule=schedule,
        parameters=parameters,
        clip_norm=config.optimizer.clip_norm,
        accumulation=config.optimizer.accumulation,
        seed=config.seed,
        ema=ema,
    )
    validator = Validator(feed, held_out, noise, loss, family, components.denoiser, config.seed)

    # --- where an earlier sitting stopped -----------------------------------------------------------------------------
    position = Position(started=time.time(), session=str(uuid.uuid4().int >> 64))
    earlier = checkpoint.list_checkpoints(folders.checkpoints)
    if earlier:
        saved = checkpoint.load(earlier[-1])
        position = saved.position
        adapter.load_state(saved.adapter)
        optimizer.load_state_dict(saved.optimizer)
        schedule.load_state_dict(saved.schedule)
        if ema and saved.ema:
            ema.load_state(saved.ema)
        if accelerator.scaler and saved.scaler:
            accelerator.scaler.load_state_dict(saved.scaler)
        if position.step > steps:
            raise UserError(
                f"This run has already done {position.step} steps, more than its {steps}.", "Start a new run."
            )

    def facts() -> RunFacts:
        trained = [(found.examples[i], crops[i]) for i in training]
        where, how = (batches, position, steps), (resolution, noise.prediction, plan.precision)
        return gather(config, components, trained, len(held_out), *where, *how, folders.cache)

    def save() -> None:
        masters = adapter.state()
        with _weights_to_save(adapter, ema, optimizer):
            exported = adapter.state()
        adapter.load_state(masters)  # a schedule-free optimizer's way there and back rounds
        scaler = accelerator.scaler.state_dict() if accelerator.scaler else None
        averages = ema.state() if ema else None
        resumed = (masters, averages, optimizer.state_dict(), schedule.state_dict(), scaler)
        state = Saved(position, *resumed, exported, pack(facts(), family.spec))
        path = checkpoint.save(folders.checkpoints, state, config.saving.keep)
        emit(Checkpoint(position.step, str(path.relative_to(folders.run))))

    def show() -> None:
        """Sample pictures; a failure is a warning."""
        try:
            with _weights_to_save(adapter, ema, optimizer):
                pictures = preview.sample(
                    family, components, prompts, config.preview, config.model.clip_skip, device, resolution
                )
            for prompt, path in zip(
                prompts, preview.save_pictures(pictures, folders.samples, position.step), strict=True
            ):
                emit(Sample(position.step, prompt, str(path.relative_to(folders.run))))
        except Exception as error:  # whatever it is, the training is worth more
            log.exception("preview failed")
            emit(
                Warned(
                    "The preview pictures could not be made.", f"Training goes on. ({type(error).__name__}: {error})"
                )
            )

    def validate() -> None:
        if held_out:
            with _weights_to_save(adapter, ema, optimizer):
                emit(Validation(position.step, *validator.measure(text, plan.dtype)))

    # --- the loop ----------------------------------------------------------------------------------------------------
    emit(Started(steps, position.step, str(device), len(training), config.saving.name))
    if config.preview.every and position.step == 0:
        emit(Phase("Making preview pictures"))
        show()
    emit(Phase("Training"))
    adapter.train()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    text_stop = round(config.adapter.text_stop * steps) if adapter.text_parameters() else 0
    since, clock = position.step, time.perf_counter()
    stopped = False
    while position.step < steps and not stopped:
        if adapter.text_parameters() and text.cached is None and position.step >= text_stop:
            text.encode_all(None, progress)  # from here on the text encoder is frozen and need not run
            training_step.parameters = adapter.denoiser_parameters()
        training_step(position.step)
        position.step += 1

        stopped = folders.asked("stop") or folders.asked("pause")
        last = position.step == steps or stopped
        save_due = config.saving.every and position.step % config.saving.every == 0
        preview_due = config.preview.every and (position.step % config.preview.every == 0 or position.step == steps)
        sample_now = folders.asked("sample_now")
        if last or save_due or preview_due or sample_now or position.step % REPORT == 0:
            mean = training_step.mean_loss()  # the one host sync
            seconds = time.perf_counter() - clock
            position.seconds += seconds
            if not math.isfinite(mean):
                raise UserError(
                    f"The loss became {mean} near step {position.step}: the adapter's numbers overflowed.",
                    "The last checkpoint is good. Resume with a lower optimizer.rate, or memory.precision = fp32.",
                )
            rate, peak = schedule.get_last_lr()[0], memory.peak_gb(device)
            emit(Step(position.step, steps, mean, rate, seconds / (position.step - since), peak))
            if last or save_due:
                save()
            if preview_due or sample_now:
                (folders.run / "control" / "sample_now").unlink(missing_ok=True)
                validate()
                show()
                emit(Phase("Training"))
            since, clock = position.step, time.perf_counter()

    # --- the adapter file ---------------------------------------------------------------------------------------------
    if position.step == 0 and not earlier:
        raise UserError("There is nothing to train: the run has no steps.", "Set schedule.steps or schedule.views.")
    emit(Phase("Writing the adapter"))
    with _weights_to_save(adapter, ema, optimizer):
        path = write_adapter(config, folders.run, adapter, family.spec, facts(), emit)
    if stopped:
        emit(Stopped(position.step))
    else:
        emit(Finished(position.step, str(path.relative_to(folders.run)), position.seconds))


@contextmanager
def _weights_to_save(adapter, ema: Ema | None, optimizer) -> Iterator[None]:  # noqa: ANN001
    """Inside, the adapter holds what a file would hold: eval mode, averaged where the run averages."""
    adapter.eval()
    optimizers.averaged(optimizer, True)
    with ema.swapped() if ema else nullcontext():
        yield
    optimizers.averaged(optimizer, False)
    adapter.train()


def _throttled(emit: Callable[[Event], None], every: float = 0.5) -> Callable[[str, int, int], None]:
    """Progress as Phase events, at most one per `every` seconds, the last one always."""
    last = 0.0

    def progress(name: str, done: int, total: int) -> None:
        nonlocal last
        if done == total or time.monotonic() - last > every:
            last = time.monotonic()
            emit(Phase(name, done, total))

    return progress
