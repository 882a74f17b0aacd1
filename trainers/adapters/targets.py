"""Which layers an adapter sits on, and the rank and alpha of each."""

import math
import re
from collections.abc import Callable

from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from trainers import patterns
from trainers.adapters.adapter import DENOISER, Place
from trainers.adapters.names import pipeline_part
from trainers.config import AdapterConfig
from trainers.errors import UserError
from trainers.families.base import Components, FamilySpec

ATTENTION = re.compile(r"\.(to_(q|k|v|out\.0|add_out)|add_(q|k|v)_proj)$")
TEXT = re.compile(r"(^|\.)(self_attn\.(q_proj|k_proj|v_proj|out_proj)|mlp\.fc[12])$")
# What comes first and last, and the embeddings, steers everything: kohya leaves them out as well.
NEVER = re.compile(
    r"^(conv_in|conv_out|time_embedding|class_embedding|add_embedding|encoder_hid_proj|time_proj"  # UNets
    r"|pos_embed|time_text_embed|context_embedder|norm_out|proj_out)(\.|$)"  # transformers
)
# B-LoRA [Frenkel et al. 2024]: what SDXL draws, and how, is decided in one attention block each.
B_LORA = {"content": "up_blocks.0.attentions.0.", "style": "up_blocks.0.attentions.1."}
Shape = tuple[int, float]  # rank, alpha: the update is scaled by alpha / rank


def shapes(components: Components, spec: FamilySpec, config: AdapterConfig) -> dict[Place, Shape]:
    """The layers that the settings name -> their shapes, in module order; the rank of none is 0.

    Raises:
        UserError: `targets` is no regular expression or fits no layer, `block_ranks` has a pattern that fits none, or
            they leave none.
    """
    if len(config.text_ranks) > len(spec.text_prefixes):
        count = f"{len(config.text_ranks)} numbers, and this base has {len(spec.text_prefixes)} text encoders to train"
        raise UserError(f"adapter.text_ranks has {count}.", "Give one for each in turn.")
    wished: dict[Place, Shape] = {}
    for path in targets(components.denoiser, config.targets, spec.name, config.type == "locon"):
        wide = is_wide(components.denoiser.get_submodule(path))
        wished[DENOISER, path] = config.conv_shape if wide else config.shape
    if config.text_encoder:
        for index in range(len(spec.text_prefixes)):  # T5, where there is one, is never trained
            for path in text_targets(components.text_encoders[index]):
                wished[f"text_{index}", path] = config.text_shape(index)
    _check_table(config, wished)
    ranked = {place: _ranked(place, shape, config) for place, shape in wished.items()}
    kept = {place: shape for place, shape in ranked.items() if shape[0]}
    if not kept:
        raise UserError("adapter.block_ranks leaves no layer to train.", "Give at least one a rank above 0.")
    return kept


def dotted(place: Place) -> str:
    """The path that tables of settings are matched on: the denoiser's own, text_encoder.encoder.layers.0..."""
    part, path = place
    return path if part == DENOISER else f"{pipeline_part(part)}.{path}"


def parts(components: Components) -> dict[str, nn.Module]:
    """The modules an adapter may sit on, by part."""
    encoders = {f"text_{i}": encoder for i, encoder in enumerate(components.text_encoders)}
    return {DENOISER: components.denoiser, **encoders}


def targets(denoiser: nn.Module, wish: str, family: str = "", convolutions: bool = False) -> list[str]:
    """Paths of the layers that a preset or a regular expression (found anywhere in the path) names, in module order.

    `convolutions` adds to a preset the blocks of convolutions.
    """
    layers = [path for path, module in denoiser.named_modules() if adaptable(module)]
    if wish in B_LORA and family != "sdxl":
        hint = f"Presets for this base: {', '.join(PRESETS)}."
        raise UserError(f"adapter.targets = {wish!r} names a block of Stable Diffusion XL, and of no other base.", hint)
    if wish in B_LORA:
        found = [path for path in layers if path.startswith(B_LORA[wish]) and ATTENTION.search(path)]
    elif wish in PRESETS:
        chosen = {*PRESETS[wish](denoiser, layers), *(_in_convolutions(denoiser, layers) if convolutions else ())}
        found = [path for path in layers if path in chosen]
    else:
        found = _matching(layers, wish)
    if not found:
        hint = f"Use one of the presets {', '.join(PRESETS)}, or a pattern such as `up_blocks.*attn2`."
        raise UserError(f"adapter.targets = {wish!r} fits no layer of the denoiser.", hint)
    return found


def text_targets(encoder: nn.Module) -> list[str]:
    """Attention and feed-forward layers of a CLIP text encoder."""
    return [path for path, module in encoder.named_modules() if adaptable(module) and TEXT.search(path)]


def adaptable(module: nn.Module) -> bool:
    """A linear layer or a plain convolution, adapted already or not."""
    module = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)


def is_wide(module: nn.Module) -> bool:
    """A convolution that looks at neighbours."""
    return isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1


def _matching(layers: list[str], wish: str) -> list[str]:
    try:
        pattern = re.compile(wish)
    except re.error as error:
        presets = ", ".join(PRESETS)
        message = f"adapter.targets = {wish!r} is not a regular expression: {error}."
        raise UserError(message, f"Presets: {presets}.") from error
    return [path for path in layers if pattern.search(path)]


def _in_transformers(denoiser: nn.Module, layers: list[str]) -> list[str]:
    """Everything inside a UNet's transformers; where the whole model is one, everything inside its blocks."""
    blocks = tuple(f"{path}." for path, m in denoiser.named_modules() if isinstance(m, Transformer2DModel))
    return [path for path in layers if path.startswith(blocks or "transformer_blocks.")]


def _in_convolutions(denoiser: nn.Module, layers: list[str]) -> list[str]:
    """Everything inside residual blocks and samplers, as in kohya's LoCon."""
    kinds = (ResnetBlock2D, Downsample2D, Upsample2D)
    blocks = tuple(f"{path}." for path, module in denoiser.named_modules() if isinstance(module, kinds))
    return [path for path in layers if path.startswith(blocks)]


PRESETS: dict[str, Callable[[nn.Module, list[str]], list[str]]] = {
    "attention": lambda denoiser, layers: [p for p in _in_transformers(denoiser, layers) if ATTENTION.search(p)],
    "transformer": _in_transformers,
    "full": lambda denoiser, layers: [path for path in layers if not NEVER.search(path)],
}


def _check_table(config: AdapterConfig, wished: dict[Place, Shape]) -> None:
    wrong = patterns.idle(config.block_ranks, map(dotted, wished))
    if wrong:
        message = f"adapter.block_ranks has {wrong[0]!r}, which fits no layer that adapter.targets names."
        raise UserError(message, f"For example {dotted(next(iter(wished)))!r} is one.")


def _ranked(place: Place, shape: Shape, config: AdapterConfig) -> Shape:
    rank, alpha = shape
    own = patterns.look_up(config.block_ranks, dotted(place))
    if own is not None:
        rank, alpha = own, alpha * own / rank if rank else float(own)
    return rank, alpha * math.sqrt(rank) if config.rank_stabilised else alpha
