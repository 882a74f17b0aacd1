"""What the other processes of a run leave behind: nothing. Process 0 writes for all."""

from pathlib import Path

from trainers.control import Wish
from trainers.outputs import Outputs


class Follower(Outputs):
    """The outputs of a process that does its part of every step and writes no file."""

    def overdue(self) -> bool:
        """Never: process 0 looks at the clock."""
        return False

    def save(self, rolling: bool = False) -> None:
        """Nothing."""

    def rescue(self) -> None:
        """Nothing."""

    def preview(self) -> None:
        """Nothing: the next step waits until process 0 has drawn."""

    def draw(self, wish: Wish) -> None:
        """Nothing."""

    def wishes(self) -> None:
        """None: process 0 takes them."""

    def validate(self) -> None:
        """Nothing."""

    def write(self) -> Path:
        """Nothing; the run's folder stands for the path."""
        return self.folders.run
