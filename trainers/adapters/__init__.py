"""What is trained: adapters of all types on the layers of a base model. Loads the libraries that they are made with."""

from trainers.quick_import import quick_import

with quick_import():
    import diffusers.models.transformers.transformer_2d  # noqa: F401
    import peft.tuners.lora  # noqa: F401
