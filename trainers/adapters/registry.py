"""Adapter types by name."""

from collections.abc import Callable

from trainers.adapters.lora import Adapter, attach
from trainers.config import AdapterConfig
from trainers.families.base import Components, FamilySpec

ADAPTERS: dict[str, Callable[[Components, FamilySpec, AdapterConfig, int], Adapter]] = {"lora": attach}
