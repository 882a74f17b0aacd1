"""Diffusers folders: which pipeline one holds, whether it is whole, and which files hold its weights. No torch."""

import re
from dataclasses import dataclass
from pathlib import Path

from trainers import json_values
from trainers.errors import UserError
from trainers.families.headers import check_pickle, read_header

PIPELINES = {
    "StableDiffusionPipeline": "sd15",  # or sd2, told apart below
    "StableDiffusionImg2ImgPipeline": "sd15",
    "StableDiffusionXLPipeline": "sdxl",
    "StableDiffusionXLImg2ImgPipeline": "sdxl",
    "StableDiffusion3Pipeline": "sd3",
    "FluxPipeline": "flux",
}
MODELS = {
    "UNet2DConditionModel": "UNet",
    "AutoencoderKL": "VAE",
    "CLIPTextModel": "text encoder",
    "ControlNetModel": "ControlNet",
    "SD3Transformer2DModel": "transformer",
    "FluxTransformer2DModel": "transformer",
}
WEIGHT_PARTS = {  # the folders with weights that each family's pipeline must have
    "sd15": ("unet", "vae", "text_encoder"),
    "sd2": ("unet", "vae", "text_encoder"),
    "sdxl": ("unet", "vae", "text_encoder", "text_encoder_2"),
    "sd3": ("transformer", "vae", "text_encoder", "text_encoder_2"),
}
WEIGHT_NAMES = ("diffusion_pytorch_model", "model", "pytorch_model")
SHARD = re.compile(r"-\d{5}-of-\d{5}(?=\.)")  # in the name of one piece of a part's weights
RESTORE = "Copy or download the folder again, whole."


@dataclass(frozen=True)
class FolderIdentity:
    kind: str
    family: str = ""
    prediction: str = ""
    zero_terminal_snr: bool = False


def describe(folder: Path) -> FolderIdentity:
    """What a model folder holds; UserError when it is no model folder, or parts or weights are missing or cut off."""
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}.", "Check the path.")
    if not (folder / "model_index.json").is_file():
        return _describe_part(folder)
    index = read_json(folder / "model_index.json")
    pipeline = str(index.get("_class_name", ""))
    if "Inpaint" in pipeline:
        return FolderIdentity("inpainting base", "sdxl" if "XL" in pipeline else "sd15")
    if pipeline not in PIPELINES:
        raise UserError(
            f"{folder.name} is a {pipeline or 'nameless pipeline'}, which is not known here.",
            "Choose a Stable Diffusion 1.x base model.",
        )
    family = PIPELINES[pipeline]
    if family not in WEIGHT_PARTS:
        return FolderIdentity("base", family)
    _check_parts(folder, family)
    if family == "sd3":
        return FolderIdentity("base", family)  # it predicts a flow, whatever its files say
    unet = read_json(folder / "unet" / "config.json")
    if unet.get("in_channels", 4) in (8, 9):
        return FolderIdentity("inpainting base", family)
    if family == "sd15" and unet.get("cross_attention_dim") == 1024:  # SD2 has the same pipeline class
        family = "sd2"
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    said = str(scheduler.get("prediction_type") or "")
    prediction = "v" if said.startswith("v") else "epsilon" if said == "epsilon" else ""
    return FolderIdentity("base", family, prediction, bool(scheduler.get("rescale_betas_zero_snr")))


def weight_files(part: Path) -> tuple[Path, ...]:
    """The files that hold a part's weights, checked to be whole; several when it is sharded.

    Full precision is preferred to a variant such as fp16, safetensors to pickles.
    """
    names = [entry.name for entry in part.iterdir() if entry.is_file()] if part.is_dir() else []
    chosen = choose_weights(names)
    if not chosen:
        raise UserError(
            f"{_shown(part)} holds no weights: the download was interrupted, or files were left out.", RESTORE
        )
    if chosen.endswith(".json"):
        shards = _shards(part / chosen)
        missing = [name for name in shards if name not in names]
        if missing or not shards:
            raise UserError(f"{_shown(part)} lacks {', '.join(missing) or 'its shards'}.", RESTORE)
        files = tuple(part / name for name in shards)
    else:
        files = (part / chosen,)
    for file in files:
        try:
            read_header(file) if file.suffix == ".safetensors" else check_pickle(file)
        except UserError as error:
            raise UserError(f"In {_shown(part)}: {error.message}", error.hint) from error
    return files


def choose_weights(names: list[str], smaller: bool = False) -> str:
    """The best weight file or shard index among a part's file names; "" if there is none. `smaller` prefers fp16."""
    best, best_rank = "", None
    for name in sorted(names):
        stem, _, rest = name.partition(".")
        if stem not in WEIGHT_NAMES or "ema" in rest.split(".") or SHARD.search(name):  # a shard's index stands for it
            continue
        kind = "safetensors" if "safetensors" in rest else "bin" if rest.endswith(("bin", "bin.index.json")) else ""
        if not kind:
            continue
        words = set(rest.split(".")) - {"safetensors", "bin", "index", "json"}
        half = "fp16" in words
        rank = (kind == "bin", half != smaller, len(words), name)
        if best_rank is None or rank < best_rank:
            best, best_rank = name, rank
    return best


def read_json(path: Path) -> dict:
    """A JSON object from a file; UserError naming the file when it is missing or not that."""
    try:
        found = json_values.read(path)
    except FileNotFoundError as error:
        raise UserError(f"{_shown(path.parent)} lacks {path.name}.", RESTORE) from error
    except (OSError, ValueError) as error:
        raise UserError(f"{_shown(path)} cannot be read as JSON.", RESTORE) from error
    if not isinstance(found, dict):
        raise UserError(f"{_shown(path)} holds no settings.", RESTORE)
    return found


def _shards(index: Path) -> list[str]:
    places = read_json(index).get("weight_map", {})
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise UserError(f"{_shown(index)} does not say where the weights are.", RESTORE)
    return sorted(set(places.values()))


def needed_parts(family: str) -> tuple[str, ...]:
    """Every folder of a family's pipeline that is read."""
    parts = WEIGHT_PARTS[family]
    return (*parts, *(p.replace("text_encoder", "tokenizer") for p in parts if p.startswith("text")), "scheduler")


def _check_parts(folder: Path, family: str) -> None:
    """All problems of a pipeline folder in one UserError."""
    missing = [part for part in needed_parts(family) if not (folder / part).is_dir()]
    if missing:
        raise UserError(f"{folder.name} is incomplete: it lacks {', '.join(missing)}.", RESTORE)
    problems = []
    for part in WEIGHT_PARTS[family]:
        for check in (lambda p: read_json(p / "config.json"), weight_files):
            try:
                check(folder / part)
            except UserError as error:
                problems.append(error)
    if problems:
        raise UserError(" ".join(p.message for p in problems), problems[0].hint)


def _describe_part(folder: Path) -> FolderIdentity:
    if (folder / "adapter_config.json").is_file():
        return FolderIdentity("LoRA adapter")
    if (folder / "config.json").is_file():
        config = read_json(folder / "config.json")
        name = config.get("_class_name") or next(iter(config.get("architectures") or []), "")
        if name in MODELS:
            return FolderIdentity(MODELS[name])
    files = sorted(entry.name for entry in folder.iterdir() if entry.suffix in (".safetensors", ".ckpt"))
    if files:
        raise UserError(
            f"{folder} is not a diffusers folder.", f"Name the model file itself, such as {folder / files[0]}."
        )
    raise UserError(
        f"{folder} is not a model folder: it has no model_index.json.",
        "Choose a diffusers folder, a .safetensors file, or `embedded`.",
    )


def _shown(path: Path) -> str:
    return "/".join(path.parts[-2:])
