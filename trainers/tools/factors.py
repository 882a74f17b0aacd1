"""Low-rank products and their best approximations: singular values of `up @ down` without building it.

A product of thin matrices is turned by QR into a small core whose SVD is the whole's [Golub & Van Loan, 5.4 and 8.6];
a matrix that is not a product is taken apart through the eigenvectors of its smaller Gram matrix, or, where only a
few of its singular values are wanted, by subspace iteration. All in fp64.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainers.adapters.weights import LoraWeights

SKETCH = 16  # vectors beside those that are wanted: they let the subspace turn faster
FEW = 4  # the sketch pays where it is at most this part of the smaller side
SETTLED, MOST_TURNS = 1e-9, 40  # of the energy that a further turn may add, and turns
NOISE = 1e-7  # of the largest singular value: below it a Gram matrix in fp64 holds nothing but rounding


@dataclass(frozen=True)
class Limit:
    """How much of a matrix is kept: at most `rank`, and no more than `keep` (0..1) of its squared norm asks for."""

    rank: int | None = None
    keep: float | None = None

    def rank_of(self, sizes: Tensor) -> int:
        """The rank kept of singular values [k], descending; at least 1."""
        rank = len(sizes) if self.rank is None else min(self.rank, len(sizes))
        if self.keep is None:
            return max(1, rank)
        energy = sizes.square().cumsum(0)
        enough = int((energy < self.keep * energy[-1] * (1 - 1e-12)).sum()) + 1
        return max(1, min(rank, enough))


@dataclass(frozen=True)
class Spectrum:
    """left [out, k] @ diag(sizes [k]) @ right [k, in], sizes descending, and the squared norm of what is not in it."""

    left: Tensor
    sizes: Tensor
    right: Tensor
    rest: float = 0.0

    def cut(self, rank: int) -> tuple[Tensor, Tensor]:
        """(up [out, rank], down [rank, in]) of the best approximation, the sizes shared evenly."""
        root = self.sizes[:rank].sqrt()
        return self.left[:, :rank] * root, root[:, None] * self.right[:rank]

    def lost(self, rank: int) -> float:
        """The squared norm of what an approximation of that rank leaves out."""
        return float(self.sizes[rank:].square().sum()) + self.rest

    @property
    def energy(self) -> float:
        return float(self.sizes.square().sum()) + self.rest


def of_product(up: Tensor, down: Tensor) -> Spectrum:
    """The spectrum of up [out, r] @ down [r, in]; nothing larger than these is built."""
    q_up, r_up = torch.linalg.qr(up.double())
    q_down, r_down = torch.linalg.qr(down.double().T)
    left, sizes, right = torch.linalg.svd(r_up @ r_down.T, full_matrices=False)
    return Spectrum(q_up @ left, sizes, right @ q_down.T)


def of_matrix(matrix: Tensor) -> Spectrum:
    """The spectrum of a matrix [out, in], without the part that is rounding alone; its product is exact all the same.

    One factor is orthonormal and the other is the matrix seen through it, so no singular value is divided by.
    """
    matrix = matrix.double()
    if len(matrix) > matrix.shape[1]:
        turned = of_matrix(matrix.T)
        return Spectrum(turned.right.T, turned.sizes, turned.left.T)
    values, vectors = torch.linalg.eigh(matrix @ matrix.T)  # ascending
    left = vectors.flip(1)
    rows = left.T @ matrix
    sizes = torch.linalg.vector_norm(rows, dim=1)
    used = max(1, int((sizes > NOISE * sizes.max()).sum())) if sizes.numel() else 0
    return Spectrum(left[:, :used], sizes[:used], rows[:used] / sizes[:used, None].clamp_min(1e-300))


def leading_of_matrix(matrix: Tensor, rank: int) -> Spectrum:
    """The largest singular values of a matrix [out, in], at least `rank` of them where it has so many.

    Subspace iteration from random vectors [Halko, Martinsson & Tropp 2011, algorithm 4.4] until a further turn finds
    nothing more.
    """
    matrix = matrix.double()
    if FEW * (rank + SKETCH) > min(matrix.shape):
        return of_matrix(matrix)
    start = torch.randn(matrix.shape[1], rank + SKETCH, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    basis, before = torch.linalg.qr(matrix @ start)[0], 0.0
    for _ in range(MOST_TURNS):
        right = torch.linalg.qr(matrix.T @ basis)[0]
        basis, core = torch.linalg.qr(matrix @ right)
        inner, sizes, turn = torch.linalg.svd(core)
        found = float(sizes[:rank].square().sum())
        if found - before <= SETTLED * found:
            break
        before = found
    left, used = basis @ inner, max(1, int((sizes > NOISE * sizes.max()).sum()))
    rest = float(matrix.square().sum()) - float(sizes[:used].square().sum())
    return Spectrum(left[:, :used], sizes[:used], turn[:used] @ right.T, max(0.0, rest))


def shortened(update: LoraWeights, limit: Limit) -> tuple[LoraWeights, float, float]:
    """(the update at a lower rank and the same scale, squared norms of the error and of the whole).

    Where nothing is to be left out, the update itself.
    """
    spectrum = of_product(update.up.flatten(1), update.down.flatten(1))
    rank, scale = limit.rank_of(spectrum.sizes), update.scale
    whole = spectrum.energy * scale**2
    if rank >= update.rank:
        return update, 0.0, whole
    up, down = spectrum.cut(rank)
    down, up = down.reshape(rank, *update.down.shape[1:]), up.reshape(len(up), rank, *update.up.shape[2:])
    short = replace(update, down=down.float(), up=up.float(), alpha=scale * rank)
    return short, spectrum.lost(rank) * scale**2, whole


def plain(delta: Tensor, limit: Limit) -> tuple[LoraWeights, float, float]:
    """(delta-W [out, in] or [out, in, kh, kw] as a LoRA of scale 1, squared norms of the error and of the whole)."""
    matrix = delta.flatten(1)
    all_of_it = limit.rank is None or limit.keep is not None
    spectrum = of_matrix(matrix) if all_of_it else leading_of_matrix(matrix, limit.rank)
    rank = limit.rank_of(spectrum.sizes)
    up, down = spectrum.cut(rank)
    down, up = down.reshape(rank, *delta.shape[1:]), up.reshape(len(up), rank, *(1 for _ in delta.shape[2:]))
    return LoraWeights(down.float(), up.float(), float(rank)), spectrum.lost(rank), spectrum.energy


def stacked(updates: Sequence[LoraWeights], weights: Sequence[float]) -> LoraWeights:
    """One update whose delta-W is the weighted sum: downs one below the other, ups side by side.

    Its scale is the largest of the weighted scales: what is multiplied into the ups never enlarges them.
    """
    scales = [weight * update.scale for weight, update in zip(weights, updates, strict=True)]
    scale = max(map(abs, scales)) or 1.0
    shape = updates[0].down.shape[1:]
    downs = [update.down.float().reshape(update.rank, *shape) for update in updates]
    ups = [update.up.float().flatten(1) * (own / scale) for update, own in zip(updates, scales, strict=True)]
    down, up = torch.cat(downs), torch.cat(ups, 1)
    return LoraWeights(down, up.reshape(*up.shape, *(1 for _ in shape[1:])), scale * len(down))


def summed(updates: Sequence[LoraWeights], weights: Sequence[float], limit: Limit) -> tuple[LoraWeights, float, float]:
    """The same sum at a lower rank and scale 1, with squared norms of the error and of the whole."""
    sum_ = stacked(updates, weights)
    spectrum = of_product(sum_.up.flatten(1).double() * sum_.scale, sum_.down.flatten(1))
    rank = limit.rank_of(spectrum.sizes)
    up, down = spectrum.cut(rank)
    down, up = down.reshape(rank, *sum_.down.shape[1:]), up.reshape(len(up), rank, *sum_.up.shape[2:])
    return LoraWeights(down.float(), up.float(), float(rank)), spectrum.lost(rank), spectrum.energy


def relative(lost: float, whole: float) -> float:
    """Relative error, from squared norms."""
    return math.sqrt(lost / whole) if whole > 0 else 0.0
