"""Pictures to latents, once: decoded ahead of the VAE, encoded by bucket, and written behind it.

On a slow device that takes longer than anything else before the first step, and training need not wait for all of
them: what some seconds were not enough for is encoded when a step first shows it (postponed.py).
"""

import math
from collections.abc import Iterator
from functools import partial
from itertools import groupby, islice
from typing import Any

import torch

from trainers.clock import awake
from trainers.data.cache import Cache, latent_key
from trainers.data.overlap import ahead, written_behind
from trainers.data.types import Crop, Example
from trainers.families.base import Components, Family
from trainers.families.residence import release
from trainers.identities import identify
from trainers.latents import LatentStore
from trainers.moments import Ready, Wanted, in_two_tries, moments, read
from trainers.postponed import SMALLER, Postponed
from trainers.ranks import Ranks
from trainers.stores import Progress

# Pixels encoded in one call. A VAE in fp32 holds about 2.6 KB for each (128 channels, five tensors at once): 170 MB on
# a CPU, which gains nothing from more than one picture of 256x256, and 2.7 GB on a GPU, which does.
AT_ONCE = {"cpu": 256 * 256}
AT_ONCE_ON_GPU = 1024 * 1024
SOON = 3.0  # seconds: 40 pictures of 64x64 take half a second on two cores, one of 512x512 five


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
    soon: float = math.inf,
) -> LatentStore:
    """Encode each picture once (twice when mirrored), or take it from the cache.

    The VAE comes to the device with the first picture that is to be encoded, and is gone at the end. After `soon`
    seconds no more are encoded: the store's `postponed` does that when they are asked for.
    """
    late = []  # of what is encoded together, that which waits
    store = LatentStore(components.latent, device, cache.folder if cache else None)
    key = identify(components.vae, cache.folder) if cache else ""
    wanted = [
        Wanted(i, examples[i], crops[i], mirrored, latent_key(examples[i], crops[i], mirrored, key))
        for mirrored in ((False, True) if flip else (False,))
        for i in range(len(examples))
    ]
    wanted.sort(key=lambda one: (one.crop.bucket.width, one.crop.bucket.height))
    done, began = 0, awake()
    with written_behind(cache) as put:
        for batch in _batches(ahead(lambda one: read(one, cache, decode=awake() - began < soon), wanted), device):
            if awake() - began >= soon and not all(ready.kept for ready in batch):
                late.append([ready.wanted for ready in batch])
                for one in late[-1]:
                    store.reserve(*one.place, one.crop.bucket, told_sizes(family, one))
                continue
            for ready, kept in zip(batch, moments(batch, family, components, device), strict=True):
                one = ready.wanted
                if ready.kept is None:
                    put(one.name, kept)
                store.add(*one.place, one.crop.bucket, kept["mean"], kept["logvar"], told_sizes(family, one))
            done += len(batch)
            progress("Encoding pictures", done, len(wanted))
    release(components.vae)
    store.seal()
    if late:
        store.postponed = Postponed(store, late, family, components, cache, device)
    return store


def encode_together(ranks: Ranks, examples: list[Example], crops: list[Crop], *how: Any) -> LatentStore:
    """`encode_pictures`; of several processes each encodes its part, and finds the others' in the cache.

    One process that computes on a CPU encodes `SOON` seconds long.
    """
    cache, device = how[3], how[4]
    soon = SOON if device.type == "cpu" and ranks.count == 1 else math.inf

    def encode(some: slice) -> LatentStore:
        return in_two_tries("pictures", SMALLER, partial(encode_pictures, examples[some], crops[some], *how, soon))

    if ranks.count > 1 and cache:
        encode(slice(ranks.number, None, ranks.count))
        ranks.exchange()
    return encode(slice(None))


def together(width: int, height: int, device: torch.device) -> int:
    """How many pictures of this size are encoded in one call."""
    return max(1, AT_ONCE.get(device.type, AT_ONCE_ON_GPU) // (width * height))


def _batches(found: Iterator[Ready], device: torch.device) -> Iterator[list[Ready]]:
    """Pictures of one bucket that are encoded together: the same ones whatever of them is in the cache."""
    for (bucket, _), some in groupby(found, lambda ready: (ready.wanted.crop.bucket, ready.wanted.mirrored)):
        size = together(bucket.width, bucket.height, device)
        while batch := list(islice(some, size)):
            yield batch


def told_sizes(family: Family, one: Wanted) -> tuple[int, ...]:
    """What the denoiser is told of a picture: its own size, and the corner and size of the crop really made."""
    (width, height), crop = one.example.size, one.crop
    left = crop.scaled[0] - crop.left - crop.bucket.width if one.mirrored else crop.left
    return family.sizes((height, width), (crop.top, left), (crop.bucket.height, crop.bucket.width))
