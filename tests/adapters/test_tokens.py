"""New tokens stand for the trigger word, and nothing else of the base changes."""

import pytest
import torch

from tests.tiny import tiny_pipeline_folder
from tests.tiny_families import tiny_folder, tiny_t5
from trainers import config_io, optimizers
from trainers.adapters.tokens import PULL, NewTokens, attach_tokens, require_word, start_tokens
from trainers.config import ModelConfig, OptimizerConfig, TrainConfig
from trainers.data.cache import identity
from trainers.errors import UserError
from trainers.families.base import Components, Conditioning
from trainers.families.registry import FAMILIES

PLAIN = ["a photo of a cat", "", "zibra and azib", "a red ball, style"]
WORDY = ["a photo of Zib", "(zib:1.2), red", "zib's cat and ZIB"]


@pytest.fixture(scope="module", params=FAMILIES)
def base(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param) / request.param
    return tiny_pipeline_folder(folder) if request.param == "sd15" else tiny_folder(request.param, folder)


def load(base, **more: str) -> tuple[object, Components]:
    family = FAMILIES[base.name]
    return family, family.load(ModelConfig(base=str(base), **more), torch.float32)


def encoded(family, components: Components, captions: list[str]) -> Conditioning:
    return family.encode_text(components.text_encoders, family.tokenize(components, captions), 1)


def settings(count: int = 2, **adapter: object) -> TrainConfig:
    return config_io.parse({"data": {"trigger": "zib"}, "adapter": {"new_tokens": count, **adapter}})


def moved(tokens: NewTokens) -> NewTokens:
    """With vectors that no word of the base has."""
    generator = torch.Generator().manual_seed(1)
    for rows in tokens.parameters():
        rows.data = torch.randn(rows.shape, generator=generator)
    return tokens


def test_prompts_without_the_word_are_encoded_as_before_to_the_bit(base):
    family, components = load(base)
    before = encoded(family, components, PLAIN)
    moved(start_tokens(components, family.spec, settings()))
    after = encoded(family, components, PLAIN)
    assert torch.equal(before.embeds, after.embeds)
    assert before.pooled is None or torch.equal(before.pooled, after.pooled)
    assert not torch.equal(*(encoded(family, components, [text]).embeds for text in ("zib", "cat")))


def test_the_word_counts_as_its_tokens_wherever_it_stands_alone(base):
    family, components = load(base)
    counts, _ = family.token_counts(components, [*PLAIN, *(text.casefold().replace("zib", "cat") for text in WORDY)])
    start_tokens(components, family.spec, settings(3))
    now, _ = family.token_counts(components, [*PLAIN, *WORDY])
    more = [0, 0, 0, 0, 2, 2, 4]
    assert now == [count + extra for count, extra in zip(counts, more, strict=True)]


def test_gradients_reach_the_new_rows_alone(base):
    family, components = load(base)
    tokens = start_tokens(components, family.spec, settings())
    moved(tokens)
    encoded(family, components, ["a photo of zib"]).embeds.square().mean().backward()
    assert all(rows.grad.abs().sum(dim=-1).min() > 0 for rows in tokens.parameters())
    own = {id(rows) for rows in tokens.parameters()}
    others = [p for encoder in components.text_encoders for p in encoder.parameters() if id(p) not in own]
    assert not any(p.requires_grad or p.grad is not None for p in others)
    assert len(own) == len(family.spec.embedding_keys)


def test_they_start_as_the_pieces_of_a_word(base):
    family, components = load(base)
    matrices = [encoder.get_input_embeddings().weight for encoder in components.text_encoders]
    ids = components.tokenizers[0]("red cat", add_special_tokens=False).input_ids
    tokens = start_tokens(components, family.spec, settings(3, token_start="red cat"))
    for rows, matrix in zip(tokens.parameters(), matrices, strict=True):
        assert torch.equal(rows, matrix[[ids[0], ids[1], ids[0]]])


@pytest.mark.parametrize(
    ("data", "word"), [({}, "object"), ({"kind": "style"}, "style"), ({"class_words": ["cat", "dog"]}, "cat")]
)
def test_without_a_word_they_start_as_the_class_or_the_kind(tmp_path, data, word):
    family, components = load(tiny_pipeline_folder(tmp_path / "sd15"))
    config = config_io.merge(settings(1), {"data": data})
    first = components.tokenizers[0](word, add_special_tokens=False).input_ids[0]
    (rows,) = start_tokens(components, family.spec, config).parameters()
    assert torch.equal(rows[0], components.text_encoders[0].get_input_embeddings().weight[first])


@pytest.mark.parametrize("name", ["sdxl", "sd3"])
def test_the_whole_texts_embedding_is_read_at_its_end_also_under_old_configs(tmp_path, name):
    pooled = []
    for end in (None, 2):  # 2: transformers looks for the highest id
        family, components = load(tiny_folder(name, tmp_path / f"{end}" / name))
        for encoder in components.text_encoders:
            inner = getattr(encoder, "text_model", encoder)
            inner.eos_token_id = end or inner.eos_token_id
        moved(start_tokens(components, family.spec, settings()))
        pooled.append(encoded(family, components, ["a zib cat", "a cat"]).pooled)
    assert torch.equal(*pooled)


def test_t5_reads_the_word_itself(tmp_path):
    folder, t5 = tiny_folder("sd3", tmp_path / "sd3"), tiny_t5(tmp_path / "t5", 64)
    family, components = load(folder, t5=str(t5))
    before = family.tokenize(components, ["a zib cat"])
    tokens = start_tokens(components, family.spec, settings())
    after = family.tokenize(components, ["a zib cat"])
    assert list(tokens.embeddings) == ["text_0", "text_1"]
    assert torch.equal(before[2], after[2]) and not torch.equal(before[0], after[0])


@pytest.mark.parametrize("kind", ["adamw", "schedulefree"])
def test_lengths_are_drawn_to_the_bases_mean_and_decay_does_not_touch_them(tmp_path, kind):
    family, components = load(tiny_pipeline_folder(tmp_path / "sd15"))
    tokens = moved(start_tokens(components, family.spec, settings()))
    (rows,) = tokens.parameters()
    usual = components.text_encoders[0].get_input_embeddings().weight.norm(dim=-1).mean()
    config = OptimizerConfig(type=kind, token_rate=1e-2, weight_decay=5.0)
    group = optimizers.token_group(tokens.parameters(), config)
    optimizer, _ = optimizers.build_optimizer([group], config, torch.device("cpu"))
    optimizers.averaged(optimizer, False)
    for _ in range(2):
        before = rows.detach().clone()
        rows.grad = torch.zeros_like(rows)
        optimizer.step()
        torch.testing.assert_close(rows, before)  # no gradient, and no decay
        for parameter, factors in tokens.stretches():
            optimizers.multiply(optimizer, parameter, factors)
        torch.testing.assert_close(rows.norm(dim=-1), before.norm(dim=-1) ** (1 - PULL) * usual**PULL)
    trained = rows.detach().clone()
    optimizers.averaged(optimizer, True)
    torch.testing.assert_close(rows, trained)  # the average went along
    rows.requires_grad_(False)
    assert list(tokens.stretches()) == []  # what has stopped stays


def test_kept_captions_belong_to_one_word_and_its_vectors(tmp_path):
    folder, keys = tiny_pipeline_folder(tmp_path / "sd15"), set()
    for word, rows in (("", None), ("zib", torch.ones(2, 16)), ("zab", torch.ones(2, 16)), ("zib", torch.zeros(2, 16))):
        _, components = load(folder)
        if word:
            attach_tokens(components, word, {"text_0": rows})
        keys.add(identity(components.text_encoders[0]))
    assert len(keys) == 4


def test_vectors_of_another_base_are_refused(tmp_path):
    _, components = load(tiny_pipeline_folder(tmp_path / "sd15"))
    with pytest.raises(UserError, match="The vectors of zib have width 8, and sd15 reads 16"):
        attach_tokens(components, "zib", {"text_0": torch.zeros(2, 8)})


def test_captions_without_the_word_are_a_sentence():
    require_word(settings(), ["a cat", "Zib, red"])
    require_word(settings(0), ["a cat"])
    with pytest.raises(UserError, match="No caption has the trigger word zib"):
        require_word(settings(), ["a cat", "zibra"])


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({}, "adapter.new_tokens = 2 needs a trigger word"),
        ({"data": {"trigger": "  "}}, "adapter.new_tokens = 2 needs a trigger word"),
        ({"data": {"trigger": "red zib"}}, 'data.trigger is "red zib".*one word'),
        ({"data": {"trigger": "zib/2"}}, 'data.trigger is "zib/2".*one word'),
        ({"data": {"trigger": "zib"}, "saving": {"name": "Zib"}}, "have one name"),
        ({"data": {"trigger": "zib"}, "optimizer": {"token_rate": 0}}, "optimizer.token_rate is 0, but must be"),
        ({"data": {"trigger": "zib"}, "adapter": {"new_tokens": 17}}, "between 0 and 16"),
        ({"data": {"trigger": "zib"}, "adapter": {"token_stop": 2}}, "adapter.token_stop is 2, but must be"),
    ],
)
def test_settings_that_cannot_be_are_sentences(sections, said):
    sections = {**sections, "adapter": {"new_tokens": 2, **sections.get("adapter", {})}}
    with pytest.raises(UserError, match=said):
        config_io.parse(sections)
