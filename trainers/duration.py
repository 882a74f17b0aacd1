"""How long a whole run takes: how often it does each kind of work, at the pace of the device."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from statistics import mean

from trainers.cached import NOTHING, Cached
from trainers.config import TrainConfig
from trainers.data.batches import Batches
from trainers.data.types import Crop, Example
from trainers.encoding import SOON
from trainers.graphs import recordings
from trainers.pace import Pace
from trainers.preservation import preserved_captions
from trainers.prompts import preview_prompts
from trainers.schedules import total_steps
from trainers.stores import caption_variants
from trainers.validate import LEVELS, measured_pictures


@dataclass(frozen=True)
class Work:
    """How often a run does what, or the rest of one."""

    steps: int
    pictures: float  # in a batch on average, each counted by its share of the training resolution's pixels
    encoded: int  # pictures, each mirrored as well where that is wished
    pixels: float  # of one of them on average, as a share of the training resolution's
    captions: int
    prompts: int  # of a preview
    previews: int
    recorded: float  # passes that are recorded on average, where they are (graphs.py)
    measured: int  # pictures in a validation
    validations: int
    saves: int  # checkpoints and the adapter file
    shown: float = 0.0  # pictures, the same ones again and again


@dataclass(frozen=True)
class Duration:
    """Seconds of a run's parts."""

    preparing: float  # reading the base, encoding pictures and captions, which a CPU does between the steps
    class_pictures: float
    steps: float
    previews: float  # with the base's, before the first step
    rest: float  # validations, checkpoints, the adapter file

    @property
    def whole(self) -> float:
        return sum(getattr(self, part.name) for part in fields(self))


def work(
    config: TrainConfig,
    examples: Sequence[Example],
    crops: Sequence[Crop],
    batches: Batches,
    held_out: int,
    resolution: int,
    done: int = 0,
    drawn: bool = True,
) -> Work:
    """What a run on these pictures does after `done` steps; `batches` are those of the pictures not held out.

    `drawn`: whether the previews of the last of them are there, where they were due.
    """
    steps, every = total_steps(config), config.preview.every
    prompts = preview_prompts(config) if every else []
    later = _times(steps, every, done) + (not drawn) if every else 0
    left = max(0, steps - done)
    return Work(
        steps=left,
        pictures=batches.mean_pixels / resolution**2,
        encoded=len(examples) * (1 + config.data.flip),
        pixels=mean(crop.bucket.width * crop.bucket.height for crop in crops) / resolution**2,
        captions=len(captions_of(config, examples)),
        prompts=len(prompts),
        previews=later + (not done) if every else 0,  # the base's are the first
        recorded=max(1, later) * recordings(config, batches, min(every, left) if every else left),
        measured=sum(map(len, measured_pictures([0] * held_out, [0] * (len(examples) - held_out)))),
        validations=later if held_out else 0,
        saves=_times(steps, config.saving.every or steps, done) + 1,
        shown=left * config.optimizer.accumulation * batches.mean_size,
    )


def _times(steps: int, every: int, done: int) -> int:
    """How often something is done every so many steps, and at the last one, after those that are done."""
    return math.ceil(steps / every) - done // every if done < steps else 0


def captions_of(config: TrainConfig, examples: Sequence[Example]) -> set[str]:
    """All that the text encoders are told in a run."""
    captions = {caption for example in examples for caption in caption_variants(example, config.data, config.seed)}
    captions |= {caption for example in examples for caption in preserved_captions(example, config)}
    previews = [*preview_prompts(config), config.preview.negative] if config.preview.every else []
    return {"", *captions, *previews}


def duration(
    work: Work,
    pace: Pace,
    config: TrainConfig,
    read: float,
    cached: Cached = NOTHING,
    late: bool = False,
    hashed: float = 0.0,
) -> Duration:
    """Seconds of each part.

    Args:
        read: those that the pictures and the base's headers take.
        hashed: those that the base takes, which the adapter file names by its hash.
        late: whether pictures are encoded when they are first shown (postponed.py): not more of them than are.
    """
    picture = pace.denoised * config.preview.sampling_steps
    classes = config.data.class_pictures if config.loss.preservation and not cached.class_pictures else 0
    encoded, told = work.encoded - cached.pictures, work.captions - cached.captions
    encoding = encoded * pace.encoded * work.pixels
    if late:
        encoding = min(
            encoding, SOON + (work.shown + bool(work.validations) * work.measured) * pace.encoded * work.pixels
        )
    validation = work.measured * LEVELS * pace.trained / 2  # a picture is denoised with and without its prompt
    return Duration(
        preparing=read + pace.ready + encoding + told * pace.told,
        class_pictures=classes * pace.trained * config.preview.sampling_steps,
        steps=work.steps * pace.step_of(work.pictures, config.data.batch_size) + work.recorded * pace.anew,
        previews=work.previews * work.prompts * (picture + pace.decoded),
        rest=work.validations * validation + work.saves * pace.saved + hashed,
    )
