"""diffusers, peft and transformers without what is never used: for modules that may be the first to ask for them."""

from trainers.quick_import import quick_import

with quick_import():
    import diffusers
    import diffusers.models.transformers.transformer_2d
    import peft
    import peft.tuners.lora
    import transformers

__all__ = ["diffusers", "peft", "transformers"]
