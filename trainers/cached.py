"""What a run would find in the cache: pictures and captions encoded before, class pictures drawn before."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainers.config import TrainConfig
from trainers.data.cache import Cache, latent_key, text_key
from trainers.data.types import Crop, Example
from trainers.families.base import Components
from trainers.identities import known_identity
from trainers.preservation import class_key


@dataclass(frozen=True)
class Cached:
    pictures: int = 0  # each mirrored one too
    captions: int = 0
    class_pictures: bool = False


NOTHING = Cached()


def find_cached(
    config: TrainConfig,
    examples: Sequence[Example],
    crops: Sequence[Crop],
    captions: Collection[str],
    components: Components,
    resolution: int,
    folder: Path,
) -> Cached:
    """What the cache in `folder` has of these; nothing is read but the names of its files.

    Whatever depends on weights that were never hashed is not there. With new tokens the text encoders are the run's
    own, and what they encoded is not looked for.
    """
    if not config.memory.cache_latents:
        return NOTHING
    cache = Cache(folder)
    vae = known_identity(components.vae, folder)
    encoders = [known_identity(encoder, folder) for encoder in components.text_encoders]
    mirrored = (False, True) if config.data.flip else (False,)
    pictures = (latent_key(*pair, flip, vae) for pair in zip(examples, crops, strict=True) for flip in mirrored)
    told = (text_key(caption, "/".join(encoders), config.model.clip_skip) for caption in captions)
    preserves, trains_text = bool(config.loss.preservation), config.adapter.trains_text
    text = all(encoders) and not config.adapter.new_tokens and (preserves or not trains_text)
    denoiser = known_identity(components.denoiser, folder)
    as_it_is = config.memory.quantize == "none"  # a rounded denoiser draws others
    classes = preserves and config.data.class_pictures and text and denoiser and as_it_is
    return Cached(
        pictures=sum(map(cache.has, pictures)) if vae else 0,
        captions=sum(map(cache.has, told)) if text else 0,
        class_pictures=bool(classes) and cache.has(class_key(config, components, resolution, [denoiser, *encoders])),
    )
