"""Which layers the settings name, on UNets of every family and on transformers, and how wide each is."""

from dataclasses import replace

import pytest
import torch
from diffusers import SD3Transformer2DModel, UNet2DConditionModel

from tests.adapters.bases import full_size_components, tiny_components
from tests.tiny import tiny_text_encoder
from trainers import patterns
from trainers.adapters.registry import ADAPTERS
from trainers.adapters.targets import PRESETS, shapes, targets
from trainers.config import AdapterConfig
from trainers.errors import UserError
from trainers.families.base import Components, LatentSpec
from trainers.families.sd15 import SD15

SPEC = SD15.spec


def sdxl_unet() -> UNet2DConditionModel:
    """SDXL's own blocks and sizes, without memory."""
    with torch.device("meta"):
        return UNet2DConditionModel(
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20),
            cross_attention_dim=2048,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        )


def sd3_transformer(blocks: int = 2) -> SD3Transformer2DModel:
    return SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        num_layers=blocks,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=16,
        caption_projection_dim=16,
        pooled_projection_dim=16,
        out_channels=4,
        pos_embed_max_size=8,
    )


@pytest.fixture(scope="module")
def sdxl():
    return sdxl_unet()


@pytest.mark.parametrize(("wish", "count"), [("attention", 560), ("transformer", 722)])
def test_presets_name_as_many_layers_of_sdxl_as_kohya(sdxl, wish, count):
    assert len(targets(sdxl, wish, "sdxl")) == count


@pytest.mark.parametrize(("wish", "block"), [("content", 0), ("style", 1)])
def test_style_and_content_are_the_blocks_of_b_lora(sdxl, wish, block):
    found = targets(sdxl, wish, "sdxl")
    assert len(found) == 80  # ten transformer layers, two attentions each, q, k, v and out
    assert all(path.startswith(f"up_blocks.0.attentions.{block}.") for path in found)


@pytest.mark.parametrize("wish", ["content", "style"])
def test_style_and_content_are_refused_on_other_bases(wish):
    with pytest.raises(UserError, match=f"adapter.targets = '{wish}' names a block of Stable Diffusion XL"):
        shapes(tiny_components(), SPEC, AdapterConfig(targets=wish))


@pytest.mark.parametrize(("wish", "count"), [("attention", 15), ("transformer", 25), ("full", 25)])
@pytest.mark.parametrize("kind", ["lora", "locon"])
def test_presets_on_a_transformer_are_its_blocks(wish, count, kind):
    # two blocks of 8 attention, 4 feed-forward and 2 norm layers; the last lacks 3 that serve the context
    found = targets(sd3_transformer(), wish, "sd3", kind == "locon")
    assert len(found) == count and all(path.startswith("transformer_blocks.") for path in found)


@pytest.mark.parametrize("kind", ADAPTERS)
def test_every_type_sits_on_a_transformer_and_changes_nothing_at_first(kind):
    torch.manual_seed(0)
    text = tiny_text_encoder(600)
    transformer = sd3_transformer().eval().requires_grad_(False)
    latent = LatentSpec(4, 2, 1.0)
    components = Components(transformer, torch.nn.Identity(), (text, text), (), {}, latent, 16, 2, "tiny", None)
    generator = torch.Generator().manual_seed(0)
    noisy, embeds, pooled = (torch.randn(shape, generator=generator) for shape in ((1, 4, 8, 8), (1, 5, 16), (1, 16)))

    def predict():
        return transformer(noisy, embeds, pooled, torch.tensor([500]), return_dict=False)[0]

    before = predict()
    spec = replace(SPEC, name="sd3", text_prefixes=("lora_te1", "lora_te2"))
    adapter = ADAPTERS[kind](components, spec, AdapterConfig(type=kind, rank=2), 0)
    torch.testing.assert_close(predict(), before, rtol=0, atol=1e-6)
    assert len(adapter.layers) == 25


@pytest.mark.parametrize(("wish", "count"), [("attention", 128 + 86), ("transformer", 278), ("full", 278)])
def test_locon_adds_the_convolution_blocks_to_a_preset(wish, count):
    found = targets(full_size_components().denoiser, wish, "sd15", True)
    assert len(found) == len(set(found)) == count


def test_a_pattern_stays_as_it_is_under_locon():
    assert targets(tiny_components().denoiser, "attn2", "sd15", True) == targets(tiny_components().denoiser, "attn2")


def test_convolutions_of_3x3_have_a_rank_of_their_own_and_those_of_1x1_the_common_one():
    config = AdapterConfig(type="locon", rank=8, conv_rank=4, conv_alpha=1.0)
    found = shapes(full_size_components(), SPEC, config)
    assert found["denoiser", "down_blocks.0.resnets.0.conv1"] == (4, 1.0)
    assert found["denoiser", "down_blocks.0.downsamplers.0.conv"] == (4, 1.0)
    for path in ("resnets.0.conv_shortcut", "resnets.0.time_emb_proj", "attentions.0.proj_in"):
        assert found["denoiser", f"down_blocks.1.{path}"] == (8, 8.0)
    default = shapes(full_size_components(), SPEC, AdapterConfig(type="locon", rank=8, alpha=2.0))
    assert set(default.values()) == {(8, 2.0)}


def test_ranks_by_block_keep_the_scale_and_the_last_that_fits_counts():
    table = {"up_blocks": 2, r"up_blocks.1.*attn2\.to_[kv]": 6, "mid_block": 0}
    found = shapes(tiny_components(), SPEC, AdapterConfig(rank=8, alpha=4.0, block_ranks=table, targets="full"))
    assert not any("mid_block" in path for _, path in found)
    ranks = {path: shape for (_, path), shape in found.items()}
    assert ranks["up_blocks.1.attentions.0.proj_in"] == (2, 1.0)
    assert ranks["up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"] == (6, 3.0)
    assert ranks["down_blocks.0.attentions.0.proj_in"] == (8, 4.0)


def test_ranks_by_block_reach_text_encoders():
    table = {r"text_encoder.encoder.layers.0": 0}
    config = AdapterConfig(rank=2, text_encoder=True, block_ranks=table)
    paths = [path for part, path in shapes(tiny_components(), SPEC, config) if part == "text_0"]
    assert paths and all(path.startswith("encoder.layers.1.") for path in paths)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"block_ranks": {"up_block.1": 8}}, "adapter.block_ranks has 'up_block.1', which fits no layer"),
        ({"block_ranks": {"down_blocks|mid_block|up_blocks": 0}}, "leaves no layer to train"),
        ({"text_ranks": (4, 4), "text_encoder": True}, "adapter.text_ranks has 2 numbers, and this base has 1 text"),
    ],
)
def test_settings_that_fit_no_layer_are_refused(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        shapes(tiny_components(), SPEC, AdapterConfig(**changes))


def test_each_text_encoder_has_its_own_rank():
    one = tiny_components()
    components = replace(one, text_encoders=tuple(tiny_text_encoder(600) for _ in range(3)))
    config = AdapterConfig(rank=8, text_encoder=True, text_rank=6, text_ranks=(4, 0))
    spec = replace(SPEC, text_prefixes=("lora_te",) * 3)
    ranks = {part: rank for (part, _), (rank, _) in shapes(components, spec, config).items()}
    assert ranks == {"denoiser": 8, "text_0": 4, "text_2": 6}  # a list that ends early leaves the rest to text_rank


def test_a_rank_stabilised_scale_is_alpha_by_the_root_of_the_rank():
    found = shapes(tiny_components(), SPEC, AdapterConfig(rank=16, alpha=2.0, rank_stabilised=True))
    assert {alpha / rank for rank, alpha in found.values()} == {2.0 / 4}


def test_a_pattern_stands_for_whole_names():
    assert patterns.fits("transformer_blocks.1", "transformer_blocks.1.attn.to_q")
    assert not patterns.fits("transformer_blocks.1", "transformer_blocks.10.attn.to_q")
    assert not patterns.fits("attn", "transformer_blocks.1.attn2.to_q") and patterns.fits("attn.", "a.attn2.to_q")
    assert patterns.look_up({"a": 1, "b": 2}, "a.b") == 2 and patterns.look_up({"a": 1}, "c") is None


def test_presets_stay_those_that_the_settings_name():
    told = AdapterConfig.model_fields["targets"].description
    assert all(name in told for name in (*PRESETS, "style", "content"))
