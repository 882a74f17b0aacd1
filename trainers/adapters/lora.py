"""LoRA on the denoiser and the text encoders [Hu et al. 2021], attached with peft."""

import math
import re
from collections.abc import Callable

import torch
from diffusers.models.attention import JointTransformerBlock
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

from trainers.adapters.adapter import DENOISER, NAME, Adapter, Place
from trainers.adapters.lean import lean
from trainers.config import AdapterConfig
from trainers.errors import UserError
from trainers.families.base import Components, FamilySpec

ATTENTION = re.compile(r"\.(to_(q|k|v|out\.0|add_out)|add_[qkv]_proj)$")
TEXT = re.compile(r"(^|\.)(self_attn\.(q_proj|k_proj|v_proj|out_proj)|mlp\.fc[12])$")
# The first and last convolution and the embeddings steer everything: kohya's LoCon leaves them out as well.
NEVER = re.compile(
    r"^(conv_in|conv_out|time_embedding|class_embedding|add_embedding|encoder_hid_proj|time_proj"
    r"|pos_embed|time_text_embed|context_embedder|norm_out|proj_out)(\.|$)"
)
LAYER = re.compile(r"\.layers\.(\d+)\.")
Shape = tuple[int, float]  # rank, alpha


def attach(components: Components, spec: FamilySpec, config: AdapterConfig, seed: int, fast: bool = True) -> Adapter:
    """Put a fresh LoRA on the base; its output does not change until the first step.

    Weights are fp32 whatever the base's dtype, drawn in a fixed order from a generator of their own: the same seed
    gives the same weights, and no other random state moves. `fast` replaces peft's forward by an equal one (lean.py).

    Raises:
        UserError: `targets` is no regular expression, or fits no layer.
    """
    places: dict[Place, Shape] = {
        (DENOISER, path): config.shape for path in targets(components.denoiser, config.targets)
    }
    if config.text_encoder:
        for index, read in enumerate(spec.read_layers):  # a third one, T5, is never trained
            for path in text_targets(components.text_encoders[index], read):
                places[f"text_{index}", path] = config.text_shape
    adapter = attach_layers(components, places, config.dropout)
    adapter.spec = spec
    _initialise(adapter, seed)
    if fast:
        lean(adapter, components)
    return adapter


def attach_layers(components: Components, places: dict[Place, Shape], dropout: float = 0.0) -> Adapter:
    """LoRA layers of the given ranks and alphas, their weights not yet set. Module paths stay as they are."""
    layers = {}
    for part, model in parts(components).items():
        shapes = {path: shape for (owner, path), shape in places.items() if owner == part}
        if shapes:
            layers |= {(part, path): layer for path, layer in _inject(model, shapes, dropout).items()}
    return Adapter({place: layers[place] for place in places})


def parts(components: Components) -> dict[str, nn.Module]:
    """The modules an adapter may sit on, by part."""
    encoders = {f"text_{i}": encoder for i, encoder in enumerate(components.text_encoders)}
    return {DENOISER: components.denoiser, **encoders}


def targets(denoiser: nn.Module, wish: str) -> list[str]:
    """Paths of the layers that a preset or a regular expression (found anywhere in the path) names, in module order."""
    layers = [path for path, module in denoiser.named_modules() if adaptable(module)]
    if wish in PRESETS:
        found = PRESETS[wish](denoiser, layers)
    else:
        try:
            pattern = re.compile(wish)
        except re.error as error:
            presets = ", ".join(PRESETS)
            raise UserError(
                f"adapter.targets = {wish!r} is not a regular expression: {error}.", f"Presets: {presets}."
            ) from error
        found = [path for path in layers if pattern.search(path)]
    if not found:
        hint = f"Use one of the presets {', '.join(PRESETS)}, or a pattern such as `up_blocks.*attn2`."
        raise UserError(f"adapter.targets = {wish!r} fits no layer of the denoiser.", hint)
    return found


def text_targets(encoder: nn.Module, read: int | None = None) -> list[str]:
    """Attention and feed-forward layers of the first `read` CLIP layers (-1: all but the last; None: all)."""
    found = [path for path, module in encoder.named_modules() if adaptable(module) and TEXT.search(path)]
    numbers = range(encoder.config.num_hidden_layers)[:read]
    return [path for path in found if int(LAYER.search(path)[1]) in numbers]


def adaptable(module: nn.Module) -> bool:
    """A linear layer or a plain convolution, adapted already or not."""
    module = module.get_base_layer() if isinstance(module, LoraLayer) else module
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)


def _in_transformers(denoiser: nn.Module, layers: list[str]) -> list[str]:
    inside = Transformer2DModel if hasattr(denoiser, "down_blocks") else JointTransformerBlock
    blocks = tuple(f"{path}." for path, m in denoiser.named_modules() if isinstance(m, inside))
    return [path for path in layers if path.startswith(blocks)]


PRESETS: dict[str, Callable[[nn.Module, list[str]], list[str]]] = {
    "attention": lambda denoiser, layers: [p for p in _in_transformers(denoiser, layers) if ATTENTION.search(p)],
    "transformer": _in_transformers,
    "full": lambda denoiser, layers: [path for path in layers if not NEVER.search(path)],
}


def _inject(model: nn.Module, shapes: dict[str, Shape], dropout: float) -> dict[str, LoraLayer]:
    values = list(shapes.values())
    rank, alpha = max(set(values), key=values.count)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules="|".join(re.escape(path) for path in shapes),  # a list would match endings too
        rank_pattern={f"^{re.escape(path)}": r for path, (r, _) in shapes.items() if r != rank},
        alpha_pattern={f"^{re.escape(path)}": a for path, (_, a) in shapes.items() if a != alpha},
    )
    inject_adapter_in_model(
        config, model, adapter_name=NAME, low_cpu_mem_usage=True
    )  # on meta: draws no random numbers
    layers = {path: model.get_submodule(path) for path in shapes}
    for layer in layers.values():
        device = layer.get_base_layer().weight.device
        for side in (layer.lora_A, layer.lora_B):
            # fp32: in bf16 a step of 1e-4 vanishes once a weight passes 1/32
            side[NAME].weight = nn.Parameter(torch.zeros(side[NAME].weight.shape, dtype=torch.float32, device=device))
    return layers


@torch.no_grad()
def _initialise(adapter: Adapter, seed: int) -> None:
    """down: Kaiming-uniform with a = sqrt(5), that is +-1 / sqrt(fan in); up: zero."""
    generator = torch.Generator().manual_seed(seed)
    for layer in adapter.layers.values():
        down = layer.lora_A[NAME].weight
        bound = 1 / math.sqrt(down[0].numel())
        down.copy_((torch.rand(down.shape, generator=generator) * 2 - 1) * bound)
