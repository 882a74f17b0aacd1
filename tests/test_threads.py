"""The CPU's threads: as many as there are cores, the same after a resume, and asleep while they wait."""

import json
import os
import subprocess
import sys

import psutil
import pytest

from app.paths import ROOT
from trainers import checkpoint, sums, threads
from trainers.checkpoint import Position, Saved

WAITING = """
import os, sys
from trainers import threads
assert "torch" not in sys.modules
threads.wait_passively()
import torch
print(os.environ["OMP_WAIT_POLICY"])
"""


def test_the_user_decides_then_the_run_then_the_cores(monkeypatch):
    monkeypatch.setattr(threads, "usable", lambda: 6)
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 4)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads.choose(earlier=2) == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert threads.choose(earlier=2) == 2
    assert threads.choose() == 4
    assert threads.choose(earlier=8) == 4  # resumed on a smaller machine
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: None)
    assert threads.choose() == 6


def test_a_run_remembers_its_threads(tmp_path):
    assert checkpoint.threads_of(None) == 0
    folder = checkpoint.save(tmp_path, Saved(Position(3, threads=5), {}, None, {}, {}, None), keep=1)
    assert checkpoint.threads_of(folder) == 5 and checkpoint.load(folder).position.threads == 5
    state = json.loads((folder / "state.json").read_text("utf-8"))
    del state["threads"]  # as an earlier version wrote it
    (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")
    sums.write(folder)
    assert checkpoint.threads_of(folder) == 0 and checkpoint.load(folder).position.threads == 0
    (folder / "state.json").write_text("{", encoding="utf-8")
    assert checkpoint.threads_of(folder) == 0


@pytest.mark.parametrize(
    ("others", "count", "said"),
    [(0.1, 2, False), (1.3, 2, True), (1.3, 1, False), (1.8, 1, True), (0.6, 1, False), (0.6, 2, True)],
)
def test_programs_that_take_our_cores_are_told_of(others, count, said):
    remark = threads.crowded(others, count, cores=2)
    assert (remark is not None) == said
    assert remark is None or f"take {others} of this computer's 2 processor cores" in remark.message


def test_only_what_others_do_counts_as_theirs(monkeypatch):
    clock = {"wall": 100.0, "busy": 1000.0, "own": 50.0}
    monkeypatch.setattr(threads.time, "monotonic", lambda: clock["wall"])
    monkeypatch.setattr(threads.time, "process_time", lambda: clock["own"])
    monkeypatch.setattr(threads, "_busy", lambda: clock["busy"])
    others = threads.Others()
    clock |= {"wall": 110.0, "busy": 1020.0, "own": 60.0}
    assert others.cores() is None  # too early to tell
    clock |= {"wall": 140.0, "busy": 1080.0, "own": 90.0}
    assert others.cores() == pytest.approx((80 - 40) / 40)


def test_the_engine_waits_passively_unless_told_otherwise():
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    for added, policy in (({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")):
        done = subprocess.run([sys.executable, "-c", WAITING], capture_output=True, text=True, env=environment | added)
        assert done.stdout.strip() == policy, done.stderr


def test_commands_that_compute_wait_as_runs_do():
    told = "import app.engine, os, sys; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    bare = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    said = subprocess.run([sys.executable, "-c", told], env=bare, capture_output=True, text=True, check=True, cwd=ROOT)
    assert said.stdout.split() == ["PASSIVE", "False"]
