"""Wrong, damaged and foreign files are named for what they are, before anything heavy is loaded."""

import json
import os
import shutil
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.bad_input.files import safetensors
from tests.tiny import tiny_pipeline_folder, write_json, write_ldm_file
from trainers.errors import UserError
from trainers.families.detect import classify, identify, read_header, refuse
from trainers.families.folders import choose_weights, weight_files

UNET = "model.diffusion_model."
CONTEXT = f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
CHECKPOINT = {
    f"{UNET}input_blocks.0.0.weight": (320, 4, 3, 3),
    "first_stage_model.decoder.conv_in.weight": (512, 4, 3, 3),
}
ADAPTER = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight"

KINDS = [
    ("base", "sd15", {**CHECKPOINT, "cond_stage_model.transformer.text_model.final_layer_norm.weight": (768,)}),
    (
        "base",
        "sd15",
        {**CHECKPOINT, "cond_stage_model.transformer.final_layer_norm.weight": (768,), CONTEXT: (320, 768)},
    ),
    ("base", "sd2", {**CHECKPOINT, "cond_stage_model.model.ln_final.weight": (1024,), CONTEXT: (320, 1024)}),
    ("base", "sdxl", {**CHECKPOINT, "conditioner.embedders.0.transformer.text_model.final_layer_norm.weight": (768,)}),
    (
        "base",
        "sd3",
        {
            f"{UNET}joint_blocks.0.x_block.attn.qkv.weight": (4608, 1536),
            "text_encoders.clip_l.transformer.text_model.final_layer_norm.weight": (768,),
        },
    ),
    ("transformer", "sd3", {f"{UNET}joint_blocks.0.x_block.attn.qkv.weight": (4608, 1536)}),
    ("base", "flux", {"double_blocks.0.img_attn.qkv.weight": (9216, 3072)}),
    (
        "inpainting base",
        "sd15",
        {
            f"{UNET}input_blocks.0.0.weight": (320, 9, 3, 3),
            "cond_stage_model.transformer.final_layer_norm.weight": (768,),
        },
    ),
    ("UNet", "sd15", {f"{UNET}input_blocks.0.0.weight": (320, 4, 3, 3), CONTEXT: (320, 768)}),
    ("UNet", "", {"conv_in.weight": (320, 4, 3, 3), "time_embedding.linear_1.weight": (1280, 320)}),
    ("VAE", "", {"decoder.conv_in.weight": (512, 4, 3, 3), "encoder.conv_in.weight": (128, 3, 3, 3)}),
    ("text encoder", "", {"text_model.encoder.layers.0.self_attn.q_proj.weight": (768, 768)}),
    ("CLIP image encoder", "", {"vision_model.encoder.layers.0.self_attn.q_proj.weight": (1024, 1024)}),
    ("LoRA adapter", "sd15", {ADAPTER: (16, 768), ADAPTER.replace("down.w", "up.w"): (320, 16)}),
    ("LoRA adapter", "sd2", {ADAPTER: (16, 1024)}),
    ("LoRA adapter", "sdxl", {"lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (16, 1280)}),
    ("LoRA adapter", "sd3", {"transformer.transformer_blocks.0.attn.add_q_proj.lora_A.weight": (16, 1536)}),
    (
        "LoRA adapter",
        "sd15",
        {"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight": (4, 768)},
    ),
    ("LyCORIS adapter", "", {"lora_unet_down_blocks_0_attentions_0_proj_in.hada_w1_a": (320, 8)}),
    ("LyCORIS adapter", "", {"lycoris_down_blocks_0_attentions_0_proj_in.lokr_w1": (8, 8)}),
    ("textual inversion", "sd15", {"emb_params": (4, 768)}),
    ("textual inversion", "sdxl", {"clip_l": (4, 768), "clip_g": (4, 1280)}),
    ("ControlNet", "", {"control_model.input_hint_block.0.weight": (16, 3, 3, 3)}),
    ("unknown", "", {"model.layers.0.self_attn.q_proj.weight": (4096, 4096)}),
]


@pytest.mark.parametrize(("kind", "family", "shapes"), KINDS, ids=lambda value: value if isinstance(value, str) else "")
def test_tensor_names_and_shapes_tell_what_a_file_is(kind, family, shapes):
    found = classify(shapes)
    assert (found.kind, found.family) == (kind, family)


@pytest.mark.parametrize(("kind", "family", "shapes"), [k for k in KINDS if k[:2] != ("base", "sd15")])
def test_a_wrong_file_is_named_in_one_sentence(tmp_path, kind, family, shapes):
    path = tmp_path / "thing.safetensors"
    safetensors(path, shapes)
    with pytest.raises(UserError) as caught:
        refuse(identify(path), path.name, "sd15")
    assert caught.value.message.startswith("thing.safetensors ") and caught.value.hint
    expected = {"base": "is wanted", "unknown": "not those of an image model", "inpainting base": "inpainting model"}
    assert expected.get(kind, f"{classify(shapes).label}, not a base model.") in caught.value.message


def test_a_lora_is_no_base_model(tmp_path):
    path = tmp_path / "X.safetensors"
    save_file({"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": torch.zeros(4, 8)}, path)
    with pytest.raises(UserError, match=r"^X.safetensors is a LoRA adapter, not a base model\."):
        refuse(identify(path), path.name, "sd15")


@pytest.mark.parametrize(
    ("extra", "metadata", "prediction", "zero_snr"),
    [
        ({"v_pred": (0,)}, {}, "v", False),
        ({"v_pred": (0,), "ztsnr": (0,)}, {}, "v", True),
        ({}, {"modelspec.prediction_type": "v"}, "v", False),
        ({}, {"modelspec.prediction_type": "epsilon"}, "epsilon", False),
        ({}, {}, "", False),
    ],
)
def test_marks_of_v_prediction_are_read(extra, metadata, prediction, zero_snr):
    found = classify({**KINDS[0][2], **extra}, metadata)
    assert (found.prediction, found.zero_terminal_snr) == (prediction, zero_snr)


LOOKALIKES = {
    "is empty (0 bytes)": b"",
    "is a git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 42\n",
    "is a web page": b"<!DOCTYPE html><html><body>Log in</body></html>" * 20,
    "is a text file": "Grüße, this is no model.\n".encode() * 40,
    "is a pickled PyTorch file": b"PK\x03\x04" + bytes(range(256)),
    "is not a safetensors file": b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(range(256)) * 4,
    "is filled with zeros": bytes(4096),
    "is a GGUF file": b"GGUF" + bytes(100),
    "damaged header": struct.pack("<Q", 12) + b'{"a": 1    }',
    "ends inside its header": struct.pack("<Q", 5000) + b'{"a":',
}


@pytest.mark.parametrize("words", LOOKALIKES)
def test_a_file_of_another_sort_is_named(tmp_path, words):
    path = tmp_path / "model.safetensors"
    path.write_bytes(LOOKALIKES[words])
    with pytest.raises(UserError) as caught:
        identify(path)
    assert words in caught.value.message and caught.value.hint


def test_an_interrupted_download_is_named_at_any_length(tmp_path):
    whole, part = tmp_path / "whole.safetensors", tmp_path / "part.safetensors"
    save_file({"a": torch.zeros(64), "b": torch.zeros(3, 5)}, whole)
    content = whole.read_bytes()
    read_header(whole)
    for length in range(2, len(content)):
        part.write_bytes(content[:length])
        with pytest.raises(UserError, match="download was interrupted"):
            read_header(part)
    part.write_bytes(content + b"\0")
    with pytest.raises(UserError, match="1 bytes more than its header lists"):
        read_header(part)


def test_a_download_into_space_set_aside_is_interrupted(tmp_path):
    file = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(5_000_000), "b": torch.ones(500_000)}, file)
    read_header(file)
    size = file.stat().st_size
    os.truncate(file, size - 4_000_000)
    os.truncate(file, size)
    with pytest.raises(UserError, match="ends in zeros: the download was interrupted"):
        read_header(file)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [4], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]},
        {"dtype": "F32", "shape": [2]},
        "nonsense",
    ],
)
def test_a_header_that_contradicts_itself_is_refused(tmp_path, entry):
    header = json.dumps({"a": entry}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    with pytest.raises(UserError, match="damaged"):
        read_header(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="There is no file"):
        identify(tmp_path / "nothing.safetensors")


def test_a_cut_off_ckpt_is_named(tmp_path):
    path = tmp_path / "model.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", bytes(1000))
    assert identify(path).kind == "pickle"
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(UserError, match="cut off"):
        identify(path)


def test_a_diffusers_folder_is_recognised(tmp_path):
    found = identify(tiny_pipeline_folder(tmp_path / "model", prediction_type="v_prediction"))
    assert (found.kind, found.family, found.layout, found.prediction) == ("base", "sd15", "folder", "v")


def test_a_single_file_is_recognised(tmp_path):
    path = write_ldm_file(tiny_pipeline_folder(tmp_path / "model"), tmp_path / "model.safetensors")
    assert identify(path).layout == "ldm"


@pytest.fixture(scope="module")
def whole_folder(tmp_path_factory) -> Path:
    return tiny_pipeline_folder(tmp_path_factory.mktemp("whole") / "model")


def test_every_missing_or_cut_off_part_of_a_folder_is_named_at_once(whole_folder, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(whole_folder, folder)
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    (folder / "text_encoder" / "config.json").unlink()
    with pytest.raises(UserError) as caught:
        identify(folder)
    message = caught.value.message
    assert "model/vae holds no weights" in message
    assert "In model/unet: diffusion_pytorch_model.safetensors is cut off" in message
    assert "model/text_encoder lacks config.json" in message


def test_missing_folders_are_named_together(whole_folder, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(whole_folder, folder)
    shutil.rmtree(folder / "vae")
    shutil.rmtree(folder / "tokenizer")
    with pytest.raises(UserError, match="model is incomplete: it lacks vae, tokenizer"):
        identify(folder)


@pytest.mark.parametrize(
    ("pipeline", "words"),
    [
        ("FluxPipeline", "Flux"),
        ("StableDiffusionInpaintPipeline", "inpainting"),
        ("AudioLDMPipeline", "AudioLDMPipeline"),
    ],
)
def test_folders_of_other_pipelines_are_named(tmp_path, pipeline, words):
    write_json(tmp_path / "m" / "model_index.json", {"_class_name": pipeline})
    with pytest.raises(UserError, match=words):
        refuse(identify(tmp_path / "m"), "m", "sd15")


def test_a_part_or_a_plain_folder_is_no_base_model(whole_folder, tmp_path):
    with pytest.raises(UserError, match="unet is a UNet, not a base model"):
        refuse(identify(whole_folder / "unet"), "unet", "sd15")
    with pytest.raises(UserError, match="is not a model folder"):
        identify(tmp_path)
    (tmp_path / "anime.safetensors").write_bytes(b"x")
    with pytest.raises(UserError, match=r"Name the model file itself.*anime\.safetensors"):
        identify(tmp_path)


def test_sd2_in_a_folder_is_told_by_its_text_width(whole_folder, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(whole_folder, folder)
    config = json.loads((folder / "unet" / "config.json").read_text())
    write_json(folder / "unet" / "config.json", {**config, "cross_attention_dim": 1024})
    assert identify(folder).family == "sd2"


def test_weights_are_chosen_in_full_precision_first_and_never_as_training_copies():
    unet = "diffusion_pytorch_model"
    names = [f"{unet}.bin", f"{unet}.fp16.safetensors", f"{unet}.non_ema.safetensors", f"{unet}.safetensors"]
    assert choose_weights(names) == f"{unet}.safetensors"
    assert choose_weights(names, smaller=True) == f"{unet}.fp16.safetensors"
    assert choose_weights(names[:2]) == f"{unet}.fp16.safetensors"
    assert choose_weights(names[:1]) == f"{unet}.bin"
    assert choose_weights(["config.json", "other.safetensors"]) == ""


def test_one_shard_is_never_taken_for_the_whole():
    shards = [f"diffusion_pytorch_model.fp16-0000{i}-of-00002.safetensors" for i in (1, 2)]
    index = "diffusion_pytorch_model.safetensors.index.fp16.json"
    assert choose_weights([*shards, index]) == index
    assert choose_weights(shards) == ""


def test_a_missing_shard_is_named(tmp_path):
    part = tmp_path / "unet"
    index = {"weight_map": {"a": "diffusion_pytorch_model-00001-of-00002.safetensors", "b": "two.safetensors"}}
    write_json(part / "diffusion_pytorch_model.safetensors.index.json", index)
    save_file({"a": torch.zeros(1)}, part / "diffusion_pytorch_model-00001-of-00002.safetensors")
    with pytest.raises(UserError, match=r"unet lacks two\.safetensors"):
        weight_files(part)


def test_a_header_length_that_looks_like_a_pickle_is_still_read(tmp_path):
    path = tmp_path / "model.safetensors"
    text = b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'.ljust(0x0280)
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    assert list(read_header(path)[0]) == ["a"]
