"""diffusers, peft and transformers without what is never used: for modules that may be the first to ask for them."""

from contextlib import suppress
from importlib import import_module

from trainers.quick_import import quick_import

USED = (
    "diffusers",
    "diffusers.models.transformers.transformer_2d",
    "peft",
    "peft.tuners.lora",
    "transformers",
)


def _load() -> None:
    for name in USED:
        import_module(name)


with suppress(ImportError, RuntimeError), quick_import():  # diffusers makes a RuntimeError of it
    _load()
_load()  # where something that is installed beside cannot do without what is hidden there

import diffusers  # noqa: E402
import peft  # noqa: E402
import transformers  # noqa: E402

__all__ = ["diffusers", "peft", "transformers"]
