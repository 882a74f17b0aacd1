"""The processes that train one run together, one per device: who does what of a step, and what they agree on.

A run on several devices takes the steps of a run on one, to rounding. Where the micro-steps of a step can be dealt out
evenly, each process does some of them; else each does some pictures of every batch. What is drawn at random depends on
the number of the micro-step alone, so it is the same wherever it is drawn; only an adapter's dropout is another one
where a batch is shared, or computed in parts. The gradients are added up.

Process 0 alone writes events and files. The others follow, and whatever befalls one is told to all in the next
`exchange`, of which every process does the same number: at the end of a failing run, too.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from trainers import launched
from trainers.config import TrainConfig
from trainers.errors import EndedEarly, Overflowed, UserError
from trainers.failure import in_words, is_out_of_memory

PATIENCE = timedelta(hours=12)  # that the others wait while process 0 draws or writes
BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl", "xpu": "cpu:gloo,xpu:xccl"}
FINE, ENDED, FAILED, OVERFLOWED, NO_MEMORY = range(5)  # how a process is; of several, the last counts
ALL = slice(None)


class Lost(UserError):
    """Another process has ended without a word: nothing can be told to it any more."""

    told = True

    def __init__(self) -> None:
        super().__init__(
            "A process that trained this run with others has ended by itself.",
            "Resume: the run goes on from its last checkpoint.",
        )


@dataclass
class Ranks:
    """This process and the others; with a `count` of 1 everything here does nothing."""

    number: int = 0
    count: int = 1

    @property
    def main(self) -> bool:
        """Whether this is process 0, which writes."""
        return self.number == 0

    def join(self, kind: str) -> None:
        """Meet the others, and take a device of its own. UserError where devices of that kind cannot be several."""
        if self.count == 1 or dist.is_initialized():
            return
        if kind not in BACKENDS:
            raise UserError(f"Several devices of kind {kind} cannot train a run together.", "Start it on one.")
        if kind != "cpu":
            torch.accelerator.set_device_index(launched.local_rank())
        dist.init_process_group(BACKENDS[kind], timeout=PATIENCE)

    def leave(self) -> None:
        """Part from the others."""
        if self.count > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def require_work(self, config: TrainConfig) -> None:
        """UserError where a step has nothing to do for some of them."""
        at_once, times = config.data.batch_size, config.optimizer.accumulation
        if can_share(at_once, times, self.count):
            return
        raise UserError(
            f"A step of this run is {times} times {at_once} pictures, which {self.count} devices cannot share.",
            f"Set data.batch_size to {self.count} or more, or optimizer.accumulation to a multiple of it.",
        )

    def micro_steps(self, step: int, accumulation: int) -> range:
        """The micro-steps of a step that this process does."""
        first, after = step * accumulation, (step + 1) * accumulation
        if shared_by(accumulation, self.count) == 1:
            return range(first + self.number, after, self.count)
        return range(first, after)

    def pictures(self, accumulation: int, parts: int = 1) -> list[slice]:
        """Which pictures of a batch this process looks at, in so many parts one after the other."""
        apart = shared_by(accumulation, self.count)
        first = 0 if apart == 1 else self.number
        if parts * apart == 1:
            return [ALL]
        return [slice(first + apart * part, None, apart * parts) for part in range(parts)]

    def exchange(self, error: Exception | None = None, value: int = 0) -> int:
        """Wait for all; the largest of the values that they came with.

        `error`: what befell this process. Raises what befell another one, unless this one's own is as grave.
        """
        if self.count == 1:
            return value
        state = _state_of(error)
        told = torch.tensor([state, value])
        try:
            dist.all_reduce(told, dist.ReduceOp.MAX)
            worst, largest = told.tolist()
            if worst == FINE:
                return largest
            said: list[tuple[int, str, str]] = [(FINE, "", "")] * self.count
            words = in_words(error, "log.txt of the run") if error else UserError("")
            dist.all_gather_object(said, (state, words.message, words.hint))
        except RuntimeError as broken:  # gloo: the connection is closed
            raise Lost from broken
        if worst > state:
            raise _error_of(said, worst)
        return largest

    @contextmanager
    def together(self) -> Iterator[None]:
        """Inside, the run; all leave it in the same way, whatever happens to one of them."""
        try:
            yield
            self.exchange()  # until process 0 has written what there is to write
        except Exception as error:
            if self.count > 1 and not known_to_all(error):
                self.exchange(error)
                error.told = True
            raise

    @contextmanager
    def one_by_one(self) -> Iterator[None]:
        """Inside, process 0 goes first; the others follow and find in the cache what it has made."""
        if not self.main:
            self.exchange()
        yield
        if self.main:
            self.exchange()

    def begin_alike(self, parameters: list[nn.Parameter]) -> None:
        """Give all processes what process 0 trains, to the bit."""
        if self.count == 1:
            return
        self.exchange()
        with torch.no_grad():
            for parameter in parameters:
                dist.broadcast(parameter.data, src=0)

    def named(self, device: torch.device) -> str:
        """The device of the run in words: cpu, or cuda x 2."""
        return str(device) if self.count == 1 else f"{device} x {self.count}"

    def add_up(self, parameters: list[nn.Parameter], loss: Tensor) -> Tensor:
        """Give each parameter the sum of all processes' gradients; returns the sum of their losses.

        A parameter that no process has a gradient for keeps none.
        """
        if self.count == 1:
            return loss
        self.exchange()
        having = torch.tensor([p.grad is not None for p in parameters], dtype=torch.uint8)
        dist.all_reduce(having, dist.ReduceOp.MAX)
        used = [p for p, has in zip(parameters, having.tolist(), strict=True) if has]
        parts = [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in used]
        summed = torch.cat([*parts, loss.detach().flatten()])
        self.exchange()  # all have found the memory for it
        dist.all_reduce(summed)
        *grads, total = summed.split([*(p.numel() for p in used), 1])
        for parameter, grad in zip(used, grads, strict=True):
            parameter.grad = grad.view_as(parameter)
        return total.squeeze(0)


def shared_by(times: int, count: int) -> int:
    """How many of so many processes look at pictures of one batch, where a step has `times` batches."""
    return 1 if times % count == 0 else count


def can_share(at_once: int, times: int, count: int) -> bool:
    """Whether every one of so many processes has something to do in a step of `times` batches of `at_once` pictures."""
    return at_once >= shared_by(times, count)


def cut(pictures: slice, *batch: Tensor | None) -> tuple:
    """(which part of the batch these pictures are, from 0 to 1; their rows [B, ...] of each tensor)."""
    if pictures == ALL:
        return 1.0, *batch
    count = len(batch[0])
    return len(range(count)[pictures]) / count, *(None if rows is None else rows[pictures] for rows in batch)


def known_to_all(error: Exception) -> bool:
    """Whether every process has been told of it."""
    return getattr(error, "told", False)


def _state_of(error: Exception | None) -> int:
    if error is None or isinstance(error, EndedEarly):
        return ENDED if error else FINE
    if isinstance(error, Overflowed):
        return OVERFLOWED
    return NO_MEMORY if is_out_of_memory(error) else FAILED


def _error_of(said: list[tuple[int, str, str]], worst: int) -> Exception:
    """What befell another process, for this one."""
    number, (_, message, hint) = next((i, one) for i, one in enumerate(said) if one[0] == worst)
    error: Exception = UserError(f"In process {number} of {len(said)}: {message}", hint)
    if worst == ENDED:
        error = EndedEarly()
    elif worst == OVERFLOWED:
        error = Overflowed(f"A number of process {number} is no longer finite")
    elif worst == NO_MEMORY:
        error = MemoryError(f"in process {number}")
    error.told = True
    return error
