"""SIGKILL at random instants: nothing is left half-written, and the resumed run ends in the very same weights."""

import random
import shutil
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from tests.crash.small_runs import (
    assert_nothing_is_half_written,
    assert_same,
    begin,
    make_run,
    state_of,
    weights,
)
from trainers import events
from trainers.choices import ADAPTERS

SITTINGS = 3  # of a run at the most that are killed


@pytest.mark.slow
def test_a_run_that_is_killed_at_any_instant_ends_in_the_same_weights(tmp_path, pictures, rounds, record_property):
    """`--rounds` kills in all, over all adapter types in turn, on the built-in base."""
    before, chance, killed, runs = state_of(pictures), random.Random(0), 0, 0
    straight, lives = {}, {}
    while killed < rounds:
        kind = list(ADAPTERS)[runs % len(ADAPTERS)]
        if kind not in straight:
            began = time.monotonic()
            whole = make_run(tmp_path / f"straight_{kind}", None, pictures, kind)
            assert ended(begin(whole)) == 0
            straight[kind], lives[kind] = weights(whole), time.monotonic() - began
        run = make_run(tmp_path / f"{runs}_{kind}", None, pictures, kind)
        for _ in range(SITTINGS):
            process = begin(run)
            process.join(chance.uniform(0, lives[kind]))
            process.kill()
            if ended(process) == 0:
                break
            killed += 1
            assert_nothing_is_half_written(run)
        assert ended(begin(run)) == 0
        assert isinstance(list(events.read(run / "events.jsonl"))[-1], events.Finished)
        assert_nothing_is_half_written(run)
        assert_same(straight[kind], weights(run))
        assert leftovers(run) == []
        shutil.rmtree(run)
        runs += 1
    assert state_of(pictures) == before
    record_property("killed", killed)


def ended(process: BaseProcess) -> int:
    """Its exit code, once it is over; below 0 where it was killed."""
    process.join()
    return process.exitcode


def leftovers(run: Path) -> list[str]:
    """Temporary files of the sittings that were killed, where a run alone writes."""
    return [str(file.relative_to(run)) for name in ("checkpoints", "samples") for file in run.glob(f"{name}/.*")]
