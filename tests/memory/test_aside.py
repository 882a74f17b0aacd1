"""Room for pictures that are encoded between the steps: few more weights wait, and none where that helps nothing."""

import pytest
import torch

from tests.memory.tiny_step import folder_of
from trainers.config import ModelConfig
from trainers.families.sd15 import SD15
from trainers.memory.aside import RoomBeside, room_beside
from trainers.memory.decide import Free
from trainers.memory.saving import Saving
from trainers.memory.stream import block_bytes
from trainers.memory.units import blocks


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory):
    folder = folder_of("sd15", tmp_path_factory.mktemp("base"))
    return SD15.load(ModelConfig(base=str(folder)), torch.float32, deferred=True).denoiser


@pytest.fixture
def saving(denoiser) -> Saving:
    """The largest block is streamed, and no other."""
    sizes = block_bytes(denoiser)
    return Saving(blocks(denoiser), streamed=(max(sizes, key=sizes.__getitem__),))


def test_what_has_room_already_puts_nothing_aside(denoiser, saving):
    assert room_beside(denoiser, saving, Free(100, 10), 100, 10) == RoomBeside(True)
    assert room_beside(denoiser, saving, Free(100, 9), 100, 10) == RoomBeside(False)
    assert room_beside(denoiser, Saving(), Free(100, 9), 100, 10) == RoomBeside(False)


def test_no_block_is_put_aside_in_vain(denoiser, saving):
    sizes = block_bytes(denoiser)
    stay = sorted(size for path, size in sizes.items() if path not in saving.streamed)
    for lacking in (1, stay[0], stay[0] + 1, stay[-1], stay[-1] + 1, sum(stay)):
        found = room_beside(denoiser, saving, Free(50, 0), 50 + lacking, 10**12)
        gained = [sizes[path] for path in found.aside]
        assert not set(found.aside) & set(saving.streamed) and lacking <= sum(gained) == found.gained
        assert sum(gained) - min(gained) < lacking
        assert lacking > stay[-1] or gained == [next(size for size in stay if size >= lacking)]


def test_where_all_of_them_are_not_enough_there_is_no_room(denoiser, saving):
    stay = sum(size for path, size in block_bytes(denoiser).items() if path not in saving.streamed)
    assert room_beside(denoiser, saving, Free(50, 0), 50 + stay + 1, 1) is None
    assert room_beside(denoiser, Saving(blocks(denoiser)), Free(50, 0), 51, 1) is None  # nothing waits in the file


def test_a_block_that_is_larger_than_the_memory_that_serves_all_stays(denoiser, saving):
    sizes = block_bytes(denoiser)
    smallest = min(sizes, key=sizes.__getitem__)
    alike = sum(size for path, size in sizes.items() if size == sizes[smallest] and path != smallest)
    streamed = Saving(blocks(denoiser), streamed=(smallest,))
    assert alike < sum(sizes.values()) / 2
    assert room_beside(denoiser, streamed, Free(0, 0), alike + 1, 1) is None
    assert room_beside(denoiser, streamed, Free(0, 0), alike, 1).gained == alike


def test_what_is_put_aside_lets_the_vae_stay(denoiser, saving):
    sizes = block_bytes(denoiser)
    gained = sizes[room_beside(denoiser, saving, Free(0, 0), 1, 1).aside[0]]
    assert room_beside(denoiser, saving, Free(0, 0), 1, gained).vae_stays
    assert not room_beside(denoiser, saving, Free(0, 0), 1, gained + 1).vae_stays
