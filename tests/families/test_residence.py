"""Models come when they are needed, go when they are not, and are the same when they come again."""

import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tiny import tiny_pipeline_folder
from trainers.adapters.lora import attach
from trainers.adapters.tokens import attach_tokens
from trainers.config import AdapterConfig, ModelConfig
from trainers.data.cache import identity
from trainers.errors import UserError
from trainers.families import weights
from trainers.families.base import Components
from trainers.families.residence import bring, is_away, lent, release
from trainers.families.sd15 import SD15
from trainers.identities import identify

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("base")
    tiny_pipeline_folder(folder)
    return str(folder)


def models(components: Components) -> list[torch.nn.Module]:
    return [components.denoiser, components.vae, *components.text_encoders]


@pytest.mark.parametrize("mapped", [True, False])
def test_a_model_that_comes_later_is_the_one_that_comes_at_once(base, mapped):
    config = ModelConfig(base=base)
    for dtype in (torch.float32, torch.bfloat16):
        later = SD15.load(config, dtype, deferred=True)
        assert all(is_away(model) for model in models(later))
        for model, whole in zip(models(later), models(SD15.load(config, dtype)), strict=True):
            for _ in range(2):
                assert identity(bring(model, CPU, mapped)) == identity(whole)
                assert not model.training and not any(p.requires_grad for p in model.parameters())
                release(model)
                assert is_away(model)


def test_what_its_file_cannot_give_back_waits_on_the_cpu(base):
    components = SD15.load(ModelConfig(base=base), torch.float32)
    attach_tokens(components, "zib", {"text_0": torch.randn(1, 16)})
    attach(components, SD15.spec, AdapterConfig(rank=2), seed=0)
    random = torch.nn.Linear(2, 2)
    for model in (*components.text_encoders, components.denoiser, random):
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        release(model)
        assert not is_away(model)
        assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_lent_model_goes_back_to_where_it_was_even_after_an_error(base):
    components = SD15.load(ModelConfig(base=base), torch.float32, deferred=True)
    bring(components.denoiser, CPU).train()
    with pytest.raises(RuntimeError, match="inside"):
        with lent([components.denoiser, components.vae], CPU):
            assert not components.denoiser.training and not is_away(components.vae)
            raise RuntimeError("inside")
    assert components.denoiser.training and not is_away(components.denoiser) and is_away(components.vae)


def test_a_deferred_base_is_checked_without_reading_a_weight(base, tmp_path, monkeypatch):
    monkeypatch.setattr(weights.Weights, "take", None)
    SD15.load(ModelConfig(base=base), torch.float32, deferred=True)
    folder = shutil.copytree(base, tmp_path / "lacking")
    (file,) = (folder / "vae").glob("*.safetensors")
    tensors = load_file(file)
    tensors.pop("encoder.conv_in.weight")
    save_file(tensors, file)
    with pytest.raises(UserError, match="lacks 1 of the VAE's"):
        SD15.load(ModelConfig(base=str(folder)), torch.float32, deferred=True)


def test_files_are_hashed_once_until_they_change(base, tmp_path, monkeypatch):
    vae = SD15.load(ModelConfig(base=base), torch.float32, deferred=True).vae
    first = identify(vae, tmp_path)
    assert first == identity(bring(vae, CPU))
    again = SD15.load(ModelConfig(base=base), torch.float32, deferred=True).vae
    assert identify(again, tmp_path) == first and is_away(again)  # nothing was read
    monkeypatch.setattr("trainers.identities.identity", lambda module, without: "new")
    assert identify(again, tmp_path) == first
    assert identify(again, tmp_path / "another") == "new"
    (file,) = again.source.weights.files
    os.utime(file, ns=(1, 1))
    assert identify(again, tmp_path) == "new"
