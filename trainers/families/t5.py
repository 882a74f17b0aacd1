"""T5 for Stable Diffusion 3: an optional third text encoder, never trained, from a folder or the hub."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoTokenizer, T5Config, T5EncoderModel

from trainers.errors import UserError
from trainers.families.folders import read_json, weight_files
from trainers.families.ldm import same_names
from trainers.families.locate import find_here, part_files, snapshot
from trainers.families.weights import Weights, prepare

TOKENS = 256  # the length that diffusers gives T5, also when it is left out


def load(place: str, width: int, dtype: torch.dtype) -> tuple[nn.Module, Any]:
    """The encoder, away, in `dtype`, in fp32 for fp16 where it overflows, and its tokenizer.

    `width` is what the transformer reads.
    `place` is a folder or a hub id: a T5 encoder with its tokenizer, or a Stable Diffusion 3 folder that has both.

    Raises:
        UserError: there is none, it is damaged, or it has another width.
    """
    folder = find_here(place, "model.t5 takes a folder with a T5 encoder and its tokenizer, or a hub id.", "T5")
    folder = folder or snapshot(place, _wanted, lambda found: weight_files(_inside(found)))
    inside = _inside(folder)
    config = read_json(inside / "config.json")
    if config.get("model_type") != "t5" or config.get("d_model") != width:
        raise UserError(
            f"{place} holds no T5 of width {width}, which this base reads.",
            "Set model.t5 to a T5-XXL encoder (t5-v1_1-xxl), or leave it empty.",
        )
    dtype = torch.float32 if dtype == torch.float16 else dtype
    encoder = prepare(
        lambda: T5EncoderModel(T5Config.from_dict(config)), Weights(weight_files(inside)), _names, dtype, "T5 encoder"
    )
    return encoder, _tokenizer(folder / "tokenizer_3" if (folder / "tokenizer_3").is_dir() else inside)


def _inside(folder: Path) -> Path:
    return folder / "text_encoder_3" if (folder / "text_encoder_3").is_dir() else folder


def _wanted(names: list[str]) -> list[str]:
    """The files of a hub repository that hold a T5: of a Stable Diffusion 3 model, or of T5 alone."""
    if any(name.startswith("text_encoder_3/") for name in names):
        return [*part_files(names, "text_encoder_3/"), *(n for n in names if n.startswith("tokenizer_3/"))]
    around = [name for name in names if "/" not in name and name.endswith((".json", ".model"))]
    return [*part_files([name for name in names if "/" not in name], ""), *around]


def _names(name: str) -> tuple[str, ...]:
    """The embedding has two names in the module, and one on disk."""
    tied = ("shared.weight", "encoder.embed_tokens.weight")
    return tied if name in tied else same_names(name)


def _tokenizer(folder: Path) -> Any:
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, ImportError) as error:
        message = f"The tokenizer of T5 in {folder} cannot be read ({type(error).__name__})."
        raise UserError(message, "It needs a tokenizer.json; download the folder again, whole.") from error
    tokenizer.model_max_length = TOKENS
    return tokenizer
