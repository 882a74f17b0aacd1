"""Metadata of an adapter file: kohya's ss_*, the sshs_* hashes, ModelSpec 1.0.1, and our own config."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from trainers.config import TrainConfig
from trainers.families.base import FamilySpec


@dataclass(frozen=True)
class RunFacts:
    """What really happened, as far as a file should tell it."""

    steps: int  # done
    total_steps: int  # planned
    epochs: int
    pictures: int  # trained on
    held_out: int
    batches_per_epoch: int
    resolution: tuple[int, int]  # width, height of the training resolution
    buckets: dict[tuple[int, int], int]  # size -> pictures
    captions: dict[str, list[str]]  # folder name -> captions
    folder_repeats: dict[str, int]
    base_name: str
    base_path: Path | None
    prediction: str  # epsilon or v
    started: float  # unix seconds
    finished: float
    session: str
    device_precision: str


def metadata(
    config: TrainConfig, facts: RunFacts, spec: FamilySpec, tensors: dict[str, Tensor], name: str
) -> dict[str, str]:
    """Every entry a string, nested values as JSON, unset ones as "None"; hashes computed from `tensors`."""
    entries = _kohya(config, facts, spec, name)
    entries = {key: _text(value) for key, value in entries.items()}
    ss_only = dict(entries)
    entries |= {key: _text(value) for key, value in _modelspec(config, facts, spec, name).items()}
    public = config.model_copy(update={"data": config.data.model_copy(update={"folders": ()})})
    public = public.model_copy(update={"model": public.model.model_copy(update={"base": facts.base_name, "vae": ""})})
    entries["lora_darkroom.version"] = "0.1.0"
    entries["lora_darkroom.config"] = public.model_dump_json()
    body = tensor_bytes(save(tensors))
    entries["sshs_model_hash"] = hashlib.sha256(body).hexdigest()
    entries["sshs_legacy_hash"] = hashlib.sha256(save(tensors, ss_only)[0x100000:0x110000]).hexdigest()[:8]
    entries["modelspec.hash_sha256"] = "0x" + entries["sshs_model_hash"]
    return entries


def tensor_bytes(file: bytes) -> bytes:
    """All after the header of a safetensors file: what sshs_model_hash covers."""
    return file[8 + int.from_bytes(file[:8], "little") :]


def _kohya(config: TrainConfig, facts: RunFacts, spec: FamilySpec, name: str) -> dict[str, object]:
    data, optimizer = config.data, config.optimizer
    rank, alpha = config.adapter.rank, config.adapter.alpha or config.adapter.rank
    text_rate = (optimizer.text_rate or optimizer.rate / 10) if config.adapter.text_encoder else None
    v = facts.prediction == "v"
    network_args = {"conv_dim": str(rank), "conv_alpha": str(alpha)} if config.adapter.targets == "full" else {}
    frequency = {folder: dict(_tags(captions)) for folder, captions in facts.captions.items()}
    folders = {
        folder: {"n_repeats": facts.folder_repeats[folder], "img_count": len(captions)}
        for folder, captions in facts.captions.items()
    }
    buckets = {
        str(i): {"resolution": list(size), "count": count}
        for i, (size, count) in enumerate(sorted(facts.buckets.items()))
    }
    hashes = base_hashes(facts.base_path)
    return {
        "ss_base_model_version": spec.base_version + ("_v" if v else ""),
        "ss_v2": False,
        "ss_network_module": "networks.lora",
        "ss_network_dim": rank,
        "ss_network_alpha": alpha,
        "ss_network_args": network_args,
        "ss_network_dropout": config.adapter.dropout or None,
        "ss_output_name": name,
        "ss_session_id": facts.session,
        "ss_training_comment": config.saving.comment or None,
        "ss_training_started_at": facts.started,
        "ss_training_finished_at": facts.finished,
        "ss_epoch": facts.epochs,
        "ss_num_epochs": facts.epochs,
        "ss_steps": facts.steps,
        "ss_max_train_steps": facts.total_steps,
        "ss_seed": config.seed,
        "ss_sd_model_name": facts.base_name,
        "ss_sd_model_hash": hashes[0],
        "ss_new_sd_model_hash": hashes[1],
        "ss_vae_name": Path(config.model.vae).name or None,
        "ss_clip_skip": config.model.clip_skip if config.model.clip_skip > 1 else None,
        "ss_num_train_images": facts.pictures,
        "ss_num_validation_images": facts.held_out,
        "ss_num_reg_images": 0,
        "ss_num_batches_per_epoch": facts.batches_per_epoch,
        "ss_dataset_dirs": folders,
        "ss_reg_dataset_dirs": {},
        "ss_tag_frequency": frequency,
        "ss_bucket_info": {"buckets": buckets},
        "ss_resolution": str(facts.resolution),
        "ss_enable_bucket": data.bucketing,
        "ss_bucket_no_upscale": data.no_upscale,
        "ss_min_bucket_reso": data.bucket_min,
        "ss_max_bucket_reso": data.bucket_max,
        "ss_shuffle_caption": data.shuffle_tags,
        "ss_keep_tokens": data.keep_tokens,
        "ss_caption_dropout_rate": data.caption_dropout,
        "ss_flip_aug": data.flip,
        "ss_color_aug": False,
        "ss_random_crop": False,
        "ss_learning_rate": optimizer.rate,
        "ss_unet_lr": optimizer.rate,
        "ss_text_encoder_lr": text_rate,
        "ss_optimizer": f"{optimizer.type}(weight_decay={optimizer.weight_decay})",
        "ss_lr_scheduler": config.schedule.type,
        "ss_lr_warmup_steps": round(config.schedule.warmup * facts.total_steps),
        "ss_max_grad_norm": optimizer.clip_norm,
        "ss_batch_size_per_device": data.batch_size,
        "ss_total_batch_size": data.batch_size * optimizer.accumulation,
        "ss_gradient_accumulation_steps": optimizer.accumulation,
        "ss_gradient_checkpointing": config.memory.checkpointing,
        "ss_mixed_precision": {"fp32": "no"}.get(facts.device_precision, facts.device_precision),
        "ss_cache_latents": True,
        "ss_loss_type": config.loss.type,
        "ss_huber_c": config.loss.huber_c if config.loss.type in ("huber", "smooth_l1") else None,
        "ss_min_snr_gamma": config.loss.snr_gamma if config.loss.weighting == "min_snr" else None,
        "ss_debiased_estimation": config.loss.weighting == "debiased",
        "ss_noise_offset": config.noise.offset or None,
        "ss_zero_terminal_snr": False,
        "ss_prior_loss_weight": 1.0,
    }


def _modelspec(config: TrainConfig, facts: RunFacts, spec: FamilySpec, name: str) -> dict[str, object]:
    return {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{spec.architecture}/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.title": name,
        "modelspec.resolution": f"{facts.resolution[0]}x{facts.resolution[1]}",
        "modelspec.trigger_phrase": config.data.trigger,
        "modelspec.date": datetime.fromtimestamp(facts.finished, UTC).isoformat(timespec="seconds"),
        "modelspec.prediction_type": facts.prediction,
        "modelspec.description": config.saving.comment or f"LoRA of a {config.data.kind}, trained with LoRA Darkroom.",
    }


def _tags(captions: list[str]) -> Counter[str]:
    return Counter(tag.strip() for caption in captions for tag in caption.split(",") if tag.strip())


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)


def base_hashes(path: Path | None) -> tuple[str | None, str | None]:
    """kohya's legacy (8 hex) and full sha256 of a single-file base; None for a folder."""
    if path is None or not path.is_file():
        return None, None
    whole = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            whole.update(block)
        file.seek(0x100000)
        legacy = hashlib.sha256(file.read(0x10000)).hexdigest()[:8]
    return legacy, whole.hexdigest()
