"""What a run leaves behind while it trains: checkpoints, previews, validation losses; at the end its adapter file."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from trainers import checkpoint, optimizers, preview, threads
from trainers.adapters.adapter import Adapter
from trainers.begun import changed
from trainers.checkpoint import Position, Saved
from trainers.checkpoint_writer import CheckpointWriter
from trainers.config import PreviewConfig, TrainConfig
from trainers.control import Control, Wish
from trainers.errors import EndedEarly, Overflowed, UserError
from trainers.events import DRAWING, MAKING, Adjusted, Checkpoint, Event, Sample, Validation, Warned
from trainers.export.facts import pack
from trainers.export.metadata import RunFacts
from trainers.families.base import Components
from trainers.finish import write_adapter
from trainers.graphs import Recorded
from trainers.memory.decide import free_gb, room
from trainers.memory.saving import PLAIN
from trainers.memory.units import recomputes
from trainers.pauses import Pauses
from trainers.prepacked import is_prepacked
from trainers.progress import Progress, ended_by, throttled
from trainers.prompts import prompts_now
from trainers.step import TrainingStep
from trainers.validate import LEVELS, ROWS, Validator, measured_pictures

log = logging.getLogger(__name__)
MEASURING = "Measuring held-out pictures"  # a phase


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

    @property
    def control(self) -> Control:
        return Control(self.run / "control")


@dataclass
class Outputs:
    """Writes each kind of output on demand, from the adapter as a file would hold it."""

    config: TrainConfig
    folders: Folders
    emit: Callable[[Event], None]
    components: Components
    adapter: Adapter
    step: TrainingStep
    position: Position
    held_out: list[int]
    resolution: int
    counted: TrainConfig  # the settings with what a pass really takes at most
    facts: Callable[[Position], RunFacts]
    recorded: Recorded | None = None  # the step's CUDA graphs, whose memory is needed here
    writer: CheckpointWriter = field(init=False)
    progress: Progress = field(init=False)
    saved_at: float = field(init=False)  # on the monotonic clock: when the last checkpoint was begun

    def __post_init__(self) -> None:
        self.writer = CheckpointWriter(self.folders.checkpoints, self.config.saving.keep)
        self.saved_at = time.monotonic()
        self.progress = throttled(self.emit)

    def resume(self, folder: Path | None) -> bool:
        """Put everything back as a checkpoint has it; False when there is none."""
        if folder is None:
            return False
        saved, step = checkpoint.load(folder), self.step
        here = replace(self.position, threads=threads.choose(saved.position.threads))
        self.adapter.load_state(saved.adapter)
        if different := changed(saved.position.begun, here.begun):
            self.emit(different)
        optimizers.require_same(step.optimizer, saved.optimizer)
        if moved := _moved(saved.position, here):
            self.emit(moved)
        if kept := _kept_rate(saved.schedule.get("base_lrs"), step.schedule.base_lrs):
            self.emit(kept)
        now = {"device": here.device, "precision": here.precision, "begun": here.begun}
        self.position = replace(saved.position, **now)
        step.optimizer.load_state_dict(saved.optimizer)
        step.schedule.load_state_dict(saved.schedule)
        if step.ema and saved.ema:
            step.ema.load_state(saved.ema)
        if step.accelerator.scaler and saved.scaler:
            step.accelerator.scaler.load_state_dict(saved.scaler)
        return True

    def overdue(self) -> bool:
        """Whether it is long since the last checkpoint, so that a rolling one is wanted."""
        minutes = self.config.saving.minutes
        return minutes > 0 and time.monotonic() - self.saved_at >= 60 * minutes

    def save(self, rolling: bool = False) -> None:
        """Begin to write a checkpoint; `saving` or `finish_saving` ends it."""
        self.saved_at, self.position.rolling = time.monotonic(), rolling
        step, masters = self.step, self.adapter.state()
        if not all(torch.isfinite(weight).all() for weight in masters.values()):
            raise Overflowed("An adapter weight is no longer a finite number", self.position.step)
        with self._as_exported():
            exported = self.adapter.state()
        scaler = step.accelerator.scaler.state_dict() if step.accelerator.scaler else None
        averages = step.ema.state() if step.ema else None
        resumed = (masters, averages, step.optimizer.state_dict(), step.schedule.state_dict(), scaler)
        state = Saved(self.position, *resumed, exported, pack(self.facts(self.position), step.family.spec))
        self.finish_saving()
        self.writer.start(state)

    def finish_saving(self) -> None:
        """Wait until the checkpoint that is being written is whole, and say so. UserError on a full disk."""
        if path := self.writer.finish():
            self.emit(Checkpoint(checkpoint.step_of(path), str(path.relative_to(self.folders.run))))

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Inside, a step computes while a checkpoint is written; afterwards that is whole, even if the step fails.

        A step that fails before it has changed anything leaves a checkpoint of the state that it began with.
        """
        try:
            yield
        except EndedEarly:
            raise
        except Exception:
            if self.step.whole:
                self.rescue()
            raise
        finally:
            self.finish_saving()

    def rescue(self) -> None:
        """Save the state between two steps, as far as that is still possible."""
        self.step.optimizer.zero_grad()
        try:
            self.finish_saving()
            if self.position.step > checkpoint.newest_step(self.folders.checkpoints):
                self.save(rolling=True)
        except Exception:  # a device may be gone, or the disk full: what is raised already says more
            log.exception("the state before the failure could not be saved")

    def show(self, due: bool, wishes: list[Wish], pauses: Pauses, endable: bool) -> bool:
        """Draw what was asked for; where they are `due`, measure the held-out pictures and draw the previews.

        That can take minutes. Where it is `endable`, a person's wish to end the run ends it, and the answer is True.
        """
        for wish in wishes:
            self.draw(wish)
        if not due:
            return False
        usual = self.progress
        if endable:
            self.progress = ended_by(self.folders.control, usual)
        try:
            with self.saving(), pauses.timed(1.0 if self.position.step else self._share()):
                if self.position.step:
                    self.validate()  # it may be the first to need a picture
                self.preview()
        except EndedEarly:
            return True
        finally:
            self.progress = usual
        return False

    def preview(self) -> None:
        """Sample every prompt; a failure is a warning, since the training is worth more."""
        with self._warning("The preview pictures could not be made."):
            prompts, settings = self._prompts(), self.config.preview
            pictures = self._sampled(MAKING, prompts, settings)
            for i, (prompt, picture) in enumerate(zip(prompts, pictures, strict=True)):
                path = preview.save_picture(picture, self.folders.samples, self.position.step, i)
                self._emit_sample(prompt, path, settings.seed + i)

    def undrawn(self) -> bool:
        """Whether previews of this step are lacking."""
        prompts = prompts_now(self.config, self.folders.control)
        return not preview.is_drawn(self.folders.samples, self.position.step, len(prompts))

    def draw(self, wish: Wish) -> None:
        """Sample one picture that a person asked for; a failure is a warning."""
        with self._warning("The picture that was asked for could not be made."):
            seed = self.config.preview.seed if wish.seed is None else wish.seed
            settings = self.config.preview.model_copy(update={"seed": seed})
            (picture,) = self._sampled(DRAWING, [wish.prompt], settings, wish.strength)
            path = preview.save_asked(picture, self.folders.samples, self.position.step)
            self._emit_sample(wish.prompt, path, seed, wish.strength, asked=True)

    def wishes(self) -> list[Wish] | None:
        """The pictures that a person asked for since the last call: [] for the previews, None for nothing."""
        try:
            return self.folders.control.take()
        except UserError as error:
            self.emit(Warned(error.message, error.hint))
            return None

    def validate(self) -> None:
        """Measure the held-out pictures, where the run has any."""
        if self.held_out:
            step = self.step
            self.progress(MEASURING, 0, self._measured)
            self._rest()
            how = (step.noise, step.loss, step.family, step.denoiser, step.seed)
            together = ROWS * self.counted.at_once if recomputes(step.denoiser) else LEVELS
            with self._as_exported():
                validator = Validator(step.feed, self.held_out, *how, together)
                losses = validator.measure(step.feed.text, step.dtype, partial(self.progress, MEASURING))
            self.emit(Validation(self.position.step, *losses))

    @property
    def _measured(self) -> int:
        """Pictures in a validation."""
        return sum(map(len, measured_pictures(self.held_out, self.step.feed.training)))

    def _share(self) -> float:
        """What previews take of a pause that has a validation too, by the pixels that are denoised for them."""
        settings, pixels = self.config.preview, self.counted.data.resolution or self.resolution
        prompts = prompts_now(self.config, self.folders.control)
        drawn = len(prompts) * settings.sampling_steps * preview.larger(settings, self.resolution, pixels)
        measured = self._measured * LEVELS / 2 if self.held_out else 0  # a preview is denoised without its prompt, too
        return drawn / (drawn + measured)

    def write(self) -> Path:
        """Write and verify the adapter file; returns its path."""
        facts = self.facts(self.position)
        with self._as_exported():
            return write_adapter(self.config, self.folders.run, self.adapter, self.step.family.spec, facts, self.emit)

    def settle(self, parameters: list[nn.Parameter]) -> None:
        """From now on these weights are those a file would hold, and stay so: the rest is trained on with them."""
        with self._as_exported():
            exported = [parameter.detach().clone() for parameter in parameters]
        with torch.no_grad():
            for parameter, value in zip(parameters, exported, strict=True):
                parameter.copy_(value)
                parameter.requires_grad_(False)
        step = self.step
        self._rest()  # they would go on with what is no longer trained
        optimizers.settle(step.optimizer, parameters)
        if step.ema:
            step.ema.settle(parameters)
        step.parameters = [parameter for parameter in step.parameters if parameter.requires_grad]

    def _rest(self) -> None:
        if self.recorded:
            self.recorded.rest()

    def _prompts(self) -> list[str]:
        return prompts_now(self.config, self.folders.control, lambda why: self.emit(Warned(why.message, why.hint)))

    def _sampled(
        self, what: str, prompts: list[str], settings: PreviewConfig, strength: float = 1.0
    ) -> list[Image.Image]:
        text, family = self.step.feed.text, self.step.family
        self.progress(what, 0, len(prompts) * settings.sampling_steps)
        self._rest()
        with self._as_exported(), self.adapter.at_strength(strength):
            told = text.tell([*prompts, settings.negative])
            larger = preview.larger(settings, self.resolution, self.counted.data.resolution or self.resolution)
            together = preview.at_once(self.counted.at_once, recomputes(self.components.denoiser), larger)
            where = (text.device, self.resolution, together, self._space())
            return preview.sample_told(family, self.components, told, settings, *where, partial(self.progress, what))

    def _space(self) -> float:
        """Bytes that the memory plan leaves beside what stays from step to step."""
        feed, trained = self.step.feed, self.adapter.trained_bytes
        free, held = free_gb(feed.text.device), feed.latents.held + feed.text.held()
        left = room(self.components, self.config, feed.text.device, trained, free, held)
        return left.for_(replace(PLAIN, prepacked=is_prepacked(self.components.denoiser))).activations

    def _emit_sample(self, prompt: str, path: Path, seed: int, strength: float = 1.0, asked: bool = False) -> None:
        name = path.relative_to(self.folders.run).as_posix()
        self.emit(Sample(self.position.step, prompt, name, seed, strength, asked))

    @contextmanager
    def _warning(self, message: str) -> Iterator[None]:
        try:
            yield
        except EndedEarly:
            raise
        except Exception as error:
            log.exception("drawing failed")
            self.emit(Warned(message, f"The training is not touched by that. ({type(error).__name__}: {error})"))

    @contextmanager
    def _as_exported(self) -> Iterator[None]:
        """Inside, the adapter holds what a file would hold: eval mode, averaged where the run averages.

        Afterwards its weights are what they were, to the bit, even if something inside fails.
        """
        masters = self.adapter.state()
        self.adapter.eval()
        optimizers.averaged(self.step.optimizer, True)
        try:
            with self.step.ema.swapped() if self.step.ema else nullcontext():
                yield
        finally:
            optimizers.averaged(self.step.optimizer, False)
            self.adapter.load_state(masters)  # a schedule-free optimizer's way there and back rounds
            self.adapter.train()


def _kept_rate(before: list[float] | None, now: list[float]) -> Adjusted | None:
    """What is to be said when the settings' learning rates are no longer those that the run began with."""
    if before is None or before == now:
        return None
    rates = ", ".join(f"{rate:g}" for rate in dict.fromkeys(before))
    what = f"The run keeps the learning rate that it began with: {rates}"
    return Adjusted(what, "The settings name another one now, which counts for a new run.")


def _moved(before: Position, now: Position) -> Adjusted | None:
    """What is to be said when a run goes on on another kind of device, in another precision or with other threads."""
    other_threads = now.device == before.device == "cpu" and 0 != before.threads != now.threads
    here, there = (
        f"on {one.device} in {one.precision}" + f" with {one.threads} thread{'s' * (one.threads > 1)}" * other_threads
        for one in (now, before)
    )
    if not before.device or here == there:
        return None
    what = f"The run computes {here} from here; before, {there}"
    why = "It goes on from the same state, to weights that are close to those of an uninterrupted run and not equal."
    return Adjusted(what, why)
