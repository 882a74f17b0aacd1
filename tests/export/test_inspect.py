"""What `darkroom inspect` says of files that newcomers have: the demo's, peft's, and files with odd keys."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from app import cli_inspect
from tests.export.runs import CONFIG, FACTS
from trainers.adapters.adapter import LoraWeights
from trainers.adapters.lora import attach
from trainers.config import AdapterConfig, ModelConfig
from trainers.export import writer
from trainers.export.embedded import fits_embedded
from trainers.export.inspect import inspect
from trainers.export.metadata import metadata
from trainers.families.sd15 import SD15

BLOCK = "mid_block.attentions.0.transformer_blocks.0"


@pytest.fixture(scope="module")
def embedded_modules():
    components = SD15.load(ModelConfig(base="embedded"), torch.float32)
    settings = AdapterConfig(rank=2, text_encoder=True, targets="full")
    return attach(components, SD15.spec, settings, seed=0).modules()


@pytest.fixture
def sd15_modules():
    """Two layers in Stable Diffusion 1.5's sizes."""
    keys = LoraWeights(torch.ones(2, 768), torch.ones(1280, 2), 2.0)
    queries = LoraWeights(torch.ones(2, 1280), torch.ones(1280, 2), 1.0)
    return {("denoiser", f"{BLOCK}.attn2.to_k"): keys, ("denoiser", f"{BLOCK}.attn2.to_q"): queries}


def written(modules, path, form="kohya"):
    return writer.write(modules, metadata(CONFIG, FACTS, SD15.spec, "a"), SD15.spec, path, "fp16", form).files


def test_an_adapter_of_the_embedded_base_is_at_home_there_and_alarms_nobody(embedded_modules, tmp_path):
    (file,) = written(embedded_modules, tmp_path / "a.safetensors")
    facts = inspect(file)
    assert "teaching base" in facts["family"] and "loads there" in facts["interfaces"]
    assert "does not load" not in json.dumps(facts) and "unmatched keys" not in facts


def test_a_layer_that_the_embedded_base_lacks_makes_it_another_bases_adapter(embedded_modules, sd15_modules):
    layers = {
        f"lora_unet_{path.replace('.', '_')}": m for (part, path), m in embedded_modules.items() if part != "text_0"
    }
    assert fits_embedded(layers) and not fits_embedded({})
    assert not fits_embedded(layers | {"lora_unet_nothing": next(iter(layers.values()))})
    name = f"lora_unet_{BLOCK.replace('.', '_')}_attn2_to_k"
    assert not fits_embedded({name: next(iter(sd15_modules.values()))})


def test_an_adapter_for_stable_diffusion_has_a_verdict_per_program(sd15_modules, tmp_path):
    (file,) = written(sd15_modules, tmp_path / "a.safetensors")
    facts = inspect(file)
    assert facts["interfaces"] == dict.fromkeys(
        ["A1111", "Forge", "ComfyUI", "InvokeAI", "SD.Next", "diffusers"], "loads"
    )
    assert facts["alpha"] == {2.0: 1, 1.0: 1}


def test_a_file_of_pefts_layout_is_sent_to_peft(sd15_modules, tmp_path):
    weights = next(f for f in written(sd15_modules, tmp_path / "a.safetensors", "peft") if f.suffix == ".safetensors")
    facts = inspect(weights)
    assert facts["interfaces"]["peft"].startswith("loads") and facts["interfaces"]["A1111"].startswith("does not load")
    assert facts["alpha"] == {2.0: 1, 1.0: 1} and facts["hash"].startswith("fits")
    assert "unmatched keys" not in facts  # all of them: the reason says it


@pytest.mark.parametrize("level", ["", "text_model."], ids=["transformers 5", "transformers 4"])
def test_a_text_encoder_of_pefts_layout_is_counted_as_one(embedded_modules, sd15_modules, tmp_path, level):
    files = written({**embedded_modules, **sd15_modules}, tmp_path / "a.safetensors", "peft")
    counts = {}
    for file in (file for file in files if file.suffix == ".safetensors"):
        tensors = {key.replace(".model.encoder.", f".model.{level}encoder."): t for key, t in load_file(file).items()}
        save_file(tensors, tmp_path / "renamed.safetensors")
        counts[file.parent.name] = inspect(tmp_path / "renamed.safetensors")["modules"]
    assert counts["unet"].keys() == {"denoiser"} and counts["text_encoder"].keys() == {"text encoder"}


def test_layers_without_alpha_and_keys_without_a_place_are_told_apart(sd15_modules, tmp_path, capsys):
    (file,) = written(sd15_modules, tmp_path / "a.safetensors")
    tensors = load_file(file)
    del tensors[f"lora_unet_{BLOCK.replace('.', '_')}_attn2_to_k.alpha"]
    save_file(tensors | {"bundle_emb.x": torch.ones(2)}, tmp_path / "odd.safetensors")
    facts = inspect(tmp_path / "odd.safetensors")
    assert facts["alpha"] == {"none: scale 1": 1, 1.0: 1} and facts["unknown keys"] == ["bundle_emb.x"]
    assert "any key" in facts["interfaces"]["diffusers"] and "1 key unmatched" in facts["interfaces"]["ComfyUI"]
    cli_inspect.adapter_facts(facts, as_json=False)
    said = capsys.readouterr().out
    assert "alpha: none: scale 1 (1 of them), 1.0 (1 of them)" in said and "rank: 2\n" in said
    assert said.count("bundle_emb.x") == 2  # as an unknown key, and once for all the programs that miss it
