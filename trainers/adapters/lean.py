"""A LoRA forward and backward with as few kernels as there can be, equal to peft's.

peft casts the input to the adapter's dtype, scales at output width and casts back. Here all weights of a model are cast
once per forward, in one call, with the scale already in them, and the update is added by the matrix product itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
import torch.nn.functional as F
from peft.tuners.lora import Conv2d, Linear, LoraLayer
from torch import Tensor, nn

from trainers.adapters.adapter import NAME, Adapter, pair
from trainers.adapters.fused import LoraLinear
from trainers.adapters.siblings import Siblings, find_siblings
from trainers.families.base import Components
from trainers.memory.packed import PackedLinear


def lean(adapter: Adapter, components: Components) -> None:
    """Give the adapter's layers the lean forward, and each model the hook that prepares their weights."""
    for model in (components.denoiser, *components.text_encoders):
        inside = {id(module) for module in model.modules()}
        layers = [layer for layer in adapter.layers.values() if id(layer) in inside]  # all of them plain LoRA
        for layer in layers:
            layer.__class__ = LeanLinear if isinstance(layer, Linear) else LeanConv2d
            layer.ready = layer.siblings = None
        siblings = find_siblings(model, layers)
        for group in siblings:
            group.join()
            for layer in group.layers:
                layer.siblings = group
        if layers:
            model.register_forward_pre_hook(Prepare(layers, siblings))


@dataclass(frozen=True)
class Factors:
    """Masters that are prepared as one tensor, laid one after the other along their first dimension."""

    masters: list[Tensor]
    scale: float = 1.0


class Prepare:
    """Before each forward of a model: every layer's weights in the compute dtype and scaled, one call for all."""

    def __init__(self, layers: list[LoraLayer], siblings: list[Siblings]):
        self.siblings = siblings
        together = {id(layer) for group in siblings for layer in group.layers}
        self.alone = [layer for layer in layers if id(layer) not in together]

    def __call__(self, model: nn.Module, inputs: object) -> None:
        units: list[tuple[Siblings | None, list[LoraLayer]]] = [(None, [layer]) for layer in self.alone]
        for group in self.siblings:
            group.forget()
            joint = not any(layer.disable_adapters or layer.merged or layer.dropping() for layer in group.layers)
            joint = joint and len({layer.scaling[NAME] for layer in group.layers}) == 1
            units += [(group, group.layers)] if joint else [(None, [layer]) for layer in group.layers]
        by_dtype: dict[torch.dtype, list[tuple[Siblings | None, list[LoraLayer]]]] = {}
        for group, layers in units:
            for layer in layers:
                if layer.ready is not None:  # a module's attributes are slow to set
                    layer.ready = None
            first, dtype = layers[0], dtype_of(layers[0])
            if group or not first.disable_adapters and (dtype != torch.float32 or first.scaling[NAME] != 1):
                by_dtype.setdefault(dtype, []).append((group, layers))
        for dtype, wanted in by_dtype.items():
            _prepare(dtype, wanted)


def _prepare(dtype: torch.dtype, units: list[tuple[Siblings | None, list[LoraLayer]]]) -> None:
    downs, ups = [], []
    for _, layers in units:
        pairs = [pair(layer) for layer in layers]
        downs.append(Factors([down for down, _ in pairs]))
        ups.append(Factors([up for _, up in pairs], layers[0].scaling[NAME]))
    ready = _factors(dtype, downs + ups)
    for (group, layers), down, up in zip(units, ready[: len(units)], ready[len(units) :], strict=True):
        if group:
            group.prepared(down, up)
        else:
            layers[0].ready = (down, up, *(master._version for master in pair(layers[0])))


def _factors(dtype: torch.dtype, wanted: list[Factors]) -> list[Tensor]:
    """Every one in `dtype`, joined and scaled; what is right as it is stays the master itself."""
    result = [factors.masters[0] for factors in wanted]
    changed = [i for i, f in enumerate(wanted) if dtype != f.masters[0].dtype or len(f.masters) > 1 or f.scale != 1]
    if changed:
        masters = [master for i in changed for master in wanted[i].masters]
        counts = [len(wanted[i].masters) for i in changed]
        cast = Cast.apply(dtype, [wanted[i].scale for i in changed], counts, *masters)
        for i, tensor in zip(changed, cast, strict=True):
            result[i] = tensor
    return result


class Cast(torch.autograd.Function):
    """fp32 masters -> scale * master in `dtype`, runs of them joined along dimension 0; the gradients back to fp32."""

    @staticmethod
    def forward(
        ctx: object, dtype: torch.dtype, scales: list[float], counts: list[int], *masters: Tensor
    ) -> tuple[Tensor, ...]:
        """One scale for each run of masters; `counts`: how long the runs are."""
        ctx.dtype, ctx.counts = masters[0].dtype, counts
        ctx.scales = [scale for scale, count in zip(scales, counts, strict=True) for _ in range(count)]
        ctx.set_materialize_grads(False)
        buffer = _buffer(_scaled(masters, ctx.scales), dtype)  # scaled in fp32, rounded once
        starts = [0, *accumulate(counts)]
        runs = [masters[start:end] for start, end in pairwise(starts)]
        sizes = [sum(master.numel() for master in run) for run in runs]
        pieces = buffer.split(sizes)
        return tuple(piece.view(-1, *run[0].shape[1:]) for piece, run in zip(pieces, runs, strict=True))

    @staticmethod
    def backward(ctx: object, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        parts: list[Tensor | None] = []
        for grad, count in zip(grads, ctx.counts, strict=True):
            parts += [None] * count if grad is None else grad.chunk(count)
        present = [i for i, part in enumerate(parts) if part is not None]
        cast = _cast([parts[i] for i in present], ctx.dtype)
        scaled = dict(zip(present, _scaled(cast, [ctx.scales[i] for i in present]), strict=True))
        return (None, None, None, *(scaled.get(i) for i in range(len(parts))))


def _scaled(tensors: Sequence[Tensor], scales: list[float]) -> list[Tensor]:
    """scale * tensor where the scale is not 1, all in one call."""
    result = list(tensors)
    changed = [i for i, scale in enumerate(scales) if scale != 1]
    if changed:
        products = torch._foreach_mul([result[i] for i in changed], [scales[i] for i in changed])
        for i, product in zip(changed, products, strict=True):
            result[i] = product
    return result


def _buffer(tensors: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Copies of all in `dtype`, one after the other."""
    sizes = [tensor.numel() for tensor in tensors]
    buffer = torch.empty(sum(sizes), dtype=dtype, device=tensors[0].device)
    copies = [piece.view(t.shape) for piece, t in zip(buffer.split(sizes), tensors, strict=True)]
    torch._foreach_copy_(copies, list(tensors))
    return buffer


def _cast(tensors: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """The tensors in `dtype`, cut from one buffer where they must be converted."""
    if not tensors or tensors[0].dtype == dtype:
        return list(tensors)
    pieces = _buffer(tensors, dtype).split([tensor.numel() for tensor in tensors])
    return [piece.view(tensor.shape) for piece, tensor in zip(pieces, tensors, strict=True)]


class Dropouts:
    """Dropout of ranks and of whole layers, as kohya has them in its LoRA; peft's LoRA knows neither."""

    rank_dropout = 0.0
    module_dropout = 0.0

    def dropping(self) -> bool:
        """Whether anything is left out at random now."""
        if not self.training:
            return False
        return bool(self.rank_dropout or self.module_dropout) or isinstance(self.lora_dropout[NAME], nn.Dropout)

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
    siblings: Siblings | None

    def factors(self) -> tuple[Tensor, Tensor]:
        """(down, scale * up) in the compute dtype: the prepared ones, else made here."""
        down, up = pair(self)
        if self.ready is not None and torch.compiler.is_compiling():
            return self.ready[:2]  # versions would be constants of the graph; `Prepare` ran in this very forward pass
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
        lean = not autocast_on(x)
        if lean and self.siblings:
            y = self.siblings.take(self, x)
            if y is not None:
                return y
        base, (down, up) = self.base_layer, self.factors()
        if lean and type(base) is nn.Linear and not self.dropping():
            weight = base.weight
            if x.dtype == down.dtype == weight.dtype:
                return LoraLinear.apply(x, weight, base.bias, down, up)
        y = base(x)
        if self.skipped():
            return y
        hidden = self.thinned(F.linear(self.lora_dropout[NAME](x).to(down.dtype), down))
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
    base = layer.base_layer
    return base.dtype if isinstance(base, PackedLinear) else base.weight.dtype
