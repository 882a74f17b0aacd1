"""A full disk: one clear sentence, exit code 1, no traceback, and nothing lost."""

import subprocess
import sys
from pathlib import Path

import pytest

from app import jobs, runs
from tests.commands import assert_refused, command, files_below, here


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB."""
    folder = tmp_path / "small disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=777", "darkroom-test", str(folder)]
    for before in ([], ["sudo", "-n"]):
        try:
            done = subprocess.run([*before, *mount], capture_output=True, text=True)
        except OSError:
            continue
        if done.returncode == 0:
            break
    else:
        pytest.skip("making a small disk needs Linux and the right to mount one")
    yield folder
    subprocess.run([*before, "umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_fills_up_costs_no_checkpoint_that_was_whole(small_disk, pictures, monkeypatch, capsys):
    settings = "schedule.steps=9 saving.every=1 saving.keep=9 preview.every=0 adapter.rank=4".split()
    changes = [part for setting in settings for part in ("--set", setting)]
    darkroom = here(capsys)
    said = darkroom("new", "cat", "--home", small_disk, "--pictures", pictures, "--kind", "object", *changes)
    run = Path(said.out.strip())

    said = command("train", run, "--home", small_disk)
    assert said.code == 1 and said.out == "" and "Traceback" not in said.err
    last = said.sentences()[-1]
    assert "could not be saved" in last or "The disk is full" in last
    assert last.endswith("Make room and resume: the run goes on from its last checkpoint.")

    from trainers import checkpoint  # noqa: PLC0415 - imports torch

    kept = checkpoint.list_checkpoints(run / "checkpoints")
    assert [checkpoint.load(folder).position.step for folder in kept] == list(range(1, len(kept) + 1))
    assert 1 <= len(kept) < 9
    assert not any("partial" in name for name in files_below(run))
    assert files_below(run / "output") == []
    assert runs.status(runs.Run(run)).word == "failed"

    # To the last byte: now nothing at all can be written, and what was saved is still whole.
    with (small_disk / "filler").open("wb", buffering=0) as file:
        with pytest.raises(OSError, match="No space"):
            while True:
                file.write(bytes(4096))
    before = {name: (run / name).read_bytes() for name in files_below(run)}
    monkeypatch.setattr(
        jobs, "ENGINE", (sys.executable, "-c", "import time; time.sleep(60)")
    )  # must not be left behind
    assert_refused(darkroom("train", run, "--home", small_disk), "The disk is full. Make room")
    assert not runs.is_alive(runs.Run(run))
    projects = set((small_disk / "projects").iterdir())
    said = darkroom("new", "dog", "--home", small_disk, "--pictures", pictures, "--kind", "object")
    assert_refused(said, "The disk is full. Make room")
    assert set((small_disk / "projects").iterdir()) == projects
    assert {name: (run / name).read_bytes() for name in files_below(run)} == before
