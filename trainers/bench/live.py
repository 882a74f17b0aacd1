"""Follows the bytes that are alive while a model runs, on the meta device as well as on a real one."""

import weakref

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts storages that operators make inside, until each is freed; `peak` is the most there were at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
        before = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._add(leaf.untyped_storage(), before)
        return result

    def _add(self, storage: torch.UntypedStorage, before: set[int]) -> None:
        place, size = storage._cdata, storage.nbytes()
        if place in self._seen or place in before:
            return
        self._seen.add(place)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, place, size)

    def _drop(self, place: int, size: int) -> None:
        self._seen.discard(place)
        self.now -= size


class AttentionInPlace:
    """Attention that keeps what the fused kernels keep: inputs, output and one number per row.

    On the meta device torch takes the plain formula, whose score matrix no device of today ever holds. Put in torch's
    place by name, because a function mode is off while checkpointing recomputes.
    """

    def __init__(self) -> None:
        self.flops = 0

    def __enter__(self) -> "AttentionInPlace":
        self._usual = F.scaled_dot_product_attention
        F.scaled_dot_product_attention = self._attend
        return self

    def __exit__(self, *_: object) -> None:
        F.scaled_dot_product_attention = self._usual

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, *_: object, **__: object) -> Tensor:
        """[B, H, N, D], [B, H, M, D], [B, H, M, D] -> [B, H, N, D]."""
        once = 4 * query.numel() * key.shape[-2]
        needed = torch.is_grad_enabled() and any(t.requires_grad for t in (query, key, value))
        self.flops += round(once * 3.5) if needed else once  # backward: five products, and two of them are redone
        return _Fused.apply(query, key, value)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output = torch.empty_like(query[..., :1].expand(*query.shape[:-1], value.shape[-1]))
        ctx.save_for_backward(query, key, value, output, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return output

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value, *_ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
