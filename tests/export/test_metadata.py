"""The header of an exported file: complete, true, and without anything private."""

import hashlib
import json
import re
from dataclasses import replace

import pytest

from tests.export.runs import CONFIG, FACTS
from trainers import config_io
from trainers.config import TrainConfig
from trainers.export import hashes
from trainers.export.hashes import base_hashes
from trainers.export.metadata import metadata
from trainers.families.sd15 import SD15

# The reference list of kohya's keys for Stable Diffusion 1.x; hashes are added by the writer.
KOHYA = """
base_model_version v2 network_module network_dim network_alpha network_args output_name session_id training_comment
training_started_at training_finished_at epoch steps seed sd_model_name sd_model_hash new_sd_model_hash vae_name
vae_hash new_vae_hash clip_skip num_train_images num_reg_images num_validation_images num_batches_per_epoch num_epochs
dataset_dirs reg_dataset_dirs tag_frequency bucket_info resolution enable_bucket bucket_no_upscale min_bucket_reso
max_bucket_reso shuffle_caption keep_tokens caption_dropout_rate caption_dropout_every_n_epochs
caption_tag_dropout_rate max_token_length flip_aug color_aug random_crop face_crop_aug_range resize_interpolation
learning_rate unet_lr text_encoder_lr lr_scheduler lr_warmup_steps optimizer max_grad_norm max_train_steps
batch_size_per_device total_batch_size gradient_accumulation_steps gradient_checkpointing mixed_precision full_fp16
fp8_base cache_latents lowram network_dropout scale_weight_norms loss_type huber_schedule huber_c huber_scale
min_snr_gamma debiased_estimation noise_offset adaptive_noise_scale multires_noise_iterations multires_noise_discount
ip_noise_gamma zero_terminal_snr prior_loss_weight
""".split()
MODELSPEC = "sai_model_spec architecture implementation title resolution date prediction_type trigger_phrase".split()


@pytest.fixture(scope="module")
def entries():
    return metadata(CONFIG, FACTS, SD15.spec, "a-000002")


def test_every_key_is_there_and_every_value_is_text(entries):
    assert {f"ss_{key}" for key in KOHYA} | {f"modelspec.{key}" for key in MODELSPEC} <= entries.keys()
    assert {"lora_darkroom.version", "lora_darkroom.config"} <= entries.keys()
    assert all(isinstance(value, str) for value in entries.values())


def test_values_come_from_the_run(entries):
    assert entries["ss_base_model_version"] == "sd_v1" and entries["ss_v2"] == "False"
    assert entries["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert (entries["ss_network_dim"], entries["ss_network_alpha"]) == ("4", "2.0")
    assert json.loads(entries["ss_network_args"]) == {"conv_dim": "4", "conv_alpha": "2.0"}
    assert (entries["ss_steps"], entries["ss_max_train_steps"], entries["ss_num_batches_per_epoch"]) == (
        "20",
        "40",
        "5",
    )
    assert json.loads(entries["ss_dataset_dirs"]) == {"pictures": {"n_repeats": 3, "img_count": 2}}
    assert json.loads(entries["ss_tag_frequency"]) == {"pictures": {"zib": 2, "red": 2, "round": 1}}
    assert json.loads(entries["ss_bucket_info"])["buckets"]["0"] == {"resolution": [64, 48], "count": 4}
    assert (entries["ss_resolution"], entries["modelspec.resolution"]) == ("(64, 64)", "64x64")
    assert entries["ss_output_name"] == entries["modelspec.title"] == "a-000002"
    assert entries["ss_optimizer"] == "torch.optim.adamw.AdamW(weight_decay=0.01)"
    assert (entries["ss_noise_offset"], entries["ss_min_snr_gamma"], entries["ss_clip_skip"]) == ("None", "5.0", "2")
    assert entries["modelspec.date"] == "2023-11-14T22:14:20+00:00"


@pytest.mark.parametrize(
    ("adapter", "module", "arguments"),
    [
        ({"type": "lora"}, "networks.lora", {}),
        (
            {"type": "locon", "rank": 8, "conv_rank": 4, "rank_dropout": 0.1},
            "networks.lora",
            {"conv_dim": "4", "conv_alpha": "4.0", "rank_dropout": "0.1"},
        ),
        ({"type": "dora"}, "lycoris.kohya", {"algo": "lora", "dora_wd": "True", "wd_on_output": "True"}),
        ({"type": "loha", "rank_stabilised": True}, "lycoris.kohya", {"algo": "loha", "rs_lora": "True"}),
        ({"type": "lokr", "factor": 8}, "lycoris.kohya", {"algo": "lokr", "factor": "8", "decompose_both": "False"}),
    ],
)
def test_the_type_is_said_as_kohya_and_lycoris_say_it(adapter, module, arguments):
    told = metadata(TrainConfig(adapter=adapter), FACTS, SD15.spec, "a")
    assert (told["ss_network_module"], json.loads(told["ss_network_args"])) == (module, arguments)


def test_the_file_that_a_run_began_with_is_named_without_its_folder():
    told = metadata(TrainConfig(adapter={"init_from": "/home/someone/start.safetensors"}), FACTS, SD15.spec, "a")
    assert json.loads(told["lora_darkroom.config"])["adapter"]["init_from"] == "start.safetensors"


def test_v_prediction_is_said():
    entries = metadata(CONFIG, replace(FACTS, prediction="v"), SD15.spec, "a")
    assert (entries["ss_base_model_version"], entries["modelspec.prediction_type"]) == ("sd_v1_v", "v")


def test_no_path_is_in_it(entries):
    assert "/home/" not in json.dumps(entries) and "someone" not in json.dumps(entries)


SECRETS = {
    "data": {
        "folders": ("/home/someone/secretfolder",),
        "folder_names": ("3_secretname",),
        "leave_out": ("secretname.png",),
        "class_words": ("secretword",),
    },
    "preview": {"prompts": ("secretprompt",), "negative": "secretnegative"},
    "saving": {"name": "a", "comment": "secretcomment"},
}


@pytest.mark.parametrize("privacy", ["full", "no_captions", "minimal"])
def test_privacy_leaves_out_what_it_says(privacy):
    secret = {**SECRETS, "saving": {**SECRETS["saving"], "privacy": privacy}}
    config = config_io.merge(config_io.parse({"model": {"base": "/home/someone/secretbase.safetensors"}}), secret)
    config = config_io.merge(config, {"data": {"trigger": "zib"}})
    facts = replace(FACTS, captions={"secretfolder": ["secretcaption, zib"]}, folder_repeats={"secretfolder": 1})
    told = metadata(config, facts, SD15.spec, "a")
    words = set(re.findall("secret[a-z]+", json.dumps(told)))
    assert words == (
        {"secretfolder", "secretword", "secretprompt", "secretnegative", "secretcomment", "secretcaption"}
        if privacy == "full"
        else set()
    )
    assert ("zib" in json.dumps(told)) == (privacy != "minimal")
    if privacy == "minimal":  # what A1111, kohya and LyCORIS need to load it, and ModelSpec's required entries
        network = {"ss_network_module", "ss_network_dim", "ss_network_alpha", "ss_network_args", "ss_network_dropout"}
        spec = {
            f"modelspec.{key}" for key in ("sai_model_spec", "architecture", "implementation", "title", "resolution")
        }
        assert told.keys() == {"ss_base_model_version", "ss_v2", *network, *spec}


def test_the_settings_in_it_make_the_run_again(entries):
    config = TrainConfig.model_validate_json(entries["lora_darkroom.config"])
    assert (config.adapter, config.optimizer, config.seed) == (CONFIG.adapter, CONFIG.optimizer, CONFIG.seed)
    assert config.model.base == "base.safetensors"


def test_base_hashes_are_kohyas_and_computed_once(tmp_path, monkeypatch):
    base, cache = tmp_path / "base.safetensors", tmp_path / "cache" / "hashes.json"
    content = bytes(range(256)) * 0x1200  # 1.2 MB
    base.write_bytes(content)
    expected = hashlib.sha256(content[0x100000:0x110000]).hexdigest()[:8], hashlib.sha256(content).hexdigest()
    assert base_hashes(base, cache) == base_hashes(base) == expected
    monkeypatch.setattr(hashes, "_hash", lambda path: ("new", "new"))
    assert base_hashes(base, cache) == expected
    base.write_bytes(content + b"more")
    assert base_hashes(base, cache) == ("new", "new")
    assert base_hashes(tmp_path, cache) == base_hashes(None) == (None, None)


def test_zero_terminal_snr_is_told():
    told = metadata(CONFIG, replace(FACTS, zero_terminal_snr=True), SD15.spec, "a")
    assert told["ss_zero_terminal_snr"] == "True"
