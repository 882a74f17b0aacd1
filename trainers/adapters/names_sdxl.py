"""Stable Diffusion XL's UNet: diffusers' module paths and the original (SGM) ones, both ways.

kohya, A1111 and ComfyUI name SDXL adapters by the original code's blocks, numbered straight through; a level has two
resnets and a sampler on the way down, three resnets on the way up.
"""

import re

RESNET = {  # inside a resnet: diffusers -> SGM
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
ENDS = {  # outside the blocks
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_RESNET_BACK = {sgm: own for own, sgm in RESNET.items()}
_ENDS_BACK = {sgm: own for own, sgm in ENDS.items()}
_BLOCK = re.compile(r"(down_blocks|up_blocks)\.(\d+)\.(resnets|attentions)\.(\d+)\.(.+)")
_SGM_BLOCK = re.compile(r"(input_blocks|output_blocks)\.(\d+)\.(\d+)\.(.+)")


def to_sgm(path: str) -> str:
    """down_blocks.1.attentions.0.proj_in -> input_blocks.4.1.proj_in. KeyError for a path that is not SDXL's."""
    if path in ENDS:
        return ENDS[path]
    if found := _BLOCK.fullmatch(path):
        side, i, kind, j, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
        block = f"input_blocks.{3 * i + j + 1}" if side == "down_blocks" else f"output_blocks.{3 * i + j}"
        return f"{block}.1.{rest}" if kind == "attentions" else f"{block}.0.{RESNET[rest]}"
    head, _, rest = path.partition(".")
    if head == "mid_block":
        kind, j, rest = rest.split(".", 2)
        return f"middle_block.1.{rest}" if kind == "attentions" else f"middle_block.{2 * int(j)}.{RESNET[rest]}"
    if found := re.fullmatch(r"down_blocks\.(\d+)\.downsamplers\.0\.conv", path):
        return f"input_blocks.{3 * (int(found[1]) + 1)}.0.op"
    if found := re.fullmatch(r"up_blocks\.(\d+)\.upsamplers\.0\.conv", path):
        return f"output_blocks.{3 * int(found[1]) + 2}.2.conv"
    raise KeyError(path)


def from_sgm(path: str) -> str:
    """input_blocks.4.1.proj_in -> down_blocks.1.attentions.0.proj_in. KeyError for a path that is not SDXL's."""
    if path in _ENDS_BACK:
        return _ENDS_BACK[path]
    if found := re.fullmatch(r"input_blocks\.(\d+)\.0\.op", path):
        return f"down_blocks.{int(found[1]) // 3 - 1}.downsamplers.0.conv"
    if found := re.fullmatch(r"output_blocks\.(\d+)\.2\.conv", path):
        return f"up_blocks.{int(found[1]) // 3}.upsamplers.0.conv"
    if found := _SGM_BLOCK.fullmatch(path):
        side, number, kind, rest = found[1], int(found[2]), found[3], found[4]
        i, j = divmod(number - 1, 3) if side == "input_blocks" else divmod(number, 3)
        return f"{'down_blocks' if side == 'input_blocks' else 'up_blocks'}.{i}.{_inside(kind == '1', j, rest)}"
    head, _, rest = path.partition(".")
    if head == "middle_block":
        number, rest = rest.split(".", 1)
        return f"mid_block.{_inside(number == '1', 0 if number == '1' else int(number) // 2, rest)}"
    raise KeyError(path)


def _inside(attention: bool, j: int, rest: str) -> str:
    return f"attentions.{j}.{rest}" if attention else f"resnets.{j}.{_RESNET_BACK[rest]}"
