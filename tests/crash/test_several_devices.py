"""Two processes train one run: the weights of one process alone, one that writes, one end for both."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.crash import small_runs
from trainers import checkpoint, config_io
from trainers import train as recipe
from trainers.events import EventLog
from trainers.outputs import Folders

TOGETHER = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
ACCELERATE = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0")
BEFALLS = str(Path(__file__).parent / "befalls.py")
LIMIT = 300  # seconds; processes that wait for each other for ever fail their test
SHARED = ("optimizer.accumulation=1", "data.batch_size=3", "adapter.dropout=0", "data.validation_share=0")
FEW = ("schedule.steps=6", "preview.every=0")


def made(folder: Path, base: Path, pictures: Path, *changes: str) -> Path:
    """A run folder with the small runs' settings, but for these."""
    run = small_runs.make_run(folder, base, pictures)
    config_io.save(config_io.override(config_io.load(run / "config.toml"), list(changes)), run / "config.toml")
    return run


def train(run: Path, *how: str, what: tuple[str, ...] = ("-m", "trainers")) -> subprocess.CompletedProcess[str]:
    """Train it, with `how` for the launcher and `what` for what it launches."""
    arguments = [sys.executable, *how, *what, str(run)]
    environment = {**os.environ, "PYTHONPATH": str(small_runs.ROOT), "DARKROOM_CACHE": str(run / "cache")}
    return subprocess.run(
        arguments, cwd=small_runs.ROOT, env=environment, capture_output=True, encoding="utf-8", timeout=LIMIT
    )


def train_here(run: Path) -> None:
    """Train it in this process alone."""
    recipe.train(config_io.load(run / "config.toml"), Folders(run, run / "cache"), EventLog(run / "events.jsonl"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory, base, pictures) -> Path:
    """The run with the small settings, trained by one process to its end."""
    run = made(tmp_path_factory.mktemp("alone") / "run", base, pictures, *FEW)
    train_here(run)
    return run


def befallen(run: Path, what: str, rank: int, step: int) -> subprocess.CompletedProcess[str]:
    return train(run, *TOGETHER, what=(BEFALLS, what, str(rank), str(step)))


def told(run: Path) -> list[dict]:
    """The events of a run; every line is whole, and they are numbered in one row: one process has written them."""
    found = [json.loads(line) for line in (run / "events.jsonl").read_text("utf-8").splitlines()]
    assert [event["seq"] for event in found] == list(range(len(found)))
    return found


def apart(one: Path, other: Path) -> float:
    """The difference of all that is trained, in the last checkpoints, to its size.

    Of all: AdamW divides by a gradient's own size, so that single weights whose gradients are nothing but rounding
    differ by more.
    """
    first, second = (checkpoint.load(checkpoint.list_checkpoints(run / "checkpoints")[-1]) for run in (one, other))
    assert first.position.step == second.position.step
    names = sorted(first.adapter)
    before, after = (torch.cat([saved.adapter[name].double().flatten() for name in names]) for saved in (first, second))
    return ((before - after).norm() / before.norm()).item()


@pytest.mark.parametrize(
    ("launcher", "changes"),
    [
        pytest.param(ACCELERATE, (), id="micro-steps are dealt out"),
        pytest.param(TOGETHER, SHARED, id="each looks at some pictures of a batch"),
    ],
)
def test_two_processes_end_in_the_weights_of_one(tmp_path, base, pictures, launcher, changes):
    alone, together = (made(tmp_path / name, base, pictures, *FEW, *changes) for name in ("alone", "together"))
    train_here(alone)
    done = train(together, *launcher)
    assert done.returncode == 0, done.stderr
    assert apart(alone, together) < 1e-5
    files = {path.relative_to(alone) for folder in ("checkpoints", "output") for path in (alone / folder).rglob("*")}
    assert {path.relative_to(together) for path in together.rglob("*")} >= files
    begun = next(event for event in told(together) if event["type"] == "started")
    assert begun["device"] == "cpu x 2"
    losses = [[event["loss"] for event in told(run) if event["type"] == "step"] for run in (alone, together)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_one_of_them_draws_previews_and_what_is_asked_for(tmp_path, base, pictures, alone):
    drawing = made(tmp_path / "drawing", base, pictures, *FEW, "preview.every=4", "preview.sampling_steps=1")
    (drawing / "control").mkdir()
    (drawing / "control" / "sample_now").write_text('{"prompt": "a cat"}', encoding="utf-8")
    done = train(drawing, *TOGETHER)
    assert done.returncode == 0, done.stderr
    drawn = [event["step"] for event in told(drawing) if event["type"] == "sample"]
    assert sorted(set(drawn)) == [0, 1, 4, 6] and drawn.count(1) == 1
    assert apart(alone, drawing) < 1e-5


def test_both_stop_when_a_person_asks_for_it_and_the_run_goes_on_alone(tmp_path, base, pictures, alone):
    stopped = made(tmp_path / "stopped", base, pictures, *FEW)
    done = befallen(stopped, "asked to stop", 0, 2)
    assert done.returncode == 0, done.stderr
    last = told(stopped)[-1]
    assert (last["type"], last["step"]) == ("stopped", 3)
    (stopped / "control" / "stop").unlink()
    train_here(stopped)
    assert apart(alone, stopped) < 1e-5


def test_a_process_that_is_asked_to_end_saves_first(tmp_path, base, pictures, alone):
    ended = made(tmp_path / "ended", base, pictures, *FEW)
    done = train(ended, what=(BEFALLS, "asked to end", "0", "2"))
    assert done.returncode == 0, done.stderr
    last = told(ended)[-1]
    assert (last["type"], last["step"], last["paused"]) == ("stopped", 3, True)
    (ended / "control" / "pause").unlink()
    train_here(ended)
    assert apart(alone, ended) == 0


@pytest.mark.slow
def test_both_save_first_when_their_launcher_is_asked_to_end(tmp_path, base, pictures, alone):
    ended = made(tmp_path / "ended", base, pictures, *FEW)
    befallen(ended, "its launcher asked to end", 0, 2)  # what the launcher then says of itself is its own affair
    last = told(ended)[-1]
    assert (last["type"], last["step"], last["paused"]) == ("stopped", 3, True)
    (ended / "control" / "pause").unlink()
    train_here(ended)
    assert apart(alone, ended) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_run_whose_process_is_killed_can_be_resumed(tmp_path, base, pictures, alone, rank):
    killed = made(tmp_path / "killed", base, pictures, *FEW)
    assert befallen(killed, "killed", rank, 4).returncode != 0
    assert checkpoint.newest_step(killed / "checkpoints") >= 2
    if rank:  # the first one has heard of it
        assert "ended by itself" in told(killed)[-1]["message"]
    assert train(killed, *TOGETHER).returncode == 0
    assert apart(alone, killed) < 1e-5


@pytest.mark.slow
def test_where_the_memory_of_one_runs_out_both_go_on_with_fewer_pictures(tmp_path, base, pictures):
    run = made(tmp_path / "run", base, pictures, *FEW)
    done = befallen(run, "out of memory", 1, 3)
    assert done.returncode == 0, done.stderr
    events = told(run)
    assert any(
        "with each batch computed in 2 parts" in event["what"] for event in events if event["type"] == "adjusted"
    )
    assert events[-1]["type"] == "finished"


def test_a_fault_of_one_ends_both_and_is_written_down(tmp_path, base, pictures):
    run = made(tmp_path / "run", base, pictures, *FEW)
    done = befallen(run, "a fault", 1, 3)
    assert done.returncode == 1
    assert "In process 1 of 2: " in told(run)[-1]["message"] and "a wheel came off" in told(run)[-1]["message"]
    assert checkpoint.newest_step(run / "checkpoints") == 3  # as it was before the step that failed


def test_a_step_that_cannot_be_shared_is_refused(tmp_path, base, pictures):
    run = made(tmp_path / "run", base, pictures, *FEW, "optimizer.accumulation=1", "data.batch_size=1")
    assert train(run, *TOGETHER).returncode == 1
    last = told(run)[-1]
    assert last["message"] == "A step of this run is 1 times 1 pictures, which 2 devices cannot share."
    assert "data.batch_size to 2 or more" in last["hint"]
