"""What is no base model, or not all of one: one clear sentence, exit code 1, no traceback, and nothing lost."""

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest

from tests.bad_input.files import FLUX, LORA, SDXL, UNET_FILE, safetensors, text_as_model
from tests.commands import assert_refused, files_below
from trainers.families.locate import embedded_base


def text_as_ckpt(folder: Path) -> Path:
    return text_as_model(folder).rename(folder / "model.ckpt")


def noise_as_ckpt(folder: Path) -> Path:
    path = folder / "model.ckpt"
    path.write_bytes(bytes(range(255, 0, -1)) * 20)
    return path


def safetensors_as_ckpt(folder: Path) -> Path:
    return safetensors(folder / "model.ckpt", SDXL)


def web_page(folder: Path) -> Path:
    path = folder / "model.safetensors"
    path.write_text("<!DOCTYPE html><html><title>Log in</title></html>", encoding="utf-8")
    return path


def empty_folder(folder: Path) -> Path:
    (folder / "model").mkdir()
    return folder / "model"


BASES = {
    "missing": (lambda folder: folder / "model.safetensors", "There is no base model at"),
    "text": (text_as_model, "is a text file"),
    "text in a ckpt": (text_as_ckpt, "is a text file"),
    "noise in a ckpt": (noise_as_ckpt, "is not a PyTorch model file"),
    "safetensors in a ckpt": (safetensors_as_ckpt, "Rename it to end in .safetensors"),
    "web page": (web_page, "is a web page"),
    "LoRA": (lambda folder: safetensors(folder / "cat.safetensors", {LORA: (16, 768)}), "is a LoRA adapter"),
    "VAE": (lambda _: embedded_base() / "vae" / UNET_FILE, "is a VAE"),
    "Flux": (lambda folder: safetensors(folder / "flux.safetensors", FLUX), "is a Flux model"),
    "empty folder": (empty_folder, "is not a model folder"),
}


@pytest.mark.parametrize("kind", BASES)
def test_a_base_that_is_none_is_named_for_what_it_is_before_anything_is_made(new, place, tmp_path, kind):
    make, words = BASES[kind]
    assert_refused(new("--base", make(tmp_path)), words)
    assert files_below(place) == []


def test_a_background_run_with_a_missing_base_is_refused_at_once(darkroom, run, tmp_path):
    config, there = run / "config.toml", files_below(run)
    gone = "base = '/gone/model.safetensors'"
    config.write_text(config.read_text("utf-8").replace('base = "embedded"', gone), encoding="utf-8")
    assert_refused(darkroom("train", run, "--background"), "There is no base model at")
    assert files_below(run) == there


@pytest.mark.parametrize("length", [0, 3, 8, 100, "header - 1", "header", "header + 1000", "all - 1"])
def test_an_interrupted_download_is_named_at_any_length(new, place, tmp_path, length):
    whole = safetensors(tmp_path / "whole.safetensors", SDXL).read_bytes()
    if isinstance(length, str):
        name, _, number = length.replace(" ", "").replace("-", "+-").partition("+")
        length = {"header": 8 + int.from_bytes(whole[:8], "little"), "all": len(whole)}[name] + int(number or 0)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole[:length])
    assert_refused(new("--base", cut), "cut.safetensors", "download", "Download it again")
    assert files_below(place) == []


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize("how", ["missing", "cut", "cut in its header"])
def test_a_folder_that_lost_a_weight_file_or_its_end_is_named_with_the_part(new, place, tmp_path, part, how):
    base = tmp_path / "base"
    shutil.copytree(embedded_base(), base)
    weights = next((base / part).glob("*.safetensors"))
    if how == "missing":
        weights.unlink()
    else:
        os.truncate(weights, 50 if how.endswith("header") else weights.stat().st_size - 1)
    assert_refused(new("--base", base), f"base/{part}", "the download was interrupted")
    assert files_below(place) == []


def pickled_list(folder: Path) -> Path:
    path = folder / "model.ckpt"
    path.write_bytes(pickle.dumps(["no", "checkpoint"], protocol=2))
    return path


def settings_of_nothing(folder: Path) -> Path:
    """A model folder whose UNet's settings contradict each other."""
    shutil.copytree(embedded_base(), folder / "base")
    file = folder / "base" / "unet" / "config.json"
    settings = json.loads(file.read_text("utf-8")) | {"block_out_channels": [32]}
    file.write_text(json.dumps(settings), encoding="utf-8")
    return folder / "base"


@pytest.mark.parametrize(
    ("make", "words"),
    [(pickled_list, "model.ckpt cannot be read"), (settings_of_nothing, "config.json of the UNet")],
    ids=["pickle", "settings"],
)
def test_what_only_loading_shows_is_a_sentence_too(darkroom, run, tmp_path, caplog, make, words):
    said = darkroom("check", run, "--set", f"model.base={make(tmp_path)}")
    assert_refused(said, words, lines=2)  # the first one says the family


@pytest.mark.parametrize("offline", [True, False], ids=["offline", "unreachable"])
def test_a_hub_id_without_a_network_is_one_sentence(darkroom, run, monkeypatch, offline):
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)  # the tests' own network guard refuses the rest
    said = darkroom("check", run, "--set", "model.base=somebody/some-model")
    assert_refused(said, "somebody/some-model is no file or folder here", "cannot be reached")
