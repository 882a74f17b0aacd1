"""Which pictures share a batch, and which of them are held out: pure functions of seed, epoch and step."""

import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache

from trainers.config import TrainConfig
from trainers.data.types import Bucket, Crop, Example

FEWEST_FOR_VALIDATION = 8  # pictures
FEWEST_HELD_OUT = 2
ROUND = 16  # pixels: a side of whole latents and patches
FULL = 0.8  # of the wished size: batches that are smaller on average are told of


class Batches:
    """The order of a run. Batches never mix buckets; the last of a bucket may be smaller.

    Everything follows from (seed, epoch), so a run resumes from the number of its micro-step alone.
    """

    def __init__(self, crops: Sequence[Crop], repeats: Sequence[int], batch_size: int, seed: int):
        """`crops` and `repeats` have one entry per picture; batches hold positions in them."""
        self.crops, self.repeats, self.batch_size, self.seed = crops, repeats, batch_size, seed
        self.members: dict[Bucket, list[int]] = defaultdict(list)
        for index, (crop, count) in enumerate(zip(crops, repeats, strict=True)):
            self.members[crop.bucket] += [index] * count
        self.per_epoch = sum(math.ceil(len(members) / batch_size) for members in self.members.values())
        self.epoch = lru_cache(maxsize=2)(self._epoch)

    def sized(self, batch_size: int) -> "Batches":
        """The same pictures in other batches."""
        return Batches(self.crops, self.repeats, batch_size, self.seed)

    def counted(self, config: TrainConfig, resolution: int, crops: Iterable[Crop]) -> TrainConfig:
        """The settings with the size of the largest batch that comes: what a pass takes follows from that.

        Where pictures stay small, with the resolution of the largest of `crops`, those of all pictures, and previews
        as large as before.
        """
        data = {"batch_size": min(self.batch_size, max(map(len, self.members.values())))}
        largest = math.sqrt(max(crop.bucket.width * crop.bucket.height for crop in crops))
        side = math.ceil(largest / ROUND) * ROUND
        classes = config.loss.preservation and config.data.class_pictures  # which are of the resolution
        if not config.data.no_upscale or classes or side >= resolution:
            return config.model_copy(update={"data": config.data.model_copy(update=data)})
        drawn = {"width": config.preview.width or resolution, "height": config.preview.height or resolution}
        data["resolution"] = side
        changes = {"data": config.data.model_copy(update=data), "preview": config.preview.model_copy(update=drawn)}
        return config.model_copy(update=changes)

    def unfilled(self, config: TrainConfig) -> tuple[str, str] | None:
        """What is to be said, and advised, where batches are much smaller than set: fewer pictures are shown then."""
        mean, size = self.mean_size, config.data.batch_size
        if mean >= FULL * size:
            return None
        passes = config.total_steps * config.optimizer.accumulation
        one = len(self.members) == 1
        why = "The pictures do not fill every batch" if one else "Only pictures of one shape share a batch"
        message = (
            f"{why}, and so one holds {mean:.1f} of them on average and not {size}: "
            f"the run shows {passes * mean:,.0f} pictures and not {passes * size:,}."
        )
        setting = "schedule.steps" if config.schedule.steps else "schedule.views"
        value = math.ceil((config.schedule.steps or config.schedule.views) * size / mean)
        return message, f"Lower data.batch_size, or set {setting} to {value}."

    @property
    def mean_size(self) -> float:
        """Pictures in a batch, over an epoch."""
        return sum(map(len, self.members.values())) / self.per_epoch

    @property
    def mean_pixels(self) -> float:
        """Of all pictures of a batch together, over an epoch."""
        areas = (bucket.width * bucket.height * len(members) for bucket, members in self.members.items())
        return sum(areas) / self.per_epoch

    def kinds(self, passes: int) -> float:
        """How many different shapes so many batches have on average: buckets, and how many pictures are in one."""
        counts: Counter[tuple[Bucket, int]] = Counter()
        for bucket, members in self.members.items():
            whole, rest = divmod(len(members), self.batch_size)
            counts.update({(bucket, self.batch_size): whole, (bucket, rest): rest > 0})
        return sum(1 - (1 - count / self.per_epoch) ** passes for count in counts.values())

    def _epoch(self, epoch: int) -> list[tuple[int, ...]]:
        """All batches of an epoch, in order."""
        rng = random.Random(f"{self.seed}/{epoch}")
        batches = []
        for bucket in sorted(self.members, key=lambda bucket: (bucket.width, bucket.height)):
            order = list(self.members[bucket])
            rng.shuffle(order)
            batches += [tuple(order[i : i + self.batch_size]) for i in range(0, len(order), self.batch_size)]
        rng.shuffle(batches)
        return batches

    def position(self, micro_step: int) -> tuple[int, int]:
        """(epoch, place in the epoch) of a micro-step, both from 0."""
        return divmod(micro_step, self.per_epoch)

    def batch(self, micro_step: int) -> tuple[int, ...]:
        """The pictures of a micro-step, counted from 0 over the whole run."""
        epoch, place = self.position(micro_step)
        return self.epoch(epoch)[place]


def held_out_count(pictures: int, share: float) -> int:
    """How many of so many different pictures are held out."""
    if share <= 0 or pictures < FEWEST_FOR_VALIDATION:
        return 0
    return min(max(FEWEST_HELD_OUT, round(share * pictures)), pictures - 1)


def split_validation(examples: Sequence[Example], share: float, seed: int) -> tuple[list[int], list[int]]:
    """(indices to train, indices held out), both ascending.

    Below 8 different pictures none is held out, else at least 2. Copies of one picture go to the same side. Which side
    depends on the pictures' content and the seed, not on names or order.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for index, example in enumerate(examples):
        groups[example.content_hash].append(index)
    everything = list(range(len(examples)))
    wanted = held_out_count(len(groups), share)
    order = sorted(groups)
    random.Random(f"{seed}/validation").shuffle(order)
    order.sort(key=lambda content: len(groups[content]) > 1)  # pictures without copies first; stable
    held_out = {index for content in order[:wanted] for index in groups[content]}
    return [i for i in everything if i not in held_out], sorted(held_out)
