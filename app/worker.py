"""A process beside the window that has loaded torch, and answers what needs it: estimates, inspections, exports."""

from collections.abc import Callable
from typing import Any


class Worker:
    """Started at the first question, ended with `close` or after a while without questions; one question at a time."""

    def ask(self, name: str, report: Callable[[str], None] | None = None, **values: Any) -> Any:
        """Call a function of app.engine by name in the worker and give back what it returns.

        Values and answer are what JSON can hold; paths as texts, a TrainConfig as `model_dump(mode="json")`.
        `report` hears what it is busy with.

        Raises:
            UserError: the function raised one, or the worker died.
        """
        raise NotImplementedError

    def close(self) -> None:
        """End the process."""
