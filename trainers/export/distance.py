"""How far apart two updates are, and how far rounding to a file's dtype may move one; Frobenius norms of delta-W."""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from trainers.adapters.weights import DoraWeights, LoraWeights, Weights


def apart(layer: Weights) -> list[Weights]:
    """What is compared of a layer: itself; of a DoRA, whose delta-W needs the base, its pair and its magnitudes."""
    if not isinstance(layer, DoraWeights):
        return [layer]
    return [layer.lora, LoraWeights(torch.ones(1, 1), layer.magnitude.reshape(-1, 1), 1.0)]


def distance(one: Weights, other: Weights) -> float:
    """|delta-W - delta-W'|.

    Of two LoRAs without building them: |A B|^2 = sum (A'A * BB') with A = [s1 up1, -s2 up2] and B = [down1; down2], in
    fp64 since it cancels.
    """
    if isinstance(one, LoraWeights) and isinstance(other, LoraWeights):
        up_1, down_1 = _factors(one)
        up_2, down_2 = _factors(other)
        left, right = torch.cat([up_1, -up_2], 1), torch.cat([down_1, down_2])
        return math.sqrt(max(0.0, float(((left.T @ left) * (right @ right.T)).sum())))
    return float((one.delta().cpu().flatten(1) - other.delta().cpu().flatten(1)).norm())


def norm(layer: Weights) -> float:
    """|delta-W|."""
    if isinstance(layer, LoraWeights):
        up, down = _factors(layer)
        return math.sqrt(max(0.0, float(((up.T @ up) * (down @ down.T)).sum())))
    return float(layer.delta().cpu().norm())


def allowed(trained: Weights, dtype: torch.dtype) -> float:
    """How far rounding every tensor (and alpha) to `dtype` may move delta-W.

    delta-W is a sum of products of entries, so it moves no further than it does when every entry grows in size by as
    much as it may be rounded.
    """
    info = torch.finfo(dtype)
    unit, tiny = info.eps / 2, info.smallest_normal * info.eps
    sizes = _each(trained, lambda tensor: tensor.float().abs())
    tiny *= max(1.0, 1 / trained.scale)  # the scale may be inside what is rounded
    grown = _each(sizes, lambda tensor: tensor * (1 + unit) + tiny)
    slack = 1e-6 * norm(sizes) + 1e-7 * _size(trained)  # of this arithmetic itself
    return distance(grown, sizes) + unit * norm(grown) + slack


def _each(layer: Weights, change: Callable[[Tensor], Tensor]) -> Weights:
    return replace(layer, **{name: change(tensor.detach().cpu()) for name, tensor in layer.tensors().items()})


def _size(layer: Weights) -> float:
    """The product of the matrices' own norms, which bounds what cancels in `distance` of two LoRAs."""
    if not isinstance(layer, LoraWeights):
        return 0.0
    up, down = _factors(layer)
    return float(up.norm() * down.norm())


def _factors(layer: LoraWeights) -> tuple[Tensor, Tensor]:
    """(alpha / rank * up [out, rank], down [rank, in * kh * kw]) in fp64 on the CPU."""
    return _wide(layer.up).flatten(1) * layer.scale, _wide(layer.down).flatten(1)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float64)
