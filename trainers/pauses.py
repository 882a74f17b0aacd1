"""What a run stops its steps for, previews and validations: how long that took, and so will take until the end."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

from trainers.clock import awake


class Pauses:
    """Each is taken to be as long as the last one was."""

    def __init__(self, every: int):
        """`every` so many steps, and after the last one; 0: never."""
        self.every = every
        self.seconds = 0.0

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Inside, a run does what it stops for."""
        began = awake()
        yield
        self.seconds = awake() - began

    def left(self, step: int, steps: int) -> float:
        """Seconds that are to come after `step` is done, its own pause among them."""
        if not self.every:
            return 0.0
        return (math.ceil(steps / self.every) - (step - 1) // self.every) * self.seconds
