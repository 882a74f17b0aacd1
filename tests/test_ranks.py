"""How the work of a step is shared among processes: nothing is done twice, nothing is left out."""

import math

import pytest
import torch

from trainers import config_io
from trainers.errors import UserError
from trainers.ranks import ALL, Ranks, cut


def every(count: int) -> list[Ranks]:
    return [Ranks(number, count) for number in range(count)]


@pytest.mark.parametrize(("count", "accumulation"), [(1, 3), (2, 4), (3, 3)])
def test_micro_steps_are_dealt_out_where_that_comes_out_even(count, accumulation):
    dealt = [list(one.micro_steps(5, accumulation)) for one in every(count)]
    assert sorted(sum(dealt, [])) == list(range(5 * accumulation, 6 * accumulation))
    assert {len(some) for some in dealt} == {accumulation // count}
    assert all(one.pictures(accumulation) == [ALL] for one in every(count))


@pytest.mark.parametrize(("count", "pictures"), [(1, 4), (2, 4), (2, 5), (3, 5), (3, 2)])
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_else_each_looks_at_some_pictures_of_every_batch(count, pictures, parts):
    batch, shares, seen = torch.arange(pictures), [], []
    for one in every(count):
        assert one.micro_steps(5, 1) == range(5, 6)
        assert len(one.pictures(1, parts)) == parts
        for some in one.pictures(1, parts):
            share, mine, nothing = cut(some, batch, None)
            shares.append(share)
            seen += mine.tolist()
            assert nothing is None and share == len(mine) / pictures <= math.ceil(pictures / count / parts) / pictures
    assert sorted(seen) == batch.tolist() and sum(shares) == pytest.approx(1)


@pytest.mark.parametrize(
    ("at_once", "times", "count", "works"), [(1, 1, 2, False), (2, 1, 2, True), (1, 4, 2, True), (2, 1, 3, False)]
)
def test_a_step_must_have_something_for_each(at_once, times, count, works):
    config = config_io.parse({"data": {"batch_size": at_once}, "optimizer": {"accumulation": times}})
    if works:
        Ranks(0, count).require_work(config)
    else:
        with pytest.raises(UserError, match=f"{count} devices cannot share"):
            Ranks(0, count).require_work(config)


def test_one_process_alone_meets_nobody():
    alone, loss = Ranks(), torch.ones(())
    alone.join("mps")  # a kind that cannot be several
    assert alone.main and alone.exchange(value=3) == 3 and alone.add_up([], loss) is loss
    assert alone.named(torch.device("cpu")) == "cpu"
    with pytest.raises(UserError, match="cannot train a run together"):
        Ranks(0, 2).join("mps")
