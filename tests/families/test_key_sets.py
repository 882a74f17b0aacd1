"""The layers a default adapter sits on, at every family's full size (on the meta device), and their names in files."""

import re
from collections import Counter

import pytest
import torch

from trainers.adapters.adapter import DENOISER, Place
from trainers.adapters.joint import fuse, groups
from trainers.adapters.names import diffusers_name, kohya_name
from trainers.adapters.targets import parts, shapes
from trainers.adapters.unheard import unheard
from trainers.adapters.weights import LoraWeights
from trainers.config import AdapterConfig
from trainers.export.layers.families import family_shapes
from trainers.families.base import Components, LatentSpec
from trainers.families.folders import read_json
from trainers.families.loading import CONFIGS
from trainers.families.registry import FAMILIES

VARIANTS = {  # folder of settings -> family, layers of the denoiser and of each text encoder by default
    "sd15": ("sd15", 192, [72]),
    "sd2-768": ("sd2", 192, [138]),
    "sdxl": ("sdxl", 722, [72, 192]),
    "sd3-medium": ("sd3", 333, [72, 192]),
    "sd3.5-medium": ("sd3", 385, [72, 192]),
    "sd3.5-large": ("sd3", 529, [72, 192]),
}
CLIP_LAYER = (*(f"self_attn.{name}_proj" for name in ("q", "k", "v", "out")), "mlp.fc1", "mlp.fc2")


def hollow(variant: str) -> Components:
    """A full-size base without memory."""
    layout = FAMILIES[VARIANTS[variant][0]].source.layout
    with torch.device("meta"):
        denoiser, *encoders = (
            part.make(read_json(CONFIGS / variant / part.folder / "config.json"))
            for part in (layout.denoiser, *layout.texts)
        )
    unused = torch.nn.Identity()
    return Components(denoiser, unused, tuple(encoders), (), {}, LatentSpec(4, 8, 1.0), 1024, 8, variant, None)


@pytest.fixture(scope="module", params=VARIANTS)
def places(request) -> tuple[str, dict[Place, tuple[int, ...]]]:
    """Every layer of a default adapter with its shape."""
    components = hollow(request.param)
    family = FAMILIES[VARIANTS[request.param][0]]
    chosen = shapes(components, family.spec, AdapterConfig(text_encoder=True))
    models = parts(components)
    return request.param, {p: tuple(models[p[0]].get_submodule(p[1]).weight.shape) for p in chosen}


def test_counts_are_those_of_the_reference_files(places):
    variant, found = places
    _, denoiser, texts = VARIANTS[variant]
    wanted = {DENOISER: denoiser} | {f"text_{i}": count for i, count in enumerate(texts)}
    assert Counter(part for part, _ in found) == wanted


def test_only_the_last_blocks_hold_layers_that_no_picture_hears(places):
    variant, found = places
    silent = unheard(found, FAMILIES[VARIANTS[variant][0]].spec)
    last = [f"text_0/encoder.layers.11.{name}" for name in CLIP_LAYER]  # CLIP-L is read before it
    query = "denoiser/transformer_blocks.{}.attn.add_q_proj"  # of the text, which does not come out of the last block
    wanted = {"sdxl": last, "sd3-medium": [query.format(23)], "sd3.5-medium": [query.format(23)]}
    wanted["sd3.5-large"] = [query.format(37)]
    assert sorted(map("/".join, silent)) == sorted(wanted.get(variant, []))


def test_names_are_unique_and_are_the_written_down_ones(places):
    variant, found = places
    spec = FAMILIES[VARIANTS[variant][0]].spec
    known = family_shapes({"sd15": "sd15", "sd2-768": "sd2", "sdxl": "sdxl"}.get(variant, variant.removeprefix("sd")))
    names = [kohya_name(place, spec) for place in found]
    assert len(set(names)) == len(names)
    for (part, path), shape in found.items():
        assert known[part, path] == shape, path


@pytest.mark.parametrize(
    ("variant", "name"),
    [
        ("sd15", "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"),
        ("sd15", "lora_te_text_model_encoder_layers_0_self_attn_q_proj"),
        ("sd2-768", "lora_te_text_model_encoder_layers_22_mlp_fc2"),
        ("sdxl", "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"),
        ("sdxl", "lora_unet_middle_block_1_transformer_blocks_9_ff_net_2"),
        ("sdxl", "lora_unet_output_blocks_5_1_transformer_blocks_1_attn2_to_out_0"),
        ("sdxl", "lora_te1_text_model_encoder_layers_10_mlp_fc1"),
        ("sdxl", "lora_te2_text_model_encoder_layers_31_self_attn_out_proj"),
    ],
)
def test_known_names_are_there(variant, name):
    spec = FAMILIES[VARIANTS[variant][0]].spec
    assert name in {kohya_name(p, spec) for p in shapes(hollow(variant), spec, AdapterConfig(text_encoder=True))}


@pytest.mark.parametrize(("variant", "count"), [("sd3-medium", 237), ("sd3.5-medium", 263), ("sd3.5-large", 377)])
def test_joint_blocks_have_the_layers_and_shapes_of_kohyas_files(variant, count):
    components = hollow(variant)
    chosen = [p for p in shapes(components, FAMILIES["sd3"].spec, AdapterConfig()) if p[0] == DENOISER]
    updates = {}
    for place in chosen:
        out, width = components.denoiser.get_submodule(place[1]).weight.shape
        updates[place] = LoraWeights(torch.empty(4, width, device="meta"), torch.empty(out, 4, device="meta"), 4.0)
    fused = fuse(updates)
    assert len(fused) == count == len(groups(chosen))
    assert all(re.fullmatch(r"lora_unet_joint_blocks_\d+_(x|context)_block_\w+", name) for name in fused)
    qkv = fused["lora_unet_joint_blocks_0_x_block_attn_qkv"]
    width = components.denoiser.config.num_attention_heads * 64
    assert qkv.up.shape == (3 * width, 12) and qkv.down.shape == (12, width) and qkv.alpha == 12
    assert diffusers_name(chosen[0]).startswith("transformer.transformer_blocks.0.")
