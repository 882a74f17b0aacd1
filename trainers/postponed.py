"""Pictures that are encoded when a step first shows them.

So the first step need not wait for all of them. What is encoded together, on how many threads and with which kernels
is what it would have been before: the latents are the same to the bit.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from trainers import devices
from trainers.clock import awake
from trainers.config import TrainConfig
from trainers.data.cache import Cache
from trainers.events import Adjusted
from trainers.families.base import Components, Family
from trainers.families.residence import release
from trainers.latents import LatentStore, Place
from trainers.memory.aside import RoomBeside, room_beside
from trainers.memory.decide import Free
from trainers.memory.encoders import picture_bytes, weight_bytes
from trainers.memory.saving import Saving
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
        self.tight = False  # whether a picture takes more than a step leaves
        self.lent = 0  # bytes that make room for them
        self.wanted: set[Place] = set(self.group_of)  # of what waits
        self.give_back: Callable[[], None] = partial(release, self.vae)
        self.done, self.seconds = 0, 0.0  # groups that were encoded here, and how long that took

    @property
    def left(self) -> int:
        """Pictures, each mirrored one too."""
        return len(self.group_of)

    def seconds_for(self, places: Iterable[Place]) -> float:
        """That encoding these will take, at the pace so far; 0 before anything is known of that."""
        groups = {id(self.group_of[place]) for place in places if place in self.group_of}
        return len(groups) * self.seconds / self.done if self.done else 0.0

    def settle(self, config: TrainConfig, saving: Saving, free: Free, progress: Progress) -> RoomBeside | None:
        """The room in which what waits is encoded beside the steps; where there is none, all are encoded now."""
        family, components, device = self.how
        takes, vae = picture_bytes(family, components, config, device), weight_bytes([self.vae])
        found = room_beside(components.denoiser, saving, free, takes, vae)
        self.tight = found is not None and takes > free.within + found.gained
        if found:
            self.stays, self.lent = found.vae_stays, found.gained
        else:
            self._encode_all(progress)
        return found

    def until(self, wanted: Iterable[Place], give_back: Callable[[], None]) -> None:
        """When these are encoded, all that the run asks for, the VAE goes, and what was lent is given back."""

        def both() -> None:
            release(self.vae)
            give_back()

        self.wanted, self.give_back = set(wanted), both
        self._give_back()

    def told(self) -> Adjusted:
        """What a person should know of what waits."""
        waiting, all_of_them = ({index for index, _ in places} for places in (self.group_of, self.store.rows))
        what = f"{len(waiting)} of {len(all_of_them)} pictures are encoded when a step first shows them"
        return Adjusted(what, "So training begins sooner. Leave the pictures where they are until then.")

    def encode(self, places: Iterable[Place]) -> None:
        """Encode those of them that are not, and what is encoded with them; give back what was lent, after the last.

        Raises:
            UserError: a picture cannot be read any more, the memory ran out, the disk is full.
        """
        began = awake()
        for place in places:
            if group := self.group_of.get(place):
                if self.tight:
                    devices.hand_back()  # what a step has freed comes in pieces that do not fit
                with self._as_before():
                    in_two_tries("pictures", SMALLER, partial(self._encode, group))
                self.done += 1
        self._give_back()
        self.seconds += awake() - began

    def _encode_all(self, progress: Progress) -> None:
        total, self.stays = len(self.store.rows), True  # until the last one is encoded
        for place in list(self.group_of):
            self.encode([place])
            progress("Encoding pictures", total - self.left, total)

    def _give_back(self) -> None:
        self.wanted &= self.group_of.keys()
        if not self.wanted:
            self.give_back()
            self.give_back, self.stays, self.lent = _nothing, False, 0

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
        if not self.stays:
            release(self.vae)


def _nothing() -> None:
    """What is given back a second time."""
