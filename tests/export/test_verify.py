"""Which image UIs load a file, judged by their own key rules, and what inspect says of it."""

import pytest
import torch
from safetensors.torch import save_file

from tests.adapters.bases import full_size_components, tiny_components, trained
from tests.export.runs import CONFIG, FACTS
from trainers.adapters.adapter_file import apply_file, module_shapes, read_adapter
from trainers.adapters.lora import attach
from trainers.config import AdapterConfig
from trainers.errors import UserError
from trainers.export import diffusers, kohya, writer
from trainers.export.inspect import inspect
from trainers.export.layers.families import family_shapes
from trainers.export.verify import UIS, verdicts
from trainers.families.sd15 import SD15

SPEC = SD15.spec
ALL = [rules.ui for rules in UIS]
MID = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"


@pytest.fixture(scope="module")
def sd15_modules():
    """Two layers of every kind in Stable Diffusion 1.5's sizes, with random weights, rank 2."""
    adapter = attach(full_size_components(), SPEC, AdapterConfig(rank=2, targets="full", text_encoder=True), seed=0)
    wanted = ("mid_block", "up_blocks.3.resnets.0", "encoder.layers.11")
    return {
        place: type(module)(torch.randn(module.down.shape), torch.randn(module.up.shape), module.alpha)
        for place, module in adapter.modules().items()
        if place[1].startswith(wanted)
    }


@pytest.fixture
def tensors(sd15_modules):
    return kohya.tensors(sd15_modules, SPEC, torch.float16)


def loads(tensors, metadata=None, shapes=None):
    return {verdict.ui: verdict.loads for verdict in verdicts(tensors, metadata or {}, shapes)}


def test_the_bundled_list_of_layers_is_that_of_sd15():
    real = module_shapes(full_size_components())
    assert real == family_shapes("sd15")


def test_every_ui_loads_our_files_whole(tensors):
    assert loads(tensors) == dict.fromkeys(ALL, "whole")


def test_swapped_matrices_load_nowhere(tensors):
    swap = {"lora_down": "lora_up", "lora_up": "lora_down"}
    swapped = {}
    for key, value in tensors.items():
        head, _, side = key.removesuffix(".weight").rpartition(".")
        swapped[f"{head}.{swap[side]}.weight" if side in swap else key] = value
    assert loads(swapped) == dict.fromkeys(ALL, "no")
    assert all("shapes" in verdict.why for verdict in verdicts(swapped, {}))


def test_peft_names_load_whole_in_diffusers_and_sdnext_only(sd15_modules):
    found = loads(diffusers.tensors(sd15_modules, SPEC, torch.float16))
    expected = {"SD.Next": "whole", "diffusers": "whole", "ComfyUI": "partly"}
    assert found == {ui: expected.get(ui, "no") for ui in ALL}


def test_a_wrong_text_prefix_is_noticed_where_it_matters(tensors):
    renamed = {key.replace("lora_te_", "lora_te1_"): value for key, value in tensors.items()}
    found = {verdict.ui: verdict for verdict in verdicts(renamed, {})}
    assert found["InvokeAI"].loads == found["A1111"].loads == "partly"
    assert all(key.startswith("lora_te1_") for key in found["InvokeAI"].unmatched)
    assert found["ComfyUI"].loads == found["Forge"].loads == found["diffusers"].loads == "whole"


def test_keys_nobody_knows_are_listed_and_refused_by_the_strict(tensors):
    more = {**tensors, "something.else": torch.zeros(1)}
    found = {verdict.ui: verdict for verdict in verdicts(more, {})}
    assert {ui: v.loads for ui, v in found.items()} == {ui: "no" if ui == "diffusers" else "partly" for ui in ALL}
    assert found["ComfyUI"].unmatched == ("something.else",)
    many = {**tensors, **{f"lora_unet_nothing_{i}.alpha": torch.ones(()) for i in range(13)}}
    assert loads(many)["Forge"] == "no"


def test_a_flat_convolution_is_refused_by_diffusers_alone(tensors):
    name = "lora_unet_mid_block_attentions_0_proj_in"
    flat = tensors | {f"{name}.lora_{s}.weight": tensors[f"{name}.lora_{s}.weight"].flatten(1) for s in ("down", "up")}
    assert loads(flat) == {ui: "no" if ui == "diffusers" else "whole" for ui in ALL}


def test_loha_is_not_for_diffusers(tensors):
    sides = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "alpha")
    assert loads({f"{MID}.{side}": torch.ones(2, 2) for side in sides})["diffusers"] == "no"


def test_a_tucker_locon_loads_everywhere_but_in_diffusers(tensors):
    name = "lora_unet_mid_block_resnets_0_conv1"
    tucker = {
        f"{name}.lora_down.weight": torch.ones(2, 1280, 1, 1),
        f"{name}.lora_mid.weight": torch.ones(2, 2, 3, 3),
        f"{name}.lora_up.weight": torch.ones(1280, 2, 1, 1),
    }
    assert loads(tensors | tucker) == {ui: "no" if ui == "diffusers" else "whole" for ui in ALL}


@pytest.mark.parametrize(
    ("blocks", "kind", "readers"),
    [
        ((4, 320, 320), "OFT", {"A1111", "ComfyUI", "SD.Next"}),
        ((2, 4, 320, 320), "BOFT", {"A1111", "ComfyUI"}),
    ],
)
def test_rotations_load_where_the_program_reads_them(blocks, kind, readers):
    tensors = {f"{MID}.oft_blocks": torch.zeros(blocks), f"{MID}.alpha": torch.ones(())}
    found = {verdict.ui: verdict for verdict in verdicts(tensors, {})}
    assert {ui for ui in ALL if found[ui].loads == "whole"} == readers
    assert found["Forge"].why == found["InvokeAI"].why == f"it does not read {kind}"


def test_files_of_other_families_get_no_verdict():
    flux = {f"lora_unet_double_blocks_0_img_attn_qkv.lora_{s}.weight": torch.ones(2, 2) for s in ("down", "up")}
    assert verdicts(flux, {}) == []


def test_a_misleading_header_is_remarked(tensors):
    found = {verdict.ui: verdict for verdict in verdicts(tensors, {"ss_v2": "True"})}
    assert "another family" in found["A1111"].why


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory):
    adapter = attach(tiny_components(), SPEC, CONFIG.adapter, seed=0)
    trained(adapter)
    path = tmp_path_factory.mktemp("file") / "a.safetensors"
    return writer.export_report(adapter, CONFIG, FACTS, SPEC, path).path


def test_a_file_for_a_base_of_its_own_size_loads_where_that_base_does(tiny_file):
    file = read_adapter(tiny_file)
    expected = {ui: "whole" if ui == "diffusers" else "no" for ui in ALL}
    shapes = module_shapes(tiny_components())
    assert loads(file.tensors, file.metadata, shapes) == loads(file.tensors, file.metadata) == expected


def test_inspect_tells_what_a_file_is(tiny_file):
    facts = inspect(tiny_file, tiny_components())
    assert facts["type"] == "LoRA, kohya layout" and "text width 16" in facts["family"]
    assert facts["rank"].keys() == {4, 3} and facts["alpha"].keys() == {2.0, 3.0}
    assert facts["dtype"] == "float16" and facts["hash"].startswith("fits")
    assert facts["modules"].keys() == {"denoiser", "text encoder"}
    assert facts["metadata"]["ss_steps"] == "20"
    assert facts["interfaces"]["diffusers"] == "loads"


def test_inspect_notices_a_hash_that_is_not_true(tiny_file, tmp_path):
    file = read_adapter(tiny_file)
    save_file({key: value * 2 for key, value in file.tensors.items()}, tmp_path / "b.safetensors", file.metadata)
    assert inspect(tmp_path / "b.safetensors")["hash"].startswith("FALSE")


def test_keys_that_fit_nothing_are_listed_when_a_file_is_applied(tiny_file, tmp_path):
    file = read_adapter(tiny_file)
    odd = {key.replace("mid_block", "middle"): tensor for key, tensor in file.tensors.items()} | {"x": torch.ones(1)}
    save_file(odd, tmp_path / "b.safetensors")
    unknown = apply_file(tiny_components(), tmp_path / "b.safetensors").unknown
    assert "x" in unknown and any("middle" in name for name in unknown)
    with pytest.raises(UserError, match="does not fit"):
        apply_file(tiny_components(), tmp_path / "b.safetensors", strict=True)


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        (["model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.encoder.conv_in.weight"], "not a LoRA"),
        (["something.else"], "no LoRA"),
    ],
)
def test_another_kind_of_file_is_refused(tmp_path, keys, what):
    save_file({key: torch.ones(4, 4, 3, 3) for key in keys}, tmp_path / "b.safetensors")
    with pytest.raises(UserError, match=what):
        read_adapter(tmp_path / "b.safetensors")


def test_a_loha_is_named_when_it_cannot_be_applied(tmp_path):
    save_file({f"{MID}.hada_w1_a": torch.ones(2, 2)}, tmp_path / "b.safetensors")
    with pytest.raises(UserError, match="LoHa"):
        apply_file(tiny_components(), tmp_path / "b.safetensors")


def test_text_that_is_no_file_of_weights_is_refused(tmp_path):
    (tmp_path / "b.safetensors").write_text("hello")
    with pytest.raises(UserError):
        read_adapter(tmp_path / "b.safetensors")
