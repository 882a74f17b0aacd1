"""Encoded pictures, ready on the device."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from trainers.data.rows import KEPT, Budget, Collector, FiledRows, held_bytes
from trainers.data.types import Bucket
from trainers.devices import copies_aside
from trainers.families.base import LatentSpec

Place = tuple[int, bool]  # of a picture in a store: its number among all examples, and whether it is mirrored


class Later(Protocol):
    """What encodes pictures of a LatentStore when they are needed (postponed.py)."""

    left: int  # pictures, each mirrored one too
    seconds: float  # that it has taken so far
    lent: int  # bytes that make room for it

    def seconds_for(self, places: Iterable[Place]) -> float:
        """That it will take to encode these."""

    def encode(self, places: Iterable[Place]) -> None:
        """Encode those of them that are not, into their places."""


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

    @property
    def held(self) -> int:
        """Bytes on the device, with those that are lent to what encodes the rest."""
        lent = self.postponed.lent if self.postponed else 0
        return lent + sum(held_bytes(moments) for moments in self.moments.values())

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
        return torch.tensor(rows, dtype=torch.float32).to(self.device, non_blocking=copies_aside(self.device))

    def sample(self, indices: list[int], flips: list[bool], generator: torch.Generator) -> Tensor:
        """Draw latents [B, C, h, w] from the posteriors of pictures that share a bucket."""
        places = list(zip(indices, flips, strict=True))
        self.need(places)
        rows = torch.tensor([self.rows[place][1] for place in places])
        moments = self.moments[self.rows[places[0]][0]]
        if isinstance(moments, Tensor):
            rows = rows.to(self.device, non_blocking=copies_aside(self.device))
        mean, std = moments[rows].unbind(1)
        return torch.addcmul(mean, std, torch.randn(mean.shape, generator=generator, device=self.device))
