"""A LoRA forward and backward with as few kernels as there can be, equal to peft's.

peft casts the input to the adapter's dtype, scales at output width and casts back. Here all weights of a model are cast
once per forward, in one call, with the scale already in them, and the update is added by the matrix product itself.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from peft.tuners.lora import Conv2d, Linear, LoraLayer
from torch import Tensor, nn

from trainers.adapters.adapter import NAME, Adapter, pair
from trainers.adapters.fused import LoraLinear
from trainers.families.base import Components
from trainers.memory.packed import PackedLinear


def lean(adapter: Adapter, components: Components) -> None:
    """Give the adapter's layers the lean forward, and each model the hook that prepares their weights."""
    for model in (components.denoiser, *components.text_encoders):
        inside = {id(module) for module in model.modules()}
        layers = [layer for layer in adapter.layers.values() if id(layer) in inside]  # all of them plain LoRA
        for layer in layers:
            layer.__class__ = LeanLinear if isinstance(layer, Linear) else LeanConv2d
            layer.ready = None
        if layers:
            model.register_forward_pre_hook(Prepare(layers))


class Prepare:
    """Before each forward of a model: every layer's weights in the compute dtype and scaled, one call for all."""

    def __init__(self, layers: list[LoraLayer]):
        self.layers = layers

    def __call__(self, model: nn.Module, inputs: object) -> None:
        groups: dict[torch.dtype, list[LoraLayer]] = {}
        for layer in self.layers:
            layer.ready = None
            if not layer.disable_adapters and (dtype_of(layer) != torch.float32 or layer.scaling[NAME] != 1):
                groups.setdefault(dtype_of(layer), []).append(layer)
        for dtype, layers in groups.items():
            downs, ups = zip(*(pair(layer) for layer in layers), strict=True)
            scales = [layer.scaling[NAME] for layer in layers]
            if dtype == torch.float32:
                new_downs, new_ups = downs, Cast.apply(dtype, scales, *ups)
            else:
                cast = Cast.apply(dtype, [1.0] * len(downs) + scales, *downs, *ups)
                new_downs, new_ups = cast[: len(downs)], cast[len(downs) :]
            for layer, down, up, new_down, new_up in zip(layers, downs, ups, new_downs, new_ups, strict=True):
                layer.ready = (new_down, new_up, down._version, up._version)


class Cast(torch.autograd.Function):
    """fp32 masters -> scale * master in `dtype`, each tensor with its scale, and the gradients back to fp32."""

    @staticmethod
    def forward(ctx: object, dtype: torch.dtype, scales: list[float], *masters: Tensor) -> tuple[Tensor, ...]:
        ctx.dtype, ctx.scales = masters[0].dtype, scales
        ctx.set_materialize_grads(False)
        return tuple(_cast(_scaled(masters, scales), dtype))  # scaled in fp32, rounded once

    @staticmethod
    def backward(ctx: object, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        present = [i for i, grad in enumerate(grads) if grad is not None]
        cast = _cast([grads[i] for i in present], ctx.dtype)
        scaled = dict(zip(present, _scaled(cast, [ctx.scales[i] for i in present]), strict=True))
        return (None, None, *(scaled.get(i) for i in range(len(grads))))


def _scaled(tensors: Sequence[Tensor], scales: list[float]) -> list[Tensor]:
    """scale * tensor where the scale is not 1, all in one call."""
    result = list(tensors)
    changed = [i for i, scale in enumerate(scales) if scale != 1]
    if changed:
        products = torch._foreach_mul([result[i] for i in changed], [scales[i] for i in changed])
        for i, product in zip(changed, products, strict=True):
            result[i] = product
    return result


def _cast(tensors: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """The tensors in `dtype`, cut from one buffer where they must be converted."""
    if not tensors or tensors[0].dtype == dtype:
        return list(tensors)
    sizes = [tensor.numel() for tensor in tensors]
    buffer = torch.empty(sum(sizes), dtype=dtype, device=tensors[0].device)
    copies = [piece.view(t.shape) for piece, t in zip(buffer.split(sizes), tensors, strict=True)]
    torch._foreach_copy_(copies, list(tensors))
    return copies


class Dropouts:
    """Dropout of ranks and of whole layers, as kohya has them in its LoRA; peft's LoRA knows neither."""

    rank_dropout = 0.0
    module_dropout = 0.0

    def skipped(self) -> bool:
        """Whether this step goes without the layer's update."""
        return self.training and self.module_dropout > 0 and bool(torch.rand(()) < self.module_dropout)

    def thinned(self, hidden: Tensor) -> Tensor:
        """Ranks zeroed at random for each picture, the others scaled up: [B, rank, H, W] or [B, ..., rank]."""
        if not (self.training and self.rank_dropout):
            return hidden
        channel = 1 if isinstance(self, Conv2d) else hidden.ndim - 1
        shape = [size if axis in (0, channel) else 1 for axis, size in enumerate(hidden.shape)]
        kept = torch.rand(shape, device=hidden.device) >= self.rank_dropout
        return hidden * (kept / (1 - self.rank_dropout)).to(hidden.dtype)


class Lean(Dropouts):
    """What lean linear layers and convolutions share."""

    ready: tuple[Tensor, Tensor, int, int] | None

    def factors(self) -> tuple[Tensor, Tensor]:
        """(down, scale * up) in the compute dtype: the prepared ones, else made here."""
        down, up = pair(self)
        if self.ready is not None:
            new_down, new_up, down_version, up_version = self.ready
            fresh = down._version == down_version and up._version == up_version and new_down.device == down.device
            if fresh and (new_up.requires_grad or not (torch.is_grad_enabled() and up.requires_grad)):
                return new_down, new_up
        dtype, scale = dtype_of(self), self.scaling[NAME]
        return down.to(dtype), (up if scale == 1 else up * scale).to(dtype)


class LeanLinear(Lean, Linear):
    def forward(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        """x [..., in] -> [..., out]."""
        if self.disable_adapters or args or kwargs or self.merged:
            return super().forward(x, *args, **kwargs)
        base, (down, up) = self.base_layer, self.factors()
        dropout = self.lora_dropout[NAME]
        dropping = self.training and (isinstance(dropout, nn.Dropout) or self.rank_dropout or self.module_dropout)
        plain = type(base) is nn.Linear and x.dtype == down.dtype == base.weight.dtype
        if plain and not dropping and not autocast_on(x):
            return LoraLinear.apply(x, base.weight, base.bias, down, up)
        y = base(x)
        if self.skipped():
            return y
        hidden = self.thinned(F.linear(dropout(x).to(down.dtype), down))
        return y + F.linear(hidden, up).to(y.dtype)


class LeanConv2d(Lean, Conv2d):
    def forward(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        """x [B, in, H, W] -> [B, out, H', W']."""
        if self.disable_adapters or args or kwargs or self.merged:
            return super().forward(x, *args, **kwargs)
        base, (down, up) = self.base_layer, self.factors()
        y = base(x)
        if self.skipped():
            return y
        x = self.lora_dropout[NAME](x).to(down.dtype)
        hidden = self.thinned(F.conv2d(x, down, None, base.stride, base.padding, base.dilation))
        return y + F.conv2d(hidden, up).to(y.dtype)


def autocast_on(x: Tensor) -> bool:
    return x.device.type != "meta" and torch.is_autocast_enabled(x.device.type)  # meta knows no autocast


def dtype_of(layer: LoraLayer) -> torch.dtype:
    """What the layer computes in: its base weight's dtype, also where that is packed."""
    base = layer.get_base_layer()
    return base.dtype if isinstance(base, PackedLinear) else base.weight.dtype
