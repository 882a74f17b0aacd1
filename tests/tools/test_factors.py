"""Low-rank approximations against torch's own SVD."""

import pytest
import torch

from trainers.tools.factors import Limit, leading_of_matrix, of_matrix, plain

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
    found = leading_of_matrix(matrix, rank)
    torch.testing.assert_close(found.sizes[:rank], sizes[:rank], rtol=1e-5, atol=0)
    up, down = found.cut(rank)
    best = sizes[rank:].square().sum().sqrt()
    assert torch.linalg.norm(matrix - up @ down) <= best * (1 + 1e-6)
    assert found.lost(rank) == pytest.approx(float(best.square()), rel=1e-5)
    assert found.energy == pytest.approx(float(sizes.square().sum()), rel=1e-12)


def test_a_matrix_of_lower_rank_than_asked_for_keeps_its_own():
    update, lost, whole = plain(with_sizes(torch.tensor([2.0, 1.0], dtype=torch.float64)), Limit(rank=8))
    assert update.rank == 2 and whole == pytest.approx(5.0) and lost <= 1e-12


def test_many_values_of_a_small_matrix_come_from_all_of_them():
    matrix = with_sizes(FALLING[:40] ** -1, (60, 40))
    assert torch.equal(leading_of_matrix(matrix, 10).sizes, of_matrix(matrix).sizes)
