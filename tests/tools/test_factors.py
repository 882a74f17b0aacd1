"""Low-rank arithmetic against torch.linalg.svd of the whole matrix."""

import pytest
import torch

from tests.tools.bases import random_lora
from trainers.tools import factors
from trainers.tools.factors import Limit

SHAPES = [(24, 16), (16, 40), (12, 6, 3, 3), (20, 8, 1, 1)]


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(params=SHAPES, ids=str)
def update(request):
    return random_lora(request.param, 5, draw())


def best(delta, rank):
    """The best approximation by the book, in fp64."""
    left, sizes, right = torch.linalg.svd(delta.double().flatten(1), full_matrices=False)
    return (left[:, :rank] * sizes[:rank] @ right[:rank]).reshape(delta.shape), sizes


@pytest.mark.parametrize("rank", [1, 3, 4])
def test_a_shortened_update_is_the_best_of_its_rank(update, rank):
    short, lost, whole = factors.shortened(update, Limit(rank))
    expected, sizes = best(update.delta(), rank)
    torch.testing.assert_close(short.delta().double(), expected, rtol=1e-5, atol=1e-6)
    assert short.rank == rank and short.scale == pytest.approx(update.scale)
    assert lost == pytest.approx(float(sizes[rank:].square().sum()), rel=1e-4)
    assert whole == pytest.approx(float(sizes.square().sum()), rel=1e-5)


def test_at_full_rank_the_very_same_matrices_stay(update):
    assert factors.shortened(update, Limit(5))[0] is update
    assert factors.shortened(update, Limit(99))[0] is update


@pytest.mark.parametrize("keep", [0.5, 0.9, 0.99, 1.0])
def test_the_promised_energy_is_kept_with_the_least_rank(update, keep):
    short, lost, whole = factors.shortened(update, Limit(keep=keep))
    share = float(short.delta().double().square().sum() / update.delta().double().square().sum())
    assert share >= keep - 1e-6 and share == pytest.approx(1 - lost / whole, abs=1e-6)
    if short.rank > 1:
        below = best(update.delta(), short.rank - 1)[0]
        assert float(below.square().sum() / update.delta().double().square().sum()) < keep


def test_a_rank_above_the_matrixs_own_is_no_more_than_it():
    wide = random_lora((6, 40), 20, draw())
    short, lost, _ = factors.shortened(wide, Limit(12))
    assert short.rank == 6 and lost == 0
    torch.testing.assert_close(short.delta(), wide.delta(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rank", [1, 4, None])
def test_a_whole_matrix_as_a_lora_is_the_best_of_its_rank(rank):
    for shape in SHAPES:
        delta = torch.randn(shape, generator=draw(3))
        plain, lost, _ = factors.plain(delta, Limit(rank))
        expected, sizes = best(delta, rank or 99)
        torch.testing.assert_close(plain.delta().double(), expected, rtol=1e-5, atol=1e-5)
        assert plain.scale == 1 and lost == pytest.approx(float(sizes[rank or 99 :].square().sum()), rel=1e-4, abs=1e-9)


def test_a_matrix_of_few_directions_needs_no_more_rank():
    delta = random_lora((30, 20), 3, draw()).delta()
    assert factors.plain(delta.double(), Limit(keep=1 - 1e-9))[0].rank == 3
    assert factors.plain(torch.zeros(4, 6), Limit())[0].delta().count_nonzero() == 0


def test_a_stack_is_the_weighted_sum_and_ranks_add_up(update):
    other = random_lora(tuple(update.delta().shape), 3, draw(9), alpha=6.0)
    stack = factors.stacked([update, other], [0.5, -2.0])
    torch.testing.assert_close(stack.delta(), 0.5 * update.delta() - 2 * other.delta(), rtol=1e-5, atol=1e-6)
    assert stack.rank == 8
    assert factors.stacked([update, other], [0.0, 0.0]).delta().count_nonzero() == 0


@pytest.mark.parametrize("rank", [2, 7])
def test_a_sum_at_a_lower_rank_is_the_best_one(update, rank):
    other = random_lora(tuple(update.delta().shape), 3, draw(9))
    short, *_ = factors.summed([update, other], [1.0, 0.5], Limit(rank))
    expected, _ = best(update.delta() + 0.5 * other.delta(), rank)
    torch.testing.assert_close(short.delta().double(), expected, rtol=1e-5, atol=1e-6)
