"""What the loop reads each step: encoded pictures and captions, ready on the device."""

import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.config import DataConfig, TrainConfig
from trainers.data.batches import Batches
from trainers.data.cache import Cache, identity, latent_key, text_key
from trainers.data.captions import shuffle_tags
from trainers.data.images import open_picture, pixels
from trainers.data.types import Bucket, Crop, Example, Problem
from trainers.families.base import Components, Conditioning, Family, LatentSpec

VARIANTS = 8  # frozen shuffles of a tag caption, encoded once each
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Batch:
    """latents [B, C, h, w] fp32, a fresh posterior sample; captions [B] row numbers of the TextStore."""

    latents: Tensor
    captions: Tensor
    pictures: list[int]  # their numbers among all examples
    sizes: Tensor | None  # [B, 6], where the family is told them


class LatentStore:
    """Posterior mean and standard deviation of every picture, one stack per bucket, shifted and scaled, fp32."""

    def __init__(self, latent: LatentSpec, device: torch.device):
        self.latent, self.device = latent, device
        self.sizes: dict[tuple[int, bool], tuple[int, ...]] = {}
        self.rows: dict[tuple[int, bool], tuple[Bucket, int]] = {}
        self.stacks: dict[Bucket, list[tuple[Tensor, Tensor]]] = {}
        self.means: dict[Bucket, Tensor] = {}
        self.stds: dict[Bucket, Tensor] = {}

    def add(
        self, index: int, flip: bool, bucket: Bucket, mean: Tensor, logvar: Tensor, sizes: tuple[int, ...] = ()
    ) -> None:
        """mean, logvar: [C, h, w] as the VAE gives them; sizes: what the denoiser is told of the picture's sizes."""
        self.sizes[index, flip] = sizes
        stack = self.stacks.setdefault(bucket, [])
        self.rows[index, flip] = (bucket, len(stack))
        scaling, shift = self.latent.scaling, self.latent.shift
        stack.append(((mean.float() - shift) * scaling, (0.5 * logvar.float()).exp() * scaling))

    def seal(self) -> None:
        """Move all to the device, once."""
        for bucket, stack in self.stacks.items():
            self.means[bucket] = torch.stack([mean for mean, _ in stack]).to(self.device)
            self.stds[bucket] = torch.stack([std for _, std in stack]).to(self.device)
        self.stacks.clear()

    def mean(self, index: int) -> Tensor:
        """Scaled posterior mean [C, h, w] of one picture, not mirrored."""
        bucket, row = self.rows[index, False]
        return self.means[bucket][row]

    def told_sizes(self, indices: list[int], flips: list[bool]) -> Tensor | None:
        """[B, 6] for these pictures; None where the family is told nothing."""
        rows = [self.sizes[key] for key in zip(indices, flips, strict=True)]
        if not rows[0]:
            return None
        return torch.tensor(rows, dtype=torch.float32).to(self.device, non_blocking=True)

    def sample(self, indices: list[int], flips: list[bool], generator: torch.Generator) -> Tensor:
        """Draw latents [B, C, h, w] from the posteriors of pictures that share a bucket."""
        places = [self.rows[index, flip] for index, flip in zip(indices, flips, strict=True)]
        bucket = places[0][0]
        rows = torch.tensor([row for _, row in places]).to(self.device, non_blocking=True)
        mean, std = self.means[bucket][rows], self.stds[bucket][rows]
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

    @torch.no_grad()
    def encode_all(self, cache: Cache | None, progress: Progress) -> Conditioning:
        """Encode every caption once with the encoders as they are now (their device and weights): one row each."""
        encoders = self.components.text_encoders
        for encoder in encoders:
            encoder.eval()
        key = "/".join(identity(encoder) for encoder in encoders) if cache else ""
        rows = []
        for i, caption in enumerate(self.captions):
            name = text_key(caption, key, self.clip_skip)
            kept = cache.get(name) if cache else None
            if kept is None:
                tokens = tuple(t[i : i + 1] for t in self.tokens)
                found = self.family.encode_text(encoders, tokens, self.clip_skip)
                kept = {"embeds": found.embeds[0].cpu()}
                if found.pooled is not None:
                    kept["pooled"] = found.pooled[0].cpu()
                if cache:
                    cache.put(name, kept)
            rows.append(kept)
            progress("Encoding captions", i + 1, len(self.captions))
        stacked = {name: torch.stack([row[name] for row in rows]).to(self.device) for name in rows[0]}
        return Conditioning(**stacked)

    def conditioning(self, rows: Tensor) -> Conditioning:
        """Rows [B] -> embeds [B, L, D]; runs the text encoder while it is being trained."""
        if self.cached is not None:
            return self.cached.rows(rows)
        tokens = tuple(t[rows] for t in self.tokens)
        return self.family.encode_text(self.components.text_encoders, tokens, self.clip_skip)


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
        draw = random.Random(f"{self.seed}/{micro_step}")
        indices = [self.training[i] for i in self.batches.batch(micro_step)]
        flips = [self.flip and draw.random() < 0.5 for _ in indices]
        captions = ["" if draw.random() < self.dropout else draw.choice(self.variants[i]) for i in indices]
        latents = self.latents.sample(indices, flips, generator)
        return Batch(latents, self._rows(captions), indices, self.latents.told_sizes(indices, flips))

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


@torch.no_grad()
def encode_pictures(
    examples: list[Example],
    crops: list[Crop],
    family: Family,
    components: Components,
    flip: bool,
    cache: Cache | None,
    device: torch.device,
    progress: Progress,
) -> LatentStore:
    """Encode each picture once (twice when mirrored), or take it from the cache; the VAE leaves the device again."""
    store = LatentStore(components.latent, device)
    vae = components.vae  # families load it in fp32: fp16 VAEs overflow on some bases, and this is done once
    key = identity(vae) if cache else ""
    wanted = [(i, mirrored) for i in range(len(examples)) for mirrored in ((False, True) if flip else (False,))]
    vae.to(device)
    for done, (i, mirrored) in enumerate(wanted):
        name = latent_key(examples[i], crops[i], mirrored, key)
        kept = cache.get(name) if cache else None
        if kept is None:
            pixel = pixels(open_picture(examples[i].path, examples[i].content_hash), crops[i], mirrored)[None].to(
                device
            )
            mean, logvar = family.encode_image(vae, pixel)
            kept = {"mean": mean[0].float().cpu(), "logvar": logvar[0].float().cpu()}
            if cache:
                cache.put(name, kept)
        sizes = told_sizes(family, examples[i], crops[i], mirrored)
        store.add(i, mirrored, crops[i].bucket, kept["mean"], kept["logvar"], sizes)
        progress("Encoding pictures", done + 1, len(wanted))
    vae.to("cpu")
    store.seal()
    return store


def told_sizes(family: Family, example: Example, crop: Crop, mirrored: bool) -> tuple[int, ...]:
    """What the denoiser is told of a picture: its own size, and the corner and size of the crop really made."""
    width, height = example.size
    left = crop.scaled[0] - crop.left - crop.bucket.width if mirrored else crop.left
    return family.sizes((height, width), (crop.top, left), (crop.bucket.height, crop.bucket.width))
