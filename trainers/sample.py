"""Pictures from a base model and an adapter file."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from trainers import memory, preview
from trainers.adapters.adapter_file import merge_into, read_adapter
from trainers.config import TrainConfig
from trainers.families.registry import find_family


def sample(
    config: TrainConfig, adapter: Path | None, prompts: Sequence[str], seed: int, strength: float = 1.0, count: int = 1
) -> list[list[Image.Image]]:
    """`count` pictures per prompt, with seeds seed, seed + 1, ...; without an adapter, the base's own.

    UserError when the base or the adapter cannot be read, or they do not fit each other.
    """
    plan = memory.plan(config.memory)
    family = find_family(config.model)
    file = read_adapter(adapter) if adapter else None
    components = family.load(config.model, plan.dtype)
    if file:
        merge_into(components, family.spec, file, strength)
    resolution = config.data.resolution or components.resolution
    rows = []
    for prompt in prompts:
        settings = config.preview.model_copy(update={"seed": seed})
        one = [prompt] * count
        rows.append(preview.sample(family, components, one, settings, config.model.clip_skip, plan.device, resolution))
    return rows
