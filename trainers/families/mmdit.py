"""Tensor names of original Stable Diffusion 3 checkpoints (MMDiT), derived from the names of diffusers' transformer.

Source: Stability-AI/sd3.5 `mmditx.py`. The original keeps q, k and v in one matrix and the last modulation as (shift,
scale), where diffusers has three matrices and (scale, shift): those tensors are defined from the file's own.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from trainers.families.ldm import Names
from trainers.families.weights import Weights

PREFIX = "model.diffusion_model."
TOP = {
    "pos_embed": "pos_embed",  # the table itself; its projection is below
    "pos_embed.proj": "x_embedder.proj",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    "context_embedder": "context_embedder",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
}
BLOCK = {  # in transformer_blocks.i -> in joint_blocks.i
    "norm1.linear": "x_block.adaLN_modulation.1",
    "norm1_context.linear": "context_block.adaLN_modulation.1",
    "attn.norm_q": "x_block.attn.ln_q",
    "attn.norm_k": "x_block.attn.ln_k",
    "attn.norm_added_q": "context_block.attn.ln_q",
    "attn.norm_added_k": "context_block.attn.ln_k",
    "attn.to_out.0": "x_block.attn.proj",
    "attn.to_add_out": "context_block.attn.proj",
    "attn2.norm_q": "x_block.attn2.ln_q",
    "attn2.norm_k": "x_block.attn2.ln_k",
    "attn2.to_out.0": "x_block.attn2.proj",
    "ff.net.0.proj": "x_block.mlp.fc1",
    "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1",
    "ff_context.net.2": "context_block.mlp.fc2",
}
FUSED = {  # three in transformer_blocks.i -> one in joint_blocks.i, rows q, k, v
    ("attn.to_q", "attn.to_k", "attn.to_v"): "x_block.attn.qkv",
    ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"): "context_block.attn.qkv",
    ("attn2.to_q", "attn2.to_k", "attn2.to_v"): "x_block.attn2.qkv",
}
PLACE = {name: (fused, i) for names, fused in FUSED.items() for i, name in enumerate(names)}
VIEW = "#"  # marks a tensor that is defined from a stored one


def transformer_names(config: Mapping[str, Any]) -> Names:
    """Names for an SD3Transformer2DModel with this diffusers config, in a checkpoint that `define` has seen."""
    last = config["num_layers"] - 1

    def names(name: str) -> tuple[str, ...]:
        if name == "pos_embed.pos_embed":
            return (f"{PREFIX}pos_embed",)
        module, _, leaf = name.rpartition(".")
        if not module.startswith("transformer_blocks."):
            swapped = VIEW if module == "norm_out.linear" else ""
            return (f"{PREFIX}{TOP[module]}.{leaf}{swapped}",)
        _, block, path = module.split(".", 2)
        place = f"{PREFIX}joint_blocks.{block}."
        if path in PLACE:
            fused, row = PLACE[path]
            return (f"{place}{fused}.{leaf}{VIEW}{row}",)
        swapped = VIEW if path == "norm1_context.linear" and int(block) == last else ""
        return (f"{place}{BLOCK[path]}.{leaf}{swapped}",)

    return names


def define(weights: Weights) -> None:
    """Add the views of a checkpoint's tensors that diffusers' modules hold: q, k and v apart, and halves swapped."""
    blocks = [int(name.split(".")[3]) for name in weights if name.startswith(f"{PREFIX}joint_blocks.")]
    ends = (f"{PREFIX}final_layer.adaLN_modulation.1.",)
    if blocks:
        ends += (f"{PREFIX}joint_blocks.{max(blocks)}.context_block.adaLN_modulation.1.",)
    for name in [name for name in weights if name.startswith(PREFIX)]:
        rows, *rest = weights.shapes[name]
        if ".qkv." in name:
            for i in range(3):
                weights.define(f"{name}{VIEW}{i}", name, (rows // 3, *rest), lambda t, i=i: t.chunk(3)[i])
        elif name.startswith(ends):
            weights.define(f"{name}{VIEW}", name, (rows, *rest), swap_halves)


def swap_halves(tensor: Tensor) -> Tensor:
    """(shift, scale) rows -> (scale, shift) rows, and back."""
    first, second = tensor.chunk(2)
    return torch.cat([second, first])
