"""LoKr: a Kronecker product of a small matrix and a larger, low-rank one [Yeh et al. 2024; LyCORIS]."""

import torch
from peft import LoKrConfig
from peft.tuners.lokr import Conv2d, Linear

from trainers.adapters.adapter import Adapter, tensors_of
from trainers.adapters.inject import inject, kaiming
from trainers.adapters.products import Product, use_products
from trainers.adapters.targets import shapes
from trainers.config import AdapterConfig
from trainers.families.base import Components, FamilySpec


def attach(components: Components, spec: FamilySpec, config: AdapterConfig, seed: int, fast: bool = True) -> Adapter:
    """Put a fresh LoKr on the base, with the promises of `lora.attach`. `fast`: compute in the base's dtype."""
    adapter = inject(
        components,
        shapes(components, spec, config),
        LoKrConfig,
        decompose_factor=config.factor,
        decompose_both=config.decompose_both,
        rank_dropout=config.rank_dropout,
        rank_dropout_scale=True,
        module_dropout=config.module_dropout,
    )
    adapter.spec = spec
    _initialise(adapter, seed)
    if fast:
        use_products(adapter, CLASSES, config)
    return adapter


def _initialise(adapter: Adapter, seed: int) -> None:
    """As LyCORIS: Kaiming-uniform, but for w2 (the right one of its factors), which stays zero."""
    generator = torch.Generator().manual_seed(seed)
    for layer in adapter.layers.values():
        for name, weight in tensors_of(layer).items():
            if name not in ("lokr_w2", "lokr_w2_b"):
                kaiming(weight, generator)


class LokrLinear(Product, Linear):
    pass


class LokrConv2d(Product, Conv2d):
    pass


CLASSES = {Linear: LokrLinear, Conv2d: LokrConv2d}
