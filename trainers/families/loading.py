"""What the families' `load` and `random` do alike: find the base, read it, settle what it predicts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from trainers.config import ModelConfig
from trainers.errors import UserError
from trainers.families import read_sd
from trainers.families.base import Components, FamilySpec
from trainers.families.detect import Identity, identify_base, refuse
from trainers.families.locate import expand, locate, name_of
from trainers.families.parts import VAE, Layout
from trainers.families.residence import bring
from trainers.families.weights import Weights

CONFIGS = Path(__file__).parent / "configs"
UNSKIPPED = ("sdxl", "sd3")  # families for which image programs read the layer that the model was trained with
END_OF_TEXT, EXCLAMATION = "<|endoftext|>", "!"  # what CLIP's and OpenCLIP's tokenizers pad with


@dataclass(frozen=True)
class Source:
    """Where a family's models come from: its layout, and for single files the bundled settings."""

    layout: Layout
    padding: tuple[str, ...]  # the pad token of each tokenizer
    define: Callable[[Weights], None] = lambda _: None  # gives a checkpoint's tensors the names that the parts know
    # -> the folder in configs/; "": the family's
    variant: Callable[[Weights, Identity, ModelConfig], str] = lambda *_: ""
    text_files: Callable[[ModelConfig], Mapping[str, str]] = lambda _: {}  # -> prefix of their names: file
    usual: str = ""  # the folder in configs/ of the variant that `random` builds
    predictions: tuple[str, ...] = ("epsilon", "v")


def load(
    spec: FamilySpec, source: Source, config: ModelConfig, dtype: torch.dtype, deferred: bool = False
) -> Components:
    """Read the base from disk (or hub): denoiser and text encoders in `dtype`, the VAE in fp32.

    `deferred`: only their shapes are made, and `residence.bring` reads the weights of each when it is needed.

    Raises:
        UserError: the model is missing, damaged, of another kind, or at odds with the settings.
    """
    path = locate(config.base)
    name = name_of(config.base, path)
    found = identify_base(path, config)
    refuse(found, name, spec.name)
    if (config.clip_l or config.clip_g) and (path.is_dir() or spec.name != "sd3"):
        message = f"{name} brings its own text encoders, and model.clip_l or model.clip_g names others."
        raise UserError(message, "Empty both: they are for single files of Stable Diffusion 3.")
    if path.is_dir():
        components = read_sd.from_folder(source.layout, path, dtype)
    else:
        components, found = _from_file(spec, source, path, config, dtype)
    components.name = name
    if config.vae:
        read_sd.replace_vae(components, expand(config.vae), CONFIGS / (source.usual or spec.name))
    components.scheduler = _with_prediction(components.scheduler, source, found, config, name)
    _check_clip_skip(components, config.clip_skip)
    if config.clip_skip > 1 and spec.name in UNSKIPPED:
        what = f"Clip skip {config.clip_skip} reads another text-encoder layer than this family was trained with"
        components.remarks += ((what, "Most image programs read the usual one, which is model.clip_skip = 1."),)
    if not deferred:
        for module in (components.denoiser, components.vae, *components.text_encoders):
            bring(module, torch.device("cpu"))
    return components


def untrained(spec: FamilySpec, source: Source, dtype: torch.dtype, variant: str = "") -> Components:
    """Components in the family's true shapes with random weights."""
    folder = CONFIGS / (variant or source.usual or spec.name)
    components = read_sd.untrained(source.layout, read_sd.bundled(source.layout, folder, source.padding), dtype)
    components.scheduler.setdefault("prediction_type", source.predictions[0])
    return components


def _from_file(
    spec: FamilySpec, source: Source, path: Path, config: ModelConfig, dtype: torch.dtype
) -> tuple[Components, Identity]:
    def settings(weights: Weights, found: Identity) -> read_sd.Settings:
        folder = CONFIGS / (source.variant(weights, found, config) or spec.name)
        return read_sd.bundled(source.layout, folder, source.padding)

    without = (VAE,) if config.vae else ()
    weights = Weights([path])
    for prefix, file in source.text_files(config).items():
        weights.add(expand(file), prefix)
    return read_sd.from_file(source.layout, weights, settings, spec.name, dtype, source.define, without)


def _with_prediction(scheduler: dict, source: Source, found: Identity, config: ModelConfig, name: str) -> dict:
    """The scheduler config with the prediction type that model and settings agree on."""
    wish = "" if config.prediction == "auto" else config.prediction
    if wish and wish not in source.predictions:
        raise UserError(
            f"model.prediction is {wish}, but models like {name} predict {' or '.join(source.predictions)}.",
            "Set model.prediction to auto.",
        )
    if wish and found.prediction and wish != found.prediction:
        raise UserError(
            f"model.prediction is {wish}, but {name} says that it predicts {found.prediction}.",
            "Set model.prediction to auto.",
        )
    own = scheduler.get("prediction_type", "").removesuffix("_prediction")
    prediction = wish or found.prediction or (own if own in source.predictions else source.predictions[0])
    scheduler = {**scheduler, "prediction_type": "v_prediction" if prediction == "v" else prediction}
    if found.zero_terminal_snr:
        scheduler |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return scheduler


def _check_clip_skip(components: Components, clip_skip: int) -> None:
    layers = min(encoder.config.num_hidden_layers for encoder in components.text_encoders)
    if clip_skip > layers:
        raise UserError(
            f"model.clip_skip is {clip_skip}, but the text encoder has {layers} layers.", "Set it to 1 or 2."
        )
