"""The names of an original SD 1.5 checkpoint, against the file's known structure and diffusers' converter."""

import re

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from transformers import CLIPTextConfig, CLIPTextModel

from tests.tiny import ldm_state_dict, write_full_size_sd15
from trainers.config import ModelConfig
from trainers.families import ldm
from trainers.families.folders import read_json
from trainers.families.loading import CONFIGS
from trainers.families.sd15 import SD15


@pytest.fixture(scope="module")
def modules() -> tuple:
    """Full-size SD 1.5 without memory."""
    configs = [read_json(CONFIGS / "sd15" / part / "config.json") for part in ("unet", "vae", "text_encoder")]
    with torch.device("meta"):
        unet, vae = UNet2DConditionModel.from_config(configs[0]), AutoencoderKL.from_config(configs[1])
        return unet, vae, CLIPTextModel(CLIPTextConfig.from_dict(configs[2]))


@pytest.fixture(scope="module")
def checkpoint(modules) -> dict[str, torch.Tensor]:
    return ldm_state_dict(*modules, extras=False)


def test_every_weight_has_a_name_of_its_own(modules, checkpoint):
    counts = [len(module.state_dict()) for module in modules]
    assert counts == [686, 248, 196]  # what the public v1-5 files hold
    assert len(checkpoint) == sum(counts)


def test_parameters_are_as_many_as_in_stable_diffusion_1_5(modules):
    assert [sum(p.numel() for p in m.parameters()) for m in modules] == [859_520_964, 83_653_863, 123_060_480]


def test_layers_of_the_unet_are_numbered_as_in_the_original(checkpoint):
    def blocks(side: str) -> dict[int, set[str]]:
        found: dict[int, set[str]] = {}
        for name in checkpoint:
            if match := re.match(rf"model\.diffusion_model\.{side}\.(\d+)\.(\d)\.(\w+)", name):
                found.setdefault(int(match[1]), set()).add(f"{match[2]}.{match[3]}")
        return found

    resnet = {"0.in_layers", "0.emb_layers", "0.out_layers"}
    attention = {"1.norm", "1.proj_in", "1.transformer_blocks", "1.proj_out"}
    skip = {"0.skip_connection"}
    # v1-inference.yaml: channels x1 x2 x4 x4, two layers each, attention on the first three levels
    assert blocks("input_blocks") == {
        0: {"0.weight", "0.bias"},
        1: resnet | attention,
        2: resnet | attention,
        3: {"0.op"},
        4: resnet | attention | skip,
        5: resnet | attention,
        6: {"0.op"},
        7: resnet | attention | skip,
        8: resnet | attention,
        9: {"0.op"},
        10: resnet,
        11: resnet,
    }
    up = resnet | skip
    assert blocks("output_blocks") == {
        0: up,
        1: up,
        2: up | {"1.conv"},
        **{i: up | attention for i in (3, 4, 6, 7, 9, 10, 11)},
        5: up | attention | {"2.conv"},
        8: up | attention | {"2.conv"},
    }


@pytest.mark.parametrize(
    ("name", "shape"),
    [  # as in the public file
        ("model.diffusion_model.time_embed.2.bias", (1280,)),
        ("model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight", (640, 768)),
        ("model.diffusion_model.input_blocks.1.1.transformer_blocks.0.ff.net.0.proj.weight", (2560, 320)),
        ("model.diffusion_model.middle_block.2.out_layers.3.weight", (1280, 1280, 3, 3)),
        ("model.diffusion_model.output_blocks.3.0.skip_connection.weight", (1280, 2560, 1, 1)),
        ("model.diffusion_model.out.2.weight", (4, 320, 3, 3)),
        ("first_stage_model.encoder.mid.attn_1.q.weight", (512, 512, 1, 1)),
        ("first_stage_model.encoder.down.1.block.0.nin_shortcut.weight", (256, 128, 1, 1)),
        ("first_stage_model.encoder.down.2.downsample.conv.weight", (512, 512, 3, 3)),
        ("first_stage_model.decoder.up.0.block.0.conv1.weight", (128, 256, 3, 3)),
        ("first_stage_model.decoder.up.3.upsample.conv.weight", (512, 512, 3, 3)),
        ("first_stage_model.quant_conv.weight", (8, 8, 1, 1)),
        ("cond_stage_model.transformer.text_model.embeddings.token_embedding.weight", (49408, 768)),
        ("cond_stage_model.transformer.text_model.encoder.layers.11.mlp.fc2.weight", (768, 3072)),
    ],
)
def test_known_weights_stand_under_their_known_names(checkpoint, name, shape):
    assert tuple(checkpoint[name].shape) == shape


def test_diffusers_own_converter_agrees_on_every_weight(modules, checkpoint):
    unet, vae, _ = modules
    theirs = convert_ldm_unet_checkpoint(dict(checkpoint), dict(unet.config))
    for name in unet.state_dict():
        assert theirs[name] is checkpoint[ldm.unet_names(unet.config)(name)[0]], name
    assert len(theirs) == 686
    theirs = convert_ldm_vae_checkpoint(dict(checkpoint), dict(vae.config))
    assert len(theirs) == 248
    for name, tensor in vae.state_dict().items():
        assert theirs[name].shape == tensor.shape, name


@pytest.mark.parametrize(
    "name", ["betas", "model_ema.decay", "v_pred", "cond_stage_model.transformer.text_model.embeddings.position_ids"]
)
def test_training_leftovers_are_extras(name):
    assert ldm.is_extra(name)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["ldm", "diffusers"])
def test_full_size_models_load_in_both_layouts(tmp_path, layout):
    path = write_full_size_sd15(tmp_path / ("model.safetensors" if layout == "ldm" else "model"), layout)
    components = SD15.load(ModelConfig(base=str(path)), torch.float16)
    assert components.resolution == 512 and components.multiple == 8
    wanted = SD15.random(torch.float16).denoiser.state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in components.denoiser.state_dict().items())
