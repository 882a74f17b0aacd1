"""Where and in which number format a run computes, how much memory it takes, and what is given up to take less."""

from trainers.memory.device import DTYPES, Plan, card_gb, keep_freed_memory, peak_gb, plan

__all__ = ["DTYPES", "Plan", "card_gb", "keep_freed_memory", "peak_gb", "plan"]
