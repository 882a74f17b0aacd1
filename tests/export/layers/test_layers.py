"""The families' layers, written down as a few numbers, are those of the real models."""

import pytest

from tests.export.layers.models import denoiser, layers, text_encoders
from trainers.adapters.names_sd3 import grouped
from trainers.adapters.targets import TEXT, targets
from trainers.export.layers.families import TEXTS, UNETS, family_shapes

BASES = list(TEXTS)


def part(base: str, name: str) -> dict[str, tuple[int, ...]]:
    return {path: shape for (owner, path), shape in family_shapes(base).items() if owner == name}


@pytest.mark.parametrize("base", BASES)
def test_the_denoisers_layers_are_the_models(base):
    assert part(base, "denoiser") == layers(denoiser(base))


@pytest.mark.parametrize("base", ["sd15", "sd2", "sdxl", "3-medium"])
def test_the_text_encoders_layers_are_the_models(base):
    for i, encoder in enumerate(text_encoders(base)):
        assert part(base, f"text_{i}") == layers(encoder)


@pytest.mark.parametrize(
    ("base", "unet", "full", "text"),
    [("sd15", 192, 278, (72,)), ("sd2", 192, 278, (138,)), ("sdxl", 722, 788, (72, 192))],
)
def test_kohyas_targets_are_as_many_as_kohya_writes(base, unet, full, text):
    model = denoiser(base)
    ours = set(part(base, "denoiser"))
    for wish, count in (("transformer", unet), ("full", full)):
        found = targets(model, wish)
        assert len(found) == count and ours.issuperset(found)
    assert tuple(sum(bool(TEXT.search(p)) for p in part(base, f"text_{i}")) for i in range(len(text))) == text
    assert base in UNETS


@pytest.mark.parametrize(
    ("base", "linear", "attention", "kohya"),
    [("3-medium", 333, 191, 237), ("3.5-medium", 385, 243, 263), ("3.5-large", 529, 303, 377)],
)
def test_sd3s_blocks_have_as_many_layers_as_each_layout_names(base, linear, attention, kohya):
    blocks = [path for path in part(base, "denoiser") if path.startswith("transformer_blocks.")]
    assert len(blocks) == linear and sum(".attn" in path for path in blocks) == attention
    assert len(grouped(blocks)) == kohya
