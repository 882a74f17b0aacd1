"""Every family against diffusers' own pipeline: tokens, text, prediction, latents, picture; folder and single file."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, T5EncoderModel

from tests.tiny_families import FAMILIES as FAMILY_NAMES
from tests.tiny_families import read_pipeline, tiny_folder, tiny_t5, write_checkpoint
from trainers.config import ModelConfig, NoiseConfig
from trainers.data.buckets import crop_for
from trainers.data.types import Bucket, Example
from trainers.encoding import told_sizes
from trainers.errors import UserError
from trainers.families import read_sd
from trainers.families.base import Conditioning, plain_sizes
from trainers.families.loading import CONFIGS
from trainers.families.locate import Glance, require_base
from trainers.families.parts import random_module
from trainers.families.registry import FAMILIES, find_family
from trainers.families.sd3 import choose_variant
from trainers.families.weights import Weights
from trainers.moments import Wanted
from trainers.noise import build_noise
from trainers.preview import build_sampler

CAPTIONS = ["a photo of a cat", "", "a red ball " * 9]


@pytest.fixture(scope="module", params=FAMILY_NAMES)
def folder(request, tmp_path_factory) -> Path:
    return tiny_folder(request.param, tmp_path_factory.mktemp(request.param) / request.param)


@pytest.fixture
def single_file(folder, tmp_path, monkeypatch) -> Path:
    """The same model as one file; the bundled settings are replaced by its own, as its sizes are not the family's."""
    for name in (folder.name, "sd2-768", "sd2-512", "sd3.5-medium", "sd3-medium"):
        shutil.copytree(folder, tmp_path / name, ignore=shutil.ignore_patterns("*.safetensors"), dirs_exist_ok=True)
    monkeypatch.setattr("trainers.families.loading.CONFIGS", tmp_path)
    monkeypatch.setattr("trainers.families.read_sd.TOKENIZER", folder / "tokenizer")
    return write_checkpoint(folder.name, folder, tmp_path / "model.safetensors")


def reference_text(pipe) -> tuple[torch.Tensor, torch.Tensor | None]:
    more = {"max_sequence_length": 256} if isinstance(pipe, StableDiffusion3Pipeline) else {}
    found = [
        pipe.encode_prompt(
            c,
            **dict.fromkeys(("prompt_2", "prompt_3"), None) if more else {},
            device="cpu",
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
            **more,
        )
        for c in CAPTIONS
    ]
    pooled = [f[2] for f in found] if len(found[0]) == 4 else None
    return torch.cat([f[0] for f in found]), None if pooled is None else torch.cat(pooled)


@torch.no_grad()
def assert_equals_diffusers(base: Path, folder: Path, **settings) -> None:
    config = ModelConfig(base=str(base), **settings)
    family = find_family(config)
    assert family.spec.name == folder.name
    components = family.load(config, torch.float32)
    pipe = read_pipeline(folder.name, folder)
    conditioning = family.encode_text(components.text_encoders, family.tokenize(components, CAPTIONS), 1)
    embeds, pooled = reference_text(pipe)
    if folder.name == "sd3":  # padding to the joint width is done by `denoise`
        assert torch.equal(embeds[:, :24, : conditioning.embeds.shape[-1]], conditioning.embeds)
    else:
        assert torch.equal(embeds, conditioning.embeds)
    assert (pooled is None) == (conditioning.pooled is None)
    assert pooled is None or torch.allclose(pooled, conditioning.pooled, rtol=1e-4, atol=1e-5)

    denoiser = pipe.transformer if folder.name == "sd3" else pipe.unet
    denoiser.requires_grad_(False)  # as ours: where gradients are wished, torch multiplies and so rounds another way
    pooled = conditioning.pooled  # the reference encodes captions one by one: equal but for rounding
    generator = torch.Generator().manual_seed(0)
    channels = components.latent.channels
    noisy = torch.randn(3, channels, 8, 8, generator=generator)
    timesteps = torch.tensor([3.0, 500.0, 999.0])
    sizes = plain_sizes(family, 16, 16, 3, noisy.device)
    ours = family.denoise(components.denoiser, noisy, timesteps, conditioning.sized(sizes))
    if folder.name == "sd3":
        theirs = pipe.transformer(noisy, embeds, pooled, timesteps, return_dict=False)[0]
    elif folder.name == "sdxl":
        added = {"text_embeds": pooled, "time_ids": torch.tensor([[16.0, 16, 0, 0, 16, 16]] * 3)}
        theirs = pipe.unet(noisy, timesteps, embeds, added_cond_kwargs=added, return_dict=False)[0]
    else:
        theirs = pipe.unet(noisy, timesteps, embeds, return_dict=False)[0]
    assert torch.equal(ours, theirs)

    pixels = torch.rand(2, 3, 16, 16, generator=generator) * 2 - 1
    mean, logvar = family.encode_image(components.vae, pixels)
    posterior = pipe.vae.encode(pixels).latent_dist
    assert torch.equal(mean, posterior.mean) and torch.equal(logvar, posterior.logvar)
    latent = components.latent
    assert (latent.scaling, latent.shift) == (pipe.vae.config.scaling_factor, pipe.vae.config.shift_factor or 0.0)
    picture = family.decode_image(components.vae, (mean - latent.shift) * latent.scaling)
    torch.testing.assert_close(picture, pipe.vae.decode(mean).sample, rtol=1e-4, atol=1e-5)


def test_a_folder_reads_as_diffusers_reads_it(folder):
    assert_equals_diffusers(folder, folder)


def test_a_single_file_is_the_same_model(folder, single_file):
    settings = {"prediction": "v"} if folder.name == "sd2" else {}
    assert_equals_diffusers(single_file, folder, **settings)


def test_a_base_of_another_family_than_the_settings_say_is_named(folder, single_file):
    words = {"sd2": "Stable Diffusion 2.x", "sdxl": "Stable Diffusion XL", "sd3": "Stable Diffusion 3"}[folder.name]
    for base in (folder, single_file):
        with pytest.raises(UserError, match=f"is a {words} model, and Stable Diffusion 1.x is wanted"):
            FAMILIES["sd15"].load(ModelConfig(base=str(base), family="sd15"), torch.float32)


def test_a_stable_diffusion_2_file_that_does_not_say_what_it_predicts_asks(folder, single_file):
    if folder.name != "sd2":
        pytest.skip("only Stable Diffusion 2.x comes in two kinds with the same tensors")
    with pytest.raises(UserError, match=r"does not say what it predicts.*Set model\.prediction to v"):
        FAMILIES["sd2"].load(ModelConfig(base=str(single_file)), torch.float32)


def test_every_tensor_of_a_single_file_is_used(folder, single_file, caplog):
    settings = {"prediction": "v"} if folder.name == "sd2" else {}
    FAMILIES[folder.name].load(ModelConfig(base=str(single_file), **settings), torch.float32)
    assert not caplog.records


@pytest.mark.parametrize("name", ["sd2", "sdxl", "sd3"])
def test_bundled_tokenizers_pad_as_the_families_do(name):
    source = FAMILIES[name].source
    tokenizers = read_sd.bundled(source.layout, CONFIGS / (source.usual or name), source.padding).tokenizers
    padded = [t("cat", padding="max_length").input_ids for t in tokenizers]
    end = [49406, 2368, 49407]
    assert padded[-1] == end + [0] * 74  # OpenCLIP's
    assert len(padded) == 1 or padded[0] == [*end, *[49407] * 74]


def test_t5_reads_the_caption_beside_the_clips_as_in_diffusers(tmp_path):
    base, t5 = tiny_folder("sd3", tmp_path / "sd3"), tiny_t5(tmp_path / "t5", width=64)
    components = FAMILIES["sd3"].load(ModelConfig(base=str(base), t5=str(t5)), torch.float32)
    pipe = read_pipeline("sd3", base)
    pipe.tokenizer_3 = AutoTokenizer.from_pretrained(t5)
    pipe.text_encoder_3 = T5EncoderModel.from_pretrained(t5)
    tokens = FAMILIES["sd3"].tokenize(components, CAPTIONS)
    with torch.no_grad():
        ours = FAMILIES["sd3"].encode_text(components.text_encoders, tokens, 1)
        theirs, _ = reference_text(pipe)
    assert ours.embeds.shape == (3, 24 + 256, 64)
    torch.testing.assert_close(ours.embeds, theirs, rtol=1e-4, atol=1e-5)
    assert not components.remarks


def test_stable_diffusion_3_without_t5_says_so(tmp_path):
    base = tiny_folder("sd3", tmp_path / "sd3")
    components = FAMILIES["sd3"].load(ModelConfig(base=str(base)), torch.float32)
    assert "without T5" in components.remarks[0][0]


@pytest.mark.parametrize(("width", "words"), [(32, "holds no T5 of width 64"), (None, "There is no T5 at")])
def test_a_t5_that_does_not_fit_is_refused_in_words(tmp_path, width, words):
    base, t5 = tiny_folder("sd3", tmp_path / "sd3"), tmp_path / "t5"
    if width:
        tiny_t5(t5, width)
    with pytest.raises(UserError, match=words):
        FAMILIES["sd3"].load(ModelConfig(base=str(base), t5=str(t5)), torch.float32)


def test_an_sdxl_file_says_by_marks_that_it_predicts_v_down_to_pure_noise(tmp_path, monkeypatch):
    folder = tiny_folder("sdxl", tmp_path / "sdxl")
    monkeypatch.setattr("trainers.families.loading.CONFIGS", tmp_path)
    monkeypatch.setattr("trainers.families.read_sd.TOKENIZER", folder / "tokenizer")
    marks = {"v_pred": torch.tensor([]), "ztsnr": torch.tensor([])}
    file = write_checkpoint("sdxl", folder, tmp_path / "noob.safetensors", **marks)
    assert require_base(ModelConfig(base=str(file))) == Glance(
        "sdxl", "noob.safetensors: Stable Diffusion XL, predicts v with zero terminal SNR"
    )
    scheduler = FAMILIES["sdxl"].load(ModelConfig(base=str(file)), torch.float32).scheduler
    assert scheduler["prediction_type"] == "v_prediction" and scheduler["rescale_betas_zero_snr"]
    noise = build_noise(scheduler, NoiseConfig(), torch.device("cpu"))
    assert noise.snr[-1] == 0 and noise.prediction == "v"
    sampler = build_sampler(scheduler)
    sampler.set_timesteps(10)
    assert sampler.timesteps[0] == 999 and sampler.alphas_cumprod[-1] < 1e-6


@pytest.mark.parametrize(("name", "remarked"), [("sd2", False), ("sdxl", True), ("sd3", True)])
def test_clip_skip_is_remarked_on_where_image_programs_do_not_skip(name, remarked, tmp_path):
    config = ModelConfig(base=str(tiny_folder(name, tmp_path / name)), clip_skip=2)
    components = FAMILIES[name].load(config, torch.float32, deferred=True)
    assert any("another text-encoder layer" in what for what, _ in components.remarks) == remarked


def test_sdxl_is_told_the_size_the_corner_and_the_crop_of_the_picture_itself():
    crop = crop_for((3021, 1500), Bucket(1280, 832))  # scaled to 1676 x 832, cut at the sides
    example = Example(Path("wide.png"), "", (3021, 1500), "")
    assert crop.scaled == (1676, 832)
    assert told_sizes(FAMILIES["sdxl"], Wanted(0, example, crop, False, "")) == (1500, 3021, 0, 198, 832, 1280)
    shifted = replace(crop, left=100, top=7)
    assert told_sizes(FAMILIES["sdxl"], Wanted(0, example, shifted, False, "")) == (1500, 3021, 7, 100, 832, 1280)
    assert told_sizes(FAMILIES["sdxl"], Wanted(0, example, shifted, True, "")) == (1500, 3021, 7, 296, 832, 1280)


def test_sizes_are_told_exactly_whatever_the_denoiser_computes_in():
    embeds = torch.zeros(1, 2, 4, dtype=torch.bfloat16)
    sizes = torch.tensor([[1500.0, 3021, 0, 198, 832, 1280]])
    assert torch.equal(Conditioning(embeds).sized(sizes).time_ids, sizes)  # bf16 would make 3024 of 3021


def test_a_stable_diffusion_3_file_that_claims_epsilon_predicts_a_flow(tmp_path, monkeypatch):
    folder = tiny_folder("sd3", tmp_path / "sd3.5-medium")
    monkeypatch.setattr("trainers.families.loading.CONFIGS", tmp_path)
    monkeypatch.setattr("trainers.families.read_sd.TOKENIZER", folder / "tokenizer")
    file = write_checkpoint("sd3", folder, tmp_path / "tuned.safetensors")
    save_file(load_file(file), file, {"modelspec.prediction_type": "epsilon"})  # as sd-scripts writes it
    scheduler = FAMILIES["sd3"].load(ModelConfig(base=str(file)), torch.float32).scheduler
    assert scheduler["prediction_type"] == "flow"


def test_a_transformer_without_its_text_encoders_is_no_base_but_with_them_beside_it(tmp_path, monkeypatch):
    folder = tiny_folder("sd3", tmp_path / "sd3.5-medium")
    monkeypatch.setattr("trainers.families.loading.CONFIGS", tmp_path)
    monkeypatch.setattr("trainers.families.read_sd.TOKENIZER", folder / "tokenizer")
    file = write_checkpoint("sd3", folder, tmp_path / "whole.safetensors")
    alone = {name: tensor for name, tensor in load_file(file).items() if not name.startswith("text_encoders.")}
    save_file(alone, tmp_path / "alone.safetensors")
    for place in ("clip_l", "clip_g"):
        start = f"text_encoders.{place}.transformer."
        clip = {name.removeprefix(start): t for name, t in load_file(file).items() if name.startswith(start)}
        save_file(clip, tmp_path / f"{place}.safetensors")
    base, clips = (
        str(tmp_path / "alone.safetensors"),
        {n: str(tmp_path / f"{n}.safetensors") for n in ("clip_l", "clip_g")},
    )
    with pytest.raises(UserError, match="is a transformer for Stable Diffusion 3, not a base model.*model.clip_l"):
        find_family(ModelConfig(base=base))
    with pytest.raises(UserError, match="is no .safetensors file of a CLIP"):
        FAMILIES["sd3"].load(ModelConfig(base=base, clip_l=base, clip_g=base), torch.float32)
    config = ModelConfig(base=base, **clips)
    assert require_base(config).family == "sd3"
    whole = FAMILIES["sd3"].load(ModelConfig(base=str(file)), torch.float32)
    joined = find_family(config).load(config, torch.float32)
    for one, other in zip(whole.text_encoders, joined.text_encoders, strict=True):
        for name, tensor in one.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name]), name


@pytest.mark.parametrize("variant", ["sd3-medium", "sd3.5-medium", "sd3.5-large"])
def test_the_size_of_a_stable_diffusion_3_file_is_told_by_its_blocks(tmp_path, variant):
    blocks = 38 if variant == "sd3.5-large" else 24
    names = [f"model.diffusion_model.joint_blocks.{i}.x_block.attn.qkv.weight" for i in range(blocks)]
    names += ["model.diffusion_model.joint_blocks.0.x_block.attn2.qkv.weight"] * (variant == "sd3.5-medium")
    save_file({name: torch.zeros(1) for name in names}, tmp_path / "x.safetensors")
    assert choose_variant(Weights([tmp_path / "x.safetensors"]), None, None) == variant


def test_a_pickled_checkpoint_is_looked_into_for_its_family(tmp_path):
    folder = tiny_folder("sdxl", tmp_path / "sdxl")
    file = write_checkpoint("sdxl", folder, tmp_path / "model.safetensors")
    torch.save({"state_dict": load_file(file)}, tmp_path / "model.ckpt")
    config = ModelConfig(base=str(tmp_path / "model.ckpt"))
    assert find_family(config).spec.name == "sdxl"
    assert require_base(config).family == ""  # a glance opens no pickle


def test_random_weights_fill_a_buffer_of_any_size():
    class Positions(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("pos_embed", torch.empty(1, 1_500, 1_000))

    filled = random_module(Positions, torch.float32).pos_embed  # Stable Diffusion 3 has one of 56 million numbers
    assert filled.isfinite().all() and filled.std() == pytest.approx(0.02, rel=0.01)
