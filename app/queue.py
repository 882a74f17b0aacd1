"""The queue: runs that wait for the device, on disk, so that it survives a restart of the app."""

from app.paths import Home
from app.runs import Run


class Queue:
    """Runs in the order in which they will be trained; one at a time.

    Kept in queue.json of the home folder: two windows, and the command line, see the same queue.
    """

    def __init__(self, home: Home):
        self.home = home

    def add(self, run: Run) -> None:
        """Train the run now, or when those before it have ended. UserError when it cannot be trained."""
        raise NotImplementedError

    def waiting(self) -> list[Run]:
        """The runs that wait, the next one first."""
        return []

    def running(self) -> Run | None:
        """The run that is being trained now, whoever started it."""
        return None

    def move(self, run: Run, place: int) -> None:
        """Put a waiting run at a place of the queue, 0 being the next."""
        raise NotImplementedError

    def remove(self, run: Run) -> None:
        """Take a waiting run out; it stays what it was before."""
        raise NotImplementedError

    def watch(self) -> None:
        """From now on, in a thread of this process, start the next run whenever nothing runs."""

    def close(self) -> None:
        """Stop watching. Runs go on."""
