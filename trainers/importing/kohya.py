"""What kohya_ss (its window) and sd-scripts (its engine) call a setting, and what it is here.

Names and defaults from kohya_ss (kohya_gui/lora_gui.py) and sd-scripts (library/train_util.py, train_network.py), read
in 2026.
"""

from trainers.importing import kohya_family as families
from trainers.importing import kohya_length as length
from trainers.importing import kohya_rates as rates
from trainers.importing import kohya_rules as rules
from trainers.importing.kohya_network import ARGUMENTS, CHOICE, NETWORK, eight_bits
from trainers.importing.rows import Lacks, Row, Rule, Table, Unneeded, as_in_paper
from trainers.importing.values import number, switch, text, whole

OTHER_FAMILIES = Unneeded("Only for Flux, Lumina, HunyuanImage, Anima or Chroma.")
SD3 = Lacks("This setting of SD3 has no counterpart: model.t5 takes a folder.")
LOGGING = Unneeded("A run's log, losses and pictures lie in its folder.")
UPLOAD = Unneeded("Nothing is uploaded.")
MACHINE = Unneeded("How the machine is used is decided by itself.")
RESUMING = Unneeded("Every run resumes from its own checkpoints.")
TEXT_CACHE = Unneeded("A frozen text encoder's output is always cached.")
CAPTIONS = Lacks("Captions are used as they are written.")
SEVERAL_GPUS = Lacks("A run that is started here has one GPU; `accelerate launch` lets several train it (README).")
METADATA = Lacks("This is not written into the adapter file yet.")

MODEL: Table = {
    "pretrained_model_name_or_path": Rule(rules.base),
    "vae": Rule(rules.vae),
    "v_parameterization": Rule(rules.prediction),
    "clip_skip": Rule(families.clip_skip),
    "zero_terminal_snr": Lacks("Zero terminal SNR is used where the base model says so."),
    "max_token_length": Lacks("Captions are cut after 75 tokens.", (75,)),
    "model_list": Unneeded("pretrained_model_name_or_path names the base model."),
    "tokenizer_cache_dir": Unneeded("Tokenizers come with the base model, or with this program."),
    "no_half_vae": Unneeded("The VAE always computes in fp32."),
    "sdxl_no_half_vae": Unneeded("The VAE always computes in fp32."),
    **dict.fromkeys(("network_weights", "lora_network_weights"), Rule(rules.start)),
    "base_weights": Lacks("Other adapters are not merged into the base beforehand."),
    "base_weights_multiplier": Lacks("Other adapters are not merged into the base beforehand."),
    "dim_from_weights": Lacks("Set adapter.rank to that of the file that a run begins with."),
    "scale_weight_norms": Lacks("The norm of the adapter's weights is not limited."),
    "weighted_captions": Lacks("Brackets in captions are read as text, not as weights."),
    "train_inpainting": Lacks("Inpainting models are not trained."),
}
DATA: Table = {
    "train_data_dir": Rule(rules.pictures),
    "reg_data_dir": Lacks(
        "Regularisation pictures are not read; data.class_words and data.class_pictures serve the same end."
    ),
    "prior_loss_weight": Lacks("It weighs regularisation pictures, which are not read.", (1,)),
    "dataset_repeats": Row("data.repeats", whole),
    "resolution": Rule(rules.resolution),
    "max_resolution": Rule(rules.resolution),
    "enable_bucket": Row("data.bucketing", switch),
    "min_bucket_reso": Row("data.bucket_min", whole),
    "max_bucket_reso": Row("data.bucket_max", whole),
    "bucket_reso_steps": Row("data.bucket_step", whole),
    "bucket_no_upscale": Row("data.no_upscale", switch),
    "resize_interpolation": Lacks("Pictures are resized with Lanczos.", ("lanczos",)),
    "train_batch_size": Row("data.batch_size", whole),
    "flip_aug": Row("data.flip", switch),
    "color_aug": Lacks("The colours of pictures are not changed."),
    "random_crop": Lacks("Pictures are cropped at their centre."),
    "face_crop_aug_range": Lacks("Pictures are cropped at their centre."),
    "shuffle_caption": Row("data.shuffle_tags", switch),
    "keep_tokens": Row("data.keep_tokens", whole),
    "caption_dropout_rate": Row("data.caption_dropout", number),
    "caption_dropout_every_n_epochs": Lacks("Captions are dropped by chance, not by epoch."),
    "caption_tag_dropout_rate": Lacks("Captions are dropped whole, not tag by tag."),
    "caption_extension": Lacks("Captions are read from .txt and .caption files.", (".txt", ".caption")),
    "caption_extention": Lacks("Captions are read from .txt and .caption files.", (".txt", ".caption")),
    "caption_separator": Lacks("Tags are separated by commas.", (",",)),
    **dict.fromkeys(("caption_prefix", "caption_suffix", "keep_tokens_separator", "secondary_separator"), CAPTIONS),
    **dict.fromkeys(("enable_wildcard", "token_warmup_step"), CAPTIONS),
    "token_warmup_min": Lacks(CAPTIONS.reason, (1,)),
    "masked_loss": Lacks("Masks are not supported yet."),
    "alpha_mask": Lacks("Masks are not supported yet."),
    "conditioning_data_dir": Lacks("Masks are not supported yet."),
    "in_json": Lacks("Captions are read beside the pictures, not from a metadata file."),
    "dataset_class": Lacks("There is one kind of data set."),
    "cache_latents": Row("memory.cache_latents", switch),
    "cache_latents_to_disk": Unneeded("Cached latents are always kept on disk."),
    "skip_cache_check": Unneeded("A cache is checked by the pictures' content."),
    "cache_info": Unneeded("Nothing is written into your folders."),
    "vae_batch_size": MACHINE,
    "validation_split": Row("data.validation_share", number),
    "validation_seed": Unneeded("The run's seed chooses the held-out pictures."),
    **dict.fromkeys(
        ("validate_every_n_steps", "validate_every_n_epochs", "max_validation_steps"),
        Unneeded("Held-out pictures are measured at each preview."),
    ),
    "debug_dataset": Unneeded("`darkroom check` shows what was read."),
}
OPTIMISATION: Table = {
    "learning_rate": Rule(rates.rate),
    "unet_lr": Rule(rates.unet_rate),
    "text_encoder_lr": Rule(rates.text_rate),
    "network_train_unet_only": Rule(rates.unet_only),
    "network_train_text_encoder_only": Lacks("The denoiser is always trained."),
    "stop_text_encoder_training": Rule(rates.text_stop),
    "stop_text_encoder_training_pct": Rule(rates.text_stop),
    "optimizer": Rule(rules.optimizer),
    "optimizer_type": Rule(rules.optimizer),
    "use_8bit_adam": Lacks("Choose it with optimizer.type."),
    "use_lion_optimizer": Lacks("Choose it with optimizer.type."),
    "optimizer_args.weight_decay": Row("optimizer.weight_decay", number),
    "optimizer_args.decouple": Lacks("Weight decay is always decoupled.", ("true",)),
    "optimizer_args.use_bias_correction": Lacks("Prodigy always corrects its bias.", ("true",)),
    "optimizer_args.safeguard_warmup": Lacks("Prodigy always guards the warm-up.", ("true",)),
    "optimizer_args.scale_parameter": Lacks("Adafactor works with the rate as given."),
    "optimizer_args.relative_step": Lacks("Adafactor works with the rate as given."),
    "optimizer_args.warmup_init": Lacks("Adafactor works with the rate as given."),
    "optimizer_args.betas": as_in_paper("0.9,0.999 (for Lion 0.9,0.99)", ("0.9,0.999",)),
    "optimizer_args.eps": as_in_paper("1e-8", (1e-8,)),
    "optimizer_args.d0": as_in_paper("1e-6", (1e-6,)),
    "optimizer_args.d_coef": as_in_paper("1", (1,)),
    "optimizer_args.*": Lacks("This cannot be set here: the optimizer's own value is used."),
    "lr_scheduler": Rule(rules.schedule),
    "lr_scheduler_type": Lacks("Schedules of other libraries are not loaded."),
    "lr_scheduler_args.*": Lacks("Schedules have no more settings than cycles and power."),
    "lr_scheduler_num_cycles": Rule(rules.cycles),
    "lr_scheduler_power": Row("schedule.power", number),
    "lr_scheduler_timescale": Lacks("There is no inverse square root schedule."),
    "lr_scheduler_min_lr_ratio": Lacks("Schedules end at zero."),
    "lr_decay_steps": Lacks("There is no warm-up, stable, decay schedule."),
    "lr_warmup": Rule(length.warmup_percent),
    "lr_warmup_steps": Rule(length.warmup_steps),
    "gradient_accumulation_steps": Row("optimizer.accumulation", whole),
    "max_grad_norm": Row("optimizer.clip_norm", number),
    "epoch": Rule(length.epoch),
    "max_train_epochs": Rule(length.max_train_epochs),
    "max_train_steps": Rule(length.max_train_steps),
    "seed": Rule(rules.seed),
}
LOSS_AND_NOISE: Table = {
    "loss_type": Rule(rules.loss),
    "huber_c": Rule(rules.huber_c),
    "huber_schedule": Rule(rules.huber_schedule),
    "huber_scale": Lacks("Only huber_c shapes the Huber loss.", (1,)),
    "min_snr_gamma": Rule(rules.min_snr),
    "debiased_estimation_loss": Rule(rules.debiased),
    "scale_v_pred_loss_like_noise_pred": Lacks("Choose loss.weighting instead."),
    "v_pred_like_loss": Lacks("Choose loss.weighting instead."),
    "noise_offset": Rule(rules.noise_offset),
    "noise_offset_type": Unneeded("It says which of the noise settings count."),
    "noise_offset_random_strength": Lacks("The noise offset has one strength."),
    "adaptive_noise_scale": Lacks("The noise offset has one strength."),
    "multires_noise_iterations": Rule(rules.multires),
    "multires_noise_discount": Unneeded("It belongs to multires_noise_iterations."),
    "ip_noise_gamma": Lacks("The noise that is mixed in is the noise to be found (no input perturbation)."),
    "ip_noise_gamma_random_strength": Unneeded("It belongs to ip_noise_gamma."),
    "min_timestep": Row("noise.timestep_min", whole),
    "max_timestep": Rule(rules.last_timestep),
}
SAVING: Table = {
    "output_name": Row("saving.name", text),
    "output_dir": Unneeded("Every run has a folder of its own."),
    "save_precision": Row(
        "saving.dtype", lambda value: {"float": "fp32", "float32": "fp32"}.get(text(value).lower(), text(value))
    ),
    "save_model_as": Lacks("Adapters are saved as .safetensors.", ("safetensors",)),
    "save_every_n_steps": Rule(length.every_steps("saving.every")),
    "save_every_n_epochs": Rule(length.every_epochs("saving.every", "save_every_n_steps")),
    "save_n_epoch_ratio": Lacks("Set saving.every."),
    **dict.fromkeys(("save_last_n_steps", "save_last_n_epochs"), Lacks("Set saving.keep, a number of checkpoints.")),
    **dict.fromkeys(("save_last_n_steps_state", "save_last_n_epochs_state"), RESUMING),
    **dict.fromkeys(("save_state", "save_state_on_train_end", "resume", "initial_epoch", "initial_step"), RESUMING),
    "skip_until_initial_step": RESUMING,
    "training_comment": Row("saving.comment", text),
    "no_metadata": Lacks("An adapter file always says what it is."),
    **dict.fromkeys(("metadata_title", "metadata_author", "metadata_description", "metadata_license"), METADATA),
    **dict.fromkeys(
        ("metadata_tags", "metadata_usage_hint", "metadata_trigger_phrase", "metadata_thumbnail"), METADATA
    ),
    **dict.fromkeys(("metadata_merged_from", "metadata_preprocessor", "metadata_is_negative_embedding"), METADATA),
}
PREVIEWS: Table = {
    "sample_prompts": Rule(rules.sample_prompts),
    "sample_every_n_steps": Rule(length.every_steps("preview.every")),
    "sample_every_n_epochs": Rule(length.every_epochs("preview.every", "sample_every_n_steps")),
    "sample_sampler": Lacks("Previews are drawn with DDIM.", ("ddim",)),
    "sample_at_first": Lacks("Previews begin after the first interval."),
}
MEMORY: Table = {
    "mixed_precision": Rule(rules.precision),
    "full_fp16": Lacks("Adapter weights stay fp32."),
    "full_bf16": Lacks("Adapter weights stay fp32."),
    **dict.fromkeys(("fp8_base", "fp8_base_unet"), Rule(eight_bits)),
    "gradient_checkpointing": Row("memory.checkpointing", switch),
    "xformers": Rule(rules.attention),
    "sdpa": Unneeded("SDPA is used unless xformers is chosen."),
    "mem_eff_attn": Lacks("Attention runs on SDPA or xformers."),
    "cpu_offload_checkpointing": Row("memory.offload", switch),
    "blocks_to_swap": Rule(rules.swapped),
    **dict.fromkeys(("lowram", "highvram", "lowvram", "max_data_loader_n_workers"), MACHINE),
    **dict.fromkeys(("persistent_data_loader_workers", "num_cpu_threads_per_process", "num_processes"), MACHINE),
    **dict.fromkeys(("num_machines", "gpu_ids", "main_process_port", "disable_mmap_load_safetensors"), MACHINE),
    **dict.fromkeys(("mem_eff_save", "ddp_timeout", "ddp_gradient_as_bucket_view", "ddp_static_graph"), MACHINE),
    "extra_accelerate_launch_args": MACHINE,
    "multi_gpu": SEVERAL_GPUS,
    "deepspeed": Lacks("DeepSpeed is not used."),
    "torch_compile": Lacks("Whether it pays is tried anew: memory.compile."),
    "dynamo_*": Unneeded("memory.compile chooses them."),
    "fused_backward_pass": Lacks("Gradients are applied after the whole backward pass."),
    "additional_parameters": Lacks("These command-line arguments are not read."),
}
PROGRAM: Table = {
    "dataset_config": Rule(rules.data_set),
    **dict.fromkeys(("network_args", "optimizer_args", "lr_scheduler_args"), Lacks("It is no list of name=value.")),
    **dict.fromkeys(("logging_dir", "log_with", "log_prefix", "log_config", "use_wandb", "wandb_run_name"), LOGGING),
    **dict.fromkeys(("log_tracker_name", "log_tracker_config"), LOGGING),
    "huggingface_*": UPLOAD,
    **dict.fromkeys(("save_state_to_huggingface", "async_upload", "resume_from_huggingface"), UPLOAD),
    **dict.fromkeys(
        ("config_file", "output_config", "save_as_bool"), Unneeded("It belongs to the file, not to the run.")
    ),
    **dict.fromkeys(("cache_text_encoder_outputs", "cache_text_encoder_outputs_to_disk"), TEXT_CACHE),
    **dict.fromkeys(("sdxl_cache_text_encoder_outputs", "sd3_cache_text_encoder_outputs"), TEXT_CACHE),
    "sd3_cache_text_encoder_outputs_to_disk": TEXT_CACHE,
    "no_token_padding": Lacks("Captions are padded, as the base model was trained."),
}
FOR_SD3: Table = {
    **dict.fromkeys(("clip_l", "sd3_clip_l"), rules.clip("model.clip_l")),
    "clip_g": rules.clip("model.clip_g"),
    **dict.fromkeys(("sd3_t5xxl", "save_clip", "save_t5xxl"), SD3),
    **dict.fromkeys(("clip_l_dropout_rate", "clip_g_dropout_rate", "t5_dropout_rate", "sd3_clip_l_dropout_rate"), SD3),
    **dict.fromkeys(("sd3_t5_dropout_rate", "pos_emb_random_crop_rate", "sd3_enable_scaled_pos_embed"), SD3),
    **dict.fromkeys(("enable_scaled_pos_embed", "apply_lg_attn_mask", "sd3_fused_backward_pass"), SD3),
    "sd3_disable_mmap_load_safetensors": MACHINE,
    "weighting_scheme": rules.only_sd3(rules.density),
    "logit_mean": rules.only_sd3(lambda value: {"noise.logit_mean": number(value)}),
    "logit_std": rules.only_sd3(lambda value: {"noise.logit_std": number(value)}),
    "mode_scale": Unneeded("It belongs to the weighting scheme mode."),
    "training_shift": rules.only_sd3(lambda value: {"noise.shift": number(value)}),
    "t5xxl_dtype": Unneeded("It belongs to SD3's third text encoder."),
    "t5xxl_device": Unneeded("It belongs to SD3's third text encoder."),
    "sd3_text_encoder_batch_size": MACHINE,
    "text_encoder_batch_size": MACHINE,
}
FOR_OTHERS: Table = {
    **dict.fromkeys(("ae", "t5xxl", "t5xxl_lr", "t5xxl_max_token_length", "model_type"), OTHER_FAMILIES),
    **dict.fromkeys(
        ("discrete_flow_shift", "model_prediction_type", "timestep_sampling", "split_mode"), OTHER_FAMILIES
    ),
    **dict.fromkeys(("train_blocks", "enable_all_linear", "guidance_scale", "apply_t5_attn_mask"), OTHER_FAMILIES),
    **dict.fromkeys(("split_qkv", "train_t5xxl", "single_blocks_to_swap", "double_blocks_to_swap"), OTHER_FAMILIES),
    **dict.fromkeys(("show_timesteps", "show_timesteps_resolution", "in_dims", "sigmoid_scale"), OTHER_FAMILIES),
    **dict.fromkeys(("img_attn_dim", "img_mlp_dim", "img_mod_dim", "single_dim", "txt_attn_dim"), OTHER_FAMILIES),
    **dict.fromkeys(("txt_mlp_dim", "txt_mod_dim", "single_mod_dim"), OTHER_FAMILIES),
    **dict.fromkeys(("train_double_block_indices", "train_single_block_indices"), OTHER_FAMILIES),
    **dict.fromkeys(("flux1_*", "hunyuan_*", "anima_*", "lumina_*"), OTHER_FAMILIES),
}
KOHYA: Table = {
    **CHOICE,
    **NETWORK,
    **ARGUMENTS,
    **MODEL,
    **DATA,
    **OPTIMISATION,
    **LOSS_AND_NOISE,
    **SAVING,
    **PREVIEWS,
    **MEMORY,
    **PROGRAM,
    **FOR_SD3,
    **FOR_OTHERS,
}
