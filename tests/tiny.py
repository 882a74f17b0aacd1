"""Tiny random Stable Diffusion models for tests, and full-size ones with random weights, in both layouts.

The folders are written by diffusers and transformers themselves, so that they are what a stranger's folder is.
"""

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from trainers.families import ldm
from trainers.families.loading import CONFIGS
from trainers.families.sd15 import SD15

START, END = "<|startoftext|>", "<|endoftext|>"
WORDS = ("a", "of", "cat", "dog", "photo", "style", "red", "ball")


def tiny_pipeline_folder(
    path: Path,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    levels: int = 2,
    layers: int = 1,
    width: int = 16,
    text_layers: int = 2,
    sample_size: int = 8,
    prediction_type: str | None = "epsilon",
    variant: str | None = None,
    safe: bool = True,
) -> Path:
    """Write a Stable Diffusion 1.x diffusers folder of under 1 MB with random weights, and return `path`.

    Pictures are 2 * sample_size pixels square, latents [4, sample_size, sample_size], captions 24 tokens.
    """
    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer()
    unet = tiny_unet(levels=levels, layers=layers, width=width, sample_size=sample_size)
    vae = tiny_vae(sample_size=sample_size, layers=layers)
    text = tiny_text_encoder(len(tokenizer), width=width, layers=text_layers)
    how = {"variant": variant, "safe_serialization": safe}
    nn.Module.to(unet, dtype).save_pretrained(path / "unet", **how)
    nn.Module.to(vae, dtype).save_pretrained(path / "vae", **how)
    if safe:
        text.to(dtype).save_pretrained(path / "text_encoder", variant=variant)
    else:  # transformers 5 writes safetensors only
        text.config.save_pretrained(path / "text_encoder")
        name = "pytorch_model.bin" if variant is None else f"pytorch_model.{variant}.bin"
        torch.save(text.to(dtype).state_dict(), path / "text_encoder" / name)
    tokenizer.save_pretrained(path / "tokenizer")
    scheduler = json.loads((CONFIGS / "sd15" / "scheduler" / "scheduler_config.json").read_text("utf-8"))
    scheduler.pop("prediction_type")
    if prediction_type:
        scheduler["prediction_type"] = prediction_type
    write_json(path / "scheduler" / "scheduler_config.json", scheduler)
    shutil.copy(CONFIGS / "sd15" / "model_index.json", path / "model_index.json")
    return path


def tiny_unet(levels: int = 2, layers: int = 1, width: int = 16, sample_size: int = 8) -> UNet2DConditionModel:
    """As in SD 1.5, the innermost level is without attention."""
    return UNet2DConditionModel(
        sample_size=sample_size,
        layers_per_block=layers,
        block_out_channels=tuple(width * 2 ** min(i, 1) for i in range(levels)),
        down_block_types=("CrossAttnDownBlock2D",) * (levels - 1) + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (levels - 1),
        cross_attention_dim=width,
        attention_head_dim=2,
        norm_num_groups=8,
    )


def tiny_vae(sample_size: int = 8, layers: int = 1) -> AutoencoderKL:
    """Pictures are halved once."""
    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=layers,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=2 * sample_size,
    )


def tiny_text_encoder(vocabulary: int, width: int = 16, layers: int = 2) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=layers,
            num_attention_heads=2,
            max_position_embeddings=24,
            projection_dim=width,
            hidden_act="quick_gelu",
            bos_token_id=vocabulary - 2,
            eos_token_id=vocabulary - 1,
            pad_token_id=vocabulary - 1,
        )
    )


def tiny_tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer that knows a few words whole and spells all others in letters."""
    vocab = json.loads((CONFIGS / "clip_tokenizer" / "vocab.json").read_text("utf-8"))
    tokens = sorted(vocab, key=vocab.__getitem__)[:512]  # the byte letters, inside and at the end of a word
    merges = []
    for word in WORDS:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        while len(pieces) > 1:
            pair = (pieces[0], pieces[1])
            merges += [pair] if pair not in merges else []
            pieces = ["".join(pair), *pieces[2:]]
    tokens += dict.fromkeys("".join(pair) for pair in merges)
    numbers = {token: i for i, token in enumerate([*tokens, START, END])}
    return CLIPTokenizer(vocab=numbers, merges=merges, model_max_length=24)


def ldm_state_dict(unet: nn.Module, vae: nn.Module, text_encoder: nn.Module, extras: bool = True) -> dict[str, Tensor]:
    """The tensors of three diffusers modules under the names, and in the shapes, of an original checkpoint.

    `extras` adds what real checkpoints also hold and no module uses: the beta table, EMA copies, position numbers.
    """
    tensors = {ldm.unet_names(unet.config)(name)[0]: t for name, t in unet.state_dict().items()}
    for name, tensor in vae.state_dict().items():
        target = ldm.vae_names(vae.config)(name)[0]
        convolution = ".attn_1." in target and tensor.ndim == 2  # LDM has 1x1 convolutions there
        tensors[target] = tensor[..., None, None] if convolution else tensor
    tensors |= {ldm.text_names()(name)[0]: t for name, t in text_encoder.state_dict().items()}
    if extras:
        length = text_encoder.config.max_position_embeddings
        tensors |= {
            "betas": torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2,
            "model_ema.decay": torch.tensor(0.9999),
            f"{ldm.TEXT_PREFIX}text_model.embeddings.position_ids": torch.arange(length)[None],
        }
    return tensors


def write_ldm_file(folder: Path, file: Path, *, metadata: dict[str, str] | None = None, **more: Tensor) -> Path:
    """Turn a diffusers folder into one checkpoint file (.safetensors, or a pickle for any other ending)."""
    tensors = ldm_state_dict(
        UNet2DConditionModel.from_pretrained(folder / "unet"),
        AutoencoderKL.from_pretrained(folder / "vae"),
        CLIPTextModel.from_pretrained(folder / "text_encoder"),
    )
    tensors |= more
    if file.suffix == ".safetensors":
        save_file({name: t.contiguous() for name, t in tensors.items()}, file, metadata)
    else:
        torch.save({"state_dict": tensors, "global_step": 1}, file)
    return file


def write_full_size_sd15(path: Path, layout: str = "ldm", dtype: torch.dtype = torch.float16) -> Path:
    """SD 1.5 with random weights (2.1 GB in fp16): one .safetensors file ("ldm") or a folder ("diffusers")."""
    parts = SD15.random(dtype)
    unet, vae, text = parts.denoiser, nn.Module.to(parts.vae, dtype), parts.text_encoders[0]
    if layout == "ldm":
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: t.contiguous() for name, t in ldm_state_dict(unet, vae, text).items()}, path, {"format": "pt"})
        return path
    for name, module in (("unet", unet), ("vae", vae), ("text_encoder", text)):
        module.save_pretrained(path / name)
    shutil.copytree(CONFIGS / "clip_tokenizer", path / "tokenizer", dirs_exist_ok=True)
    shutil.copytree(CONFIGS / "sd15" / "scheduler", path / "scheduler", dirs_exist_ok=True)
    shutil.copy(CONFIGS / "sd15" / "model_index.json", path / "model_index.json")
    return path


def write_json(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
