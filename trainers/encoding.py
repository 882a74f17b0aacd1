"""Pictures to latents, once: decoded ahead of the VAE, encoded by bucket, and written behind it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from typing import Any, TypeVar

import torch
from torch import Tensor

from trainers import devices
from trainers.data.cache import Cache, latent_key
from trainers.data.images import open_picture, pixels
from trainers.data.overlap import ahead, written_behind
from trainers.data.types import Crop, Example
from trainers.errors import UserError
from trainers.failure import is_out_of_memory
from trainers.families.base import Components, Family
from trainers.families.residence import bring, release
from trainers.identities import identify
from trainers.ranks import Ranks
from trainers.stores import LatentStore, Progress

# Pixels encoded in one call. A VAE in fp32 holds about 2.6 KB for each (128 channels, five tensors at once): 170 MB on
# a CPU, which gains nothing from more than one picture of 256x256, and 2.7 GB on a GPU, which does.
AT_ONCE = {"cpu": 256 * 256}
AT_ONCE_ON_GPU = 1024 * 1024
Encoded = TypeVar("Encoded")


@dataclass(frozen=True)
class Wanted:
    """A picture as it is to be encoded; `name` is its key in the cache."""

    index: int
    example: Example
    crop: Crop
    mirrored: bool
    name: str


@dataclass(frozen=True)
class Ready:
    """What was found of it: its moments in the cache, or its pixels [3, H, W]."""

    wanted: Wanted
    kept: dict[str, Tensor] | None
    pixel: Tensor | None


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
    """Encode each picture once (twice when mirrored), or take it from the cache.

    The VAE comes to the device with the first picture that is to be encoded, and is gone at the end.
    """
    store = LatentStore(components.latent, device, cache.folder if cache else None)
    key = identify(components.vae, cache.folder) if cache else ""
    wanted = [
        Wanted(i, examples[i], crops[i], mirrored, latent_key(examples[i], crops[i], mirrored, key))
        for mirrored in ((False, True) if flip else (False,))
        for i in range(len(examples))
    ]
    wanted.sort(key=lambda one: (one.crop.bucket.width, one.crop.bucket.height))
    done = 0
    with written_behind(cache) as put:
        for batch in _batches(ahead(lambda one: _read(one, cache), wanted), device):
            for ready, kept in zip(batch, moments(batch, family, components, device), strict=True):
                if ready.kept is None:
                    put(ready.wanted.name, kept)
                _add(store, family, ready.wanted, kept)
            done += len(batch)
            progress("Encoding pictures", done, len(wanted))
    release(components.vae)
    store.seal()
    return store


def encode_together(ranks: Ranks, examples: list[Example], crops: list[Crop], *how: Any) -> LatentStore:
    """`encode_pictures`; of several processes each encodes its part, and finds the others' in the cache."""
    cache = how[3]

    def encode(some: slice) -> LatentStore:
        again = partial(encode_pictures, examples[some], crops[some], *how)
        return in_two_tries("pictures", "A smaller data.resolution needs less.", again)

    if ranks.count > 1 and cache:
        encode(slice(ranks.number, None, ranks.count))
        ranks.exchange()
    return encode(slice(None))


def in_two_tries(what: str, hint: str, encode: Callable[[], Encoded]) -> Encoded:
    """What `encode()` returns. Where the memory runs out it is called once more, from what the cache has by then.

    Raises:
        UserError: it ran out again; nothing that a step could do otherwise would help.
    """
    try:
        return encode()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    devices.give_back()
    try:
        return encode()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        message = f"The memory ran out twice while the {what} were encoded."
        raise UserError(message, f"Close other programs, and resume. {hint}") from error


def _read(wanted: Wanted, cache: Cache | None) -> Ready:
    """In a thread: what the cache has, else the decoded picture."""
    if cache and (kept := cache.get(wanted.name)):
        return Ready(wanted, kept, None)
    picture = open_picture(wanted.example.path, wanted.example.content_hash)
    return Ready(wanted, None, pixels(picture, wanted.crop, wanted.mirrored))


def together(width: int, height: int, device: torch.device) -> int:
    """How many pictures of this size are encoded in one call."""
    return max(1, AT_ONCE.get(device.type, AT_ONCE_ON_GPU) // (width * height))


def _batches(found: Iterator[Ready], device: torch.device) -> Iterator[list[Ready]]:
    """Pictures of one bucket that are encoded together: the same ones whatever of them is in the cache."""
    for (bucket, _), some in groupby(found, lambda ready: (ready.wanted.crop.bucket, ready.wanted.mirrored)):
        size = together(bucket.width, bucket.height, device)
        while batch := list(islice(some, size)):
            yield batch


def moments(batch: list[Ready], family: Family, components: Components, device: torch.device) -> list[dict]:
    """Posterior mean and logvar [C, h, w] of each, fp32 on the CPU.

    A picture's numbers depend in their last bits on how many it is encoded with. So if one is missing, all are encoded:
    after an interruption the missing ones are what they would have been without.
    """
    if all(ready.kept for ready in batch):
        return [ready.kept for ready in batch]
    pixel = [_read(ready.wanted, None).pixel if ready.pixel is None else ready.pixel for ready in batch]
    encoded = _encoded(pixel, family, components, device)
    return [ready.kept or new for ready, new in zip(batch, encoded, strict=True)]


def _encoded(pixel: list[Tensor], family: Family, components: Components, device: torch.device) -> list[dict]:
    # Families load the VAE in fp32: fp16 VAEs overflow on some bases, and this is done once.
    vae = bring(components.vae, device, mapped=False)
    try:
        mean, logvar = family.encode_image(vae, torch.stack(pixel).to(device))
    except Exception as error:
        if len(pixel) == 1 or not is_out_of_memory(error):
            raise
        mean = None
    if mean is None:  # out here nothing of the failed call is held any more
        devices.give_back()
        middle = len(pixel) // 2
        halves = (pixel[:middle], pixel[middle:])
        return [one for half in halves for one in _encoded(half, family, components, device)]
    return [{"mean": m, "logvar": v} for m, v in zip(mean.float().cpu(), logvar.float().cpu(), strict=True)]


def _add(store: LatentStore, family: Family, wanted: Wanted, kept: dict[str, Tensor]) -> None:
    sizes = told_sizes(family, wanted.example, wanted.crop, wanted.mirrored)
    store.add(wanted.index, wanted.mirrored, wanted.crop.bucket, kept["mean"], kept["logvar"], sizes)


def told_sizes(family: Family, example: Example, crop: Crop, mirrored: bool) -> tuple[int, ...]:
    """What the denoiser is told of a picture: its own size, and the corner and size of the crop really made."""
    width, height = example.size
    left = crop.scaled[0] - crop.left - crop.bucket.width if mirrored else crop.left
    return family.sizes((height, width), (crop.top, left), (crop.bucket.height, crop.bucket.width))
