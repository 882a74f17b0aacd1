"""Layers for updates that are already there, of whatever types: those of an adapter file."""

from collections.abc import Mapping

import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer

from trainers.adapters import loha, lokr
from trainers.adapters.adapter import Adapter, Place, put
from trainers.adapters.dora import use_dora
from trainers.adapters.inject import inject
from trainers.adapters.lean import lean
from trainers.adapters.products import use_products
from trainers.adapters.targets import parts
from trainers.adapters.weights import DoraWeights, LohaWeights, LokrWeights, LoraWeights, Weights
from trainers.families.base import Components

CONFIGS = {
    LoraWeights: (LoraConfig, {}),
    DoraWeights: (LoraConfig, {"use_dora": True}),
    LohaWeights: (LoHaConfig, {}),
    LokrWeights: (LoKrConfig, {}),
}


def attach_updates(components: Components, updates: Mapping[Place, Weights]) -> Adapter:
    """An adapter that makes these updates; each has the shape of its place (`fitted`)."""
    hosted = {place: _hostable(components, place, update) for place, update in updates.items()}
    layers: dict[Place, BaseTunerLayer] = {}
    for kind, (make, settings) in CONFIGS.items():
        own = {place: update for place, update in hosted.items() if type(update) is kind}
        places = {place: (update.rank, update.alpha) for place, update in own.items()}
        adapter = inject(components, places, make, **settings)
        for place, update in own.items():
            put(adapter.layers[place], update.tensors())
        USE[kind](adapter, components)
        layers |= adapter.layers
    return Adapter({place: layers[place] for place in updates})


def replace_updates(adapter: Adapter, components: Components, updates: Mapping[Place, Weights]) -> None:
    """Make these the updates of what `attach_updates` gave: those of another checkpoint of the same run.

    They have the same places, types, ranks and alphas.
    """
    for place, update in updates.items():
        put(adapter.layers[place], _hostable(components, place, update).tensors())


USE = {  # the forwards that training has, too
    LoraWeights: lean,
    DoraWeights: use_dora,
    LohaWeights: lambda adapter, components: use_products(adapter, loha.CLASSES),
    LokrWeights: lambda adapter, components: use_products(adapter, lokr.CLASSES),
}


def _hostable(components: Components, place: Place, update: Weights) -> Weights:
    """The update in a type that peft has: a DoRA with magnitudes of input columns becomes a LoRA of full rank."""
    if not isinstance(update, DoraWeights) or update.by_output:
        return update
    module = parts(components)[place[0]].get_submodule(place[1])
    delta = update.delta(module.weight).cpu()  # [out, in] or [out, in, kh, kw]: a `down` of rank out
    up = torch.eye(len(delta)).reshape(len(delta), len(delta), *(1 for _ in delta.shape[2:]))
    return LoraWeights(delta, up, float(len(delta)))
