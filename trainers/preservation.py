"""Output preservation: what is drawn without the trigger word stays what the base draws.

Noisy pictures are denoised once more, and the target is what the base alone predicts there (differential output
preservation). They are the run's own, under their captions with a class word in the trigger's place or under the empty
caption; or pictures that the base drew of the class words beforehand (prior preservation, Ruiz et al. 2023).
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from trainers import preview
from trainers.adapters.adapter import Adapter
from trainers.config import LossConfig, TrainConfig
from trainers.data.cache import Cache, content_key
from trainers.data.captions import without_trigger
from trainers.data.types import Example
from trainers.families.base import Components, Conditioning, Family, plain_sizes
from trainers.identities import identify
from trainers.loss import Loss
from trainers.noise import Noise
from trainers.ranks import ALL, cut
from trainers.stores import Feed, Progress, Seen, TextStore

EMPTY_SHARE = 0.25  # of the class pictures are looked at under the empty caption
FORMAT = 1  # raise it when the same settings are to give other class pictures


def preserved_captions(example: Example, config: TrainConfig) -> list[str]:
    """The captions under which a picture's prediction should stay the base's; none while preservation is off.

    The empty caption is always one of them: it is the other half of classifier-free guidance.
    """
    if not config.loss.preservation:
        return []
    trigger, words = config.data.trigger, config.data.class_words or ("",)
    if config.data.class_pictures:
        return ["", *words]
    return list(dict.fromkeys(["", *(without_trigger(example.caption, trigger, word) for word in words)]))


@dataclass
class ClassPictures:
    """What the base drew: latents [N, C, h, w], scaled, fp32; captions [N] row numbers of the TextStore."""

    latents: Tensor
    captions: Tensor
    empty: Tensor  # the row of the empty caption
    sizes: Tensor | None  # [1, 6], where the family is told them

    def batch(self, noise: Noise, timesteps: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Noisy latents [B, C, h, w] at timesteps [B], and their caption rows [B]."""
        options = {"generator": generator, "device": generator.device}
        chosen = torch.randint(len(self.latents), timesteps.shape, **options)
        rows = torch.where(torch.rand(timesteps.shape, **options) < EMPTY_SHARE, self.empty, self.captions[chosen])
        latents = self.latents[chosen]
        return noise.corrupt(latents, noise.noise_like(latents, generator), timesteps)[0], rows


def draw_class_pictures(
    config: TrainConfig,
    family: Family,
    components: Components,
    text: TextStore,
    base_text: Conditioning,
    resolution: int,
    cache: Cache | None,
    progress: Progress,
) -> ClassPictures | None:
    """Let the base draw, before an adapter is on it; None where the settings want no class pictures."""
    count, device, settings = config.data.class_pictures, text.device, config.preview
    if not (count and config.loss.preservation):
        return None
    words, shape = _class_pictures(config, components, resolution)
    rows, empty = torch.tensor([text.row[word] for word in words], device=device), torch.tensor(text.row[""]).to(device)
    key = ""
    if cache:
        models = [identify(model, cache.folder) for model in (components.denoiser, *components.text_encoders)]
        key = class_key(config, components, resolution, models)
    kept = cache.get(key) if cache else None
    if kept is None:
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(config.seed)).to(device)
        dtype = next(components.denoiser.parameters()).dtype
        at_once = config.at_once  # without gradients, guidance's two rows each need less than training
        drawn = []
        for part, prompts in zip(noise.split(at_once), rows.split(at_once), strict=True):
            both = base_text.rows(torch.cat([empty.expand(len(prompts)), prompts])).to(dtype)
            both = both.sized(plain_sizes(family, resolution, resolution, 2 * len(prompts), device))
            drawn.append(preview.draw(family, components, part, both, settings))
            progress("Drawing class pictures", sum(map(len, drawn)), count)
        kept = {"latents": torch.cat(drawn)}
        if cache:
            cache.put(key, kept)
    return ClassPictures(
        kept["latents"].to(device), rows, empty, plain_sizes(family, resolution, resolution, 1, device)
    )


def class_key(config: TrainConfig, components: Components, resolution: int, models: list[str]) -> str:
    """The cache's key of the class pictures; `models`: identities of the denoiser and of the text encoders."""
    settings, (words, shape) = config.preview, _class_pictures(config, components, resolution)
    drawn_as = {"guidance": settings.guidance, "sampling_steps": settings.sampling_steps, "seed": config.seed}
    about = {"words": words, "shape": shape, "clip_skip": config.model.clip_skip, **drawn_as}
    about["scheduler"] = components.scheduler  # the prediction type shows in no weight
    return content_key(kind="class", format=FORMAT, models=models, **about)


def class_bytes(config: TrainConfig, components: Components) -> int:
    """What the class pictures will take on the device."""
    if not config.loss.preservation or not config.data.class_pictures:
        return 0
    _, shape = _class_pictures(config, components, config.data.resolution or components.resolution)
    return math.prod(shape) * 4


def _class_pictures(config: TrainConfig, components: Components, resolution: int) -> tuple[list[str], tuple[int, ...]]:
    """The words of each, and the shape of all their latents."""
    count, words, latent = config.data.class_pictures, config.data.class_words, components.latent
    side = components.side(resolution)
    return [words[i % len(words)] for i in range(count)], (count, latent.channels, side, side)


class Kept(NamedTuple):
    """What a micro-step preserves: noisy latents [B, C, h, w] at timesteps [B], captions rows [B], sizes [B, ...]."""

    noisy: Tensor
    timesteps: Tensor
    rows: Tensor
    sizes: Tensor | None


class Preservation:
    """The second loss of a run."""

    def __init__(
        self,
        config: LossConfig,
        adapter: Adapter,
        family: Family,
        denoiser: nn.Module,
        feed: Feed,
        base_text: Conditioning,
        drawn: ClassPictures | None,
        noise: Noise,
        loss: Loss,
    ):
        """`base_text`: every caption of the feed's TextStore as the text encoders without an adapter encode it."""
        self.weight, self.every = config.preservation * config.preservation_every, config.preservation_every
        self.adapter, self.family, self.denoiser, self.loss = adapter, family, denoiser, loss
        self.feed, self.base_text, self.drawn, self.noise = feed, base_text, drawn, noise

    def due(self, number: int) -> bool:
        """Whether micro-step `number` has this loss: the last of each `every`."""
        return (number + 1) % self.every == 0

    def look(self, number: int, seen: Seen, generator: torch.Generator) -> Kept:
        """What of the base is preserved in micro-step `number`.

        `generator` draws which class pictures are looked at, where there are any.
        """
        noisy, timesteps = seen.noisy, seen.timesteps
        if self.drawn:
            latents, rows = self.drawn.batch(self.noise, timesteps, generator)
            noisy, sizes = latents.to(noisy.dtype), self.drawn.sizes
            sizes = None if sizes is None else sizes.expand(len(noisy), -1)
        else:
            rows, sizes = self.feed.preserved(number, seen.batch.pictures), seen.batch.sizes
        return Kept(noisy, timesteps, rows, sizes)

    def inputs(self, kept: Kept, pictures: slice = ALL) -> tuple[float, tuple[Tensor | None, ...]]:
        """(the share of these pictures in the micro-step's, what `error` takes of them)."""
        share, noisy, timesteps, rows, sizes = cut(pictures, *kept)
        base = self.base_text.rows(rows).to(noisy.dtype)
        known = self.feed.text.known(rows, noisy.dtype)
        return share, (noisy, timesteps, rows, sizes, base.embeds, base.pooled, *known)

    def error(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        rows: Tensor,
        sizes: Tensor | None,
        base_embeds: Tensor,
        base_pooled: Tensor | None,
        embeds: Tensor | None,
        pooled: Tensor | None,
    ) -> Tensor:
        """The weighted loss, a scalar on the device: noisy latents [B, C, h, w] at timesteps [B], captions rows [B]."""
        with torch.no_grad(), self.adapter.disabled():
            base = Conditioning(base_embeds, base_pooled).sized(sizes)
            target = self.family.denoise(self.denoiser, noisy, timesteps, base)
        conditioning = self.feed.text.told(rows, embeds, pooled, noisy.dtype).sized(sizes)
        prediction = self.family.denoise(self.denoiser, noisy, timesteps, conditioning)
        return self.weight * self.loss(prediction, target, timesteps)
