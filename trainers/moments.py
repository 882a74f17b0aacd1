"""What the VAE makes of pictures: mean and logvar of each, several pictures in one call."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from trainers import devices
from trainers.data.cache import Cache
from trainers.data.images import open_picture, pixels
from trainers.data.types import Crop, Example
from trainers.errors import UserError
from trainers.failure import is_out_of_memory
from trainers.families.base import Components, Family
from trainers.families.residence import bring

Encoded = TypeVar("Encoded")


@dataclass(frozen=True)
class Wanted:
    """A picture as it is to be encoded; `name` is its key in the cache."""

    index: int
    example: Example
    crop: Crop
    mirrored: bool
    name: str

    @property
    def place(self) -> tuple[int, bool]:
        """What a LatentStore knows it by."""
        return self.index, self.mirrored


@dataclass(frozen=True)
class Ready:
    """What was found of it: its moments in the cache, or its pixels [3, H, W], or nothing yet."""

    wanted: Wanted
    kept: dict[str, Tensor] | None
    pixel: Tensor | None


def read(wanted: Wanted, cache: Cache | None, decode: bool = True) -> Ready:
    """What the cache has, else the decoded picture where that is wished."""
    kept = cache.get(wanted.name) if cache else None
    if kept or not decode:
        return Ready(wanted, kept, None)
    picture = open_picture(wanted.example.path, wanted.example.content_hash)
    return Ready(wanted, None, pixels(picture, wanted.crop, wanted.mirrored))


def moments(batch: list[Ready], family: Family, components: Components, device: torch.device) -> list[dict]:
    """Posterior mean and logvar [C, h, w] of each, fp32 on the CPU.

    A picture's numbers depend in their last bits on how many it is encoded with. So if one is missing, all are encoded:
    after an interruption the missing ones are what they would have been without.
    """
    if all(ready.kept for ready in batch):
        return [ready.kept for ready in batch]
    pixel = [read(ready.wanted, None).pixel if ready.pixel is None else ready.pixel for ready in batch]
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
