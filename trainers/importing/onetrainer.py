"""What OneTrainer calls a setting, and what it is here.

Names and defaults from OneTrainer (modules/util/config/TrainConfig.py), read in 2026. Nested settings are named with
dots (`unet.learning_rate`), entries of lists with numbers (`concepts[0].path`).
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainers.importing import onetrainer_lists as lists
from trainers.importing import onetrainer_parts as parts
from trainers.importing import onetrainer_rules as rules
from trainers.importing.kohya import SEVERAL_GPUS
from trainers.importing.kohya_network import alpha
from trainers.importing.rows import Lacks, Line, Row, Rule, Table, Unneeded, as_in_paper, line_of
from trainers.importing.theirs import Length, Theirs
from trainers.importing.values import number, switch, text, whole

NOT_TRAINED = Unneeded("This model has no such part, or nothing of it is needed here.")
UNET_STAYS = Lacks("OneTrainer moves nothing of a UNet; here memory.offload and memory.stream do.")
MACHINE = Unneeded("How the machine is used is decided by itself.")
PROGRAM = Unneeded("It belongs to OneTrainer, not to the run.")
EMBEDDINGS = Lacks("Embeddings are not trained.")
MASKS = Lacks("Masks are not supported yet.")
OFT = Unneeded("Only for OFT.")
LOKR = Unneeded("Only for LoKr.")
STORED = Lacks("Weights are stored as memory.precision says.", ("float_32", "float_16", "bfloat_16", "none"))

ONETRAINER: Table = {
    "__version": PROGRAM,
    "training_method": Rule(rules.method),
    "model_type": Rule(rules.model_type),
    "base_model_name": rules.path("model.base"),
    "vae.model_name": rules.path("model.vae"),
    "force_v_prediction": Rule(lambda value, theirs: {"model.prediction": "v"} if switch(value) else {}),
    "force_epsilon_prediction": Rule(lambda value, theirs: {"model.prediction": "epsilon"} if switch(value) else {}),
    "rescale_noise_scheduler_to_zero_terminal_snr": Lacks("Zero terminal SNR is used where the base says so."),
    "text_encoder_layer_skip": Rule(rules.layer_skip),
    "text_encoder_sequence_length": Lacks("Captions are cut after 75 tokens.", (77, 512)),
    "peft_type": Rule(rules.peft),
    "lora_rank": Row("adapter.rank", whole),
    "lora_alpha": Rule(alpha),
    "lora_decompose": Rule(rules.dora),
    "lora_decompose_norm_epsilon": Unneeded("It belongs to DoRA."),
    "lora_decompose_output_axis": Unneeded("It belongs to DoRA."),
    "lora_model_name": rules.path("adapter.init_from"),
    "lora_weight_dtype": STORED,
    "lokr_*": LOKR,
    "oft_*": OFT,
    "layer_filter_preset": Rule(rules.layers),
    "layer_filter": Lacks("Set adapter.targets to a regular expression.", ("attentions", "attn")),
    "layer_filter_regex": Unneeded("It belongs to layer_filter."),
    "dropout_probability": Row("adapter.dropout", number),
    "learning_rate": Rule(parts.rate),
    "unet.learning_rate": Row("optimizer.rate", number),
    "unet.train": Rule(lambda value, theirs: parts.always_trained(value)),
    **dict.fromkeys(("text_encoder.train", "text_encoder.learning_rate"), Rule(parts.encoder)),
    **dict.fromkeys(("text_encoder_2.train", "text_encoder_2.learning_rate"), Rule(parts.second_encoder)),
    "text_encoder.stop_training_after": Rule(parts.text_stop),
    "text_encoder.stop_training_after_unit": Unneeded("It belongs to stop_training_after."),
    "unet.stop_training_after*": Lacks("The denoiser is trained to the end.", ("never",)),
    "text_encoder.dropout_probability": Row("data.caption_dropout", number),
    "unet.dropout_probability": Lacks("adapter.dropout serves all parts."),
    **dict.fromkeys(("unet.gradient_checkpointing", "gradient_checkpointing"), Rule(parts.checkpointing)),
    "text_encoder.gradient_checkpointing": Unneeded("The denoiser's counts."),
    "vae.gradient_checkpointing": Unneeded("The VAE is not trained."),
    **dict.fromkeys(("unet.offload_fraction", "unet.activation_offloading"), UNET_STAYS),
    "unet.weight_dtype": Rule(parts.stored),
    **dict.fromkeys(("text_encoder.weight_dtype", "vae.weight_dtype", "weight_dtype"), STORED),
    **dict.fromkeys(("unet.*", "text_encoder.*", "vae.*", "quantization.*"), Unneeded("Nothing of it is needed here.")),
    "transformer.learning_rate": rules.only_flow(lambda value: {"optimizer.rate": number(value)}),
    "transformer.train": rules.only_flow(parts.always_trained),
    "transformer.activation_offloading": rules.only_flow(lambda value: {"memory.offload": switch(value)}),
    "transformer.offload_fraction": rules.only_flow(parts.streamed),
    **dict.fromkeys(("prior.*", "transformer.*", "unconditional_transformer.*", "text_encoder_2*"), NOT_TRAINED),
    **dict.fromkeys(("text_encoder_3*", "text_encoder_4*", "effnet_encoder.*", "decoder*"), NOT_TRAINED),
    "concept_file_name": Rule(rules.concept_file),
    "resolution": Rule(rules.resolution),
    "frames": Unneeded("Only for video."),
    "aspect_ratio_bucketing": Row("data.bucketing", switch),
    "latent_caching": Row("memory.cache_latents", switch),
    "clear_cache_before_training": Unneeded("A cache is checked by the pictures' content."),
    "only_cache": Unneeded("Caching is the beginning of a run."),
    "batch_size": Row("data.batch_size", whole),
    "gradient_accumulation_steps": Row("optimizer.accumulation", whole),
    "epochs": Rule(rules.epochs),
    "learning_rate_scheduler": rules.choice(
        "schedule.type", rules.SCHEDULES, "There is no such schedule here: the rate stays constant."
    ),
    "custom_learning_rate_scheduler": Lacks("Schedules of other libraries are not loaded."),
    "scheduler_params*": Lacks("Schedules of other libraries are not loaded."),
    "learning_rate_warmup_steps": Rule(rules.warmup),
    "learning_rate_cycles": Rule(lambda value, theirs: {"schedule.cycles": max(round(number(value)), 1)}),
    "learning_rate_min_factor": Lacks("Schedules end at zero."),
    "learning_rate_scaler": Lacks("The rate is used as given.", ("none",)),
    "optimizer.optimizer": rules.choice(
        "optimizer.type", rules.OPTIMIZERS, "There is no such optimizer here: AdamW is used."
    ),
    "optimizer.weight_decay": Row("optimizer.weight_decay", number),
    "optimizer.beta1": as_in_paper("0.9", (0.9,)),
    "optimizer.beta2": as_in_paper("0.999 (for Lion 0.99)", (0.999,)),
    "optimizer.eps": as_in_paper("1e-8", (1e-8,)),
    "optimizer.d0": as_in_paper("1e-6", (1e-6,)),
    "optimizer.d_coef": as_in_paper("1", (1,)),
    "optimizer.*": Unneeded("This cannot be set here: the optimizer's own value is used."),
    "optimizer_defaults.*": Unneeded("These are the settings of optimizers that are not in use."),
    "clip_grad_norm": Row("optimizer.clip_norm", number),
    "ema": Rule(lambda value, theirs: {"optimizer.ema": text(value) != "OFF"}),
    "ema_decay": Row("optimizer.ema_decay", number),
    "ema_update_step_interval": Lacks("The average moves at every step.", (1,)),
    "mse_strength": rules.strength("l2"),
    "mae_strength": rules.strength("l1"),
    "huber_strength": rules.strength("smooth_l1"),
    "huber_delta": Rule(
        lambda value, theirs: {"loss.huber_c": number(value)} if theirs.count("huber_strength") else {}
    ),
    "log_cosh_strength": Lacks("There is no log-cosh loss."),
    "vb_loss_strength": Unneeded("Stable Diffusion's loss has no such part."),
    "loss_weight_fn": rules.choice(
        "loss.weighting", rules.WEIGHTINGS, "There is no such weighting here: none is used."
    ),
    "loss_weight_strength": Rule(rules.gamma),
    "loss_scaler": Lacks("The loss is the mean over the batch.", ("none",)),
    "offset_noise_weight": Row("noise.offset", number),
    "generalized_offset_noise": Lacks("The noise offset has one strength."),
    "perturbation_noise_weight": Lacks("The noise that is mixed in is the noise to be found (no input perturbation)."),
    "min_noising_strength": rules.level("noise.timestep_min"),
    "max_noising_strength": rules.level("noise.timestep_max"),
    "timestep_distribution": Rule(rules.distribution),
    "noising_bias": rules.only_logit_normal(lambda value: {"noise.logit_mean": number(value)}),
    "noising_weight": rules.only_logit_normal(lambda value: {"noise.logit_std": number(value) + 1}),
    "timestep_shift": Rule(rules.shift),
    "dynamic_timestep_shifting": Lacks("The shift is the same for every size (noise.shift)."),
    "masked_training": MASKS,
    **dict.fromkeys(("unmasked_probability", "unmasked_weight", "normalize_masked_area_loss"), Unneeded(MASKS.reason)),
    **dict.fromkeys(("masked_prior_preservation_weight", "custom_conditioning_image"), MASKS),
    **dict.fromkeys(("additional_embeddings*", "preserve_embedding_norm"), EMBEDDINGS),
    **dict.fromkeys(
        ("embedding.*", "embeddings*", "embedding_*", "bundle_additional_embeddings"), Unneeded(EMBEDDINGS.reason)
    ),
    "train_dtype": Rule(rules.precision),
    "fallback_train_dtype": MACHINE,
    "train_device": Rule(rules.device),
    "attention_mechanism": Lacks("Attention runs on SDPA.", ("sdp", "default")),
    **dict.fromkeys(("temp_device", "dataloader_threads", "enable_autocast_cache", "async_offloading"), MACHINE),
    **dict.fromkeys(("layer_offload_fraction", "enable_async_offloading", "enable_activation_offloading"), MACHINE),
    "compile": Lacks("Whether it pays is tried anew: memory.compile."),
    "force_circular_padding": Lacks("Convolutions are not wrapped around."),
    "multi_gpu": SEVERAL_GPUS,
    **dict.fromkeys(("device_indexes", "gradient_reduce_precision", "fused_gradient_reduce"), MACHINE),
    **dict.fromkeys(("async_gradient_reduce", "async_gradient_reduce_buffer"), MACHINE),
    "output_dtype": rules.choice("saving.dtype", rules.DTYPES, "Adapters are saved in fp16, bf16 or fp32."),
    "output_model_destination": Rule(rules.name_of_file),
    "output_model_format": Unneeded("Adapters are saved as kohya's .safetensors; `darkroom export` writes others."),
    "save_every": rules.after("saving.every", "save_every_unit"),
    "save_every_unit": Unneeded("It belongs to save_every."),
    **dict.fromkeys(("save_skip_first", "save_filename_prefix"), Lacks("Checkpoints are saved from the beginning.")),
    "rolling_backup_count": Unneeded("A run resumes from its checkpoints (saving.keep)."),
    **dict.fromkeys(
        ("backup_*", "rolling_backup", "continue_last_backup"), Unneeded("A run resumes from its checkpoints.")
    ),
    "sample_after": rules.after("preview.every", "sample_after_unit"),
    "sample_after_unit": Unneeded("It belongs to sample_after."),
    "sample_skip_first": Lacks("Previews are drawn from the beginning."),
    "sample_definition_file_name": Unneeded("Its prompts can be set as preview.prompts."),
    **dict.fromkeys(("sample_image_format", "sample_video_format", "sample_audio_format"), PROGRAM),
    **dict.fromkeys(("samples_to_tensorboard", "non_ema_sampling"), PROGRAM),
    "validation": Unneeded("Held-out pictures measure the loss (data.validation_share)."),
    "validate_after*": Unneeded("Held-out pictures measure the loss (data.validation_share)."),
    **dict.fromkeys(("workspace_dir", "cache_dir", "huggingface_cache_dir", "offline_mode", "debug_*"), PROGRAM),
    **dict.fromkeys(("tensorboard*", "prevent_overwrites", "include_train_config", "cloud.*", "secrets*"), PROGRAM),
}


def convert_file(
    content: Mapping[str, Any], place: Path, folders: dict[str, Any], views_per_epoch: int | None
) -> tuple[list[Line], dict[str, Any]]:
    """The lines of a run's file, and what OneTrainer does where it is silent."""
    values = lists.flatten(content)
    theirs = Theirs(values, place, folders=folders)
    theirs = replace(theirs, length=_length(theirs, views_per_epoch))
    found = [lists.line(key, value, theirs) or line_of(key, value, ONETRAINER, theirs) for key, value in values.items()]
    return found, _defaults(theirs)


def _length(theirs: Theirs, views_per_epoch: int | None) -> Length:
    batch = max(int(theirs.count("batch_size")), 1) * max(int(theirs.count("gradient_accumulation_steps")), 1)
    length = Length(views_per_epoch, batch)
    epochs = int(theirs.count("epochs")) or 100
    return replace(length, steps=epochs * (length.steps_per_epoch or 0) or None)


def _defaults(theirs: Theirs) -> dict[str, Any]:
    found: dict[str, Any] = {
        "adapter.rank": 16,
        "adapter.alpha": 1.0,
        "adapter.text_alpha": 1.0,
        "adapter.text_encoder": True,
        "adapter.targets": "full",
        "data.validation_share": 0.0,
        "loss.weighting": "none",
        "memory.checkpointing": True,
        "optimizer.rate": 3e-6,
        "saving.dtype": "fp32",
        "schedule.type": "constant",
        "schedule.warmup": 0.0,
    }
    if theirs.length.steps and theirs.get("learning_rate_warmup_steps") is None:
        found |= rules.warmup(200, theirs)
    if theirs.length.views_per_epoch and theirs.get("epochs") is None:
        found["schedule.views"] = 100 * theirs.length.views_per_epoch
    return found
