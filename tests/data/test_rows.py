"""Rows on the device and rows in a file are the same rows."""

import errno
import os
import tempfile

import pytest
import torch

from trainers.data.rows import Budget, Collector, FiledRows
from trainers.errors import UserError

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("budget", [0, 100, 1 << 20])
def test_the_file_gives_back_every_bit(tmp_path, dtype, budget):
    rows = torch.randn(20, 3, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    collector = Collector(Budget(budget), tmp_path)
    assert [collector.add(row) for row in rows] == list(range(20))
    sealed = collector.sealed(CPU)
    assert isinstance(sealed, FiledRows) == (budget < rows.nbytes) and len(sealed) == 20
    numbers = torch.tensor([7, 0, 7, 19])
    assert torch.equal(sealed[numbers], rows[numbers]) and torch.equal(sealed[3], rows[3])
    assert sealed[numbers].dtype == dtype


def test_stores_of_one_budget_stay_within_it_together(tmp_path):
    budget, row = Budget(1000), torch.zeros(50)  # 200 bytes
    one, other = Collector(budget, tmp_path), Collector(budget, tmp_path)
    for _ in range(4):
        one.add(row)
    for _ in range(3):
        other.add(row)
    held = sum(len(collector.rows) for collector in (one, other))
    assert held <= 5 and budget.left == 1000 - 200 * held
    assert isinstance(one.sealed(CPU), torch.Tensor) and isinstance(other.sealed(CPU), FiledRows)


def test_a_full_disk_is_a_sentence_that_names_the_place(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(UserError, match="The disk is full") as error:
        Collector(Budget(0), tmp_path).add(torch.zeros(3))
    assert str(tmp_path) in error.value.hint
