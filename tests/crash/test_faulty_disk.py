"""One write of a run fails, whichever: the run ends in a sentence or goes on, and a resume ends in the same weights."""

import errno
import shutil
import sys

import pytest

from tests.crash.faults import Faults
from tests.crash.small_runs import assert_nothing_is_half_written, assert_same, make_run, state_of, weights
from trainers import events
from trainers.__main__ import main


@pytest.mark.slow
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=["full", "broken"])
def test_whichever_write_fails_the_run_can_be_resumed(tmp_path, base, pictures, monkeypatch, capsys, rounds, code):
    """`--rounds` of a run's writes, evenly spread over it; all of them where there are no more."""
    before = state_of(pictures)
    straight = make_run(tmp_path / "straight", base, pictures)
    counted = Faults(straight)
    with counted.at_work():
        assert train(straight, monkeypatch) == 0
    expected, every = weights(straight), max(1, counted.count // rounds)
    assert counted.count > 50
    ended = {0: 0, 1: 0}
    for number in range(1, counted.count + 1, every):
        run = make_run(tmp_path / "hurt", base, pictures)
        with Faults(run, number, code).at_work():
            exit_code = train(run, monkeypatch)
        ended[exit_code] += 1
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        assert_nothing_is_half_written(run)
        if exit_code == 1:
            assert told(run, said.err), f"write {number} ended the run without a word"
            assert train(run, monkeypatch) == 0
        assert_same(expected, weights(run))
        shutil.rmtree(run)
    assert state_of(pictures) == before and ended[1]


def train(run, monkeypatch) -> int:
    monkeypatch.setattr(sys, "argv", ["trainers", str(run)])
    return main()


def told(run, said: str) -> bool:
    """A sentence in the run's events; on the error stream where not even that could be written."""
    seen = list(events.read(run / "events.jsonl"))
    return (bool(seen) and isinstance(seen[-1], events.Failed)) or said.strip().endswith(".")
