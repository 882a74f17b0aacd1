"""A card whose memory is full: drivers take the computer's then, without a word, and steps take many times longer."""

import math

from trainers.events import Spilled

FULL = 0.95  # of the card's memory
SLOWER = 3.0  # times the fastest pace of this sitting


class Spill:
    """Watches the pace of a sitting; says it once."""

    def __init__(self) -> None:
        self.fastest, self.told, self.recorded = math.inf, False, 0

    def look(self, pace: float, used: float, total: float, recorded: int = 0) -> Spilled | None:
        """Take note of the last steps.

        Args:
            pace: in seconds per step.
            used, total: in GB of the card; total is 0 where it trains on none.
            recorded: passes recorded so far (graphs.py): steps in which that was done are slower, and say nothing.
        """
        if recorded > self.recorded:
            self.recorded = recorded
            return None
        self.fastest = min(self.fastest, pace)
        if self.told or used < FULL * total or not total or pace < SLOWER * self.fastest:
            return None
        self.told = True
        message = (
            f"A step takes {pace:.1f} s now, {pace / self.fastest:.0f} times as long as before, and the card's memory "
            f"is full ({used:.1f} of {total:.1f} GB): it spills into the computer's memory."
        )
        hint = (
            "Pause the run, close what else uses the card, and resume. If that does not help, let it use less memory: "
            "by the button of that name, or `darkroom less-memory`. New runs fit with "
            f"memory.budget = {FULL * total - 0.5:.1f}."
        )
        return Spilled(message, hint)
