"""Output preservation: what is drawn without the trigger word stays what the base draws."""

import pytest
import torch

from tests.tiny import tiny_pipeline_folder
from trainers import config_io, memory
from trainers.bench.loops import engine_step
from trainers.data.captions import without_trigger
from trainers.data.types import Example
from trainers.families.registry import find_family
from trainers.preservation import preserved_captions


@pytest.mark.parametrize(
    ("caption", "trigger", "word", "expected"),
    [
        ("a photo of sks man on a beach", "sks man", "man", "a photo of man on a beach"),
        ("Sks, red hat, sks", "sks", "girl", "girl, red hat, girl"),
        ("sks, red hat", "sks", "", "red hat"),
        ("a fluent style cat", "fluent", "", "a style cat"),
        ("a man on a beach", "sks", "man", "man"),  # its own caption is what the run teaches
        ("a man on a beach", "", "man", "man"),
        (r"a\1 style cat", r"a\1", r"\g<0>", r"\g<0> style cat"),
    ],
)
def test_the_class_word_takes_the_triggers_place(caption, trigger, word, expected):
    assert without_trigger(caption, trigger, word) == expected


def test_preserved_captions_are_the_empty_one_and_one_for_each_class_word(tmp_path):
    example = Example(tmp_path / "1.png", "sks on a beach", (64, 64), "0")
    data = {"trigger": "sks", "class_words": ["man", "woman"]}
    on, off = (config_io.parse({"data": data, "loss": {"preservation": weight}}) for weight in (1, 0))
    assert preserved_captions(example, on) == ["", "man on a beach", "woman on a beach"]
    assert preserved_captions(example, off) == []


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_pipeline_folder(tmp_path_factory.mktemp("base"))


def built(base, preservation: float, every: int = 1, text_encoder: bool = False):
    config = config_io.parse(
        {
            "model": {"base": str(base)},
            "memory": {"device": "cpu"},
            "adapter": {"text_encoder": text_encoder, "rank": 4},
            "data": {"batch_size": 2},
            "loss": {"preservation": preservation, "preservation_every": every, "weighting": "none"},
            "optimizer": {"rate": 1e-2, "text_rate": 1e-2, "clip_norm": 0},
            "schedule": {"warmup": 0, "type": "constant"},
        }
    )
    plan, family = memory.plan(config.memory), find_family(config.model)
    components = family.load(config.model, plan.dtype)
    return engine_step(family, components, config, plan, 100)


def drift(step) -> float:
    """How far the prediction under the empty caption is from the base's, on noise that training never saw."""
    generator = torch.Generator().manual_seed(7)
    noisy, timesteps = torch.randn(4, 4, 8, 8, generator=generator), torch.tensor([100, 300, 600, 900])
    rows = torch.tensor([step.feed.text.row[""]] * 4)
    denoise, preservation = step.family.denoise, step.preservation
    with torch.no_grad():
        now = denoise(step.denoiser, noisy, timesteps, step.feed.text.conditioning(rows))
        with preservation.adapter.disabled():
            before = denoise(step.denoiser, noisy, timesteps, preservation.base_text.rows(rows))
    return (now - before).pow(2).mean().item()


@pytest.mark.parametrize("text_encoder", [False, True])
def test_the_adapter_moves_the_unprompted_prediction_less(base, text_encoder):
    drifts = []
    for weight in (1e-6, 10.0):
        step = built(base, weight, text_encoder=text_encoder)
        for number in range(30):
            step(number)
        drifts.append(drift(step))
    assert drifts[1] < 0.3 * drifts[0]


def test_a_fresh_adapter_preserves_everything(base):
    step = built(base, 1.0)
    _, seen = step.micro_step(0)
    assert step.preservation(0, *seen).item() == 0


def test_the_last_of_each_few_batches_pays_for_all(base):
    step = built(base, 0.5, every=4)
    assert [number for number in range(12) if step.preservation.due(number)] == [3, 7, 11]
    assert step.preservation.weight == 2.0


def test_the_adapter_is_on_again_afterwards(base):
    step = built(base, 1.0)
    step(0)
    assert step.preservation.adapter.enabled and all(p.requires_grad for p in step.parameters)
