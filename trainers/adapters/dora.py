"""DoRA's forward: the size of each output row is learned apart from its direction [Liu et al. 2024].

W' = m (W + s up down) / |W + s up down|. peft's own forward computes in fp32 whatever the base is; here the products
are in the base's dtype, and only the norms and the gain are in fp32.
"""

import torch
import torch.nn.functional as F
from peft.tuners.lora import Conv2d, Linear, LoraLayer
from torch import Tensor, nn

from trainers.adapters.adapter import NAME, Adapter, pair
from trainers.adapters.lean import Dropouts, dtype_of
from trainers.families.base import Components
from trainers.waiting import real


def use_dora(adapter: Adapter, components: Components | None = None) -> None:
    """Give the adapter's layers the forward below."""
    for layer in adapter.layers.values():
        layer.__class__ = DoraLinear if isinstance(layer, Linear) else DoraConv2d
        layer.strength = 1.0


@torch.no_grad()
def start_magnitudes(adapter: Adapter) -> None:
    """m = |W + s up down|: the adapter changes nothing."""
    for layer in adapter.layers.values():
        magnitude = layer.lora_magnitude_vector[NAME].weight
        magnitude.copy_(row_norms(layer).reshape(magnitude.shape))


@torch.no_grad()
def row_norms(layer: LoraLayer) -> Tensor:
    """|W + s up down| of each output row [out], fp32. A constant for the gradient (section 4.3 of the paper)."""
    down, up = pair(layer)
    weight = real(layer.get_base_layer().weight).float().flatten(1)
    return torch.addmm(weight, up.flatten(1), down.flatten(1), alpha=layer.scaling[NAME]).norm(dim=1)


class Dora(Dropouts):
    """What linear layers and convolutions share."""

    strength: float

    def set_scale(self, adapter: str, scale: float) -> None:
        """Between the base's weight (0) and the whole DoRA weight (1), as ComfyUI has it."""
        self.strength = scale

    def forward(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        """x [B, in, H, W] or [..., in] -> [B, out, H', W'] or [..., out]."""
        if self.disable_adapters or args or kwargs or self.merged:
            return super().forward(x, *args, **kwargs)
        base, dtype = self.get_base_layer(), dtype_of(self)
        y = base(x)
        if self.skipped():
            return y
        down, up = (weight.to(dtype) for weight in pair(self))
        dropout = self.lora_dropout[NAME]
        seen = dropout(x).to(dtype)
        hidden = self.thinned(self._first(seen, down))
        gain = self.lora_magnitude_vector[NAME].weight.flatten() / row_norms(self)
        # As in peft, all that is learned sees the dropped input.
        own = base(seen) if self.training and isinstance(dropout, nn.Dropout) else y
        plain = own if base.bias is None else own - self._row(base.bias)
        update = self._row(gain - 1).to(dtype) * plain
        update = update + self._row(gain * self.scaling[NAME]).to(dtype) * self._second(hidden, up)
        return y + (update if self.strength == 1 else update * self.strength).to(y.dtype)


class DoraLinear(Dora, Linear):
    def _first(self, x: Tensor, down: Tensor) -> Tensor:
        return F.linear(x, down)

    def _second(self, hidden: Tensor, up: Tensor) -> Tensor:
        return F.linear(hidden, up)

    def _row(self, values: Tensor) -> Tensor:
        return values


class DoraConv2d(Dora, Conv2d):
    def _first(self, x: Tensor, down: Tensor) -> Tensor:
        base = self.get_base_layer()
        return F.conv2d(x, down, None, base.stride, base.padding, base.dilation)

    def _second(self, hidden: Tensor, up: Tensor) -> Tensor:
        return F.conv2d(hidden, up)

    def _row(self, values: Tensor) -> Tensor:
        return values.reshape(1, -1, 1, 1)
