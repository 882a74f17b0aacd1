"""What the loop reads each step: encoded pictures and captions, ready on the device."""

import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from trainers.config import DataConfig, TrainConfig
from trainers.data.batches import Batches
from trainers.data.cache import Cache, text_key
from trainers.data.captions import shuffle_tags
from trainers.data.overlap import written_behind
from trainers.data.rows import KEPT, Budget, Collector, FiledRows
from trainers.data.types import Bucket, Example, Problem
from trainers.families.base import Components, Conditioning, Family, LatentSpec, joined
from trainers.families.residence import bring, lent
from trainers.identities import identify

CPU = torch.device("cpu")
TOGETHER = 16  # captions encoded in one call: 3 MB of Stable Diffusion XL's embeddings
VARIANTS = 8  # frozen shuffles of a tag caption, encoded once each
Progress = Callable[[str, int, int], None]
Place = tuple[int, bool]  # of a picture in a store: its number among all examples, and whether it is mirrored


class Later(Protocol):
    """What encodes pictures of a LatentStore when they are needed (postponed.py)."""

    seconds: float  # that it has taken so far

    def seconds_left(self, shown: int) -> float:
        """That it will take until so many more pictures were shown."""

    def encode(self, places: Iterable[Place]) -> None:
        """Encode those of them that are not, into their places."""


@dataclass(frozen=True)
class Batch:
    """latents [B, C, h, w] fp32, a fresh posterior sample; captions [B] row numbers of the TextStore."""

    latents: Tensor
    captions: Tensor
    pictures: list[int]  # their numbers among all examples
    sizes: Tensor | None  # [B, 6], where the family is told them


@dataclass(frozen=True)
class Seen:
    """What a micro-step looks at: noisy latents and what is to be predicted [B, C, h, w], timesteps [B]."""

    batch: Batch
    noisy: Tensor
    target: Tensor
    timesteps: Tensor


class LatentStore:
    """Posterior mean and standard deviation of every picture, one stack per bucket, shifted and scaled, fp32.

    `folder` is where the file goes that holds them when they are too many for the memory (data/rows.py).
    """

    def __init__(self, latent: LatentSpec, device: torch.device, folder: Path | None = None, budget: int = KEPT):
        self.latent, self.device = latent, device
        self.sizes: dict[Place, tuple[int, ...]] = {}
        self.rows: dict[Place, tuple[Bucket, int]] = {}
        self.stacks: dict[Bucket, Collector] = {}
        self.moments: dict[Bucket, Tensor | FiledRows] = {}  # [N, 2, C, h, w]: mean and standard deviation
        self.collector = partial(Collector, Budget(budget), folder)
        self.postponed: Later | None = None  # what encodes the pictures that only have their place yet

    def add(
        self, index: int, flip: bool, bucket: Bucket, mean: Tensor, logvar: Tensor, sizes: tuple[int, ...] = ()
    ) -> None:
        """mean, logvar: [C, h, w] as the VAE gives them; sizes: what the denoiser is told of the picture's sizes."""
        self._add(index, flip, bucket, self._moments(mean, logvar), sizes)

    def reserve(self, index: int, flip: bool, bucket: Bucket, sizes: tuple[int, ...] = ()) -> None:
        """Its place alone, for `replace`."""
        side = bucket.height // self.latent.factor, bucket.width // self.latent.factor
        self._add(index, flip, bucket, torch.zeros(2, self.latent.channels, *side), sizes)

    def _add(self, index: int, flip: bool, bucket: Bucket, moments: Tensor, sizes: tuple[int, ...]) -> None:
        self.sizes[index, flip] = sizes
        if bucket not in self.stacks:
            self.stacks[bucket] = self.collector()
        self.rows[index, flip] = (bucket, self.stacks[bucket].add(moments))

    def _moments(self, mean: Tensor, logvar: Tensor) -> Tensor:
        scaling, shift = self.latent.scaling, self.latent.shift
        return torch.stack([(mean.float() - shift) * scaling, (0.5 * logvar.float()).exp() * scaling])

    def seal(self) -> None:
        """Move all to the device, once."""
        self.moments = {bucket: stack.sealed(self.device) for bucket, stack in self.stacks.items()}
        self.stacks.clear()

    def replace(self, index: int, flip: bool, mean: Tensor, logvar: Tensor) -> None:
        """Fill a reserved place, after `seal`. mean, logvar: [C, h, w] as the VAE gives them."""
        bucket, row = self.rows[index, flip]
        self.moments[bucket][row] = self._moments(mean, logvar).to(self.device)

    def need(self, places: list[Place]) -> None:
        """Encode what is postponed of these pictures."""
        if self.postponed:
            self.postponed.encode(places)

    @property
    def encoding_seconds(self) -> float:
        """That steps have waited for pictures so far."""
        return self.postponed.seconds if self.postponed else 0.0

    def encoding_left(self, shown: int) -> float:
        """Seconds that steps will wait for pictures until so many more were shown."""
        return self.postponed.seconds_left(shown) if self.postponed else 0.0

    @property
    def held(self) -> int:
        """Bytes on the device."""
        return sum(held_bytes(moments) for moments in self.moments.values())

    def mean(self, index: int) -> Tensor:
        """Scaled posterior mean [C, h, w] of one picture, not mirrored."""
        self.need([(index, False)])
        bucket, row = self.rows[index, False]
        return self.moments[bucket][row][0]

    def shape(self, index: int) -> tuple[int, int, int]:
        """[C, h, w] of one picture."""
        bucket, factor = self.rows[index, False][0], self.latent.factor
        return self.latent.channels, bucket.height // factor, bucket.width // factor

    def told_sizes(self, indices: list[int], flips: list[bool]) -> Tensor | None:
        """[B, 6] for these pictures; None where the family is told nothing."""
        rows = [self.sizes[key] for key in zip(indices, flips, strict=True)]
        if not rows[0]:
            return None
        return torch.tensor(rows, dtype=torch.float32).to(self.device, non_blocking=True)

    def sample(self, indices: list[int], flips: list[bool], generator: torch.Generator) -> Tensor:
        """Draw latents [B, C, h, w] from the posteriors of pictures that share a bucket."""
        places = list(zip(indices, flips, strict=True))
        self.need(places)
        rows = torch.tensor([self.rows[place][1] for place in places])
        moments = self.moments[self.rows[places[0]][0]]
        if isinstance(moments, Tensor):
            rows = rows.to(self.device, non_blocking=True)
        mean, std = moments[rows].unbind(1)
        return torch.addcmul(mean, std, torch.randn(mean.shape, generator=generator, device=self.device))


class TextStore:
    """Every caption the run can show, as token ids and, while the text encoder is frozen, as Conditioning."""

    def __init__(
        self, captions: list[str], family: Family, components: Components, clip_skip: int, device: torch.device
    ):
        self.captions = list(dict.fromkeys(captions))
        self.row = {caption: i for i, caption in enumerate(self.captions)}
        self.family, self.components, self.clip_skip, self.device = family, components, clip_skip, device
        self.tokens = tuple(t.to(device) for t in family.tokenize(components, self.captions))
        self.cached: Conditioning | None = None  # set it to what `encode_all` returned once the encoders are frozen
        self.spoken: dict[str, Conditioning] = {}  # texts of `tell`, one row each, on the CPU
        self.still = False  # whether the encoders are, and stay, the base's own

    def held(self, base: Conditioning | None = None) -> int:
        """Bytes on the device: token ids, and what is encoded here and in `base`."""
        tokens = sum(ids.nbytes for ids in self.tokens)
        found = {id(one): one for one in (self.cached, base) if one is not None}
        return tokens + sum(held_bytes(part) for one in found.values() for part in (one.embeds, one.pooled))

    @torch.no_grad()
    def encode_all(self, cache: Cache | None, progress: Progress) -> Conditioning:
        """Encode every caption once with the encoders as they are now, which are brought only where that is needed.

        One row each; past a certain size the rows stay in a file in the cache's folder.
        """
        encoders = self.components.text_encoders
        key = "/".join(identify(encoder, cache.folder) for encoder in encoders) if cache else ""
        names = [text_key(caption, key, self.clip_skip) for caption in self.captions]
        budget, folder = Budget(), cache.folder if cache else None
        rows: dict[str, Collector] = {}
        with written_behind(cache) as put:
            for start in range(0, len(self.captions), TOGETHER):
                some = range(start, min(start + TOGETHER, len(self.captions)))
                kept = {i: cache.get(names[i]) if cache else None for i in some}
                missing = [i for i in some if kept[i] is None]
                # All of them if one is missing: how many are encoded together shows in the last bits.
                for i, row in zip(some, self._encode(list(some) if missing else []), strict=bool(missing)):
                    if kept[i] is None:
                        kept[i] = row
                        put(names[i], row)
                for i in some:
                    for name, tensor in kept[i].items():
                        rows.setdefault(name, Collector(budget, folder)).add(tensor)
                progress("Encoding captions", some[-1] + 1, len(self.captions))
        return Conditioning(**{name: collector.sealed(self.device) for name, collector in rows.items()})

    def _encode(self, numbers: list[int]) -> list[dict[str, Tensor]]:
        """Captions by their numbers -> one {embeds [L, D], pooled [P]} each, on the CPU."""
        if not numbers:
            return []
        for encoder in self.components.text_encoders:
            bring(encoder, self.device, mapped=False).eval()
        tokens = tuple(t[numbers] for t in self.tokens)
        found = self.family.encode_text(self.components.text_encoders, tokens, self.clip_skip)
        parts = {"embeds": found.embeds.cpu()} | ({} if found.pooled is None else {"pooled": found.pooled.cpu()})
        return [{name: part[i] for name, part in parts.items()} for i in range(len(numbers))]

    @torch.no_grad()
    def tell(self, texts: list[str]) -> Conditioning:
        """Any texts -> embeds [B, L, D]; each is encoded once while the encoders stand still, and they go again."""
        if not self.still:
            return encode_texts(self.family, self.components, texts, self.clip_skip, self.device)
        for text in texts:
            if text in self.row and text not in self.spoken:
                self.spoken[text] = self.cached.rows(torch.tensor([self.row[text]], device=self.device)).on(CPU)
        new = [text for text in dict.fromkeys(texts) if text not in self.spoken]
        if new:
            found = encode_texts(self.family, self.components, new, self.clip_skip, self.device).on(CPU)
            self.spoken |= {text: found.rows(torch.tensor([i])) for i, text in enumerate(new)}
        return joined([self.spoken[text] for text in texts]).on(self.device)

    def conditioning(self, rows: Tensor) -> Conditioning:
        """Rows [B] -> embeds [B, L, D]; runs the text encoder while it is being trained."""
        if self.cached is not None:
            return self.cached.rows(rows)
        tokens = tuple(t[rows] for t in self.tokens)
        return self.family.encode_text(self.components.text_encoders, tokens, self.clip_skip)

    def known(self, rows: Tensor, dtype: torch.dtype) -> tuple[Tensor | None, Tensor | None]:
        """(embeds, pooled) of rows [B] in `dtype`, where no encoder has to run for them; (None, None) else."""
        if self.cached is None:
            return None, None
        found = self.cached.rows(rows).to(dtype)
        return found.embeds, found.pooled

    def told(self, rows: Tensor, embeds: Tensor | None, pooled: Tensor | None, dtype: torch.dtype) -> Conditioning:
        """The conditioning of rows [B] of which `known` says embeds and pooled."""
        return self.conditioning(rows).to(dtype) if embeds is None else Conditioning(embeds, pooled)


def held_bytes(rows: Tensor | FiledRows | None) -> int:
    """Of rows that lie in memory and not in a file."""
    return rows.nbytes if isinstance(rows, Tensor) else 0


def expected_bytes(config: TrainConfig, latent: tuple[int, ...], pictures: int, told: Conditioning, texts: int) -> int:
    """What the stores of a run will hold on the device.

    Args:
        latent: [C, h, w] of a picture at the training resolution.
        told: one caption's row, which may lie on the meta device.
    """
    rows = pictures * 2 * math.prod(latent) * 4
    kept = texts * sum(part.nbytes for part in (told.embeds, told.pooled) if part is not None)
    if config.adapter.trains_text and not config.loss.preservation:
        kept = 0
    return sum(size for size in (rows, kept) if size <= KEPT)


def cut_captions(examples: list[Example], family: Family, components: Components) -> list[Problem]:
    """At most one problem: captions that the text encoder does not read to their end, the longest one named."""
    counts, limit = family.token_counts(components, [example.caption for example in examples])
    over = [i for i, count in enumerate(counts) if count > limit]
    if not over:
        return []
    longest = max(over, key=counts.__getitem__)
    whose = f"its caption and {len(over) - 1} more are cut" if len(over) > 1 else "its caption is cut"
    message = f"{whose}: it has {counts[longest] - 2} tokens, and this base reads {limit - 2}."
    return [Problem(examples[longest].path, message, "Put what matters first, or shorten it.", fatal=False)]


def encode_texts(
    family: Family, components: Components, texts: list[str], clip_skip: int, device: torch.device
) -> Conditioning:
    """Texts -> embeds [B, L, D] on the device, without gradients; the encoders are then as and where they were."""
    tokens = tuple(t.to(device) for t in family.tokenize(components, texts))
    with torch.no_grad(), lent(list(components.text_encoders), device):
        return family.encode_text(components.text_encoders, tokens, clip_skip)


class Feed:
    """The data of a run: a pure function from the number of a micro-step to its batch."""

    def __init__(
        self,
        batches: Batches,
        training: list[int],
        latents: LatentStore,
        text: TextStore,
        variants: list[list[str]],
        preserved: list[list[str]],
        config: TrainConfig,
    ):
        """`batches` counts within `training`, the numbers of the pictures that are not held out.

        `variants` and `preserved`: the captions of each picture, one of which is drawn (preservation.py).
        """
        self.batches, self.training, self.latents, self.text = batches, training, latents, text
        self.variants, self.preservable = variants, preserved
        self.flip, self.dropout, self.seed = config.data.flip, config.data.caption_dropout, config.seed

    def batch(self, micro_step: int, generator: torch.Generator) -> Batch:
        """The batch of that micro-step; order, mirroring, tag order and dropout depend on (seed, micro_step) alone."""
        draw, indices, flips = self._drawn(micro_step)
        captions = ["" if draw.random() < self.dropout else draw.choice(self.variants[i]) for i in indices]
        latents = self.latents.sample(indices, flips, generator)
        return Batch(latents, self._rows(captions), indices, self.latents.told_sizes(indices, flips))

    def fetch(self, micro_step: int) -> None:
        """Let that batch be encoded, so that what is timed with it does not wait for that."""
        _, indices, flips = self._drawn(micro_step)
        self.latents.need(list(zip(indices, flips, strict=True)))

    def _drawn(self, micro_step: int) -> tuple[random.Random, list[int], list[bool]]:
        """(what draws the rest, which pictures, which of them mirrored)."""
        draw = random.Random(f"{self.seed}/{micro_step}")
        indices = [self.training[i] for i in self.batches.batch(micro_step)]
        return draw, indices, [self.flip and draw.random() < 0.5 for _ in indices]

    def preserved(self, micro_step: int, pictures: list[int]) -> Tensor:
        """Rows [B] of captions without the trigger word, one for each picture of that micro-step."""
        draw = random.Random(f"{self.seed}/{micro_step}/preserved")
        return self._rows([draw.choice(self.preservable[i]) for i in pictures])

    def _rows(self, captions: list[str]) -> Tensor:
        return torch.tensor([self.text.row[c] for c in captions]).to(self.text.device, non_blocking=True)


def caption_variants(example: Example, config: DataConfig, seed: int) -> list[str]:
    """The captions an example may be shown with: one, or a few frozen shuffles of its tags."""
    if not config.shuffle_tags:
        return [example.caption]
    rng = random.Random(f"{seed}/{example.content_hash}")
    return [shuffle_tags(example.caption, config.keep_tokens, rng) for _ in range(VARIANTS)]
