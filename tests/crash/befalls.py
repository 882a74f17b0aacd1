"""`befalls.py WHAT RANK STEP RUN`: `python -m trainers RUN`, where one process meets with something in a step."""

import os
import signal
import sys
from pathlib import Path

from trainers import __main__, launched
from trainers.step import TrainingStep

WHAT, RANK, STEP, RUN = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
real = TrainingStep.gradients


def gradients(step: TrainingStep, number: int) -> None:
    if launched.rank()[0] == RANK and number == STEP:
        if WHAT == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        elif WHAT == "asked to end":
            os.kill(os.getpid(), signal.SIGTERM)
        elif WHAT == "its launcher asked to end":
            os.kill(os.getppid(), signal.SIGTERM)
            while not (RUN / "control" / "pause").exists():  # it hears of it
                os.sched_yield()
        elif WHAT == "asked to stop":
            (RUN / "control").mkdir(exist_ok=True)
            (RUN / "control" / "stop").touch()
        elif WHAT == "out of memory" and step.feed.batches.batch_size > step.parts:
            raise MemoryError("no room for 2 pictures")
        elif WHAT == "a fault":
            raise RuntimeError("a wheel came off")
    real(step, number)


TrainingStep.gradients = gradients
sys.argv = ["trainers", str(RUN)]
sys.exit(__main__.main())
