"""OneTrainer: what becomes of its settings, concepts and samples."""

import json

import pytest

from tests.importing.conftest import line
from trainers.importing import onetrainer_lists
from trainers.importing.imported import import_files


@pytest.fixture
def changed(config):
    def change(**changes):
        path = config("onetrainer.json")
        path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}), "utf-8")
        return import_files([path])

    return change


def test_concepts_become_folders_with_repeats(imported, parent):
    config = imported("onetrainer.json").config
    assert config.data.folders == (str(parent / "plain"),) and config.data.folder_names == ("3_",)
    assert (config.data.flip, config.data.shuffle_tags, config.data.keep_tokens) == (True, True, 2)
    assert config.schedule.views == 2 * 3 * 2  # epochs x repeats x pictures


def test_parts_keep_their_own_rates(imported):
    config = imported("onetrainer.json").config
    assert (config.optimizer.rate, config.optimizer.text_rate) == (3e-4, 5e-5)
    assert config.adapter.text_encoder and config.adapter.text_stop == 0.5  # 1 of 2 epochs
    assert config.optimizer.weight_decay == 0.02


def test_samples_become_previews(imported):
    preview = imported("onetrainer.json").config.preview
    assert (preview.prompts, preview.width, preview.seed, preview.sampling_steps) == (("a cat",), 16, 3, 2)
    assert preview.every == 3  # 6 views in an epoch, 2 at a time


def test_intervals_in_minutes_are_not_taken(changed):
    found = changed(sample_after=10, sample_after_unit="MINUTE")
    assert line(found, "sample_after").note == "Intervals are in steps, not in minutes."


def test_warmup_above_1_is_in_batches(changed):
    assert changed(learning_rate_warmup_steps=3).config.schedule.warmup == 0.5  # of 6 steps


@pytest.mark.parametrize(
    ("strengths", "kind"),
    [({"mse_strength": 1.0}, "l2"), ({"mse_strength": 0.0, "mae_strength": 1.0}, "l1"),
     ({"mse_strength": 0.0, "huber_strength": 1.0}, "smooth_l1")],
)  # fmt: skip
def test_one_kind_of_loss_is_taken(changed, strengths, kind):
    assert changed(**strengths).config.loss.type == kind


@pytest.mark.parametrize(("dtype", "form"), [("NFLOAT_4", "nf4"), ("INT_8", "int8"), ("BFLOAT_16", "none")])
def test_quantised_denoisers_stay_so(changed, dtype, form):
    assert changed(unet={"train": True, "weight_dtype": dtype}).config.memory.quantize == form


def test_a_way_of_storing_weights_that_is_not_here_is_named(changed):
    assert line(changed(unet={"train": True, "weight_dtype": "GGUF"}), "unet.weight_dtype").status == "not supported"


def test_mixed_losses_are_named(changed):
    found = changed(mse_strength=0.5, mae_strength=0.5)
    assert line(found, "mse_strength").status == line(found, "mae_strength").status == "not supported"


def test_models_and_methods_of_other_kinds_are_named(changed):
    found = changed(model_type="FLUX_DEV_1", training_method="FINE_TUNE", peft_type="OFT_2")
    assert [line(found, key).status for key in ("model_type", "training_method", "peft_type")] == ["not supported"] * 3


def test_where_the_file_is_silent_onetrainers_defaults_hold(changed, config):
    path = config("onetrainer.json")
    content = json.loads(path.read_text("utf-8"))
    for key in ("lora_alpha", "loss_weight_fn", "learning_rate_scheduler", "epochs", "layer_filter_preset"):
        del content[key]
    path.write_text(json.dumps(content), "utf-8")
    found = import_files([path]).config
    assert (found.adapter.alpha, found.loss.weighting, found.schedule.type) == (1, "none", "constant")
    assert (found.schedule.views, found.adapter.targets) == (600, "full")


def test_a_concept_file_is_read_where_it_is(changed, tmp_path, parent):
    concepts = [{"path": str(parent / "plain"), "text": {}, "balancing": 2}]
    (tmp_path / "concepts.json").write_text(json.dumps(concepts), "utf-8")
    found = changed(concepts=None, concept_file_name="concepts.json")
    assert found.config.data.folder_names == ("2_",) and found.config.schedule.views == 8
    assert import_files([tmp_path / "concepts.json"]).config.data.folder_names == ("2_",)


def test_every_setting_of_the_file_is_reported_once(config):
    path = config("onetrainer.json")
    expected = onetrainer_lists.flatten(json.loads(path.read_text("utf-8")))
    found = import_files([path])
    assert [one.key for one in found.lines] == list(expected)
    assert line(found, "secrets.huggingface_token").value == ""
    assert line(found, "some_new_option").status == "no counterpart"


def test_logit_normal_noise_of_flow_models_keeps_its_bias_and_width(changed):
    found = changed(
        model_type="STABLE_DIFFUSION_35",
        timestep_distribution="LOGIT_NORMAL",
        noising_bias=0.8,
        noising_weight=0.5,
        timestep_shift=2.0,
    )
    noise = found.config.noise
    assert (noise.density, noise.logit_mean, noise.logit_std, noise.shift) == ("logit_normal", 0.8, 1.5, 2.0)


def test_a_shift_of_other_models_is_not_supported(changed):
    assert line(changed(timestep_shift=3.0), "timestep_shift").status == "not supported"
    assert line(changed(timestep_shift=1.0), "timestep_shift").status != "not supported"


@pytest.mark.parametrize(
    ("theirs", "ours"), [("cuda", "auto"), ("cuda:1", "auto"), ("mps", "auto"), ("xpu:0", "auto"), ("cpu", "cpu")]
)
def test_a_run_uses_the_gpu_that_this_machine_has(changed, theirs, ours):
    assert changed(train_device=theirs).config.memory.device == ours


@pytest.mark.parametrize(
    ("theirs", "ours", "note"),
    [
        ("768,1024", 1024, "One resolution is trained: the largest of them."),
        ("512, 1024, 768", 1024, "One resolution is trained: the largest of them."),
        ("512x768", 627, "A square with the area of 512x768; buckets follow the pictures' shapes."),
        ("768", 768, ""),
    ],
)
def test_commas_separate_resolutions_and_the_largest_is_trained(changed, theirs, ours, note):
    found = changed(resolution=theirs)
    assert found.config.data.resolution == ours and line(found, "resolution").note == note


@pytest.mark.parametrize("place", ["training_presets", "training_presets/mine"])
def test_paths_of_a_preset_begin_at_onetrainers_own_folder(tmp_path, place):
    for folder in (place, "training_concepts", "cats", "models"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "models" / "base.safetensors").touch()
    concepts = [{"path": "cats", "text": {}, "balancing": 2}]
    (tmp_path / "training_concepts" / "concepts.json").write_text(json.dumps(concepts), "utf-8")
    names = {"concept_file_name": "training_concepts/concepts.json", "base_model_name": "models/base.safetensors"}
    preset = tmp_path / place / "preset.json"
    preset.write_text(json.dumps({"training_method": "LORA", **names}), "utf-8")
    found = import_files([preset])
    assert found.config.data.folders == (str(tmp_path / "cats"),) and found.config.data.folder_names == ("2_",)
    assert found.config.model.base == str(tmp_path / "models" / "base.safetensors")


def test_activations_wait_in_host_memory_where_onetrainer_moves_them(changed):
    parts = {"activation_offloading": True, "offload_fraction": 0.5}
    found = changed(model_type="STABLE_DIFFUSION_35", transformer=parts)
    assert (found.config.memory.offload, found.config.memory.stream) == (True, "auto")
    found = changed(model_type="STABLE_DIFFUSION_3", gradient_checkpointing="CPU_OFFLOADED")
    assert found.config.memory.offload
    found = changed(unet=parts)
    assert not found.config.memory.offload
    assert "OneTrainer moves nothing of a UNet" in line(found, "unet.activation_offloading").note


def test_the_report_says_how_several_gpus_train(changed):
    assert "accelerate launch" in line(changed(multi_gpu=True), "multi_gpu").note
