"""Where a run's validation loss turned: a hint that later checkpoints drift, from the run's own events."""

from collections.abc import Sequence
from dataclasses import dataclass

RISE = 0.01  # share by which the loss must have risen to be told: a choice, not a measurement

Measured = Sequence[tuple[int, float]]  # (step, validation loss)


@dataclass(frozen=True)
class Drift:
    """Validation loss at the checkpoint where it is lowest, and at the last one that was measured."""

    best: int
    best_loss: float
    last: int
    last_loss: float


def find_drift(validation: Measured, checkpoints: Sequence[int]) -> Drift | None:
    """None where the last measured checkpoint is no worse than the best, or fewer than two were measured.

    Only steps at which there is both a loss and a checkpoint count: of the others nothing can be chosen.
    """
    there = set(checkpoints)
    losses = {step: loss for step, loss in validation if step in there}
    if len(losses) < 2:
        return None
    best, last = min(losses, key=lambda step: (losses[step], step)), max(losses)
    if losses[last] <= losses[best] * (1 + RISE):
        return None
    return Drift(best, losses[best], last, losses[last])
