"""Reading ahead and writing behind: files are read and written while the model encodes."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from torch import Tensor

from trainers.data.cache import Cache

Item, Made = TypeVar("Item"), TypeVar("Made")
READERS, AHEAD = 2, 8  # decoding shares the cores with the model; each item ahead is one picture of the training size
WRITERS, WAITING = 4, 32  # a write mostly waits for the disk, and disks take several at once


def ahead(make: Callable[[Item], Made], items: Iterable[Item]) -> Iterator[Made]:
    """`make` of each item, in order, done in threads a few items ahead: what waits is bounded, not the items.

    What `make` raises is raised here, at the item's turn; nothing runs on once the caller stops asking.
    """
    pool, waiting = ThreadPoolExecutor(READERS), deque[Future[Made]]()
    try:
        for item in items:
            waiting.append(pool.submit(make, item))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def written_behind(cache: Cache | None) -> Iterator[Callable[[str, dict[str, Tensor]], None]]:
    """Gives `Cache.put` that returns before the file is written; all are written when the block is left.

    UserError of a full disk or an unwritable folder, at a later call or at the end. Without a cache nothing is kept.
    """
    if cache is None:
        yield lambda key, tensors: None
        return
    pool, waiting = ThreadPoolExecutor(WRITERS), deque[Future[None]]()

    def put(key: str, tensors: dict[str, Tensor]) -> None:
        waiting.append(pool.submit(cache.put, key, tensors))
        if len(waiting) > WAITING:
            waiting.popleft().result()

    try:
        yield put
        while waiting:
            waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
