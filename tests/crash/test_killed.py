"""SIGKILL at random instants: nothing is left half-written, and the resumed run ends in the very same weights."""

import random
import subprocess
import time
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
def test_a_run_that_is_killed_at_any_instant_ends_in_the_same_weights(
    tmp_path, base, pictures, rounds, record_property
):
    """`--rounds` kills in all, over all adapter types in turn."""
    before, chance, killed, runs = state_of(pictures), random.Random(0), 0, 0
    straight, lives = {}, {}
    while killed < rounds:
        kind = list(ADAPTERS)[runs % len(ADAPTERS)]
        if kind not in straight:
            began = time.monotonic()
            whole = make_run(tmp_path / f"straight_{kind}", base, pictures, kind)
            assert begin(whole).wait() == 0
            straight[kind], lives[kind] = weights(whole), time.monotonic() - began
        run = make_run(tmp_path / f"{runs}_{kind}", base, pictures, kind)
        for _ in range(SITTINGS):
            process = begin(run)
            try:
                process.wait(chance.uniform(0, lives[kind]))
                break
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                killed += 1
            assert_nothing_is_half_written(run)
        assert begin(run).wait() == 0
        assert isinstance(list(events.read(run / "events.jsonl"))[-1], events.Finished)
        assert_nothing_is_half_written(run)
        assert_same(straight[kind], weights(run))
        assert leftovers(run) == []
        runs += 1
    assert state_of(pictures) == before
    record_property("killed", killed)


def leftovers(run: Path) -> list[str]:
    """Temporary files of the sittings that were killed, where a run alone writes."""
    return [str(file.relative_to(run)) for name in ("checkpoints", "samples") for file in run.glob(f"{name}/.*")]
