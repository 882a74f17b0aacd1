"""An adapter file of any layout means what the program that wrote it meant."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file

from tests.adapters.bases import predict, tiny_components, trained
from trainers.adapters.adapter_file import apply_file, read_adapter, resolve
from trainers.adapters.lora import attach
from trainers.adapters.weights import LoraWeights
from trainers.config import AdapterConfig
from trainers.errors import UserError
from trainers.export import writer
from trainers.families.registry import FAMILIES
from trainers.families.sd15 import SD15

SPEC = SD15.spec
PATTERNS = {  # of each kind: the end of a path, a whole path, an expression, one tied to the start
    r"attn1.to_q": 1.0,
    r"mid_block.attentions.0.proj_in": 3.0,
    r"down_blocks\.\d+\..*to_k": 5.0,
    r"^up_blocks\.1\.attentions\.\d+\.proj_out": 7.0,
    r"self_attn.q_proj": 9.0,
    r"proj": 100.0,  # the end of no path
}
SETTINGS = {
    "one alpha": {"lora_alpha": 1},
    "alphas and ranks by pattern": {"alpha_pattern": PATTERNS, "rank_pattern": {"to_v": 2, "to_q": 3}},
    "rank-stabilised": {"lora_alpha": 2, "use_rslora": True, "rank_pattern": {"to_v": 2}},
    "rank-stabilised, by pattern": {"use_rslora": True, "alpha_pattern": PATTERNS},
}
UNET = ["to_q", "to_k", "to_v", "proj_in", "proj_out"]
TEXT = ["q_proj", "k_proj"]


def of_peft(targets: list[str], settings: dict) -> LoraConfig:
    """A LoRA of rank 4, where no pattern says otherwise."""
    return LoraConfig(r=4, target_modules=targets, init_lora_weights=False, **settings)


def scales(model: torch.nn.Module, prefix: str) -> dict[str, float]:
    """Module name in a file -> the scale that peft gives its update."""
    layers = ((path, module) for path, module in model.named_modules() if isinstance(module, LoraLayer))
    return {f"{prefix}.{path}": layer.scaling["default"] for path, layer in layers}


def scales_in(file: Path) -> dict[str, float]:
    """The same, as the file is read here."""
    return {name: layer.alpha / layer.rank for name, layer in read_adapter(file).layers.items()}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_folder_that_peft_wrote_is_scaled_as_peft_scales_it(tmp_path, settings):
    model = get_peft_model(tiny_components().denoiser, of_peft(UNET, settings))
    model.save_pretrained(tmp_path)
    expected = scales(model.base_model.model, "base_model.model")
    assert scales_in(tmp_path / "adapter_model.safetensors") == pytest.approx(expected)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_file_that_diffusers_wrote_is_scaled_as_its_header_says(tmp_path, settings):
    components = tiny_components()
    unet, text = components.denoiser, components.text_encoders[0]
    inject_adapter_in_model(of_peft(UNET, settings), unet)
    inject_adapter_in_model(of_peft(TEXT, {**settings, "lora_alpha": 6}), text)
    StableDiffusionPipeline.save_lora_weights(
        tmp_path,
        unet_lora_layers=get_peft_model_state_dict(unet),
        text_encoder_lora_layers=get_peft_model_state_dict(text),
        unet_lora_adapter_metadata=unet.peft_config["default"].to_dict(),
        text_encoder_lora_adapter_metadata=text.peft_config["default"].to_dict(),
    )
    expected = scales(unet, "unet") | scales(text, "text_encoder")
    assert scales_in(tmp_path / "pytorch_lora_weights.safetensors") == pytest.approx(expected)


def test_our_own_peft_export_draws_what_the_run_drew(tmp_path):
    components = tiny_components()
    adapter = attach(components, SPEC, AdapterConfig(rank=16, alpha=1.0), seed=0)
    trained(adapter)
    writer.write(adapter.modules(), {}, SPEC, tmp_path / "a.safetensors", "fp32", "peft")
    fresh = tiny_components()
    apply_file(fresh, tmp_path / "a" / "unet" / "adapter_model.safetensors")
    torch.testing.assert_close(predict(fresh), predict(components))


def test_our_own_peft_export_of_a_text_encoder_is_read_back(tmp_path):
    components = tiny_components()
    adapter = attach(components, SPEC, AdapterConfig(rank=4, alpha=1.0, text_encoder=True), seed=0)
    trained(adapter)
    writer.write(adapter.modules(), {}, SPEC, tmp_path / "a.safetensors", "fp32", "peft")
    read = apply_file(tiny_components(), tmp_path / "a" / "text_encoder" / "adapter_model.safetensors").modules()
    own = {place: module for place, module in adapter.modules().items() if place[0] == "text_0"}
    assert read.keys() == own.keys() and len(own) > 0
    for place, module in own.items():
        torch.testing.assert_close(read[place].delta(), module.delta())


def test_a_config_beside_a_file_of_another_layout_is_not_its_own(tmp_path):
    name = "lora_unet_mid_block_attentions_0_proj_in"
    save_file(
        {f"{name}.lora_down.weight": torch.ones(4, 16), f"{name}.lora_up.weight": torch.ones(16, 4)},
        tmp_path / "a.safetensors",
    )
    (tmp_path / "adapter_config.json").write_text('{"lora_alpha": 1}', encoding="utf-8")
    assert read_adapter(tmp_path / "a.safetensors").layers[name].alpha == 4


@pytest.mark.parametrize(
    "config",
    ['{"lora_alpha": 1', "[]", '{"lora_alpha": "much"}', '{"alpha_pattern": {"(": 1}}', '{"alpha_pattern": [1]}'],
)
def test_damaged_alphas_are_one_sentence(tmp_path, config):
    name = "base_model.model.mid_block.attentions.0.proj_in"
    tensors = {f"{name}.lora_A.weight": torch.ones(4, 16), f"{name}.lora_B.weight": torch.ones(16, 4)}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(config, encoding="utf-8")
    with pytest.raises(UserError, match=r"adapter_config\.json"):
        read_adapter(tmp_path / "adapter_model.safetensors")
    named = {key.replace("base_model.model", "unet"): value for key, value in tensors.items()}
    entries = json.dumps({"unet.alpha_pattern": {"(": 1}})
    save_file(named, tmp_path / "b.safetensors", {"lora_adapter_metadata": entries})
    with pytest.raises(UserError, match="lora_adapter_metadata"):
        read_adapter(tmp_path / "b.safetensors")


def test_strength_multiplies_every_update_of_a_file(tmp_path):
    adapter = attach(tiny_components(), SPEC, AdapterConfig(rank=4, alpha=2.0, text_encoder=True), seed=0)
    trained(adapter)
    writer.write(adapter.modules(), {}, SPEC, tmp_path / "a.safetensors", "fp32")
    applied = apply_file(tiny_components(), tmp_path / "a.safetensors", 0.5)
    for place, module in adapter.modules().items():
        torch.testing.assert_close(applied.layers[place].get_delta_weight("default"), 0.5 * module.delta())


@pytest.mark.parametrize("family", ["sdxl", "sd3"])
def test_the_models_in_a_folder_that_peft_wrote_are_told_apart(tmp_path, family):
    blocks = {"sdxl": "down_blocks.1.attentions.0.transformer_blocks.0.attn1", "sd3": "transformer_blocks.0.attn"}
    clip = "encoder.layers.0.self_attn.q_proj"  # of both text encoders
    places = [("denoiser", f"{blocks[family]}.to_q"), ("text_0", clip), ("text_1", clip)]
    modules = {p: LoraWeights(torch.randn(2, 8 + i), torch.randn(8 + i, 2), 1.0 + i) for i, p in enumerate(places)}
    spec = FAMILIES[family].spec
    folder = writer.write(modules, {}, spec, tmp_path / "a.safetensors", "fp32", "peft").path
    found = {}
    for parts in resolve(read_adapter(folder).modules, places).values():
        found |= parts
    assert found.keys() == modules.keys()
    for place, module in modules.items():
        torch.testing.assert_close(found[place].delta(), module.delta())
