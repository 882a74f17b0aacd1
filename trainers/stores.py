"""What the loop reads each step: encoded pictures and captions, ready on the device."""

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.config import DataConfig, TrainConfig
from trainers.data.batches import Batches
from trainers.data.cache import Cache, text_key
from trainers.data.captions import shuffle_tags
from trainers.data.overlap import written_behind
from trainers.data.rows import KEPT, Budget, Collector, held_bytes
from trainers.data.types import Example, Problem
from trainers.devices import copies_aside
from trainers.families.base import Components, Conditioning, Family, joined
from trainers.families.residence import bring, lent
from trainers.identities import identify
from trainers.latents import LatentStore, Place
from trainers.progress import Progress

CPU = torch.device("cpu")
TOGETHER = 16  # captions encoded in one call: 3 MB of Stable Diffusion XL's embeddings
FORESEEN = 5_000  # batches, to say how long pictures will take that are not encoded yet: drawing one takes 10 us
VARIANTS = 8  # frozen shuffles of a tag caption, encoded once each


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
        self.accumulation = config.optimizer.accumulation

    def batch(self, micro_step: int, generator: torch.Generator) -> Batch:
        """The batch of that micro-step; order, mirroring, tag order and dropout depend on (seed, micro_step) alone."""
        draw, indices, flips = self._drawn(micro_step)
        captions = ["" if draw.random() < self.dropout else draw.choice(self.variants[i]) for i in indices]
        latents = self.latents.sample(indices, flips, generator)
        return Batch(latents, self._rows(captions), indices, self.latents.told_sizes(indices, flips))

    def fetch(self, micro_step: int) -> None:
        """Let that batch be encoded, so that what is timed with it does not wait for that."""
        self.latents.need(self._places(micro_step))

    def encoding_left(self, step: int, steps: int, measured: Iterable[int] = ()) -> float:
        """Seconds that the steps from `step` on will wait for pictures, and validations for those that they measure.

        Of many steps the first ones are looked at.
        """
        later = self.latents.postponed
        if not later or not later.left:
            return 0.0
        numbers = range(step * self.accumulation, steps * self.accumulation)[:FORESEEN]
        shown = {place for number in numbers for place in self._places(number)}
        return later.seconds_for(shown | {(index, False) for index in measured})

    def all_places(self, measured: Iterable[int] = ()) -> set[Place]:
        """That any step may show, or a validation which measures those."""
        mirrored = (False, True) if self.flip else (False,)
        return {(index, flip) for index in self.training for flip in mirrored} | {(index, False) for index in measured}

    def _places(self, micro_step: int) -> list[Place]:
        _, indices, flips = self._drawn(micro_step)
        return list(zip(indices, flips, strict=True))

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
        device = self.text.device
        return torch.tensor([self.text.row[c] for c in captions]).to(device, non_blocking=copies_aside(device))


def caption_variants(example: Example, config: DataConfig, seed: int) -> list[str]:
    """The captions an example may be shown with: one, or a few frozen shuffles of its tags."""
    if not config.shuffle_tags:
        return [example.caption]
    rng = random.Random(f"{seed}/{example.content_hash}")
    return [shuffle_tags(example.caption, config.keep_tokens, rng) for _ in range(VARIANTS)]
