"""What a run stops its steps for, previews and validations: how long that took, and so will take until the end."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

from trainers.checkpoint import Position
from trainers.clock import awake
from trainers.latents import LatentStore


class Pauses:
    """Each is taken to be as long as the last one was, which the run's position remembers from sitting to sitting."""

    def __init__(self, every: int, position: Position, latents: LatentStore):
        """`every` so many steps, and after the last one; 0: never."""
        self.every, self.position, self.latents = every, position, latents

    @contextmanager
    def timed(self, share: float = 1.0) -> Iterator[None]:
        """Inside, a run does such a share of what it stops for.

        That it encodes a picture, which it does once, does not count.
        """
        began, encoded = awake(), self.latents.encoding_seconds
        yield
        self.position.pause = (awake() - began - (self.latents.encoding_seconds - encoded)) / share

    def left(self, step: int, steps: int) -> float:
        """Seconds that are to come after `step` is done, its own pause among them."""
        if not self.every:
            return 0.0
        return (math.ceil(steps / self.every) - (step - 1) // self.every) * self.position.pause
