"""The forward of adapters whose update is a matrix as large as the weight: y = W x + delta-W x, for LoHa and LoKr.

peft builds delta-W; here it is cast to the base's dtype before it meets the input, and inputs can be dropped out.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.adapters.adapter import NAME, Adapter
from trainers.config import AdapterConfig


def use_products(adapter: Adapter, classes: dict[type, type], config: AdapterConfig | None = None) -> None:
    """Give the adapter's layers the forward below; `classes`: peft's class -> ours."""
    for layer in adapter.layers.values():
        layer.__class__ = classes[type(layer)]
        layer.dropout = config.dropout if config else 0.0


class Product:
    """Comes before peft's classes of LoHa and LoKr layers."""

    dropout: float

    def forward(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        """x [..., in] -> [..., out], or [B, in, H, W] -> [B, out, H', W']."""
        plain = not (self.disable_adapters or self.merged or args or kwargs)
        if not plain or self.module_dropout[NAME]:
            return super().forward(x, *args, **kwargs)
        # peft draws a number that leaves nothing out, and looks at it: compiled code would end there
        return (self.base_layer(x) + self._get_delta_activations(NAME, x)).to(x.dtype)

    def _get_delta_activations(self, adapter_name: str, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        """delta-W x, without a bias: x [..., in] -> [..., out], or [B, in, H, W] -> [B, out, H', W']."""
        delta = self.get_delta_weight(adapter_name)
        if self.training and self.rank_dropout[adapter_name]:
            delta = delta * self._kept(delta, self.rank_dropout[adapter_name])
        delta = delta.to(x.dtype)
        x = F.dropout(x, self.dropout, self.training)
        base = self.get_base_layer()
        if isinstance(base, nn.Linear):
            return F.linear(x, delta)
        return F.conv2d(x, delta, None, base.stride, base.padding, base.dilation, base.groups)

    def _kept(self, delta: Tensor, dropout: float) -> Tensor:
        """Which rows of delta-W [out, ...] stay, scaled up to what all would be: [out, 1, ...].

        peft draws this on the CPU, and a GPU would wait for it.
        """
        kept = (torch.rand(len(delta), device=delta.device) > dropout).to(delta.dtype)
        return (kept / kept.mean().clamp(min=1 / len(delta))).view(-1, *(1,) * (delta.ndim - 1))
