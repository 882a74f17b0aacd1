"""Checkpoints: whole or not there, and only a full disk is called one."""

import errno
import json
import os
import shutil
import threading

import pytest
import torch

from trainers import checkpoint
from trainers.checkpoint import Position, Saved
from trainers.checkpoint_writer import CheckpointWriter
from trainers.errors import UserError


def saved(step: int) -> Saved:
    return Saved(Position(step), {"a.down": torch.full((2, 2), float(step))}, None, {}, {}, None)


def test_the_newest_are_kept(tmp_path):
    for step in (1, 2, 3, 3):
        checkpoint.save(tmp_path, saved(step), keep=2)
    kept = checkpoint.list_checkpoints(tmp_path)
    assert [checkpoint.load(folder).position.step for folder in kept] == [2, 3]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_000002", "step_000003"]


def test_a_checkpoint_whose_removal_was_cut_short_is_not_listed(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, saved(1), keep=1)

    def only_one_file(folder, ignore_errors=False):
        if folder.exists():
            (folder / "adapter.safetensors").unlink()

    monkeypatch.setattr(shutil, "rmtree", only_one_file)
    checkpoint.save(tmp_path, saved(2), keep=1)
    assert [folder.name for folder in checkpoint.list_checkpoints(tmp_path)] == ["step_000002"]


def test_a_checkpoint_of_another_format_is_refused(tmp_path):
    folder = checkpoint.save(tmp_path, saved(1), keep=1)
    state = json.loads((folder / "state.json").read_text("utf-8"))
    (folder / "state.json").write_text(json.dumps(state | {"format": 99}), encoding="utf-8")
    with pytest.raises(UserError, match="is in format 99, and this version reads format 1"):
        checkpoint.load(folder)


def test_another_failure_than_a_full_disk_keeps_its_own_name(tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(RuntimeError, match="device-side assert"):
        checkpoint.save(tmp_path, saved(1), keep=1)
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full is a device of Linux")
def test_what_torch_says_of_a_full_disk_is_known():
    with pytest.raises(RuntimeError, match=checkpoint.TORCH_WRITES):
        torch.save({"a": torch.zeros(100_000)}, "/dev/full")


def test_a_checkpoint_holds_what_was_there_when_its_writing_began(tmp_path, monkeypatch):
    go_on, real = threading.Event(), checkpoint.save

    def later(*arguments):
        assert go_on.wait(60)
        return real(*arguments)

    monkeypatch.setattr(checkpoint, "save", later)
    state, writer = saved(1), CheckpointWriter(tmp_path, keep=2)
    state.optimizer = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"params": [0]}]}
    writer.start(state)
    state.adapter["a.down"].zero_()
    state.optimizer["state"][0]["exp_avg"].zero_()
    state.position.step = 2
    go_on.set()
    kept = checkpoint.load(writer.finish())
    assert kept.position.step == 1
    assert torch.equal(kept.adapter["a.down"], torch.ones(2, 2))
    assert torch.equal(kept.optimizer["state"][0]["exp_avg"], torch.ones(3))
    assert writer.finish() is None


def test_a_disk_that_is_full_by_then_is_a_sentence(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    writer = CheckpointWriter(tmp_path, keep=1)
    writer.start(saved(7))
    with pytest.raises(UserError, match="The checkpoint of step 7 could not be saved"):
        writer.finish()
