"""Adapter types by name."""

from collections.abc import Callable

from trainers.adapters import lora
from trainers.adapters.adapter import Adapter

ADAPTERS: dict[str, Callable[..., Adapter]] = {  # (components, spec, AdapterConfig, seed) -> Adapter
    "lora": lora.attach,
}
