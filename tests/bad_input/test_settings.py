"""Wrong settings: one clear sentence, exit code 1, no traceback, and nothing lost."""

import sys

import pytest

from tests.commands import assert_refused, command, files_below
from tests.mutated.guard import guarded
from trainers import config_io, events
from trainers.__main__ import main as engine
from trainers.errors import UserError


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("adapter.rnak=8", "Did you mean adapter.rank?"),
        ("adaptor.rank=8", "Did you mean adapter.rank?"),
        ("rank=8", "Did you mean adapter.rank?"),
        ("adapter.rank=0", "a whole number between 1 and 1024"),
        ("adapter.rank=many", "a whole number between 1 and 1024"),
        ("adapter.text_encoder=perhaps", "true or false"),
        ("optimizer.rate=nan", "a number above 0"),
        ("loss.type=l3", "one of l2"),
        ("saving.name=../cat", "cannot be a file name"),
        ("adapter.rank", "not of the form section.key=value"),
    ],
)
def test_a_wrong_setting_says_what_was_meant_and_leaves_nothing(new, place, setting, words):
    assert_refused(new("--set", setting), words)
    assert files_below(place) == []


def test_several_wrong_settings_are_listed_together(pictures, tmp_path):
    wrong = [part for setting in ("adapter.rnak=8", "adapter.rank=0", "loss.type=l3") for part in ("--set", setting)]
    place = tmp_path / "home"
    said = command("new", "cat", "--pictures", pictures, "--kind", "object", *wrong, "--home", place)
    words = ("There are 3 problems", "adapter.rnak", "adapter.rank is 0", 'loss.type is "l3"')
    assert_refused(said, *words, lines=4)
    assert files_below(place) == []


def test_wrong_settings_of_a_run_leave_its_file_as_it_was(darkroom, run, place):
    before, there = (run / "config.toml").read_bytes(), files_below(run)
    for change in ("adapter.rnak=8", "adapter.rank=-1", "model.base=no/such/model.safetensors"):
        assert_refused(darkroom("train", run, "--set", change))
        assert_refused(darkroom("check", run, "--set", change))
    assert (run / "config.toml").read_bytes() == before
    assert files_below(run) == there


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"[adapter\nrank = 8\n", "is not valid TOML"),
        (b"[saving]\nname = cat\n", "texts stand in quotes"),
        (b'[data]\nfolders = ["C:\\Users\\me"]\n', "Write Windows paths with /"),
        (b"\xff\xfe[\x00a\x00]\x00", "not a text file in UTF-8"),
        (b"[adapter]\nrnak = 8\n", "Did you mean adapter.rank?"),
        (b"[model]\nbase = 'gone.safetensors'\n", "There is no base model at"),
    ],
)
@pytest.mark.parametrize("as_run", [False, True], ids=["file", "run folder"])
def test_a_damaged_settings_file_is_a_sentence_and_nothing_starts(darkroom, place, tmp_path, text, words, as_run):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.toml").write_bytes(text)
    assert_refused(darkroom("train", folder if as_run else folder / "config.toml"), words)
    assert files_below(folder) == ["config.toml"]
    assert files_below(place) == []


def test_an_empty_settings_file_names_no_pictures(darkroom, place, tmp_path):
    (tmp_path / "config.toml").touch()
    assert_refused(darkroom("train", tmp_path / "config.toml"), "names no pictures", "Set data.folders")
    assert files_below(place) == []


def test_the_engine_asks_a_run_of_an_empty_settings_file_for_pictures(monkeypatch, tmp_path):
    (tmp_path / "config.toml").touch()  # all defaults
    monkeypatch.setattr(sys, "argv", ["trainers", str(tmp_path)])
    assert engine() == 1
    *_, last = events.read(tmp_path / "events.jsonl")
    assert last.message == "No picture folder is set." and "data.folders" in last.hint


def test_thousands_of_unknown_settings_are_told_soon_and_in_few_lines(tmp_path):
    sections = {"x" * 50_000: 1, **{f"adapter{i}": i for i in range(5000)}}
    with guarded(tmp_path), pytest.raises(UserError, match="There are 5001 problems") as told:
        config_io.parse(sections)
    assert str(told.value).endswith("... and 4951 more") and len(str(told.value)) < 6000
