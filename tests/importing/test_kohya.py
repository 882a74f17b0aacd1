"""kohya_ss and sd-scripts: what becomes of their settings."""

import json
import tomllib

import pytest

from tests.importing.conftest import line, lycoris, run
from trainers import choices
from trainers.config_problems import SETTINGS
from trainers.importing.imported import import_files
from trainers.importing.kohya import KOHYA
from trainers.importing.kohya_run import flatten
from trainers.importing.onetrainer import ONETRAINER
from trainers.importing.rows import Row


def test_numbers_as_texts_and_truth_values_as_texts_are_read(imported):
    found = imported("kohya_ss.json")
    config = found.config
    assert (config.adapter.rank, config.model.clip_skip, config.data.flip) == (8, 2, False)
    assert (config.optimizer.accumulation, config.optimizer.rate, config.seed) == (1, 2e-4, 1234)


def test_an_alpha_that_is_not_given_is_kohyas_1(tmp_path):
    found = run(tmp_path, "")
    assert found.config.adapter.alpha == 1 and "adapter.alpha" in found.assumed_settings
    assert run(tmp_path, "network_alpha = 4").config.adapter.alpha == 4


def test_where_the_file_is_silent_kohyas_defaults_hold(tmp_path):
    config = run(tmp_path, "learning_rate = 1e-4").config
    assert (config.loss.weighting, config.schedule.type, config.schedule.warmup) == ("none", "constant", 0)
    assert (config.data.bucketing, config.data.keep_tokens, config.data.validation_share) == (False, 0, 0)
    assert (config.schedule.steps, config.saving.dtype, config.adapter.text_encoder) == (1600, "fp32", True)


def test_kohya_folders_give_repeats_and_captions_and_the_others_stay_out(imported, parent):
    found = imported("kohya_ss.json")
    assert found.config.data.folders == (str(parent / "10_sks cat"), str(parent / "2_"))
    assert found.config.data.folder_names == ("10_sks cat", "2_")
    assert line(found, "train_data_dir").note == (
        "Left out: plain, reg. kohya's folder names begin with a number of repeats, such as 10_cat."
    )


def test_epochs_become_picture_views(gui):
    assert gui().config.schedule.views == 2 * (10 * 3 + 2 * 2)  # epochs x (repeats x pictures)
    found = gui(train_batch_size=4)
    assert found.config.saving.every == 9  # ceil(34 / 4) steps in an epoch
    assert found.config.saving.keep == 2  # kohya keeps every file


def test_steps_beat_kohya_ss_epochs_and_max_train_epochs_beat_steps(gui):
    found = gui(max_train_steps="300")
    assert found.config.schedule.steps == 300
    assert line(found, "epoch").note == "max_train_steps decides."
    found = gui(max_train_steps="300", max_train_epochs=3)
    assert (found.config.schedule.steps, found.config.schedule.views) == (0, 3 * 34)


def test_pictures_that_are_not_here_leave_epochs_open_and_are_reported(gui):
    found = gui(train_data_dir="D:\\pictures\\cats")
    assert found.missing["data.folders"] == ["D:\\pictures\\cats"]
    assert line(found, "epoch").status == "not supported" and "--pictures" in line(found, "epoch").note


def test_warmup_in_percent_and_in_steps(gui, tmp_path):
    assert gui(lr_warmup="10").config.schedule.warmup == 0.1
    assert gui(lr_warmup=10, lr_warmup_steps=17).config.schedule.warmup == 0.5  # of 34 steps
    assert gui(lr_scheduler="constant").config.schedule.warmup == 0
    text = 'lr_scheduler = "cosine"\nlr_warmup_steps = %s\nmax_train_steps = 200'
    assert run(tmp_path, text % 20).config.schedule.warmup == 0.1
    assert line(run(tmp_path, text % 20), "lr_warmup_steps").note == "Of 200 steps."
    assert run(tmp_path, text % 0.25).config.schedule.warmup == 0.25
    assert line(run(tmp_path, text % 0.25), "lr_warmup_steps").note == ""


@pytest.mark.parametrize(
    ("name", "kind"),
    [("Standard", "lora"), ("Kohya LoCon", "locon"), ("LyCORIS/LoHa", "loha"), ("LyCORIS/LoKr", "lokr")],
)
def test_adapter_types_are_mapped_as_soon_as_they_are_trained_here(gui, monkeypatch, name, kind):
    found = gui(LoRA_type=name)
    if kind not in choices.ADAPTERS:
        assert line(found, "LoRA_type").status == "not supported"
        assert "not supported yet: plain LoRA is trained." in line(found, "LoRA_type").note
    monkeypatch.setattr(choices, "ADAPTERS", ("lora", "locon", "dora", "loha", "lokr"))
    monkeypatch.setitem(choices.CHOICES, "adapter.type", choices.ADAPTERS)
    assert gui(LoRA_type=name).config.adapter.type == kind


def test_networks_of_sd_scripts_are_mapped(tmp_path, monkeypatch):
    monkeypatch.setattr(choices, "ADAPTERS", ("lora", "locon", "dora", "loha", "lokr"))
    monkeypatch.setitem(choices.CHOICES, "adapter.type", choices.ADAPTERS)

    def kind(module, *arguments):
        path = tmp_path / "run.toml"
        path.write_text(f'network_module = "{module}"\nnetwork_dim = 8\nnetwork_args = {list(arguments)}', "utf-8")
        return import_files([path]).config.adapter.type

    assert kind("networks.lora") == "lora"
    assert kind("networks.lora", "conv_dim=4") == "locon"
    assert kind("lycoris.kohya", "algo=loha") == "loha"
    assert kind("lycoris.kohya", "algo=lokr", "factor=8") == "lokr"
    assert kind("lycoris.kohya", "algo=locon", "dora_wd=True") == "dora"


def test_networks_that_exist_nowhere_here_are_named(gui):
    found = gui(LoRA_type="LyCORIS/iA3")
    assert line(found, "LoRA_type").note == "LyCORIS/iA3 is not supported: plain LoRA is trained."


def test_a_base_in_fp8_becomes_one_in_8_bits_but_not_under_a_dora(gui):
    assert gui(fp8_base=True).config.memory.quantize == "int8"
    found = gui(fp8_base=True, LoRA_type="Standard", dora_wd=True)
    assert line(found, "fp8_base").status == "not supported" and found.config.memory.quantize == "none"


def test_features_that_we_lack_are_named_only_where_they_are_used(gui):
    assert line(gui(color_aug=True), "color_aug").status == "not supported"
    assert line(gui(color_aug="False"), "color_aug").status == "same as our default"
    assert line(gui(prior_loss_weight="1.0"), "prior_loss_weight").status == "same as our default"
    assert "class_pictures" in line(gui(), "reg_data_dir").note


def test_a_value_that_we_cannot_have_says_what_we_take(gui):
    found = gui(network_dim=100000)
    assert line(found, "network_dim").note == "adapter.rank takes a whole number between 1 and 1024."
    assert line(gui(seed="often"), "seed").note == "This is not a number."


def test_secrets_are_neither_read_nor_shown(gui):
    found = gui(new_api_key="hush")
    for key in ("huggingface_token", "wandb_api_key", "new_api_key"):
        assert line(found, key).value == ""
    assert not any("do_not_read_me" in str(one) or "hush" in str(one) for one in found.lines)


def test_loss_noise_and_precision(imported):
    config = imported("sd_scripts.toml").config
    assert (config.loss.type, config.loss.huber_c, config.noise.timestep_max) == ("huber", 0.2, 899)
    assert (config.memory.precision, config.saving.dtype, config.optimizer.clip_norm) == ("fp32", "fp32", 0)
    assert config.optimizer.weight_decay == 0.05


def test_weight_decay_is_that_of_the_optimizers_library(tmp_path):
    assert run(tmp_path, 'optimizer_type = "AdamW"').config.optimizer.weight_decay == 0.01
    assert run(tmp_path, 'optimizer_type = "Prodigy"').config.optimizer.weight_decay == 0


def test_optimizers_that_find_their_own_rate_become_prodigy(gui):
    found = gui(optimizer="DAdaptAdam")
    assert found.config.optimizer.type == "prodigy" and "D-Adaptation" in line(found, "optimizer").note
    assert line(gui(optimizer="CAME"), "optimizer").note.endswith("AdamW is used.")


def test_sections_of_sd_scripts_are_names_only(imported):
    found = imported("sd_scripts_sections.toml")
    assert found.config.saving.name == "sections" and found.config.adapter.alpha == 4
    assert line(found, "optimizer_args.d_coef").status == "not supported"


def test_numbers_of_the_optimizers_papers_are_named_where_a_file_has_others(gui):
    found = gui(optimizer_args="betas=0.9,0.99 d_coef=2")
    reason = "This cannot be set here: it stays at {}, as in the optimizer's paper."
    assert line(found, "optimizer_args.betas").note == reason.format("0.9,0.999 (for Lion 0.9,0.99)")
    assert line(found, "optimizer_args.d_coef").note == reason.format("1")


@pytest.mark.parametrize(
    ("arguments", "beside", "share"),
    [
        (["dropout=0.1"], "", 0.1),
        (["network_dropout=0.2"], "", 0.2),
        ([], "network_dropout = 0.3", 0.3),
        (["dropout=0.1"], "network_dropout = 0.3", 0.1),
        (["dropout=0"], "network_dropout = 0.3", 0),
    ],
)
def test_dropout_is_read_wherever_it_stands_and_lycoris_goes_by_its_own(tmp_path, arguments, beside, share):
    found = lycoris(tmp_path, *arguments, more=beside)
    assert found.config.adapter.dropout == share
    if arguments and beside:
        assert line(found, "network_dropout").note == "network_args.dropout decides."


def test_dropout_of_kohyas_own_networks_is_the_one_beside_their_arguments(tmp_path):
    def share(text):
        return run(tmp_path, text).config.adapter.dropout

    assert share("network_dropout = 0.3") == 0.3
    assert share('network_args = ["dropout=0.1"]') == 0.1
    assert share('network_args = ["dropout=0.1"]\nnetwork_dropout = 0.3') == 0.3


@pytest.mark.parametrize("name", ["kohya_ss.json", "sd_scripts.toml", "sd_scripts_sections.toml"])
def test_every_setting_of_the_file_is_reported_once(config, name):
    path = config(name)
    text = path.read_text("utf-8")
    expected = flatten(json.loads(text) if name.endswith("json") else tomllib.loads(text))
    reported = [one.key for one in import_files([path]).lines if not one.key.startswith(("general.", "datasets["))]
    assert sorted(reported) == sorted(expected)


def test_unknown_settings_have_no_counterpart(imported):
    assert line(imported("kohya_ss.json"), "some_new_option").status == "no counterpart"


def test_what_the_tables_point_to_is_ours():
    targets = {row.ours for row in (KOHYA | ONETRAINER).values() if isinstance(row, Row)}
    assert targets <= set(SETTINGS)


def test_only_lycoris_can_leave_rank_dropout_unscaled(tmp_path):
    own = 'network_args = ["rank_dropout=0.1", "rank_dropout_scale=%s"]'
    theirs = 'network_module = "lycoris.kohya"\nnetwork_dim = 8\n' + own
    assert line(run(tmp_path, own % False), "network_args.rank_dropout_scale").status == "same as our default"
    for scaled, status in ((True, "same as our default"), (False, "not supported")):
        (tmp_path / "run.toml").write_text(theirs % scaled, "utf-8")
        assert line(import_files([tmp_path / "run.toml"]), "network_args.rank_dropout_scale").status == status


def test_what_checkpoints_begin_with_may_wait_in_host_memory(gui):
    found = gui(gradient_checkpointing=True, cpu_offload_checkpointing=True)
    assert found.config.memory.offload and found.config.memory.checkpointing == "all"


def test_the_report_says_how_several_gpus_train(gui):
    assert "accelerate launch" in line(gui(multi_gpu=True), "multi_gpu").note


def test_what_networks_have_here_too_is_taken_over(tmp_path):
    arguments = '["rank_dropout=0.1", "module_dropout=0.2", "loraplus_lr_ratio=16"]'
    found = run(tmp_path, f'network_args = {arguments}\nnetwork_weights = "start.safetensors"')
    adapter = found.config.adapter
    assert (adapter.rank_dropout, adapter.module_dropout, adapter.init_from) == (0.1, 0.2, "start.safetensors")
    assert found.config.optimizer.lora_plus == 16


@pytest.mark.parametrize(
    ("module", "arguments", "targets", "conv_alpha"),
    [
        ("networks.lora", '["conv_dim=8"]', "transformer", 1.0),  # a LoCon, which has its convolutions by its type
        ("networks.lora", '["conv_dim=8", "conv_alpha=4"]', "transformer", 4.0),
        ("lycoris.kohya", '["algo=lokr"]', "full", None),
        ("lycoris.kohya", '["algo=loha", "conv_dim=8"]', "full", 2.0),  # LyCORIS: network_alpha
        ("networks.lora", "[]", "transformer", None),
    ],
)
def test_convolutions_are_trained_as_kohya_and_lycoris_train_them(tmp_path, module, arguments, targets, conv_alpha):
    text = f'network_module = "{module}"\nnetwork_dim = 4\nnetwork_alpha = 2\nnetwork_args = {arguments}'
    (tmp_path / "run.toml").write_text(text, "utf-8")
    adapter = import_files([tmp_path / "run.toml"]).config.adapter
    assert (adapter.targets, adapter.conv_alpha) == (targets, conv_alpha)


def test_stable_diffusion_3_draws_its_noise_levels_as_sd_scripts_does(tmp_path):
    (tmp_path / "run.toml").write_text('network_module = "networks.lora_sd3"\nnetwork_dim = 4', "utf-8")
    noise = import_files([tmp_path / "run.toml"]).config.noise
    assert (noise.density, noise.shift) == ("uniform", 1.0)
    more = '\nweighting_scheme = "logit_normal"\nlogit_mean = 0.5\ntraining_shift = 3.0'
    (tmp_path / "run.toml").write_text(f'network_module = "networks.lora_sd3"\nnetwork_dim = 4{more}', "utf-8")
    noise = import_files([tmp_path / "run.toml"]).config.noise
    assert (noise.density, noise.logit_mean, noise.shift) == ("logit_normal", 0.5, 3.0)


def test_a_lora_plus_of_nothing_is_off(gui):
    found = gui(loraplus_lr_ratio=0, loraplus_unet_lr_ratio=0, loraplus_text_encoder_lr_ratio=0)
    assert found.config.optimizer.lora_plus == 1
    assert all(line(found, f"loraplus_{name}lr_ratio").status != "not supported" for name in ("", "unet_"))


@pytest.mark.parametrize(
    ("preset", "targets", "text_encoder"),
    [
        ("full", "full", True),
        ("unet-only", "full", False),
        ("attn-mlp", "transformer", True),
        ("unet-transformer-only", "transformer", False),
        ("attn-only", "attention", True),
    ],
)
def test_a_preset_of_lycoris_chooses_the_layers(tmp_path, gui, preset, targets, text_encoder):
    found = lycoris(tmp_path, "algo=loha", f"preset={preset}", more="text_encoder_lr = 1e-5")
    window = gui(LoRA_type="LyCORIS/LoHa", LyCORIS_preset=preset)
    for one, key in ((found, "network_args.preset"), (window, "LyCORIS_preset")):
        assert line(one, key).settings["adapter.targets"] == one.config.adapter.targets == targets
        assert (line(one, key).status == "renamed") == (targets != "transformer")
        assert "adapter.targets" not in one.assumed_settings
        assert one.config.adapter.text_encoder == text_encoder


@pytest.mark.parametrize(
    ("preset", "kind", "targets"),
    [("full", "locon", "transformer"), ("attn-mlp", "lora", "transformer"), ("attn-only", "lora", "attention")],
)
def test_a_locon_of_lycoris_without_its_convolutions_is_a_lora(tmp_path, gui, preset, kind, targets):
    for found in (lycoris(tmp_path, f"preset={preset}"), gui(LoRA_type="LyCORIS/LoCon", LyCORIS_preset=preset)):
        assert (found.config.adapter.type, found.config.adapter.targets) == (kind, targets)


def test_a_preset_that_exists_nowhere_here_is_named(gui):
    found = gui(LoRA_type="LyCORIS/LoHa", LyCORIS_preset="unet-convblock-only")
    assert "set adapter.targets" in line(found, "LyCORIS_preset").note
    assert not found.config.adapter.text_encoder


def test_the_text_encoders_beside_a_stable_diffusion_3_file_are_found_from_the_settings_folder(tmp_path):
    (tmp_path / "clip_l.safetensors").touch()
    text = 'network_module = "networks.lora_sd3"\nnetwork_dim = 8\nclip_l = "clip_l.safetensors"\nclip_g = "gone/g"\n'
    (tmp_path / "run.toml").write_text(text, "utf-8")
    found = import_files([tmp_path / "run.toml"])
    assert found.config.model.clip_l == str(tmp_path / "clip_l.safetensors")
    assert list(found.missing) == ["model.clip_g"]
