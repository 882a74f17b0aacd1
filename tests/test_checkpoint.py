"""Checkpoints: whole or not there, and only a full disk is called one."""

import errno
import hashlib
import json
import os
import shutil
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from trainers import checkpoint, files, sums
from trainers.checkpoint import Damaged, Position, Saved
from trainers.checkpoint_writer import CheckpointWriter
from trainers.errors import UserError


def saved(step: int) -> Saved:
    return Saved(Position(step), {"a.down": torch.full((2, 2), float(step))}, None, {}, {}, None)


def flip(file: Path, byte: int) -> None:
    """One bit of a file, as a failing disk may."""
    content = bytearray(file.read_bytes())
    content[byte] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("name", ["adapter.safetensors", "optimizer.pt", "state.json", "SHA256SUMS"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_flipped_bit_anywhere_is_noticed_and_the_one_before_is_gone_on_from(tmp_path, name, share):
    older, newer = (checkpoint.save(tmp_path, saved(step), keep=2) for step in (1, 2))
    flip(newer / name, int(share * (newer / name).stat().st_size))
    with pytest.raises(Damaged):
        checkpoint.load(newer)
    found, told = checkpoint.newest_whole(tmp_path)
    assert found == older and checkpoint.load(found).position.step == 1
    (one,) = told
    assert one.message.startswith("The checkpoint step_000002 is damaged (")
    assert one.hint == "It is put aside: the run goes on from step 1."
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged_step_000002", "step_000001"]


def test_a_run_without_a_whole_checkpoint_says_so_and_does_not_begin_anew(tmp_path):
    assert checkpoint.newest_whole(tmp_path) == (None, [])
    only = checkpoint.save(tmp_path, saved(1), keep=1)
    (only / "optimizer.pt").unlink()
    with pytest.raises(Damaged, match=r"No checkpoint in .* is whole. The checkpoint step_000001 .*optimizer.pt"):
        checkpoint.newest_whole(tmp_path)
    assert only.exists()


def test_a_folder_that_lost_all_its_files_is_named_and_put_aside_until_the_next_one_is_saved(tmp_path):
    older, emptied = (checkpoint.save(tmp_path, saved(step), keep=2) for step in (1, 2))
    for file in emptied.iterdir():
        file.unlink()
    (tmp_path / "step_by_step").mkdir()  # a person's own
    found, told = checkpoint.newest_whole(tmp_path)
    assert found == older and [one.message for one in told] == ["The checkpoint step_000002 is damaged (state.json)."]
    checkpoint.save(tmp_path, saved(2), keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_000001", "step_000002", "step_by_step"]


@pytest.mark.skipif(sys.platform != "linux", reason="the name of an open file is told by Linux")
def test_every_file_has_reached_the_disk_before_the_checkpoint_has_its_name(tmp_path, monkeypatch):
    done, fsync, replace = [], os.fsync, os.replace

    def flushed(handle: int) -> None:
        done.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        fsync(handle)

    def renamed(old: Path, new: Path) -> None:
        done.append((Path(old).name, Path(new).name))
        replace(old, new)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", renamed)
    folder = checkpoint.save(tmp_path, saved(1), keep=1)
    named = done.index((".partial_step_000001", "step_000001"))
    assert {file.name for file in folder.iterdir()} | {".partial_step_000001"} == set(done[:named])
    assert done[named + 1 :] == [tmp_path.name]


def test_a_whole_checkpoint_that_cannot_be_read_now_is_not_put_aside(tmp_path, monkeypatch):
    older, newer = (checkpoint.save(tmp_path, saved(step), keep=2) for step in (1, 2))
    real = Path.open

    def shut(path, *given, **named):
        if path == newer / "optimizer.pt":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *given, **named)

    with monkeypatch.context() as shutting:
        shutting.setattr(Path, "open", shut)
        with pytest.raises(PermissionError):
            checkpoint.newest_whole(tmp_path)
    assert checkpoint.newest_whole(tmp_path) == (newer, []) and older.exists()


def test_a_checkpoint_of_an_earlier_version_without_checksums_is_read(tmp_path):
    folder = checkpoint.save(tmp_path, saved(1), keep=1)
    (folder / "SHA256SUMS").unlink()
    assert checkpoint.newest_whole(tmp_path) == (folder, []) and checkpoint.load(folder).position.step == 1


def test_the_checksums_are_what_sha256sum_reads(tmp_path):
    folder = checkpoint.save(tmp_path, saved(1), keep=1)
    told = dict(line.split("  ")[::-1] for line in (folder / "SHA256SUMS").read_text("utf-8").splitlines())
    assert told == {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.iterdir()
        if file.name != "SHA256SUMS"
    }


def test_what_the_disk_gives_back_differently_never_replaces_a_checkpoint(tmp_path, monkeypatch):
    older = checkpoint.save(tmp_path, saved(1), keep=1)
    real = checkpoint.flush_folder

    def lying(folder):
        if folder.name.startswith(".partial"):
            flip(folder / "adapter.safetensors", 20)
        real(folder)

    monkeypatch.setattr(checkpoint, "flush_folder", lying)
    with pytest.raises(UserError, match="The checkpoint of step 2 could not be saved"):
        checkpoint.save(tmp_path, saved(2), keep=1)
    assert checkpoint.newest_whole(tmp_path) == (older, [])


def test_of_rolling_checkpoints_one_is_kept_beside_the_lasting_ones(tmp_path):
    for step, rolling in ((10, False), (13, True), (20, False), (24, True), (27, True)):
        state = saved(step)
        state.position.rolling = rolling
        checkpoint.save(tmp_path, state, keep=2)
    assert [folder.name for folder in checkpoint.list_checkpoints(tmp_path)] == [
        f"step_0000{step}" for step in (10, 20, 27)
    ]
    checkpoint.save(tmp_path, saved(30), keep=1)
    assert [folder.name for folder in checkpoint.list_checkpoints(tmp_path)] == ["step_000030"]


def test_where_a_checkpoint_has_no_room_nothing_is_written(tmp_path, monkeypatch):
    older = checkpoint.save(tmp_path, saved(1), keep=1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=8))
    with pytest.raises(
        UserError, match="The checkpoint of step 2 could not be saved: it takes 0.0 MB, and 0.0 MB are free"
    ):
        checkpoint.save(tmp_path, saved(2), keep=1)
    assert list(tmp_path.iterdir()) == [older]


@pytest.mark.parametrize("keep", [1, 2, 5, 1000])
def test_as_many_are_kept_as_wished(tmp_path, keep):
    for step in range(1, 8):
        checkpoint.save(tmp_path, saved(step), keep)
    kept = [checkpoint.step_of(folder) for folder in checkpoint.list_checkpoints(tmp_path)]
    assert kept == list(range(1, 8))[-keep:]


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


def test_an_old_one_that_another_program_holds_open_stays_until_the_next_is_saved(tmp_path, monkeypatch):
    first = checkpoint.save(tmp_path, saved(1), keep=1)
    real = os.replace

    def refusing(source, target):  # as Windows does
        if source == first:
            raise PermissionError("The process cannot access the file because it is being used by another process")
        real(source, target)

    monkeypatch.setattr(os, "replace", refusing)
    second = checkpoint.save(tmp_path, saved(2), keep=1)
    assert checkpoint.list_checkpoints(tmp_path) == [first, second]
    monkeypatch.undo()
    third = checkpoint.save(tmp_path, saved(3), keep=1)
    assert checkpoint.list_checkpoints(tmp_path) == [third]


@pytest.mark.parametrize("refused", [1, 3])
def test_a_rename_that_is_refused_for_a_moment_is_tried_again(tmp_path, monkeypatch, refused):
    (tmp_path / "old").write_text("whole")
    real, left = os.replace, [PermissionError] * refused

    def refusing(source, target):
        if left:
            raise left.pop()
        real(source, target)

    monkeypatch.setattr(files, "PAUSES", (0, 0))
    monkeypatch.setattr(os, "replace", refusing)
    if refused > 2:
        with pytest.raises(PermissionError):
            files.rename(tmp_path / "old", tmp_path / "new")
        return
    files.rename(tmp_path / "old", tmp_path / "new")
    assert (tmp_path / "new").read_text() == "whole"


def test_a_checkpoint_of_another_format_is_refused(tmp_path):
    folder = checkpoint.save(tmp_path, saved(1), keep=1)
    state = json.loads((folder / "state.json").read_text("utf-8"))
    (folder / "state.json").write_text(json.dumps(state | {"format": 99}), encoding="utf-8")
    sums.write(folder)
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
