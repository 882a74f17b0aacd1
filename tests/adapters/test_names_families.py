"""Module names of Stable Diffusion XL and 3: diffusers' and the original code's, both ways."""

import pytest
from diffusers.loaders.lora_conversion_utils import _maybe_map_sgm_blocks_to_diffusers

from trainers.adapters import names_sd3, names_sdxl
from trainers.export.layers.families import SD3_SIZES, family_shapes
from trainers.export.layers.mmdit import mmdit_shapes
from trainers.export.layers.unet import SDXL, unet_shapes

PAIRS = {
    "down_blocks.1.attentions.0.proj_in": "input_blocks.4.1.proj_in",
    "down_blocks.0.resnets.1.conv2": "input_blocks.2.0.out_layers.3",
    "down_blocks.1.downsamplers.0.conv": "input_blocks.6.0.op",
    "mid_block.attentions.0.transformer_blocks.9.ff.net.2": "middle_block.1.transformer_blocks.9.ff.net.2",
    "mid_block.resnets.1.time_emb_proj": "middle_block.2.emb_layers.1",
    "up_blocks.1.attentions.2.transformer_blocks.1.attn2.to_k": "output_blocks.5.1.transformer_blocks.1.attn2.to_k",
    "up_blocks.0.resnets.0.conv_shortcut": "output_blocks.0.0.skip_connection",
    "up_blocks.0.upsamplers.0.conv": "output_blocks.2.2.conv",
}


@pytest.mark.parametrize("path", PAIRS)
def test_sdxl_names_are_those_of_the_original_code(path):
    assert names_sdxl.to_sgm(path) == PAIRS[path] and names_sdxl.from_sgm(PAIRS[path]) == path


def test_every_layer_of_sdxl_comes_back_from_its_original_name():
    paths = list(unet_shapes(SDXL))
    names = [names_sdxl.to_sgm(path) for path in paths]
    assert len(set(names)) == len(names) and [names_sdxl.from_sgm(name) for name in names] == paths


def test_sdxl_blocks_are_where_diffusers_puts_them():
    class Config:
        layers_per_block = 2

    blocks = [p for p in unet_shapes(SDXL) if p.split(".")[0] in ("down_blocks", "mid_block", "up_blocks")]
    attentions = [path for path in blocks if ".attentions." in path]
    names = {f"lora_unet_{names_sdxl.to_sgm(path)}".replace(".", "_"): path for path in attentions}
    for name, path in names.items():
        (found,) = _maybe_map_sgm_blocks_to_diffusers({name: None}, Config)
        flat = f"lora_unet_{path}".replace(".", "_")
        for side in ("down", "up", "mid"):  # it keeps SGM's word before the number, which its next step renames
            flat = flat.replace(
                f"unet_{side}_block",
                {"down": "unet_input_block", "up": "unet_output_block"}.get(side, "unet_middle_block"),
            )
        assert found == flat


def test_a_fused_layer_of_sd3_stands_for_three():
    fused = "joint_blocks.3.context_block.attn.qkv"
    three = tuple(f"transformer_blocks.3.attn.add_{name}_proj" for name in "qkv")
    assert names_sd3.from_original(fused) == three
    assert {names_sd3.to_original(path) for path in three} == {fused}
    assert names_sd3.grouped(three) == {fused: three} and names_sd3.grouped(three[:2]) == {}


@pytest.mark.parametrize("size", SD3_SIZES)
def test_every_layer_of_sd3_comes_back_from_its_original_name(size):
    paths = set(mmdit_shapes(SD3_SIZES[size]))
    assert {own for path in paths for own in names_sd3.from_original(names_sd3.to_original(path))} == paths
    shapes = family_shapes(size)
    for group in names_sd3.grouped(paths).values():
        assert len({shapes["denoiser", path] for path in group}) == 1


@pytest.mark.parametrize("path", ["down_blocks.0.nothing", "mid_block.resnets.0.nothing", "x"])
def test_a_path_of_another_model_is_refused(path):
    with pytest.raises((KeyError, ValueError)):
        names_sdxl.to_sgm(path)
    with pytest.raises(KeyError):
        names_sd3.to_original(path)
