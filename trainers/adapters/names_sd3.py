"""Stable Diffusion 3's transformer: diffusers' module paths and the original joint blocks, both ways.

The original code fuses query, key and value into one layer (rows q, k, v), so one original path may stand for three
of diffusers'. kohya and ComfyUI name adapters by the original paths.

`norm1_context.linear` of the last block and `norm_out.linear` hold scale and shift in swapped order.
"""

from collections.abc import Iterable

BLOCK = {  # inside a block: original -> diffusers
    "x_block.attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "x_block.attn.proj": ("attn.to_out.0",),
    "x_block.attn2.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
    "x_block.attn2.proj": ("attn2.to_out.0",),
    "x_block.mlp.fc1": ("ff.net.0.proj",),
    "x_block.mlp.fc2": ("ff.net.2",),
    "x_block.adaLN_modulation.1": ("norm1.linear",),
    "context_block.attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "context_block.attn.proj": ("attn.to_add_out",),
    "context_block.mlp.fc1": ("ff_context.net.0.proj",),
    "context_block.mlp.fc2": ("ff_context.net.2",),
    "context_block.adaLN_modulation.1": ("norm1_context.linear",),
}
ENDS = {  # outside the blocks: original -> diffusers
    "x_embedder.proj": "pos_embed.proj",
    "context_embedder": "context_embedder",
    "t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "time_text_embed.timestep_embedder.linear_2",
    "y_embedder.mlp.0": "time_text_embed.text_embedder.linear_1",
    "y_embedder.mlp.2": "time_text_embed.text_embedder.linear_2",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
    "final_layer.linear": "proj_out",
}
_BLOCK_BACK = {own: original for original, names in BLOCK.items() for own in names}
_ENDS_BACK = {own: original for original, own in ENDS.items()}
_HEAD, _ORIGINAL_HEAD = "transformer_blocks", "joint_blocks"


def is_known(path: str) -> bool:
    """Whether a diffusers path is one of Stable Diffusion 3's layers."""
    return path in _ENDS_BACK or path.startswith(f"{_HEAD}.")


def to_original(path: str) -> str:
    """transformer_blocks.0.attn.to_k -> joint_blocks.0.x_block.attn.qkv. KeyError for a path that is not SD3's."""
    if path in _ENDS_BACK:
        return _ENDS_BACK[path]
    head, i, rest = _split(path, _HEAD)
    return f"{_ORIGINAL_HEAD}.{i}.{_BLOCK_BACK[rest]}"


def from_original(path: str) -> tuple[str, ...]:
    """joint_blocks.0.x_block.attn.qkv -> its to_q, to_k and to_v, in the order of the fused rows; else one path."""
    if path in ENDS:
        return (ENDS[path],)
    head, i, rest = _split(path, _ORIGINAL_HEAD)
    return tuple(f"{_HEAD}.{i}.{own}" for own in BLOCK[rest])


def grouped(paths: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Original path -> diffusers paths, for those of `paths` (diffusers') whose whole group is there."""
    paths = set(paths)
    groups = {original: from_original(original) for original in {to_original(path) for path in paths}}
    return {original: group for original, group in groups.items() if paths.issuperset(group)}


def _split(path: str, wanted: str) -> tuple[str, str, str]:
    head, i, rest = (path.split(".", 2) + ["", ""])[:3]
    if head != wanted or not i.isdecimal():
        raise KeyError(path)
    return head, i, rest
