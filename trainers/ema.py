"""Moving average of the adapter's weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """v <- v + (1 - d) (w - v), with d = min(decay, (1 + step)/(10 + step)) so that the start is soon forgotten."""

    def __init__(self, parameters: list[nn.Parameter], decay: float):
        self.parameters, self.decay = parameters, decay
        self.values = [p.detach().clone() for p in parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.values, [p.detach() for p in self.parameters], 1 - decay)

    @torch.no_grad()
    def settle(self, parameters: list[nn.Parameter]) -> None:
        """The average of these is what they hold now; they are no longer trained."""
        settled = {id(parameter) for parameter in parameters}
        for parameter, value in zip(self.parameters, self.values, strict=True):
            if id(parameter) in settled:
                value.copy_(parameter)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """The parameters hold the average inside the block, and their own values again after it."""
        own = [p.detach().clone() for p in self.parameters]
        try:
            self._write(self.values)
            yield
        finally:
            self._write(own)

    @torch.no_grad()
    def _write(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.copy_(value)

    def state(self) -> dict[str, Tensor]:
        return {f"{i:05d}": value.cpu() for i, value in enumerate(self.values)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        for i, value in enumerate(self.values):
            value.copy_(state[f"{i:05d}"])
