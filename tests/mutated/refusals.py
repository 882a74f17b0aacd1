"""Calls that may be refused, by a sentence that a person can read."""

from collections.abc import Callable
from typing import Any

from trainers.errors import UserError

refused: list[str] = []  # what was told since somebody emptied it
LONGEST = 20_000  # letters of a message; a config lists all of its problems


def may_refuse(call: Callable[..., Any], *values: Any, by: type[Exception] = UserError) -> Any:
    """What the call returns; None where it refuses by a sentence. Any other exception is a fault."""
    try:
        return call(*values)
    except by as error:
        told = str(error)
        assert told.strip() and len(told) <= LONGEST, f"a refusal of {len(told):,} letters"
        assert "Traceback" not in told
        refused.append(told)
        return None
