"""Stable Diffusion 1.x read from folders and single files equals what diffusers and transformers read."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from torch.testing import assert_close
from transformers import CLIPTextConfig, CLIPTextModel

from tests.tiny import ldm_state_dict, tiny_pipeline_folder, tiny_vae, write_json, write_ldm_file
from trainers.config import ModelConfig
from trainers.errors import UserError
from trainers.families import locate, read_sd
from trainers.families.base import Components
from trainers.families.loading import CONFIGS
from trainers.families.registry import FAMILIES, find_family
from trainers.families.sd15 import SD15

torch.set_num_threads(1)
CAPTIONS = ["a photo of a cat", "", "red ball " * 30]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny_pipeline_folder(tmp_path_factory.mktemp("tiny") / "model", levels=3, layers=2, text_layers=3)


@pytest.fixture(scope="module")
def reference(folder) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, dtype=torch.float32)


@pytest.fixture
def single_file(folder, tmp_path, monkeypatch) -> Path:
    """The same model as one file; the bundled settings are replaced by its own, as its sizes are not SD 1.5's."""
    shutil.copytree(folder, tmp_path / "sd15", ignore=shutil.ignore_patterns("*.safetensors"))
    shutil.copytree(folder / "tokenizer", tmp_path / "clip_tokenizer")
    monkeypatch.setattr("trainers.families.loading.CONFIGS", tmp_path)
    monkeypatch.setattr("trainers.families.read_sd.TOKENIZER", tmp_path / "clip_tokenizer")
    return write_ldm_file(folder, tmp_path / "model.safetensors")


def load(path: Path, **settings) -> Components:
    return SD15.load(ModelConfig(base=str(path), **settings), torch.float32)


def assert_equals(components: Components, reference: StableDiffusionPipeline) -> None:
    """Same tokens, text, prediction, latents and picture as diffusers' own modules, to the bit."""
    tokens = SD15.tokenize(components, CAPTIONS)
    wanted = reference.tokenizer(CAPTIONS, padding="max_length", truncation=True, return_tensors="pt").input_ids
    assert torch.equal(tokens[0], wanted) and wanted.shape == (3, 24)
    generator = torch.Generator().manual_seed(0)
    noisy, pixels = torch.randn(3, 4, 8, 8, generator=generator), torch.rand(2, 3, 16, 16, generator=generator) * 2 - 1
    timesteps = torch.tensor([3, 500, 999])
    with torch.no_grad():
        conditioning = SD15.encode_text(components.text_encoders, tokens, 1)
        embeds = reference.text_encoder(wanted)[0]
        assert_close(conditioning.embeds, embeds, rtol=0, atol=0)
        prediction = SD15.denoise(components.denoiser, noisy, timesteps, conditioning)
        assert_close(prediction, reference.unet(noisy, timesteps, embeds).sample, rtol=0, atol=0)
        mean, logvar = SD15.encode_image(components.vae, pixels)
        posterior = reference.vae.encode(pixels).latent_dist
        assert_close((mean, logvar), (posterior.mean, posterior.logvar), rtol=0, atol=0)
        picture = SD15.decode_image(components.vae, mean * 0.18215)
        assert_close(picture, reference.vae.decode(mean).sample, rtol=1e-5, atol=1e-5)


def test_a_folder_gives_what_diffusers_gives(folder, reference):
    components = load(folder)
    assert_equals(components, reference)
    assert (components.resolution, components.multiple, components.name) == (16, 4, "model")
    assert (components.latent.channels, components.latent.factor, components.latent.scaling) == (4, 2, 0.18215)


def test_a_single_file_gives_what_diffusers_gives_from_the_folder(single_file, reference, caplog):
    assert_equals(load(single_file), reference)
    assert not caplog.records  # beta tables, EMA copies and position numbers are no leftovers


def test_a_single_file_without_the_text_model_level_is_read(single_file, reference):
    tensors = {name.replace("transformer.text_model.", "transformer."): t for name, t in load_file(single_file).items()}
    save_file(tensors, single_file)
    assert_equals(load(single_file), reference)


def test_a_folder_from_transformers_4_is_read(folder, reference, tmp_path):
    shutil.copytree(folder, tmp_path / "m")
    file = tmp_path / "m" / "text_encoder" / "model.safetensors"
    tensors = {f"text_model.{name.removeprefix('text_model.')}": t for name, t in load_file(file).items()}
    save_file(tensors | {"text_model.embeddings.position_ids": torch.arange(24)[None]}, file)
    assert_equals(load(tmp_path / "m"), reference)


def test_old_attention_names_of_the_vae_are_read(folder, reference, tmp_path):
    shutil.copytree(folder, tmp_path / "m")
    file = tmp_path / "m" / "vae" / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = load_file(file)
    for new, word in old.items():
        tensors = {name.replace(f"attentions.0.{new}.", f"attentions.0.{word}."): t for name, t in tensors.items()}
    assert any("proj_attn" in name for name in tensors)
    save_file(tensors, file)
    assert_equals(load(tmp_path / "m"), reference)


def test_a_ckpt_is_read_as_weights_only_and_recommends_safetensors(single_file, reference, caplog):
    path = single_file.with_suffix(".ckpt")
    torch.save({"state_dict": load_file(single_file), "epoch": 3}, path)
    with caplog.at_level(logging.WARNING):
        assert_equals(load(path), reference)
    assert "prefer the .safetensors version" in caplog.text


class Foreign:
    """Stands for what a pickle may do while it is read."""

    def __reduce__(self):
        return (Path.touch, (Path(self.target),))


def test_a_ckpt_with_code_in_it_is_refused_and_the_code_not_run(tmp_path):
    payload = Foreign()
    payload.target = str(tmp_path / "proof")
    torch.save({"state_dict": {"a": torch.zeros(1)}, "callback": payload}, tmp_path / "evil.ckpt")
    with pytest.raises(UserError, match="could run foreign code"):
        load(tmp_path / "evil.ckpt")
    assert not (tmp_path / "proof").exists()


def test_a_lora_in_a_ckpt_is_named(tmp_path):
    torch.save({"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": torch.zeros(4, 8)}, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match=r"x\.ckpt is a LoRA adapter, not a base model"):
        load(tmp_path / "x.ckpt")


def test_fp16_variants_shards_and_pickles_are_read(folder, reference, tmp_path):
    half = load(tiny_pipeline_folder(tmp_path / "half", levels=3, layers=2, text_layers=3, variant="fp16"))
    assert_equals(half, reference)  # the variant is a name here, its numbers are fp32
    assert_equals(
        load(tiny_pipeline_folder(tmp_path / "bin", levels=3, layers=2, text_layers=3, safe=False)), reference
    )
    shutil.copytree(folder, tmp_path / "shards")
    unet = tmp_path / "shards" / "unet"
    (unet / "diffusion_pytorch_model.safetensors").unlink()
    reference.unet.save_pretrained(unet, max_shard_size="500KB")
    assert (unet / "diffusion_pytorch_model.safetensors.index.json").exists()
    assert_equals(load(tmp_path / "shards"), reference)


def test_parts_are_frozen_and_the_vae_stays_fp32(folder):
    components = SD15.load(ModelConfig(base=str(folder)), torch.bfloat16)
    for module in (components.denoiser, components.vae, *components.text_encoders):
        assert not module.training and not any(p.requires_grad for p in module.parameters())
    assert components.denoiser.dtype == components.text_encoders[0].dtype == torch.bfloat16
    assert components.vae.dtype == torch.float32


def test_missing_weights_are_named(single_file):
    tensors = load_file(single_file)
    del tensors["model.diffusion_model.middle_block.1.norm.weight"]
    save_file(tensors, single_file)
    with pytest.raises(UserError, match=r"lacks 1 of the UNet's \d+ weights, such as mid_block\.attentions\.0\.norm"):
        load(single_file)


def test_a_file_of_unusual_size_says_so(folder, tmp_path):
    path = write_ldm_file(folder, tmp_path / "small.safetensors")
    with pytest.raises(UserError, match=r"small\.safetensors (lacks|has other sizes)"):
        load(path)


def test_leftovers_are_listed(single_file, caplog):
    save_file(load_file(single_file) | {"something.else.weight": torch.zeros(2)}, single_file)
    load(single_file)
    assert "1 tensors that no part of the model uses: something.else.weight" in caplog.text


@pytest.mark.parametrize("layout", ["ldm", "ldm with prefix", "diffusers", "folder"])
def test_another_vae_takes_the_place_of_the_bases_own(single_file, tmp_path, layout):
    torch.manual_seed(5)
    vae = tiny_vae(layers=2).eval()
    base = load(single_file)
    path = tmp_path / "vae.safetensors"
    if layout == "folder":
        path = tmp_path / "other"
        vae.save_pretrained(path)
    elif layout == "diffusers":
        save_file(vae.state_dict(), path)
    else:
        names = ldm_state_dict(base.denoiser, vae, base.text_encoders[0])
        start = "first_stage_model."
        cut = start if layout == "ldm" else ""
        save_file({n.removeprefix(cut): t for n, t in names.items() if n.startswith(start)}, path)
    mine = load(single_file, vae=str(path))
    pixels = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        assert_close(SD15.encode_image(mine.vae, pixels)[0], vae.encode(pixels).latent_dist.mean, rtol=0, atol=0)


def test_a_file_without_a_vae_needs_one(single_file, tmp_path):
    tensors = load_file(single_file)
    save_file(
        {n.removeprefix("first_stage_model."): t for n, t in tensors.items() if "first_stage" in n},
        tmp_path / "v.safetensors",
    )
    save_file({n: t for n, t in tensors.items() if "first_stage" not in n}, single_file)
    with pytest.raises(UserError, match="of the VAE's"):
        load(single_file)
    assert load(single_file, vae=str(tmp_path / "v.safetensors")).latent.factor == 2


def test_a_wrong_vae_is_named(folder, tmp_path):
    save_file({"lora_unet_x.lora_down.weight": torch.zeros(4, 8)}, tmp_path / "l.safetensors")
    with pytest.raises(UserError, match="is a LoRA adapter, not a VAE"):
        load(folder, vae=str(tmp_path / "l.safetensors"))
    with pytest.raises(UserError, match="There is no VAE"):
        load(folder, vae=str(tmp_path / "none.safetensors"))
    with pytest.raises(UserError, match="holds no VAE"):
        load(folder, vae=str(folder / "unet"))
    with pytest.raises(UserError, match="There is no VAE at ~nosuchuser"):
        load(folder, vae="~nosuchuser/vae")


@pytest.mark.parametrize("of_base", ["folder", "single file"])
@pytest.mark.parametrize("change", [{"latent_channels": 16}, {"block_out_channels": (8, 8, 16)}], ids=["16", "factor"])
def test_a_vae_with_latents_of_another_shape_is_refused(folder, single_file, tmp_path, of_base, change):
    config = {**tiny_vae().config, **change}
    count = len(config["block_out_channels"])
    config |= {"down_block_types": ("DownEncoderBlock2D",) * count, "up_block_types": ("UpDecoderBlock2D",) * count}
    AutoencoderKL.from_config(config).save_pretrained(tmp_path / "other")
    base = folder if of_base == "folder" else single_file
    with pytest.raises(UserError, match=f"The VAE other makes latents of another shape than {base.name} works on"):
        load(base, vae=str(tmp_path / "other"))


@pytest.mark.parametrize(
    ("said", "wish", "result"),
    [
        ("epsilon", "auto", "epsilon"),
        ("v_prediction", "auto", "v_prediction"),
        ("v_prediction", "v", "v_prediction"),
        (None, "auto", "epsilon"),
        (None, "v", "v_prediction"),
        ("epsilon", "v", None),
        ("v_prediction", "epsilon", None),
    ],
)
def test_prediction_type_follows_the_model_and_refuses_a_contradiction(tmp_path, said, wish, result):
    folder = tiny_pipeline_folder(tmp_path / "m", prediction_type=said)
    if result is None:
        with pytest.raises(UserError, match="model.prediction is"):
            load(folder, prediction=wish)
    else:
        assert load(folder, prediction=wish).scheduler["prediction_type"] == result


def test_marks_in_a_single_file_set_v_prediction_and_zero_snr(single_file):
    save_file(load_file(single_file) | {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}, single_file)
    scheduler = load(single_file).scheduler
    assert scheduler["prediction_type"] == "v_prediction" and scheduler["rescale_betas_zero_snr"]
    with pytest.raises(UserError, match="model.prediction is epsilon"):
        load(single_file, prediction="epsilon")


@pytest.mark.parametrize("clip_skip", [1, 2, 3])
def test_clip_skip_equals_a_text_encoder_without_its_last_layers(folder, reference, clip_skip):
    components = load(folder)
    tokens = SD15.tokenize(components, CAPTIONS)
    embeds = SD15.encode_text(components.text_encoders, tokens, clip_skip).embeds
    config = CLIPTextConfig(**{**reference.text_encoder.config.to_dict(), "num_hidden_layers": 3 - (clip_skip - 1)})
    shorter = CLIPTextModel(config).eval()
    shorter.load_state_dict(reference.text_encoder.state_dict(), strict=False)
    assert_close(embeds, shorter(tokens[0]).last_hidden_state, rtol=0, atol=0)


def test_clip_skip_beyond_the_layers_is_refused(folder):
    with pytest.raises(UserError, match="model.clip_skip is 4, but the text encoder has 3 layers"):
        load(folder, clip_skip=4)


@pytest.mark.parametrize("clip_skip", [1, 2])
def test_encoding_text_is_differentiable(folder, clip_skip):
    components = load(folder)
    encoder = components.text_encoders[0].requires_grad_(True)
    tokens = SD15.tokenize(components, CAPTIONS)
    SD15.encode_text((encoder,), tokens, clip_skip).embeds.square().sum().backward()
    assert encoder.encoder.layers[0].self_attn.q_proj.weight.grad.abs().sum() > 0


def test_the_bundled_tokenizer_is_clips():
    (tokenizer,) = read_sd.bundled(SD15.source.layout, CONFIGS / "sd15", SD15.source.padding).tokenizers
    assert len(tokenizer) == 49408 and tokenizer.model_max_length == 77
    assert tokenizer("A photo of  a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    padded = tokenizer("cat", padding="max_length").input_ids
    assert padded == [49406, 2368] + [49407] * 75  # SD 1.x pads with the end token


def test_the_family_is_found_from_the_model(folder):
    assert find_family(ModelConfig(base=str(folder))) is SD15
    assert find_family(ModelConfig(family="sd15")) is SD15
    assert FAMILIES["sd15"].spec.name == "sd15"


def test_a_family_not_trained_here_names_those_that_are(tmp_path):
    write_json(tmp_path / "m" / "model_index.json", {"_class_name": "FluxPipeline"})
    with pytest.raises(
        UserError, match=r"Flux model.*Trained here: Stable Diffusion 1\.x, Stable Diffusion 2\.x, Stable Diffusion XL"
    ):
        find_family(ModelConfig(base=str(tmp_path / "m")))


def test_a_base_from_the_hub_is_named_by_its_id(folder, tmp_path, monkeypatch):
    snapshot = tmp_path / "models--owner--cat-model" / "snapshots" / "451f4fe16113bff5a5d2269ed5ad43b0592e9a14"
    shutil.copytree(folder, snapshot)
    monkeypatch.setattr(locate, "download", lambda repository: snapshot)
    components = SD15.load(ModelConfig(base="owner/cat-model"), torch.float32)
    assert (components.name, components.path) == ("cat-model", snapshot)
    with pytest.raises(UserError, match="but cat-model says that it predicts epsilon"):
        SD15.load(ModelConfig(base="owner/cat-model", prediction="v"), torch.float32)


def test_a_missing_base_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="There is no base model at"):
        load(tmp_path / "none.safetensors")


def test_a_hub_id_without_a_network_is_one_sentence():
    with pytest.raises(
        UserError, match=r"owner/model is no file or folder here, and the Hugging Face hub cannot be reached"
    ):
        SD15.load(ModelConfig(base="owner/model"), torch.float32)


def test_a_damaged_embedded_base_says_how_to_mend_it(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(locate, "__file__", str(tmp_path / "trainers" / "families" / "locate.py"))
    base = tmp_path / "assets" / "base"
    with pytest.raises(UserError, match="The embedded base model is damaged.*Get LoRA Darkroom again"):
        SD15.load(ModelConfig(), torch.float32)
    shutil.copytree(folder, base)
    assert SD15.load(ModelConfig(), torch.float32).name == "lora-darkroom-base"
    file = base / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(UserError, match="The embedded base model is damaged.*is cut off"):
        SD15.load(ModelConfig(), torch.float32)


def test_a_damaged_tokenizer_is_named(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "m")
    for file in (tmp_path / "m" / "tokenizer").iterdir():
        file.unlink()
    with pytest.raises(UserError, match="lacks the tokenizer's vocabulary"):
        load(tmp_path / "m")


def test_bundled_settings_hold_what_the_pipeline_needs():
    index = json.loads((CONFIGS / "sd15" / "model_index.json").read_text("utf-8"))
    assert index["_class_name"] == "StableDiffusionPipeline"
    assert (CONFIGS / "README.md").read_text("utf-8").count("OpenAI") == 1
