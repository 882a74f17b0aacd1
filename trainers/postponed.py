"""Pictures that are encoded when a step first shows them.

So the first step need not wait for all of them. What is encoded together, on how many threads and with which kernels
is what it would have been before: the latents are the same to the bit.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from trainers.clock import awake
from trainers.config import TrainConfig
from trainers.data.cache import Cache
from trainers.events import Adjusted
from trainers.families.base import Components, Family
from trainers.families.residence import release
from trainers.latents import LatentStore, Place
from trainers.memory.decide import Free
from trainers.memory.encoders import picture_bytes, weight_bytes
from trainers.moments import Wanted, in_two_tries, moments, read
from trainers.progress import Progress

KERNELS = [one for one in SDPBackend.__members__.values() if one not in (SDPBackend.ERROR, SDPBackend.OVERRIDEABLE)]
SMALLER = "A smaller data.resolution needs less."


class Postponed:
    """What of a store is not encoded yet."""

    def __init__(
        self,
        store: LatentStore,
        groups: list[list[Wanted]],
        family: Family,
        components: Components,
        cache: Cache | None,
        device: torch.device,
    ):
        """`groups`: what is encoded together. It is encoded with as many threads as torch has now."""
        self.store, self.how, self.cache = store, (family, components, device), cache
        self.group_of = {one.place: group for group in groups for one in group}
        self.vae, self.threads = components.vae, torch.get_num_threads()
        self.stays = False  # whether the VAE stays in memory until all are encoded, or is read each time
        self.done, self.seconds = 0, 0.0  # groups that were encoded here, and how long that took

    @property
    def left(self) -> int:
        """Pictures, each mirrored one too."""
        return len(self.group_of)

    def seconds_for(self, places: Iterable[Place]) -> float:
        """That encoding these will take, at the pace so far; 0 before anything is known of that."""
        groups = {id(self.group_of[place]) for place in places if place in self.group_of}
        return len(groups) * self.seconds / self.done if self.done else 0.0

    def settle(self, config: TrainConfig, free: Free, progress: Progress) -> Adjusted | None:
        """What a person is told of what waits, and None where it cannot wait, and all are encoded now.

        It waits if one picture is encoded within what is `free` between two steps, and in memory stays the VAE if a
        step can spare that.
        """
        family, components, device = self.how
        if picture_bytes(family, components, config, device) > free.between:
            self._encode_all(progress)
            return None
        self.stays = weight_bytes([self.vae]) <= free.within
        waiting, all_of_them = ({index for index, _ in places} for places in (self.group_of, self.store.rows))
        what = f"{len(waiting)} of {len(all_of_them)} pictures are encoded when a step first shows them"
        return Adjusted(what, "So training begins sooner. Leave the pictures where they are until then.")

    def encode(self, places: Iterable[Place]) -> None:
        """Encode those of them that are not, and what is encoded with them.

        Raises:
            UserError: a picture cannot be read any more, the memory ran out, the disk is full.
        """
        began = awake()
        for place in places:
            if group := self.group_of.get(place):
                with self._as_before():
                    in_two_tries("pictures", SMALLER, partial(self._encode, group))
                self.done += 1
        self.seconds += awake() - began

    def _encode_all(self, progress: Progress) -> None:
        total, self.stays = len(self.store.rows), True  # until the last one is encoded
        for place in list(self.group_of):
            self.encode([place])
            progress("Encoding pictures", total - self.left, total)

    @contextmanager
    def _as_before(self) -> Iterator[None]:
        """Threads and kernels are not those that were chosen for the steps."""
        threads = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with torch.no_grad(), sdpa_kernel(KERNELS):
                yield
        finally:
            torch.set_num_threads(threads)

    def _encode(self, group: list[Wanted]) -> None:
        found = [read(one, self.cache) for one in group]
        for ready, kept in zip(found, moments(found, *self.how), strict=True):
            if self.cache and ready.kept is None:
                self.cache.put(ready.wanted.name, kept)
            self.store.replace(*ready.wanted.place, kept["mean"], kept["logvar"])
        for one in group:
            del self.group_of[one.place]
        if not self.stays or not self.group_of:
            release(self.vae)
