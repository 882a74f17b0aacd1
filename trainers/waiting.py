"""Weights that wait somewhere else: parameters of the right shape, dtype and device, without their numbers."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def waiting(shape: torch.Size, dtype: torch.dtype, device: torch.device, read: Callable[[], Tensor]) -> nn.Parameter:
    """A frozen parameter whose numbers `read` gives, on `device`.

    It holds one number for all: NaN where there is one, so that what is computed with it by mistake shows.
    """
    blank = torch.full((), float("nan") if dtype.is_floating_point else 0, dtype=dtype, device=device)
    parameter = nn.Parameter(blank.expand(shape), requires_grad=False)
    parameter.read = read
    return parameter


def waits(tensor: Tensor) -> bool:
    return hasattr(tensor, "read")


def real(tensor: Tensor) -> Tensor:
    """The tensor itself, or a copy that is read now where its numbers wait."""
    return tensor.read() if waits(tensor) else tensor
