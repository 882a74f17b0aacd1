"""Adapter types by name."""

from collections.abc import Callable

from trainers.adapters import loha, lokr, lora
from trainers.adapters.adapter import Adapter

ADAPTERS: dict[str, Callable[..., Adapter]] = {  # (components, spec, AdapterConfig, seed) -> Adapter
    "lora": lora.attach,
    "locon": lora.attach,
    "dora": lora.attach,
    "loha": loha.attach,
    "lokr": lokr.attach,
}
