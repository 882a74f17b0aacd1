"""An exported file holds what was trained, under names and with facts that others read, and says so truthfully."""

import hashlib
import json
import os
from dataclasses import replace

import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file, safe_open, save_file

from tests.adapters.bases import predict, tiny_components, trained
from tests.export.runs import CONFIG, FACTS, run_config
from tests.tiny import tiny_pipeline_folder
from trainers.adapters.adapter_file import apply_file, read_adapter
from trainers.adapters.lora import attach
from trainers.adapters.weights import LoraWeights
from trainers.config import AdapterConfig, ModelConfig
from trainers.errors import UserError
from trainers.export import check_file, distance, kohya, writer
from trainers.export.metadata import metadata
from trainers.families.sd15 import SD15

SPEC = SD15.spec
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@pytest.fixture(scope="module")
def adapter():
    adapter = attach(tiny_components(), SPEC, CONFIG.adapter, seed=0)
    trained(adapter)
    return adapter


def write(adapter, path, dtype="fp16", form="kohya", **settings):
    return writer.export_report(adapter, run_config(dtype=dtype, **settings), FACTS, SPEC, path, form=form)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_file_holds_the_trained_delta_in_the_wished_precision(adapter, tmp_path, dtype):
    report = write(adapter, tmp_path / "a.safetensors", dtype)
    file = read_adapter(report.path)
    assert {tensor.dtype for tensor in file.tensors.values()} == {DTYPES[dtype]}
    assert len(file.modules) == len(adapter.layers) == sum(report.modules.values())
    assert all(file.tensors[f"{name}.alpha"].ndim == 0 for name in file.modules)
    for place, module in adapter.modules().items():
        stored = file.layers[kohya.kohya_name(place, SPEC)]
        assert (stored.alpha, stored.rank) == (module.alpha, module.rank)
        assert (stored.delta() - module.delta()).norm() <= 2 * torch.finfo(DTYPES[dtype]).eps * module.delta().norm()
    assert report.rounding <= 2 * torch.finfo(DTYPES[dtype]).eps and not report.warnings


def test_convolutions_of_one_pixel_stay_4d_and_the_text_level_is_restored(adapter):
    names = kohya.tensors(adapter.modules(), SPEC, torch.float16)
    assert names["lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight"].shape == (4, 16, 1, 1)
    assert "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight" in names


@pytest.mark.parametrize(("form", "dtype"), [("kohya", "fp32"), ("kohya", "fp16"), ("diffusers", "fp32")])
def test_diffusers_loads_the_delta_that_was_trained(tmp_path, form, dtype):
    folder = tiny_pipeline_folder(tmp_path / "base")
    components = SD15.load(ModelConfig(base=str(folder)), torch.float32)
    adapter = attach(components, SPEC, CONFIG.adapter, seed=0)
    trained(adapter)
    report = write(adapter, tmp_path / "a.safetensors", dtype, form)
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipeline.load_lora_weights(report.path)
    theirs = {
        (part, path.removeprefix("text_model.")): layer
        for part, model in (("denoiser", pipeline.unet), ("text_0", pipeline.text_encoder))
        for path, layer in model.named_modules()
        if getattr(layer, "lora_A", None)
    }
    assert theirs.keys() == adapter.layers.keys()
    for place, module in adapter.modules().items():
        layer = theirs[place]
        delta = layer.get_delta_weight(next(iter(layer.lora_A))).float()
        assert (delta - module.delta()).norm() <= 1e-3 * module.delta().norm(), place


def test_peft_loads_its_own_layout(adapter, tmp_path):
    report = write(adapter, tmp_path / "a.safetensors", "fp32", "peft")
    assert report.path == tmp_path / "a" and {f.name for f in report.path.iterdir()} == {"unet", "text_encoder"}
    for part, name, model in (("denoiser", "unet", "denoiser"), ("text_0", "text_encoder", "text")):
        components = tiny_components()
        base = components.denoiser if model == "denoiser" else components.text_encoders[0]
        loaded = PeftModel.from_pretrained(base, tmp_path / "a" / name).base_model.model
        for (owner, path), module in adapter.modules().items():
            if owner == part:
                delta = loaded.get_submodule(path).get_delta_weight("default")
                torch.testing.assert_close(delta, module.delta())


def test_the_hash_is_that_of_the_final_tensor_bytes(adapter, tmp_path):
    report = write(adapter, tmp_path / "a.safetensors")
    content = report.path.read_bytes()
    body = content[8 + int.from_bytes(content[:8], "little") :]
    entries = read_adapter(report.path).metadata
    assert entries["sshs_model_hash"] == hashlib.sha256(body).hexdigest() == report.hash
    assert entries["modelspec.hash_sha256"] == f"0x{report.hash}"
    assert len(entries["sshs_legacy_hash"]) == 8


def test_the_hash_does_not_depend_on_when_the_run_was(adapter, tmp_path):
    one = write(adapter, tmp_path / "a.safetensors")
    later = replace(FACTS, finished=FACTS.finished + 1000, session="9")
    other = writer.export_report(adapter, CONFIG, later, SPEC, tmp_path / "b.safetensors")
    assert one.hash == other.hash
    assert read_adapter(one.path).metadata != read_adapter(other.path).metadata


def test_sidecars_are_what_image_programs_read(adapter, tmp_path):
    Image.new("RGB", (300, 200), "red").save(tmp_path / "cover.webp")
    path = tmp_path / "a.safetensors"
    report = writer.export_report(adapter, CONFIG, FACTS, SPEC, path, tmp_path / "cover.webp")
    facts = json.loads((tmp_path / "a.json").read_text("utf-8"))
    assert (facts["sd version"], facts["activation text"], facts["preferred weight"]) == ("SD1", "zib", 1.0)
    with Image.open(tmp_path / "a.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (300, 200))
    assert read_adapter(path).metadata["modelspec.thumbnail"].startswith("data:image/jpeg;base64,")
    assert sorted(f.name for f in tmp_path.iterdir()) == ["a.json", "a.png", "a.safetensors", "cover.webp"]
    assert [f.name for f in report.files] == ["a.safetensors", "a.json", "a.png"]


@pytest.mark.parametrize("refused", ["a.json", "a.png"])
def test_a_file_beside_the_adapter_that_cannot_be_written_is_a_warning(adapter, tmp_path, refused):
    Image.new("RGB", (30, 20), "red").save(tmp_path / "cover.png")
    (tmp_path / refused).mkdir()  # takes no file of that name, as a picture does not that a Windows viewer holds open
    path = tmp_path / "a.safetensors"
    report = writer.export_report(adapter, CONFIG, FACTS, SPEC, path, tmp_path / "cover.png")
    assert len(report.warnings) == 1
    assert report.warnings[0].startswith(f"{refused} could not be written (")
    assert {file.name for file in report.files} == {"a.safetensors", "a.json", "a.png"} - {refused}
    assert {f.name for f in tmp_path.iterdir()} == {"a.safetensors", "a.json", "a.png", "cover.png"}


def test_a_disk_that_is_full_after_the_adapter_costs_only_the_files_beside_it(adapter, tmp_path, monkeypatch):
    Image.new("RGB", (30, 20), "red").save(tmp_path / "cover.png")
    fsync, flushed = os.fsync, []

    def full_after_one(number):
        flushed.append(number)
        if len(flushed) > 1:
            raise OSError(28, "No space left on device")
        fsync(number)

    monkeypatch.setattr(os, "fsync", full_after_one)
    path = tmp_path / "a.safetensors"
    report = writer.export_report(adapter, CONFIG, FACTS, SPEC, path, tmp_path / "cover.png")
    said = "could not be written (No space left on device)."
    assert report.warnings == [f"a.json {said}", f"a.png {said}"]
    assert {f.name for f in tmp_path.iterdir()} == {"a.safetensors", "cover.png"}


def test_numbers_that_are_not_finite_are_refused_and_nothing_is_left(tmp_path):
    adapter = attach(tiny_components(), SPEC, AdapterConfig(rank=2), seed=0)
    trained(adapter)
    with torch.no_grad():
        adapter.denoiser_parameters()[1].fill_(1e6)  # above what fp16 can hold
    with pytest.raises(UserError, match="fp16"):
        write(adapter, tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())
    assert write(adapter, tmp_path / "a.safetensors", "bf16").path.exists()


def test_an_untrained_adapter_is_written_with_a_warning(tmp_path):
    adapter = attach(tiny_components(), SPEC, AdapterConfig(rank=2), seed=0)
    assert "changes nothing" in write(adapter, tmp_path / "a.safetensors").warnings[0]


def test_numbers_too_small_for_the_precision_are_a_warning(tmp_path):
    adapter = attach(tiny_components(), SPEC, AdapterConfig(rank=2), seed=0)
    trained(adapter, size=1e-7)
    assert "Rounding to fp16" in write(adapter, tmp_path / "a.safetensors").warnings[0]
    assert not write(adapter, tmp_path / "a.safetensors", "fp32").warnings


@pytest.mark.parametrize("harm", ["no alpha", "other alpha", "swapped q and k", "a layer less"])
def test_a_file_that_means_something_else_is_caught(adapter, tmp_path, harm):
    tensors = kohya.tensors(adapter.modules(), SPEC, torch.float16)
    if harm == "no alpha":
        tensors = {key: value for key, value in tensors.items() if not key.endswith(".alpha")}
    elif harm == "other alpha":
        tensors["lora_unet_mid_block_attentions_0_proj_in.alpha"] *= 2
    elif harm == "a layer less":
        tensors = {key: value for key, value in tensors.items() if "mid_block_attentions_0_proj_in" not in key}
    else:
        block = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_"
        tensors = {
            key.replace(block + "q", block + "?").replace(block + "k", block + "q").replace("?", "k"): value
            for key, value in tensors.items()
        }
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(UserError):
        layers = read_adapter(tmp_path / "a.safetensors").layers
        check_file.compare(layers, adapter.modules(), "a", "fp16")


def test_the_distance_of_two_updates_is_that_of_their_matrices():
    generator = torch.Generator().manual_seed(0)
    one, other = (
        LoraWeights(torch.randn(r, 6, 3, 3, generator=generator), torch.randn(5, r, 1, 1, generator=generator), a)
        for r, a in ((2, 2.0), (3, 1.0))
    )
    expected = (one.delta() - other.delta()).norm().item()
    assert distance.distance(one, other) == pytest.approx(expected, rel=1e-5)
    assert distance.norm(one) == pytest.approx(one.delta().norm().item(), rel=1e-5)


def test_a_full_disk_is_one_sentence(adapter, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left"):
        write(adapter, tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_an_unknown_layout_names_the_known_ones(adapter, tmp_path):
    with pytest.raises(UserError, match="kohya, diffusers, peft"):
        write(adapter, tmp_path / "a.safetensors", form="onnx")


@pytest.mark.parametrize("form", ["kohya", "diffusers"])
def test_an_exported_file_applied_to_the_base_predicts_as_the_run_did(tmp_path, form):
    components = tiny_components()
    base = predict(components)
    adapter = attach(components, SPEC, CONFIG.adapter, seed=0)
    trained(adapter)
    expected = predict(components)
    path = write(adapter, tmp_path / "a.safetensors", "fp32", form).path
    fresh = tiny_components()
    applied = apply_file(fresh, path, 1.0)
    torch.testing.assert_close(predict(fresh), expected, rtol=1e-4, atol=1e-4)
    assert applied.unknown == ()
    with applied.disabled():
        assert torch.equal(predict(fresh), base)


def test_metadata_is_text_throughout(adapter, tmp_path):
    with safe_open(write(adapter, tmp_path / "a.safetensors").path, "pt") as file:
        assert file.metadata().keys() > metadata(CONFIG, FACTS, SPEC, "a").keys()


def test_a_checkpoint_file_reads_back_as_tensors(adapter, tmp_path):
    before = adapter.state()
    save_file(before, tmp_path / "state.safetensors")
    for weights in adapter.modules().values():
        weights.up.data.add_(1.0)
    adapter.load_state(load_file(tmp_path / "state.safetensors"))
    after = adapter.state()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
