"""Reading ahead and writing behind: in order, bounded, and no error is lost."""

import errno
import os
import threading

import pytest
import torch

from trainers.data import overlap
from trainers.data.cache import Cache
from trainers.data.overlap import ahead, written_behind
from trainers.errors import UserError


def test_what_is_read_ahead_comes_in_order_and_is_bounded():
    begun, most = [], []

    def make(number: int) -> int:
        begun.append(number)
        return number * number

    for taken, found in enumerate(ahead(make, range(100)), start=1):
        assert found == (taken - 1) ** 2
        most.append(len(begun) - taken)
    assert max(most) <= overlap.AHEAD + 1


def test_an_error_comes_at_its_turn_and_ends_the_reading():
    begun = []

    def make(number: int) -> int:
        begun.append(number)
        if number == 5:
            raise UserError("5.png was changed.")
        return number

    found = []
    with pytest.raises(UserError, match=r"5\.png"):
        for one in ahead(make, range(1000)):
            found.append(one)
    assert found == [0, 1, 2, 3, 4] and len(begun) <= 6 + overlap.AHEAD + overlap.READERS


def test_a_caller_that_stops_asking_leaves_no_thread_behind():
    before = threading.active_count()
    for one in ahead(lambda number: number, range(1000)):
        if one == 3:
            break
    reading = ahead(lambda number: number, range(1000))
    next(reading)
    reading.close()
    assert threading.active_count() == before


def test_all_is_written_when_the_block_is_left(tmp_path):
    cache = Cache(tmp_path)
    with written_behind(cache) as put:
        for number in range(100):
            put(str(number), {"mean": torch.full((3,), float(number))})
    assert all(torch.equal(cache.get(str(n))["mean"], torch.full((3,), float(n))) for n in range(100))


def test_a_disk_that_fills_up_meanwhile_is_a_sentence(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="The disk is full"):
        with written_behind(Cache(tmp_path)) as put:
            put("a", {"mean": torch.zeros(3)})
    assert os.listdir(tmp_path) == []


def test_without_a_cache_nothing_is_kept():
    before = threading.active_count()
    with written_behind(None) as put:
        put("a", {"mean": torch.zeros(3)})
        assert threading.active_count() == before
