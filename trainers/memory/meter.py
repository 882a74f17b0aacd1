"""Follows bytes and operations of a model as it runs, on the meta device as well as on a real one.

torch's own FlopCounterMode hooks gradients to tell modules apart, and thereby keeps alive what checkpointing has
computed again: beside it, the bytes of a checkpointed step come out several times too large.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.backends import cuda
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from trainers.bench.counter import FLOPS

aten = torch.ops.aten
INSIDE = {aten._safe_softmax: lambda result: result.numel()}  # bytes that a kernel lets go again: a mask of the scores


class Meter(TorchDispatchMode):
    """Bytes of the storages that operators make inside, until each is freed; and the matrix products' operations."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = self.largest = 0  # bytes: held now, at most, by the largest of them
        self._since = 0  # the most since the last mark
        self.flops = self.last = 0  # all, and those of the newest operator that has any
        self.attended = 0  # of all, those of attention
        self._seen: set[int] = set()

    def __enter__(self) -> "Meter":
        self._usual = F.scaled_dot_product_attention
        # By name and not by a function mode, which is off while checkpointing computes again.
        F.scaled_dot_product_attention = self._attend
        return super().__enter__()

    def __exit__(self, *raised: object) -> None:
        F.scaled_dot_product_attention = self._usual
        super().__exit__(*raised)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
        result = func(*args, **(kwargs or {}))
        formula = FLOPS.get(func.overloadpacket)
        if formula is not None:
            self.worked(formula(*args, **(kwargs or {}), out_val=result))
        for tensor in _tensors((result,)):
            storage = tensor.untyped_storage()
            if storage._cdata not in self._seen:
                self._add(storage, args)
        if func.overloadpacket in INSIDE:
            self._reach(self.now + INSIDE[func.overloadpacket](result))
        return result

    def mark(self) -> int:
        """The most bytes that were held since it was called before."""
        found, self._since = self._since, self.now
        return found

    def worked(self, flops: int) -> None:
        self.flops += flops
        self.last = flops

    def attend(self, flops: int) -> None:
        self.worked(flops)
        self.attended += flops

    def _add(self, storage: torch.UntypedStorage, args: tuple) -> None:
        place, size = storage._cdata, storage.nbytes()
        if any(tensor.untyped_storage()._cdata == place for tensor in _tensors(args)):
            return  # it came from outside
        self._seen.add(place)
        self.now += size
        self.largest = max(self.largest, size)
        self._reach(self.now)
        weakref.finalize(storage, self._drop, place, size)

    def _reach(self, held: int) -> None:
        self.peak, self._since = max(self.peak, held), max(self._since, held)

    def _drop(self, place: int, size: int) -> None:
        self._seen.discard(place)
        self.now -= size

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, *rest: object, **more: object) -> Tensor:
        """[B, H, N, D], [B, H, M, D], [B, H, M, D] -> [B, H, N, D]; on the meta device as the fused kernels do it.

        Torch takes the plain formula there, whose score matrices only mathematics holds.
        """
        if query.device.type != "meta":
            return self._usual(query, key, value, *rest, **more)
        if not only_mathematics():
            return Fused.apply(query, key, value, self)
        once = 4 * query.numel() * key.shape[-2]
        self.attended += once  # its products are operators of their own, whose operations are counted as they run
        output = self._usual(query, key, value, *rest, **more)
        if output.requires_grad:
            output.register_hook(lambda _: self._attend_back(2 * once))  # four products where the forward pass has two
        return output

    def _attend_back(self, flops: int) -> None:
        self.attended += flops


class Fused(torch.autograd.Function):
    """Attention that keeps what the fused kernels keep: inputs, output and one number per row."""

    @staticmethod
    def forward(ctx: object, query: Tensor, key: Tensor, value: Tensor, meter: Meter) -> Tensor:
        ctx.meter, ctx.once = meter, 4 * query.numel() * key.shape[-2]
        meter.attend(ctx.once)
        # Kernels write in the layout of the query: of [B, N, H, D], as a UNet has it, joining the heads needs no copy;
        # where tokens of text and picture were joined before, it does.
        output = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, output, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return output

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *_ = ctx.saved_tensors
        ctx.meter.attend(ctx.once * 5 // 2)  # five products where the forward pass has two
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value), None


@contextmanager
def attending(wish: str) -> Iterator[None]:
    """Inside, attention is counted as a run with this memory.attention does it."""
    with sdpa_kernel(SDPBackend.MATH) if wish == "math" else nullcontext():
        yield


def only_mathematics() -> bool:
    """Whether torch may take no fused kernel: it was told so."""
    fused = cuda.flash_sdp_enabled() or cuda.mem_efficient_sdp_enabled() or cuda.cudnn_sdp_enabled()
    return cuda.math_sdp_enabled() and not fused


def _tensors(values: tuple | list) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            if not value.is_mkldnn:  # prepacked weights have no storage
                yield value
        elif isinstance(value, (tuple, list)):
            yield from _tensors(value)
