"""Where and in which number format a run computes, how much memory it takes, and what is given up to take less.

Loads the engine's libraries: what is in here is made for their models.
"""

import trainers.libraries  # noqa: F401 - before anything else loads them
from trainers.memory.device import DTYPES, Plan, card_gb, keep_freed_memory, peak_gb, plan

__all__ = ["DTYPES", "Plan", "card_gb", "keep_freed_memory", "peak_gb", "plan"]
