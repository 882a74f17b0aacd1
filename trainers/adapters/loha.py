"""LoHa: the entrywise product of two low-rank matrices, of rank up to r^2 [FedPara, Hyeon-Woo et al. 2022; LyCORIS]."""

import torch
from peft import LoHaConfig
from peft.tuners.loha import Conv2d, Linear

from trainers.adapters.adapter import Adapter, tensors_of
from trainers.adapters.inject import inject, normal
from trainers.adapters.products import Product, use_products
from trainers.adapters.targets import shapes
from trainers.config import AdapterConfig
from trainers.families.base import Components, FamilySpec

START = {"hada_w1_a": 0.1, "hada_w1_b": 1.0, "hada_w2_b": 1.0}  # LyCORIS; w2_a zero. peft's start learns far slower


def attach(components: Components, spec: FamilySpec, config: AdapterConfig, seed: int, fast: bool = True) -> Adapter:
    """Put a fresh LoHa on the base, with the promises of `lora.attach`. `fast`: compute in the base's dtype."""
    dropouts = {"rank_dropout": config.rank_dropout, "module_dropout": config.module_dropout}
    adapter = inject(components, shapes(components, spec, config), LoHaConfig, **dropouts)
    adapter.spec = spec
    generator = torch.Generator().manual_seed(seed)
    for layer in adapter.layers.values():
        for name, weight in tensors_of(layer).items():
            if name in START:
                normal(weight, START[name], generator)
    if fast:
        use_products(adapter, CLASSES, config)
    return adapter


class LohaLinear(Product, Linear):
    pass


class LohaConv2d(Product, Conv2d):
    pass


CLASSES = {Linear: LohaLinear, Conv2d: LohaConv2d}
