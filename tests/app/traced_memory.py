"""How much memory Python hands out while something is done."""

import tracemalloc
from collections.abc import Callable


def most_bytes(action: Callable[[], object]) -> int:
    """The most that was held at one moment of the action, beyond what was held before."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
