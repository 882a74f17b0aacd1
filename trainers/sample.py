"""Pictures from a base model and an adapter file."""

import logging
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor, nn

from trainers import memory, preview
from trainers.adapters.adapter_file import apply_file, read_adapter, require_strength
from trainers.adapters.tokens import attach_tokens
from trainers.config import TrainConfig
from trainers.errors import UserError
from trainers.export.embedding import belonging
from trainers.families.positions import keep_middle
from trainers.families.registry import find_family

log = logging.getLogger(__name__)


def sample(
    config: TrainConfig, adapter: Path | None, prompts: Sequence[str], seed: int, strength: float = 1.0, count: int = 1
) -> list[list[Image.Image]]:
    """`count` pictures per prompt, with seeds seed, seed + 1, ...; without an adapter, the base's own.

    UserError when the base or the adapter cannot be read, they do not fit each other, or no picture comes of them.
    """
    require_strength(strength, "The strength")
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
    components.vae.decoder.register_forward_hook(_require_numbers)
    resolution = config.data.resolution or components.resolution
    config, smaller = preview.bounded(config, components)
    if smaller:
        log.warning("%s. %s", smaller.what, smaller.why)
    keep_middle(components, preview.longest(config.preview, resolution))
    rows = []
    for prompt in prompts:
        settings = config.preview.model_copy(update={"seed": seed})
        one = [prompt] * count
        rows.append(preview.sample(family, components, one, settings, config.model.clip_skip, plan.device, resolution))
    return rows


def _require_numbers(decoder: nn.Module, inputs: tuple[Tensor, ...], pixels: Tensor) -> None:
    """UserError where NaN or infinity came out, which would be saved as black."""
    if not pixels.isfinite().all():
        message = "The picture holds NaN or infinity in place of colours, so it was not saved."
        raise UserError(message, "Try a lower strength, or --base with another base model.")
