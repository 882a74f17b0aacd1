"""Pictures from an adapter file are those that the run itself would draw."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file

from tests.adapters.bases import stirred, trained
from tests.tiny import tiny_pipeline_folder
from tests.tiny_families import tiny_folder
from trainers import config_io, preview
from trainers.adapters.registry import ADAPTERS
from trainers.adapters.targets import parts
from trainers.config import AdapterConfig, TrainConfig
from trainers.errors import UserError
from trainers.export import writer
from trainers.families.sd15 import SD15
from trainers.sample import sample


def settings(base: Path, precision: str = "fp32") -> TrainConfig:
    return config_io.parse(
        {
            "model": {"base": str(base)},
            "memory": {"device": "cpu", "precision": precision},
            "preview": {"sampling_steps": 2},
        }
    )


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return tiny_pipeline_folder(tmp_path_factory.mktemp("base") / "model")


def trained_on(base: Path, size: float, kind: str = "lora"):
    """The base with an adapter on it, as after training."""
    components = SD15.load(settings(base).model, torch.float32)
    config = AdapterConfig(type=kind, rank=4, alpha=2.0, text_encoder=True)
    adapter = ADAPTERS[kind](components, SD15.spec, config, seed=0)
    (trained if kind == "lora" else stirred)(adapter, size=size)
    adapter.eval()
    return components, adapter


@pytest.fixture
def file(base, tmp_path) -> Path:
    """An adapter whose updates are far smaller than the weights they are added to."""
    _, adapter = trained_on(base, 1e-3)
    return writer.write(adapter.modules(), {}, SD15.spec, tmp_path / "a.safetensors", "fp32").path


@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_sampled_file_draws_what_the_run_drew(base, tmp_path, kind):
    components, adapter = trained_on(base, 0.5 if kind == "lora" else 0.1, kind)
    writer.write(adapter.modules(), {}, SD15.spec, tmp_path / "a.safetensors", "fp32")
    config = settings(base)
    with_it = preview.sample(SD15, components, ["a cat"], config.preview, 1, torch.device("cpu"), 16)[0]
    drawn, plain = (sample(config, f, ["a cat"], config.preview.seed)[0][0] for f in (tmp_path / "a.safetensors", None))
    assert np.abs(np.asarray(drawn, int) - np.asarray(with_it, int)).max() <= 1  # rounding at the last digit
    assert np.abs(np.asarray(plain, int) - np.asarray(with_it, int)).max() > 1


def test_no_update_is_rounded_away_by_weights_in_bf16(base, file, monkeypatch):
    seen = []
    monkeypatch.setattr(preview, "sample", lambda family, components, *rest: seen.append(components))
    sample(settings(base, "bf16"), file, ["a cat"], seed=0, strength=0.5)
    before = parts(SD15.load(settings(base).model, torch.bfloat16))
    _, adapter = trained_on(base, 1e-3)
    for (part, path), module in adapter.modules().items():
        layer = parts(seen[0])[part].get_submodule(path)
        weight = layer.base_layer.weight if isinstance(layer, LoraLayer) else layer.weight
        update = weight.float() - before[part].get_submodule(path).weight.float()
        update += layer.get_delta_weight("default").float() if isinstance(layer, LoraLayer) else 0.0
        expected = 0.5 * module.delta()
        assert (update - expected).norm() <= 1e-5 * expected.norm(), (part, path)


def test_a_file_with_layers_that_the_base_lacks_is_not_sampled(base, file):
    odd = {key.replace("mid_block", "middle"): tensor for key, tensor in load_file(file).items()}
    save_file(odd, file)
    with pytest.raises(UserError, match=r"does not fit model: it lacks \d+ of \d+ layers \(lora_unet_middle"):
        sample(settings(base), file, ["a cat"], seed=0)


def test_keys_that_are_no_layers_do_not_stop_a_file(base, file):
    save_file(load_file(file) | {"bundle_emb.x": torch.ones(2)}, file)
    assert len(sample(settings(base), file, ["a cat"], seed=0, count=2)[0]) == 2


@pytest.mark.parametrize("strength", [float("nan"), float("inf"), 1e9, -10.1])
def test_a_strength_that_draws_nothing_is_refused(base, file, strength):
    with pytest.raises(UserError, match=f"The strength is {re.escape(f'{strength:g}')}, and must be from -10 to 10"):
        sample(settings(base), file, ["a cat"], seed=0, strength=strength)


@pytest.mark.parametrize("broken", ["denoiser", "vae"])
def test_nothing_is_drawn_out_of_nan(base, monkeypatch, broken):
    load = SD15.load

    def loaded(*rest):
        components = load(*rest)
        part = {"denoiser": components.denoiser, "vae": components.vae.decoder}[broken]
        next(part.parameters()).data.fill_(torch.nan)
        return components

    monkeypatch.setattr(SD15, "load", loaded, raising=False)
    with pytest.raises(UserError, match="NaN or infinity in place of colours"):
        sample(settings(base), None, ["a cat"], seed=0)


def test_the_folder_that_peft_wrote_draws_what_the_run_drew(base, tmp_path):
    components, adapter = trained_on(base, 0.5)
    folder = writer.write(adapter.modules(), {}, SD15.spec, tmp_path / "a.safetensors", "fp32", "peft").path
    assert sorted(part.name for part in folder.iterdir()) == ["text_encoder", "unet"]
    config = settings(base)
    drawn_then = preview.sample(SD15, components, ["a cat"], config.preview, 1, torch.device("cpu"), 16)[0]
    drawn = sample(config, folder, ["a cat"], config.preview.seed)[0][0]
    assert np.abs(np.asarray(drawn, int) - np.asarray(drawn_then, int)).max() <= 1


def test_a_damaged_file_is_named_before_the_base_is_read(base, tmp_path, monkeypatch):
    (tmp_path / "a.safetensors").write_text("hello")
    monkeypatch.setattr(SD15, "load", lambda *_: pytest.fail("the base was read"), raising=False)
    with pytest.raises(UserError, match=r"a\.safetensors"):
        sample(settings(base), tmp_path / "a.safetensors", ["a cat"], seed=0)


def test_pictures_that_are_smaller_than_wished_are_told_of(tmp_path, caplog):
    config = settings(tiny_folder("sd3", tmp_path / "sd3"))
    config = config_io.override(config, ["preview.width=96", "preview.sampling_steps=1"])
    caplog.clear()
    ((picture,),) = sample(config, None, ["a cat"], seed=0)
    assert picture.width == 48
    assert caplog.messages[-1] == "Previews have at most 48 pixels a side. The base draws no larger pictures."
