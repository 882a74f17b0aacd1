"""Missing pictures, runs and adapter files: one clear sentence, exit code 1, no traceback, and nothing lost."""

import os
import re
from pathlib import Path

import pytest

from app import engine
from tests.bad_input.files import LORA, UNET_FILE, safetensors, text_as_model
from tests.commands import assert_refused, files_below
from trainers import events
from trainers.families.locate import embedded_base


def test_a_folder_without_pictures_is_refused_and_nothing_is_made(darkroom, place, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a file").touch()
    for name, words in (
        ("empty", "There is no picture in"),
        ("gone", "There is no folder"),
        ("a file", "is a file"),
        ("/", "is the whole disk"),
    ):
        said = darkroom("new", "cat", "--pictures", tmp_path / name, "--kind", "object")
        assert_refused(said, words, str(tmp_path / name))
    assert files_below(place) == []


def test_pictures_that_went_away_are_named(darkroom, run, pictures):
    pictures.rename(pictures.with_name("elsewhere"))
    assert_refused(darkroom("check", run), f"There is no folder {pictures}", lines=2)  # the first one says the family


@pytest.mark.parametrize("verb", ["check", "train", "resume", "stop", "status", "sample", "export"])
def test_a_run_that_is_not_there_is_named_by_every_command(darkroom, run, verb):
    more = ("--prompt", "a cat") if verb == "sample" else ()
    assert_refused(darkroom(verb, "no-such-run", *more), "There is no run no-such-run")
    assert_refused(darkroom(verb, run.parent, *more), "is not a run")


def test_a_finished_run_is_not_resumed(darkroom, run):
    events.EventLog(run / "events.jsonl")(events.Finished(2, "output/cat.safetensors", 1.0))
    before = files_below(run)
    assert_refused(darkroom("resume", run), "is finished", "--set schedule.steps=")
    assert files_below(run) == before


def test_what_is_no_adapter_is_neither_inspected_nor_sampled(darkroom, tmp_path, place):
    vae = embedded_base() / "vae" / UNET_FILE
    cut = safetensors(tmp_path / "cut.safetensors", {LORA: (16, 768)})
    os.truncate(cut, cut.stat().st_size - 1)
    for file, words in (
        (text_as_model(tmp_path), "is a text file"),
        (vae, "is a VAE, not a LoRA adapter"),
        (cut, "is cut off"),
        (tmp_path / "gone.safetensors", "There is no file"),
    ):
        assert_refused(darkroom("inspect", file), words)
        assert_refused(darkroom("sample", file, "--prompt", "a cat", "--out", place / "samples"), words)
    assert_refused(darkroom("inspect", tmp_path), "is a folder, not an adapter file")
    assert files_below(place) == []


def test_a_folder_that_holds_no_adapter_is_told_apart(darkroom, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder, words in (("empty", "holds no adapter"), (embedded_base(), "is the folder of a base model")):
        assert_refused(darkroom("inspect", tmp_path / folder), words, str(folder))
        assert_refused(darkroom("convert", tmp_path / folder), words, str(folder))


def test_an_error_that_nobody_foresaw_is_a_sentence_and_its_traceback_a_file(darkroom, tmp_path, monkeypatch):
    def broken(_):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(engine, "inspect", broken)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    said = darkroom("inspect", text_as_model(tmp_path))
    assert_refused(said, "Something unexpected went wrong: ZeroDivisionError: division by zero.")
    story = Path(re.search(r"The whole story is in (.+)\.$", said.err.strip())[1])
    assert "Traceback" in story.read_text("utf-8")
