"""A lock tells whether somebody is inside and who, and is open again however its holder ended."""

import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from app.paths import ROOT
from trainers import locks

if os.name != "nt":
    import fcntl

posix = pytest.mark.skipif(os.name == "nt", reason="looks at a lock by reading the byte that is locked")
INSIDE = """
import sys, time, pathlib
from trainers import locks
with locks.alone(pathlib.Path(sys.argv[1])) as alone:
    print(alone, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


def enter(path: Path) -> subprocess.Popen:
    """Another process that enters, and stays until its input ends."""
    command = [sys.executable, "-c", INSIDE, str(path)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.alone = process.stdout.readline().strip() == "True"
    return process


def leave(process: subprocess.Popen) -> None:
    process.communicate()


def test_a_lock_says_who_is_inside_and_opens_when_that_process_is_killed(path):
    assert locks.held(path) is False and locks.holder(path) == {} and not path.exists()
    process = enter(path)
    assert process.alone and locks.held(path)
    assert locks.holder(path) == locks.identity(process.pid)
    other = enter(path)
    assert not other.alone and locks.holder(path)["pid"] == process.pid
    leave(other)
    process.kill()
    leave(process)
    assert locks.held(path) is False and locks.holder(path)["pid"] == process.pid
    locks.forget_holder(path)
    assert locks.holder(path) == {}
    with locks.alone(path) as alone:
        assert alone and locks.held(path) and locks.holder(path) == locks.identity()


def test_who_looks_at_a_lock_keeps_nobody_out(path):
    path.touch()
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            locks.held(path)

    lookers = [threading.Thread(target=look) for _ in range(3)]
    for looker in lookers:
        looker.start()
    try:
        for _ in range(200):
            with locks.alone(path) as alone:
                assert alone
    finally:
        over.set()
        for looker in lookers:
            looker.join()


@posix
def test_those_who_look_at_the_same_time_do_not_take_one_another_for_a_holder(path):
    path.touch()
    with path.open("rb") as looked_at:
        fcntl.flock(looked_at, fcntl.LOCK_SH)
        assert locks.held(path) is False


@posix
def test_a_file_system_without_locks_lets_everybody_in_and_can_tell_nothing(path, monkeypatch):
    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    with locks.alone(path) as alone, locks.locked(path):
        assert alone and locks.held(path) is None


def test_what_a_full_disk_left_of_the_holders_name_names_nobody(path):
    path.write_bytes(bytes(locks.GUARD) + json.dumps(locks.identity()).encode()[:-5])
    assert locks.holder(path) == {}
    path.write_bytes(b"")
    assert locks.holder(path) == {} and locks.held(path) is False
    path.write_bytes(bytes(locks.GUARD) + b"[" * 4096)
    assert locks.holder(path) == {}
