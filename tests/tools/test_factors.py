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


SIDES = (300, 500)


def with_sizes(sizes: torch.Tensor, shape: tuple[int, int] = SIDES) -> torch.Tensor:
    """A matrix of these singular values and random singular vectors."""
    generator = torch.Generator().manual_seed(0)
    left, right = (
        torch.linalg.qr(torch.randn(side, len(sizes), dtype=torch.float64, generator=generator))[0] for side in shape
    )
    return left * sizes @ right.T


FALLING = torch.arange(1, 301, dtype=torch.float64)
SPECTRA = {
    "few and rounding": torch.cat([torch.tensor([4.0, 3.0, 2.0, 1.0], dtype=torch.float64), torch.full((296,), 1e-4)]),
    "slowly falling": FALLING**-0.5,
    "falling": 1 / FALLING,
}


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("turned", [False, True], ids=["wide", "tall"])
def test_the_leading_part_is_the_best_there_is(spectrum, turned):
    sizes, rank = SPECTRA[spectrum].double(), 4
    matrix = with_sizes(sizes).T if turned else with_sizes(sizes)
    found = factors.leading_of_matrix(matrix, rank)
    torch.testing.assert_close(found.sizes[:rank], sizes[:rank], rtol=1e-5, atol=0)
    up, down = found.cut(rank)
    left_out = sizes[rank:].square().sum().sqrt()
    assert torch.linalg.norm(matrix - up @ down) <= left_out * (1 + 1e-6)
    assert found.lost(rank) == pytest.approx(float(left_out.square()), rel=1e-5)
    assert found.energy == pytest.approx(float(sizes.square().sum()), rel=1e-12)


def test_a_large_matrix_of_few_directions_keeps_its_own_rank():
    update, lost, whole = factors.plain(with_sizes(torch.tensor([2.0, 1.0], dtype=torch.float64)), Limit(rank=8))
    assert update.rank == 2 and whole == pytest.approx(5.0) and lost <= 1e-12
    assert factors.plain(torch.zeros(SIDES), Limit(rank=8))[0].delta().count_nonzero() == 0


def test_many_values_of_a_small_matrix_come_from_all_of_them():
    matrix = with_sizes(FALLING[:40] ** -1, (60, 40))
    assert torch.equal(factors.leading_of_matrix(matrix, 10).sizes, factors.of_matrix(matrix).sizes)
