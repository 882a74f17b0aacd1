"""The embedding file is what a stranger's program reads: the same vectors, and with them the same text."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.tiny import tiny_pipeline_folder
from tests.tiny_families import read_pipeline, tiny_folder
from trainers import config_io
from trainers.adapters.adapter_file import read_adapter
from trainers.adapters.tokens import attach_tokens
from trainers.config import ModelConfig, TrainConfig
from trainers.errors import UserError
from trainers.export.embedding import belonging, bundled, file_name, read_embedding, write_embedding
from trainers.export.hashes import hash_of_file
from trainers.export.metadata import RunFacts, embedding_metadata, metadata
from trainers.families.detect import identify
from trainers.families.registry import FAMILIES

FACTS = RunFacts(
    steps=500,
    total_steps=1000,
    epochs=1,
    pictures=1,
    held_out=0,
    batches_per_epoch=1,
    resolution=(512, 512),
    buckets={},
    bucket_sides=(256, 1024),
    captions={},
    folder_repeats={},
    base_name="model",
    base_path=None,
    prediction="epsilon",
    zero_terminal_snr=False,
    started=1.0,
    finished=2.0,
    session="7",
    device_precision="fp32",
    optimizer="AdamW",
)


def settings(**sections: dict) -> TrainConfig:
    config = config_io.parse({"data": {"trigger": "zib"}, "adapter": {"new_tokens": 2}, "saving": {"name": "a"}})
    return config_io.merge(config, sections)


def vectors(*widths: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {f"text_{i}": torch.randn(2, width, generator=generator) for i, width in enumerate(widths)}


def written(folder: Path, family: str, rows: dict[str, torch.Tensor], **sections: dict) -> Path:
    spec, config = FAMILIES[family].spec, settings(**sections)
    return write_embedding(rows, embedding_metadata(config, FACTS, spec, "a"), spec, folder / "zib.safetensors", True)


@pytest.mark.parametrize(
    ("family", "shapes"),
    [
        ("sd15", {"emb_params": (2, 768)}),
        ("sd2", {"emb_params": (2, 1024)}),
        ("sdxl", {"clip_l": (2, 768), "clip_g": (2, 1280)}),
        ("sd3", {"clip_l": (2, 768), "clip_g": (2, 1280)}),
    ],
)
def test_every_family_has_the_keys_that_programs_look_for(tmp_path, family, shapes):
    rows = vectors(*(width for _, width in shapes.values()))
    path = written(tmp_path, family, rows)
    assert {key: tuple(tensor.shape) for key, tensor in load_file(path).items()} == shapes
    assert identify(path).kind == "textual inversion"
    word, read = read_embedding(path, FAMILIES[family].spec)
    assert word == "zib" and all(torch.equal(read[part], rows[part]) for part in rows)
    with safe_open(path, "pt") as file:
        told = file.metadata()
    assert told["modelspec.architecture"].endswith("/textual-inversion")
    assert (told["modelspec.trigger_phrase"], told["ss_steps"], told["ss_session_id"]) == ("zib", "500", "7")
    assert told["sshs_model_hash"] == hash_of_file(path)


@pytest.mark.parametrize("family", ["sd15", "sd2", "sdxl"])
def test_diffusers_reads_the_same_text(tmp_path, family):
    folder = tmp_path / family
    tiny_pipeline_folder(folder) if family == "sd15" else tiny_folder(family, folder)
    ours = FAMILIES[family]
    components = ours.load(ModelConfig(base=str(folder)), torch.float32)
    widths = (encoder.get_input_embeddings().embedding_dim for encoder in components.text_encoders)
    rows = vectors(*widths)
    path = written(tmp_path, family, rows)
    attach_tokens(components, *read_embedding(path, ours.spec))
    expected = ours.encode_text(components.text_encoders, ours.tokenize(components, ["a zib cat"]), 1)
    pipe = read_pipeline("sd2" if family == "sd15" else family, folder)
    if family == "sdxl":
        tensors = load_file(path)
        second = {"text_encoder": pipe.text_encoder_2, "tokenizer": pipe.tokenizer_2}
        pipe.load_textual_inversion(tensors["clip_l"], token="zib")
        pipe.load_textual_inversion(tensors["clip_g"], token="zib", **second)
        with torch.no_grad():
            embeds, _, pooled, _ = pipe.encode_prompt("a zib cat", do_classifier_free_guidance=False)
        torch.testing.assert_close(pooled, expected.pooled, rtol=0, atol=0)
    else:
        pipe.load_textual_inversion(tmp_path, weight_name=path.name, token="zib")
        with torch.no_grad():
            embeds, _ = pipe.encode_prompt("a zib cat", "cpu", 1, False)
    torch.testing.assert_close(embeds, expected.embeds, rtol=0, atol=0)


def test_the_file_is_named_after_the_word_and_the_checkpoint():
    config = settings()
    names = ["a", "a-diffusers", "a-kohya", "a-peft", "a-step00000500", "a-step00000500-diffusers"]
    assert [file_name(config, name) for name in names[:4]] == ["zib.safetensors"] * 4
    assert [file_name(config, name) for name in names[4:]] == ["zib-step00000500.safetensors"] * 2


@pytest.mark.parametrize("privacy", ["full", "no_captions", "minimal"])
def test_the_adapter_says_which_file_it_needs(privacy):
    spec, config = FAMILIES["sd15"].spec, settings(saving={"privacy": privacy})
    told = metadata(config, FACTS, spec, "a")
    assert told["lora_darkroom.embedding"] == "zib.safetensors"
    hint = told.get("modelspec.usage_hint", "")
    assert privacy == "minimal" or ("needs the embedding file zib.safetensors" in hint and "embedding:zib" in hint)
    own = embedding_metadata(config, FACTS, spec, "a")
    assert ("ss_session_id" in own) == (privacy != "minimal") and own["modelspec.title"] == "zib"
    without = metadata(config_io.merge(config, {"adapter": {"new_tokens": 0}}), FACTS, spec, "a")
    assert "lora_darkroom.embedding" not in without


def test_another_file_of_that_name_is_left_alone(tmp_path):
    path = written(tmp_path, "sd15", vectors(16))
    before = path.read_bytes()
    assert written(tmp_path, "sd15", vectors(16)) == path  # the same vectors: written again
    with pytest.raises(UserError, match=r"zib\.safetensors is there already"):
        written(tmp_path, "sd15", {"text_0": torch.zeros(1, 16)})
    assert load_file(path).keys() == {"emb_params"} and len(path.read_bytes()) == len(before)


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"zib\.safetensors could not be written"):
        written(tmp_path / "file", "sd15", vectors(16))


def adapter(folder: Path, entries: dict[str, str], **more: torch.Tensor) -> Path:
    pair = {f"lora_unet_mid_block.lora_{way}.weight": torch.ones(2, 2) for way in ("down", "up")}
    save_file(pair | more, folder / "a.safetensors", entries)
    return folder / "a.safetensors"


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_an_adapter_finds_its_vectors_beside_it_or_inside(tmp_path, family):
    spec = FAMILIES[family].spec
    rows = vectors(*(8 * (i + 1) for i in range(len(spec.embedding_keys))))
    needs = {"lora_darkroom.embedding": "zib.safetensors"}
    file = read_adapter(adapter(tmp_path, needs))
    with pytest.raises(UserError, match=r"a\.safetensors needs zib\.safetensors, which is not beside it"):
        belonging(file, spec)
    inside = read_adapter(adapter(tmp_path, {}, **bundled(rows, spec, "zib")))
    written(tmp_path, family, rows)
    for found in (belonging(inside, spec), belonging(file, spec)):
        assert found[0] == "zib" and all(torch.equal(found[1][part], rows[part]) for part in rows)
    assert belonging(replace(file, metadata={}), spec) is None
    other = FAMILIES["sdxl" if family == "sd15" else "sd15"].spec
    with pytest.raises(UserError, match=f"holds no textual inversion for {other.label}"):
        belonging(file, other)


def test_the_names_inside_an_adapter_are_onetrainers():
    rows = vectors(8, 8)
    assert list(bundled({"text_0": rows["text_0"]}, FAMILIES["sd15"].spec, "zib")) == [
        "bundle_emb.zib.string_to_param.*"
    ]
    assert list(bundled(rows, FAMILIES["sdxl"].spec, "zib")) == ["bundle_emb.zib.clip_l", "bundle_emb.zib.clip_g"]
