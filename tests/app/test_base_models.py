"""Base models are found where image programs keep them, quickly, and without opening a file."""

from pathlib import Path

import pytest

from app import base_models
from app.settings import load_settings
from trainers.errors import UserError


def put(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")


def test_models_of_installed_programs_are_found_and_other_files_are_not(place, tmp_path):
    own = tmp_path / "own"
    put(own / "stable-diffusion-webui" / "models" / "Stable-diffusion", "a.safetensors", "readme.txt", ".b.ckpt")
    put(own / "ComfyUI" / "models" / "checkpoints" / "sdxl", "c.CKPT")
    put(own / "ComfyUI" / "models" / "loras", "no.safetensors")
    put(own / "invokeai" / "models" / "sdxl" / "main" / "dream", "model_index.json")
    found = base_models.find_bases(place, [own])
    assert [one.label for one in found] == ["a.safetensors (A1111, Forge)", "c.CKPT (ComfyUI)", "dream (InvokeAI)"]


def test_a_program_folder_itself_may_be_named_and_links_count_once(place, tmp_path):
    models = tmp_path / "x" / "ComfyUI" / "models" / "checkpoints"
    put(models, "a.safetensors")
    (models / "b.safetensors").symlink_to(models / "a.safetensors")
    places = [tmp_path / "x", tmp_path / "x" / "ComfyUI", tmp_path / "missing"]
    assert len(base_models.find_bases(place, places)) == 1


def test_no_disk_is_walked(place, tmp_path, monkeypatch):
    monkeypatch.setattr(base_models, "MOST_ENTRIES", 10)
    models = tmp_path / "ComfyUI" / "models" / "checkpoints"
    put(models, *(f"{i}.safetensors" for i in range(50)))
    put(models / "1" / "2" / "3" / "4", "deep.safetensors")
    assert len(base_models.find_bases(place, [tmp_path])) == 10


def test_an_added_folder_is_remembered(place, tmp_path):
    put(tmp_path / "my models", "a.safetensors")
    assert base_models.add_folder(place, f' "{tmp_path / "my models"}" ') == 1
    base_models.add_folder(place, str(tmp_path / "my models"))
    assert load_settings(place).model_folders == (str(tmp_path / "my models"),)
    assert [one.label for one in base_models.find_bases(place, [])] == ["a.safetensors (my models)"]


def test_a_folder_without_models_is_refused(place, tmp_path):
    put(tmp_path / "empty", "a.txt")
    for text, said in ((str(tmp_path / "empty"), "no base model"), ("", "no folder"), ("nowhere", "no folder")):
        with pytest.raises(UserError, match=said):
            base_models.add_folder(place, text)
