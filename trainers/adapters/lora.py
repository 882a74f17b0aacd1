"""LoRA, also on convolutions (LoCon), also with weights taken apart into size and direction (DoRA); through peft."""

import torch
from peft import LoraConfig

from trainers.adapters.adapter import Adapter, tensors_of
from trainers.adapters.dora import start_magnitudes, use_dora
from trainers.adapters.inject import inject, kaiming
from trainers.adapters.lean import lean
from trainers.adapters.targets import shapes
from trainers.config import AdapterConfig
from trainers.families.base import Components, FamilySpec


def attach(components: Components, spec: FamilySpec, config: AdapterConfig, seed: int, fast: bool = True) -> Adapter:
    """Put a fresh adapter on the base; its output does not change until the first step.

    Weights are fp32 whatever the base's dtype, drawn in a fixed order from a generator of their own: the same seed
    gives the same weights, and no other random state moves. `fast` replaces peft's forward by an equal one, which also
    knows rank and module dropout (lean.py, dora.py).

    Raises:
        UserError: what `targets.shapes` refuses.
    """
    dora = config.type == "dora"
    places = shapes(components, spec, config)
    adapter = inject(components, places, LoraConfig, lora_dropout=config.dropout, use_dora=dora)
    adapter.spec = spec
    _initialise(adapter, seed)
    if dora:
        start_magnitudes(adapter)
    if fast:
        (use_dora if dora else lean)(adapter, components)
        for layer in adapter.layers.values():
            layer.rank_dropout, layer.module_dropout = config.rank_dropout, config.module_dropout
    return adapter


def _initialise(adapter: Adapter, seed: int) -> None:
    """down: Kaiming-uniform; up stays zero."""
    generator = torch.Generator().manual_seed(seed)
    for layer in adapter.layers.values():
        kaiming(tensors_of(layer)["down"], generator)
