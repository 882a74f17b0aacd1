"""Whether this process trains a run alone: `accelerate launch` and torchrun tell it by environment variables.

Imports no torch.
"""

import os


def rank() -> tuple[int, int]:
    """(number of this process from 0, how many train the run together); (0, 1) where it was started alone."""
    if "MASTER_ADDR" not in os.environ:
        return 0, 1
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def local_rank() -> int:
    """The number of this process among those of this machine, which is that of its device."""
    return int(os.environ.get("LOCAL_RANK", "0"))
