"""Output preservation: what is drawn without the trigger word stays what the base draws."""

import pytest
import torch

from tests.tiny import tiny_pipeline_folder
from trainers import config_io, memory
from trainers.bench.loops import engine_step
from trainers.config import NoiseConfig
from trainers.data.cache import Cache
from trainers.data.captions import without_trigger
from trainers.data.types import Example
from trainers.errors import UserError
from trainers.families.registry import find_family
from trainers.noise import DdpmNoise
from trainers.preservation import draw_class_pictures, preserved_captions
from trainers.preview import draw
from trainers.stores import TextStore


@pytest.mark.parametrize(
    ("caption", "trigger", "word", "expected"),
    [
        ("a photo of sks man on a beach", "sks man", "man", "a photo of man on a beach"),
        ("Sks, red hat, sks", "sks", "girl", "girl, red hat, girl"),
        ("sks, red hat", "sks", "", "red hat"),
        ("cat catching a caterpillar", "cat", "animal", "animal catching a caterpillar"),
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
    _, inputs = step.preservation.inputs(step.preservation.look(0, step.look(0), torch.Generator()))
    assert step.preservation.error(*inputs).item() == 0


def test_the_last_of_each_few_batches_pays_for_all(base):
    step = built(base, 0.5, every=4)
    assert [number for number in range(12) if step.preservation.due(number)] == [3, 7, 11]
    assert step.preservation.weight == 2.0


def test_the_adapter_is_on_again_afterwards(base):
    step = built(base, 1.0)
    step(0)
    assert step.preservation.adapter.enabled and all(p.requires_grad for p in step.parameters)


def drawn(base, cache, seed: int = 1, words: tuple[str, ...] = ("a dog", "a cat"), count: int = 3):
    """(ClassPictures, every progress report) of a run's settings."""
    config = config_io.parse(
        {
            "model": {"base": str(base)},
            "memory": {"device": "cpu"},
            "data": {"class_words": list(words), "class_pictures": count},
            "loss": {"preservation": 1},
            "preview": {"sampling_steps": 3},
            "seed": seed,
        }
    )
    plan, family = memory.plan(config.memory), find_family(config.model)
    components = family.load(config.model, plan.dtype)
    text = TextStore(["", *words], family, components, 1, plan.device)
    base_text, told = text.encode_all(None, lambda *_: None), []
    pictures = draw_class_pictures(
        config, family, components, text, base_text, 16, cache, lambda *progress: told.append(progress)
    )
    return pictures, told, text, (config, family, components)


def test_class_pictures_are_the_bases_own_previews(base):
    pictures, told, text, (config, family, components) = drawn(base, None)
    assert pictures.latents.shape == (3, 4, 8, 8) and told[-1][1:] == (3, 3)
    assert pictures.captions.tolist() == [text.row["a dog"], text.row["a cat"], text.row["a dog"]]
    noise = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(config.seed))
    both = text.encode_all(None, lambda *_: None).rows(torch.tensor([text.row[""], text.row["a cat"]]))
    expected = draw(family, components, noise[1:2], both, config.preview)
    torch.testing.assert_close(pictures.latents[1:2], expected, rtol=1e-4, atol=1e-4)  # drawn in a batch of three


def test_class_pictures_come_from_the_cache_unless_what_they_show_changes(base, tmp_path, monkeypatch):
    cache = Cache(tmp_path)
    first, *_ = drawn(base, cache)
    monkeypatch.setattr("trainers.preview.draw", None)  # not called again
    again, *_ = drawn(base, cache)
    assert torch.equal(first.latents, again.latents)
    for change in ({"seed": 2}, {"words": ("a red dog",)}, {"count": 4}):
        with pytest.raises(TypeError):
            drawn(base, cache, **change)


def test_a_batch_of_class_pictures_shows_words_and_now_and_then_none(base):
    pictures, *_ = drawn(base, None)
    noise = DdpmNoise({"prediction_type": "epsilon"}, NoiseConfig(), torch.device("cpu"))
    timesteps, generator = torch.zeros(1000, dtype=torch.long), torch.Generator().manual_seed(0)
    noisy, rows = pictures.batch(noise, timesteps, generator)
    empty = rows == pictures.empty
    assert 0.2 < empty.float().mean() < 0.3
    assert set(rows[~empty].tolist()) == set(pictures.captions.tolist())
    nearest = torch.cdist(noisy.flatten(1), pictures.latents.flatten(1)).argmin(1)  # at timestep 0 hardly any noise
    assert torch.equal(pictures.captions[nearest][~empty], rows[~empty])


def test_class_pictures_without_words_or_weight_are_a_contradiction():
    for settings, missing in (({"loss": {"preservation": 1}}, "data.class_words"), ({}, "loss.preservation")):
        with pytest.raises(UserError, match=f"data.class_pictures = 8 needs {missing}"):
            config_io.parse({"data": {"class_pictures": 8, "class_words": [] if settings else ["a"]}, **settings})
