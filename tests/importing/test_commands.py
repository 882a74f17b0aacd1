"""`darkroom import`: a project and a run, or a settings file, and what it says."""

import json
from pathlib import Path

import pytest

from tests.commands import assert_refused, files_below, here
from trainers import config_io
from trainers.config import TrainConfig
from trainers.importing.kohya_run import flatten


@pytest.fixture
def darkroom(home, capsys):
    return here(capsys)


def test_import_makes_a_project_and_a_run_and_reports(darkroom, config, home, parent):
    said = darkroom("import", config("kohya_ss.json", "embedded"))
    assert (said.code, said.err) == (0, "")
    run = Path(said.out.splitlines()[-1].removeprefix("Run folder: "))
    assert run.parent.parent == home / "projects" / "kitten-v1"
    assert config_io.load(run / "config.toml").data.folder_names == ("10_sks cat", "2_")
    assert "do_not_read_me" not in said.out + (run / "config.toml").read_text("utf-8")
    assert max(map(len, said.out.splitlines()[:-1])) <= 120


def test_report_names_every_setting_once(darkroom, config):
    path = config("kohya_ss.json", "embedded")
    said = darkroom("import", path, "--out", path.with_name("a.toml"))
    words = said.out.replace(",", " ").split()
    keys = flatten(json.loads(path.read_text("utf-8")))
    assert "optimizer_args.betas" in keys
    twice = {"seed": 2, "unet_lr": 2, "text_encoder_lr": 2}  # one is ours too, two are the reason for another
    assert {key: words.count(key) for key in keys} == dict.fromkeys(keys, 1) | twice


def test_out_writes_settings_alone_and_never_over_others(darkroom, config, home):
    path = config("sd_scripts.toml", "embedded")
    out = path.with_name("mine.toml")
    said = darkroom("import", path, "--out", out, "--set", "data.trigger=sks")
    assert said.code == 0 and said.out.endswith(f"Settings file: {out}\n")
    assert config_io.load(out).data.trigger == "sks" and config_io.load(out).adapter.alpha == 1
    assert not (home / "projects").exists()
    before = out.read_bytes()
    assert_refused(darkroom("import", path, "--out", out), "is there already")
    assert out.read_bytes() == before


def test_a_settings_file_holds_whole_paths_wherever_it_lies(darkroom, config, parent, tmp_path, monkeypatch):
    path = config("kohya_ss.json")
    lost = {"train_data_dir": "D:\\cats", "vae": "vae.safetensors"}
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | lost), "utf-8")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "base.safetensors").touch()
    monkeypatch.chdir(tmp_path)
    base, out = Path("models", "base.safetensors"), tmp_path / "elsewhere" / "x.toml"
    out.parent.mkdir()
    assert darkroom("import", path, "--base", base, "--out", out).code == 0
    config = config_io.load(out)
    assert config.model.base == str(tmp_path / base)
    assert (config.model.vae, config.data.folders) == ("vae.safetensors", ("D:\\cats",))  # as they were: not here


def test_json_holds_every_setting_and_what_was_made(darkroom, config):
    said = json.loads(darkroom("import", config("onetrainer.json", "embedded"), "--json").out)
    assert Path(said["run folder"]).is_dir()
    rank = next(entry for entry in said["settings"] if entry["name"] == "lora_rank")
    assert rank == {
        "name": "lora_rank",
        "value": 8,
        "status": "renamed",
        "becomes": {"adapter.rank": 8},
        "note": "",
    }
    assert said["assumed"] == {"data.validation_share": 0.0, "memory.checkpointing": True}


def test_pictures_and_base_can_be_named_instead(darkroom, config, parent, home):
    path = config("kohya_ss.json")
    lost = {"train_data_dir": "D:\\cats", "pretrained_model_name_or_path": "D:\\models\\anime.safetensors"}
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | lost), "utf-8")
    said = darkroom("import", path)
    assert said.code == 1 and "not on this machine: D:\\cats. Name their folder with --pictures." in said.err
    said = darkroom("import", path, "--pictures", parent)
    assert said.code == 1 and "no base model at D:\\models\\anime.safetensors. Name yours with --base." in said.err
    assert not (home / "projects").exists()
    said = darkroom("import", path, "--pictures", parent, "--base", "embedded", "--name", "Mia")
    run = Path(said.out.splitlines()[-1].removeprefix("Run folder: "))
    assert run.parent.parent.name == "mia" and config_io.load(run / "config.toml").schedule.views == 68
    assert "Another base model was named." in said.out


def test_a_base_of_another_family_can_be_trained_by_what_it_is(darkroom, config):
    path = config("kohya_ss.json")
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"sdxl": True}), "utf-8")
    said = darkroom("import", path, "--base", "embedded")
    assert said.code == 1 and said.err.endswith(
        "Choose a Stable Diffusion XL base model, or leave out sdxl with --set model.family=auto.\n"
    )
    said = darkroom("import", path, "--base", "embedded", "--set", "model.family=auto")
    assert said.code == 0 and darkroom("check", said.out.splitlines()[-1].removeprefix("Run folder: ")).code == 0


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", "{not json", "is not valid JSON (line 1"),
        ("a.toml", "a = = 1", "is not valid TOML"),
        ("a.json", '{"nodes": [], "links": [], "version": 0.4}', "is a ComfyUI workflow"),
        ("a.json", '{"3": {"class_type": "KSampler", "inputs": {}}}', "is a ComfyUI workflow"),
        ("a.toml", config_io.dump(TrainConfig()), "already: give it to `darkroom train`"),
        ("a.toml", "[adapter]\nrank = 8\n", "already: give it to `darkroom train`"),
        ("a.json", '{"epoch": 1, "max_resolution": "512,512"}', "is for DreamBooth or fine-tuning"),
        ("a.json", '{"name": "left-pad", "version": "1.0"}', "holds no settings that are known here"),
        ("a.json", "[1, 2]", "is a list, but neither of prompts nor of concepts"),
        ("a.json", "7", "holds no settings"),
        ("a.toml", "", "holds no settings"),
        ("a.txt", "", "holds no prompts"),
        ("a.safetensors", "\0\0", "is not valid TOML"),
    ],
)
def test_other_files_are_refused_in_one_sentence(darkroom, home, name, content, words):
    (home / name).write_text(content, "utf-8")
    assert_refused(darkroom("import", home / name), words)
    assert files_below(home) == [name]


def test_missing_files_folders_and_pictures_as_settings_are_refused(darkroom, home, parent):
    assert_refused(darkroom("import", home / "nowhere.json"), "There is no file")
    assert_refused(darkroom("import", parent), "is a folder")
    assert_refused(darkroom("import", parent / "reg" / "0.png"), "is not a text file in UTF-8")
    assert darkroom("import").code == 2


@pytest.mark.parametrize(
    ("name", "trainer"),
    [("kohya_ss.json", "kohya_ss"), ("sd_scripts.toml", "sd-scripts"), ("onetrainer.json", "OneTrainer")],
)
@pytest.mark.parametrize("command", ["train", "check"])
def test_settings_of_another_trainer_are_known_where_a_run_is_meant(darkroom, config, command, name, trainer):
    path = config(name, "embedded")
    said = darkroom(command, path)
    assert_refused(said, f"{path.name} is a settings file of {trainer}.")
    assert f"darkroom import {path}" in said.err
