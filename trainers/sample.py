"""Pictures from a base model and an adapter file."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from trainers import memory, preview
from trainers.adapters.adapter_file import apply_file, read_adapter
from trainers.adapters.tokens import attach_tokens
from trainers.config import TrainConfig
from trainers.export.embedding import belonging
from trainers.families.registry import find_family


def sample(
    config: TrainConfig, adapter: Path | None, prompts: Sequence[str], seed: int, strength: float = 1.0, count: int = 1
) -> list[list[Image.Image]]:
    """`count` pictures per prompt, with seeds seed, seed + 1, ...; without an adapter, the base's own.

    UserError when the base or the adapter cannot be read, or they do not fit each other.
    """
    plan = memory.plan(config.memory)
    family = find_family(config.model)
    words = None
    if adapter:  # a damaged or missing file is named before the base is read
        words = belonging(read_adapter(adapter), family.spec)
    components = family.load(config.model, plan.dtype)
    if words and strength:
        attach_tokens(components, *words)
    if adapter:
        # Beside the weights, as in training: small updates vanish when they are added to weights in bf16.
        apply_file(components, adapter, strength, strict=True)
    resolution = config.data.resolution or components.resolution
    rows = []
    for prompt in prompts:
        settings = config.preview.model_copy(update={"seed": seed})
        one = [prompt] * count
        rows.append(preview.sample(family, components, one, settings, config.model.clip_skip, plan.device, resolution))
    return rows
