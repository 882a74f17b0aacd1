"""OpenCLIP text encoders in checkpoints: their tensors under the names, and in the shapes, of transformers' CLIP.

Source: mlfoundations/open_clip `transformer.py`: q, k and v are one matrix there, and the projection is stored
transposed. Stable Diffusion 2.x and SDXL keep such an encoder in their files.
"""

import re

from trainers.families.weights import Weights

TOP = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
RESBLOCK = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)")


def define(weights: Weights, prefix: str) -> None:
    """Add transformers' names for every tensor of the encoder under `prefix`."""
    for name in [name for name in weights if name.startswith(prefix)]:
        inside, shape = name.removeprefix(prefix), weights.shapes[name]
        if inside in TOP:
            weights.define(prefix + TOP[inside], name, shape)
        elif inside == "text_projection":
            weights.define(f"{prefix}text_projection.weight", name, shape[::-1], lambda t: t.T)
        elif match := RESBLOCK.fullmatch(inside):
            _define_layer(weights, name, f"{prefix}encoder.layers.{match[1]}", match[2])


def _define_layer(weights: Weights, name: str, layer: str, inside: str) -> None:
    if inside.startswith("attn.in_proj_"):
        rows, *rest = weights.shapes[name]
        leaf = inside.removeprefix("attn.in_proj_")
        for i, part in enumerate("qkv"):
            target = f"{layer}.self_attn.{part}_proj.{leaf}"
            weights.define(target, name, (rows // 3, *rest), lambda t, i=i: t.chunk(3)[i])
        return
    module, _, leaf = inside.rpartition(".")
    if module in LAYER:
        weights.define(f"{layer}.{LAYER[module]}.{leaf}", name, weights.shapes[name])
