"""Metadata of an adapter file: kohya's ss_*, ModelSpec 1.0.1, and our own config. The hashes are in hashes.py."""

import json
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from trainers.config import MODEL_FILES, DataConfig, TrainConfig
from trainers.export.embedding import NEEDS, TITLE, file_name, usage
from trainers.export.hashes import base_hashes
from trainers.export.network import network
from trainers.families.base import FamilySpec, of_kind

# What "no_captions" leaves out: words from captions, names of folders, remarks.
WORDS = ("ss_tag_frequency", "ss_dataset_dirs", "ss_reg_dataset_dirs", "ss_training_comment", "modelspec.description")


@dataclass(frozen=True)
class RunFacts:
    """What really happened, as far as a file should tell it."""

    steps: int  # done
    total_steps: int  # planned
    epochs: int
    pictures: int  # trained on in an epoch, repeats counted
    held_out: int
    batches_per_epoch: int
    resolution: tuple[int, int]  # width, height of the training resolution
    buckets: dict[tuple[int, int], int]  # size -> pictures, repeats counted
    bucket_sides: tuple[int, int]  # smallest, largest
    captions: dict[str, list[str]]  # folder name -> captions
    folder_repeats: dict[str, int]
    base_name: str
    base_path: Path | None
    prediction: str  # epsilon, v or flow
    zero_terminal_snr: bool
    started: float  # unix seconds
    finished: float
    session: str
    device_precision: str
    optimizer: str  # module.Class(key=value)
    total_epochs: int | None = None  # planned; None: as many as were done
    aspect_error: float | None = None  # mean difference of aspect ratio between pictures and their buckets
    variant: str = ""  # of the base's family
    vae_path: Path | None = None  # a VAE file in place of the base's own
    hash_cache: Path | None = None  # a file that remembers hashes of bases


def metadata(config: TrainConfig, facts: RunFacts, spec: FamilySpec, name: str) -> dict[str, str]:
    """Every entry a string, nested values as JSON, unset ones as "None". No path of this machine is in it.

    `name` is the file's, without ending: A1111 and Forge use it as the adapter's alias.
    """
    beside = {NEEDS: file_name(config, name)} if config.adapter.new_tokens else {}
    if config.saving.privacy == "minimal":
        return {key: _text(value) for key, value in (_needed(config, facts, spec, name) | beside).items()}
    kohya = (
        _needed(config, facts, spec, name)
        | _run(config, facts, spec, name)
        | _dataset(config.data, facts)
        | _optimisation(config, facts)
    )
    entries = kohya | _modelspec(config, facts, spec, name) | beside
    entries["lora_darkroom.version"] = own_version()
    entries["lora_darkroom.config"] = public_config(config, facts).model_dump_json()
    hidden = WORDS if config.saving.privacy == "no_captions" else ()
    return {key: _text(value) for key, value in entries.items() if key not in hidden}


def embedding_metadata(config: TrainConfig, facts: RunFacts, spec: FamilySpec, stem: str) -> dict[str, str]:
    """The same of the embedding file beside the adapter file `stem`: whose word, of which base, run and step."""
    word = config.data.trigger.strip()
    needed = _needed(config, facts, spec, word)
    entries = {key: value for key, value in needed.items() if not key.startswith("ss_network_")}  # it is no adapter
    base = of_kind(spec.architectures, facts.variant, facts.prediction)
    entries |= {TITLE: word, "modelspec.architecture": f"{base}/textual-inversion"}
    if config.saving.privacy != "minimal":
        entries |= {
            "ss_sd_model_name": facts.base_name,
            "ss_session_id": facts.session,
            "ss_steps": facts.steps,
            "modelspec.trigger_phrase": word,
            "modelspec.usage_hint": _usage_hint(config, stem),
            "modelspec.date": _date(facts),
            "lora_darkroom.version": own_version(),
        }
    return {key: _text(value) for key, value in entries.items()}


def _needed(config: TrainConfig, facts: RunFacts, spec: FamilySpec, name: str) -> dict[str, object]:
    """What programs need to file and load the adapter: ModelSpec's required entries, and the family for A1111."""
    return {
        "ss_base_model_version": of_kind(spec.base_versions, facts.variant, facts.prediction),
        "ss_v2": spec.name == "sd2",
        **network(config.adapter, config.optimizer, spec.joint),
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{of_kind(spec.architectures, facts.variant, facts.prediction)}/lora",
        "modelspec.implementation": spec.implementation,
        "modelspec.title": name,
        "modelspec.resolution": f"{facts.resolution[0]}x{facts.resolution[1]}",
    }


def public_config(config: TrainConfig, facts: RunFacts) -> TrainConfig:
    """The settings without paths: names of base and VAE, no folders."""
    files = {name: Path(getattr(config.model, name)).name for name in MODEL_FILES}
    changed: dict[str, Any] = {
        "adapter": config.adapter.model_copy(update={"init_from": Path(config.adapter.init_from).name}),
        "data": config.data.model_copy(update={"folders": (), "folder_names": (), "leave_out": ()}),
        "model": config.model.model_copy(update={"base": facts.base_name, **files}),
    }
    if config.saving.privacy != "full":
        changed["data"] = changed["data"].model_copy(update={"class_words": ()})
        changed["preview"] = config.preview.model_copy(update={"prompts": (), "negative": ""})
        changed["saving"] = config.saving.model_copy(update={"comment": ""})
    return config.model_copy(update=changed)


def _run(config: TrainConfig, facts: RunFacts, spec: FamilySpec, name: str) -> dict[str, object]:
    """kohya's entries on the network, the base and the run."""
    base, vae = (base_hashes(path, facts.hash_cache) for path in (facts.base_path, facts.vae_path))
    return {
        "ss_output_name": name,
        "ss_session_id": facts.session,
        "ss_training_comment": config.saving.comment or None,
        "ss_training_started_at": facts.started,
        "ss_training_finished_at": facts.finished,
        "ss_epoch": facts.epochs,
        "ss_num_epochs": facts.total_epochs or facts.epochs,
        "ss_steps": facts.steps,
        "ss_max_train_steps": facts.total_steps,
        "ss_seed": config.seed,
        "ss_sd_model_name": facts.base_name,
        "ss_sd_model_hash": base[0],
        "ss_new_sd_model_hash": base[1],
        "ss_vae_name": Path(config.model.vae).name or None,
        "ss_vae_hash": vae[0],
        "ss_new_vae_hash": vae[1],
        "ss_clip_skip": config.model.clip_skip if config.model.clip_skip > 1 else None,
    }


def _dataset(data: DataConfig, facts: RunFacts) -> dict[str, object]:
    """kohya's entries on pictures and captions."""
    frequency = {folder: dict(_tags(captions)) for folder, captions in facts.captions.items()}
    folders = {
        folder: {"n_repeats": facts.folder_repeats[folder], "img_count": len(captions)}
        for folder, captions in facts.captions.items()
    }
    buckets = {
        str(i): {"resolution": list(size), "count": count}
        for i, (size, count) in enumerate(sorted(facts.buckets.items()))
    }
    bucket_info = {"buckets": buckets, "mean_img_ar_error": facts.aspect_error} if data.bucketing else None
    return {
        "ss_num_train_images": facts.pictures,
        "ss_num_validation_images": facts.held_out,
        "ss_num_reg_images": data.class_pictures,
        "ss_num_batches_per_epoch": facts.batches_per_epoch,
        "ss_dataset_dirs": folders,
        "ss_reg_dataset_dirs": {},
        "ss_tag_frequency": frequency,
        "ss_bucket_info": bucket_info,
        "ss_resolution": str(facts.resolution),
        "ss_enable_bucket": data.bucketing,
        "ss_bucket_no_upscale": data.no_upscale,
        "ss_min_bucket_reso": facts.bucket_sides[0],
        "ss_max_bucket_reso": facts.bucket_sides[1],
        "ss_shuffle_caption": data.shuffle_tags,
        "ss_keep_tokens": data.keep_tokens,
        "ss_caption_dropout_rate": data.caption_dropout,
        "ss_caption_dropout_every_n_epochs": 0,
        "ss_caption_tag_dropout_rate": 0.0,
        "ss_max_token_length": None,
        "ss_flip_aug": data.flip,
        "ss_color_aug": False,
        "ss_random_crop": False,
        "ss_face_crop_aug_range": None,
        "ss_resize_interpolation": None,
    }


def _optimisation(config: TrainConfig, facts: RunFacts) -> dict[str, object]:
    """kohya's entries on optimizer, schedule, precision, loss and noise."""
    data, optimizer = config.data, config.optimizer
    text_rate = optimizer.text_encoder_rate if config.adapter.text_encoder else None
    if text_rate and optimizer.text_rates:
        text_rate = [optimizer.rate_of_text(i) for i in range(len(optimizer.text_rates))]
    huber = config.loss.type in ("huber", "smooth_l1")
    return {
        "ss_learning_rate": optimizer.rate,
        "ss_unet_lr": optimizer.rate,
        "ss_text_encoder_lr": text_rate,
        "ss_optimizer": facts.optimizer,
        "ss_lr_scheduler": config.schedule.type,
        "ss_lr_warmup_steps": round(config.schedule.warmup * facts.total_steps),
        "ss_max_grad_norm": optimizer.clip_norm,
        "ss_batch_size_per_device": data.batch_size,
        "ss_total_batch_size": data.batch_size * optimizer.accumulation,
        "ss_gradient_accumulation_steps": optimizer.accumulation,
        "ss_gradient_checkpointing": config.memory.checkpointing == "all",
        "ss_mixed_precision": {"fp32": "no"}.get(facts.device_precision, facts.device_precision),
        "ss_full_fp16": False,
        "ss_fp8_base": False,
        "ss_cache_latents": config.memory.cache_latents,
        "ss_lowram": False,
        "ss_scale_weight_norms": None,
        "ss_loss_type": config.loss.type,
        "ss_huber_schedule": "constant" if huber else None,
        "ss_huber_c": config.loss.huber_c if huber else None,
        "ss_huber_scale": 1.0 if huber else None,
        "ss_min_snr_gamma": config.loss.snr_gamma if config.loss.weighting == "min_snr" else None,
        "ss_debiased_estimation": config.loss.weighting == "debiased",
        "ss_noise_offset": config.noise.offset or None,
        "ss_adaptive_noise_scale": None,
        "ss_multires_noise_iterations": None,
        "ss_multires_noise_discount": None,
        "ss_ip_noise_gamma": None,
        "ss_zero_terminal_snr": facts.zero_terminal_snr,
        "ss_prior_loss_weight": config.loss.preservation if data.class_pictures else 1.0,
    }


def _modelspec(config: TrainConfig, facts: RunFacts, spec: FamilySpec, name: str) -> dict[str, object]:
    return {
        "modelspec.trigger_phrase": config.data.trigger or None,
        "modelspec.usage_hint": _usage_hint(config, name),
        "modelspec.tags": config.data.kind,
        "modelspec.encoder_layer": str(config.model.clip_skip),
        "modelspec.timestep_range": f"{config.noise.timestep_min},{config.noise.timestep_max}",
        "modelspec.date": _date(facts),
        "modelspec.prediction_type": facts.prediction,
        "modelspec.description": description(config),
    }


def _usage_hint(config: TrainConfig, stem: str) -> str | None:
    word = config.data.trigger
    if not config.adapter.new_tokens:
        return f"Write {word} in the prompt." if word else None
    name = file_name(config, stem)
    return f"Write {word.strip()} in the prompt. It needs the embedding file {name}: {usage(name)}"


def _date(facts: RunFacts) -> str:
    return datetime.fromtimestamp(facts.finished, UTC).isoformat(timespec="seconds")


def description(config: TrainConfig) -> str:
    """The user's comment, else one sentence."""
    article = "an" if config.data.kind[0] in "aeiou" else "a"
    return config.saving.comment or f"LoRA of {article} {config.data.kind}, trained with LoRA Darkroom."


def _tags(captions: list[str]) -> Counter[str]:
    return Counter(tag.strip() for caption in captions for tag in caption.split(",") if tag.strip())


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)


def own_version() -> str:
    """Of Darkroom, as its files say."""
    try:
        return version("lora-darkroom")
    except PackageNotFoundError:  # run from a checkout
        return "unknown"
