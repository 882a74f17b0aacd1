"""Pivotal tuning, the whole recipe: what is learnt, what stays, resuming to the bit, and the files."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from app.runs import Run, status
from tests.tiny import tiny_pipeline_folder
from tests.tiny_families import tiny_folder
from trainers import config_io, events, memory
from trainers.adapters.adapter_file import read_adapter
from trainers.adapters.tokens import tokens_of_state
from trainers.bench.loops import engine_step
from trainers.check import check
from trainers.config import TrainConfig
from trainers.errors import UserError
from trainers.export.inspect import inspect
from trainers.export_run import export_run
from trainers.families.registry import FAMILIES, find_family
from trainers.families.sd15 import SD15
from trainers.sample import sample
from trainers.train import Folders, train

EVERYTHING = {
    "adapter": {"rank": 2, "new_tokens": 2, "token_stop": 0.5},
    "data": {"batch_size": 2, "shuffle_tags": True, "caption_dropout": 0.3, "trigger": "zib", "kind": "style"},
    "loss": {"preservation": 1.0, "preservation_every": 2},
    "optimizer": {"rate": 1e-2, "ema": True},
    "preview": {"every": 0, "sampling_steps": 1, "prompts": ["zib, red", "a cat"]},
    "memory": {"device": "cpu", "precision": "fp32"},
    "saving": {"name": "tiny", "dtype": "fp32", "every": 2, "keep": 9},
}
STILL = {"optimizer": {"rate": 1e-12, "token_rate": 3e-2, "ema": False}, "loss": {"preservation": 0}}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return tiny_pipeline_folder(tmp_path_factory.mktemp("base") / "sd15")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(8):
        Image.new("RGB", (32, 32 if i % 2 else 24), (i * 25, 200 - i * 20, 90)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"Zib, tag{i}, red, round", encoding="utf-8")
    return folder


def config_of(base: Path, pictures: Path, steps: int, **changes: dict) -> TrainConfig:
    sections = {name: {**values, **changes.get(name, {})} for name, values in EVERYTHING.items()}
    sections |= {"model": {"base": str(base)}, "schedule": {"steps": steps}}
    sections["data"] |= {"folders": [str(pictures)]}
    return config_io.parse(sections)


def run(
    folder: Path, base: Path, pictures: Path, steps: int, stop_at: int | None = None, **changes: dict
) -> list[events.Event]:
    config, seen = config_of(base, pictures, steps, **changes), []
    folder.mkdir(exist_ok=True)
    config_io.save(config, folder / "config.toml")
    (folder / "control").mkdir(exist_ok=True)
    (folder / "control" / "stop").unlink(missing_ok=True)

    def emit(event: events.Event) -> None:
        seen.append(event)
        if isinstance(event, events.Checkpoint) and event.step == stop_at:
            (folder / "control" / "stop").touch()

    train(config, Folders(folder, folder / "cache"), emit)
    return seen


def rows_at(folder: Path, step: int, name: str = "adapter") -> torch.Tensor:
    file = folder / "checkpoints" / f"step_{step:06d}" / f"{name}.safetensors"
    return tokens_of_state(load_file(file))["text_0"]


@pytest.mark.parametrize("stop_at", [2, 4], ids=["learning", "at rest"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"adapter": {"text_encoder": True, "text_stop": 0.3, "dropout": 0.1}, "optimizer": {"type": "schedulefree"}},
        {"adapter": {"text_encoder": True, "token_stop": 0.3}, "preview": {"every": 3}, "loss": {"preservation": 0}},
    ],
    ids=["denoiser", "text first", "tokens first"],
)
def test_resume_equals_an_uninterrupted_run(tmp_path, base, pictures, changes, stop_at):
    if changes.get("optimizer", {}).get("type") == "schedulefree":
        changes = {**changes, "optimizer": {**changes["optimizer"], "ema": False}}
    straight, parted = tmp_path / "straight", tmp_path / "parted"
    run(straight, base, pictures, 8, **changes)
    first = run(parted, base, pictures, 8, stop_at=stop_at, **changes)
    assert isinstance(first[-1], events.Stopped) and first[-1].step == stop_at + 1
    run(parted, base, pictures, 8, **changes)
    for name in ("tiny", "zib"):
        one, other = (load_file(folder / "output" / f"{name}.safetensors") for folder in (straight, parted))
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    masters = [load_file(f / "checkpoints" / "step_000008" / "adapter.safetensors") for f in (straight, parted)]
    assert all(torch.equal(masters[0][key], masters[1][key]) for key in masters[0])


@pytest.fixture
def loaded(monkeypatch) -> list:
    """The Components that runs load."""
    found, load = [], SD15.load

    def noted(*arguments, **named):
        found.append(load(*arguments, **named))
        return found[-1]

    monkeypatch.setattr(SD15, "load", noted, raising=False)
    return found


def test_nothing_of_the_base_changes_but_that_there_are_new_rows(tmp_path, base, pictures, loaded):
    run(tmp_path, base, pictures, 3, **STILL)
    after, before = loaded[0], SD15.load(config_of(base, pictures, 1).model, torch.float32)
    own, theirs = (parts.text_encoders[0].state_dict() for parts in (before, after))
    (new,) = theirs.keys() - own.keys()
    assert all(torch.equal(own[key], theirs[key]) for key in own)
    assert torch.equal(theirs[new], load_file(tmp_path / "output" / "zib.safetensors")["emb_params"])


def test_the_word_learns_one_picture_with_a_still_adapter(base):
    changes = {"adapter": {"token_stop": 1.0}, "data": {"trigger": "thing", "batch_size": 1, "shuffle_tags": False}}
    config = config_of(base, base, 60, **STILL, **changes)  # engine_step has pictures of its own
    config = config_io.merge(config, {"schedule": {"type": "constant", "warmup": 0}, "data": {"caption_dropout": 0}})
    plan, family = memory.plan(config.memory), find_family(config.model)
    step = engine_step(family, family.load(config.model, plan.dtype), config, plan, 60)
    layers = [parameter for parameter in step.parameters if parameter is not step.tokens.parameters()[0]]
    before, losses = [parameter.detach().clone() for parameter in layers], []
    for _ in range(20):
        step(0)  # the same picture, noise and noise level each time
        losses.append(step.mean_loss())
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]
    for parameter, start in zip(layers, before, strict=True):
        torch.testing.assert_close(parameter, start, rtol=0, atol=1e-9)


def test_from_the_stop_on_captions_are_encoded_once(tmp_path, base, pictures, loaded, monkeypatch):
    calls, forward = [], nn.Module.__call__

    def counted(module, *arguments, **named):
        if loaded and module is loaded[0].text_encoders[0]:
            calls.append(torch.is_grad_enabled())
        return forward(module, *arguments, **named)

    monkeypatch.setattr(nn.Module, "__call__", counted)
    run(tmp_path, base, pictures, 8, loss={"preservation": 0})
    assert calls.count(True) == 4  # one for each step of the first half
    rows = {step: rows_at(tmp_path, step, "exported" if step < 6 else "adapter") for step in (2, 4, 6, 8)}
    assert torch.equal(rows[4], rows[6]) and torch.equal(rows[4], rows[8]) and not torch.equal(rows[2], rows[4])
    assert torch.equal(rows[8], load_file(tmp_path / "output" / "zib.safetensors")["emb_params"])


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains_writes_and_samples_its_word(tmp_path, pictures, base, family):
    base = base if family == "sd15" else tiny_folder(family, tmp_path / family)
    changes = {"preview": {"every": 2}, "saving": {"every": 0}, "loss": {"preservation": 0}}
    changes["optimizer"] = {"token_rate": 0.1, "ema": False}
    seen = run(tmp_path / "run", base, pictures, 2, data={"batch_size": 1}, **changes)
    folder, file = tmp_path / "run", tmp_path / "run" / seen[-1].path
    spec = FAMILIES[family].spec
    assert load_file(folder / "output" / "zib.safetensors").keys() == set(spec.embedding_keys)
    assert any(isinstance(event, events.Adjusted) and "zib.safetensors" in event.what for event in seen)
    config = config_io.load(folder / "config.toml")
    with Image.open(folder / "samples" / "step_000002_0.png") as picture:
        drawn = np.asarray(picture.convert("RGB"), int)
    ((again,),) = sample(config, file, ["zib, red"], config.preview.seed)
    assert np.abs(np.asarray(again, int) - drawn).max() <= 1
    os.utime(folder / "output" / "zib.safetensors")  # the newest file there, and no adapter
    assert status(Run(folder)).adapter.name.startswith("tiny")
    (folder / "output" / "zib.safetensors").rename(tmp_path / "away.safetensors")
    with pytest.raises(UserError, match=r"needs zib\.safetensors, which is not beside it"):
        sample(config, file, ["zib, red"], 0)


def test_without_strength_the_word_is_a_word_again(tmp_path, base, pictures):
    run(tmp_path, base, pictures, 2, saving={"every": 0}, optimizer={"token_rate": 0.5})
    config = config_io.load(tmp_path / "config.toml")
    file = tmp_path / "output" / "tiny.safetensors"
    none, plain, whole = (
        np.asarray(sample(config, path, ["zib"], 1, strength)[0][0], int)
        for path, strength in ((file, 0.0), (None, 1.0), (file, 1.0))
    )
    assert np.array_equal(none, plain) and not np.array_equal(whole, plain)


@pytest.mark.parametrize("bundle", [False, True])
def test_new_tokens_go_into_the_adapter_where_that_is_wished(tmp_path, base, pictures, bundle):
    run(tmp_path, base, pictures, 2, saving={"bundle": bundle, "every": 0})
    file = tmp_path / "output" / "tiny.safetensors"
    inside = [key for key in read_adapter(file).tensors if key.startswith("bundle_emb")]
    assert inside == ["bundle_emb.zib.string_to_param.*"] * bundle
    assert bool(inspect(file)["embeddings"]) == bundle


def test_a_checkpoint_is_exported_with_its_own_vectors(tmp_path, base, pictures):
    run(tmp_path, base, pictures, 8)
    said = export_run(tmp_path, "2", "kohya", None)
    early = load_file(tmp_path / "output" / "zib-step00000002.safetensors")["emb_params"]
    assert str(tmp_path / "output" / "zib-step00000002.safetensors") in said["files"]
    assert torch.equal(early, rows_at(tmp_path, 2, "exported"))
    late = load_file(tmp_path / "output" / "zib.safetensors")["emb_params"]
    assert not torch.equal(early, late)
    for form in ("kohya", "diffusers", "peft"):
        export_run(tmp_path, None, form, tmp_path / "elsewhere")
    assert torch.equal(load_file(tmp_path / "elsewhere" / "zib.safetensors")["emb_params"], late)
    config = config_io.load(tmp_path / "config.toml")
    sample(config, tmp_path / "output" / "tiny-step00000002.safetensors", ["zib"], 0)


def test_a_checkpoint_with_another_number_of_tokens_does_not_fit(tmp_path, base, pictures):
    run(tmp_path, base, pictures, 8, stop_at=2)
    with pytest.raises(UserError, match="does not fit: 1 weights differ, first tokens/text_0"):
        run(tmp_path, base, pictures, 8, adapter={"new_tokens": 3})


def test_the_check_counts_the_text_encoder_and_misses_the_word(tmp_path, base, pictures):
    found = check(config_of(base, pictures, 8), lambda _: None)
    assert found["verdict"].startswith("It fits")
    with pytest.raises(UserError, match="No caption has the trigger word zab"):
        check(config_of(base, pictures, 8, data={"trigger": "zab"}), lambda _: None)
