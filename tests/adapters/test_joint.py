"""Stable Diffusion 3's layers as kohya joins them: the three side by side, which come apart again."""

import pytest
import torch
from torch.testing import assert_close

from trainers.adapters.adapter import DENOISER
from trainers.adapters.joint import fuse, groups, split
from trainers.adapters.weights import LoraWeights

QKV = [(DENOISER, f"transformer_blocks.0.attn.{name}") for name in ("to_q", "to_k", "to_v")]
NAME = "lora_unet_joint_blocks_0_x_block_attn_qkv"


def update(seed: int, rank: int, alpha: float, rows: int = 8, width: int = 8) -> LoraWeights:
    generator = torch.Generator().manual_seed(seed)
    down, up = torch.randn(rank, width, generator=generator), torch.randn(rows, rank, generator=generator)
    return LoraWeights(down, up, alpha)


def test_a_joined_update_is_that_of_query_key_and_value_one_below_the_other():
    parts = [update(0, 4, 4.0), update(1, 4, 2.0), update(2, 3, 5.0)]  # of other ranks and scales
    (joined,) = fuse(dict(zip(QKV, parts, strict=True))).values()
    assert joined.rank == 11
    assert_close(joined.delta(), torch.cat([part.delta() for part in parts]))


def test_ranks_and_alphas_add_up_where_the_parts_are_alike():
    joined = fuse({place: update(i, 4, 2.0) for i, place in enumerate(QKV)})[NAME]
    assert (joined.rank, joined.alpha) == (12, 6.0)  # readers divide by the stored rank


@pytest.mark.parametrize("trained", [QKV, QKV[1:], QKV[:1]], ids=["all", "two", "one"])
def test_what_was_joined_comes_apart_with_its_own_ranks(trained):
    parts = {place: update(i, 4, 2.0) for i, place in enumerate(trained)}
    apart = split(fuse(parts)[NAME], groups(trained)[NAME])
    assert apart.keys() == parts.keys()
    for place, part in parts.items():
        assert apart[place].rank == 4
        assert_close(apart[place].delta(), part.delta())


@pytest.mark.parametrize("rows", [16, 48], ids=["last block", "other blocks"])
def test_the_last_blocks_scale_and_shift_change_places(rows):
    place = (DENOISER, "transformer_blocks.23.norm1_context.linear")
    own = update(0, 4, 4.0, rows=rows)
    (name, joined), *_ = fuse({place: own}).items()
    halves = own.delta().chunk(2)
    wanted = torch.cat(halves[::-1]) if rows == 16 else own.delta()  # the last block has these two only
    assert_close(joined.delta(), wanted)
    assert_close(split(joined, groups([place])[name])[place].delta(), own.delta())
