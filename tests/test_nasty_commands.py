"""A folder as nasty as people's folders get, through the commands: all said, the rest trained, nothing touched."""

import json
from pathlib import Path

import pytest

from tests.commands import command, here
from tests.nasty_folder import TRIGGER, Nasty, build, snapshot
from trainers.families.detect import identify
from trainers.families.headers import read_header

SETTINGS = ("schedule.steps=2", "preview.every=0", "data.resolution=64", "adapter.rank=2", "data.validation_share=0")
PLAIN = {"first.txt": "empty", "nobody.txt": "no picture"}


@pytest.fixture(scope="module")
def nasty(tmp_path_factory) -> Nasty:
    return build(tmp_path_factory.mktemp("pictures") / "my 'nasty' \U0001f98a folder")


@pytest.fixture(scope="module")
def before(nasty) -> dict:
    return snapshot(nasty.folder)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("home") / "l\u2019\u00e9t\u00e9 \u6f22\u5b57"


@pytest.fixture(scope="module")
def made(nasty, before, place):
    """What the command says that makes a run on the embedded base."""
    changes = [part for setting in SETTINGS for part in ("--set", setting)]
    said = command(
        *("--home", place, "new", "N\u00e4sty", "--pictures", nasty.folder, "--kind", "object"),
        *("--trigger", TRIGGER, *changes),
    )
    assert said.code == 0, said.err
    return said


@pytest.fixture(scope="module")
def run(made) -> Path:
    return Path(made.out.strip())


@pytest.fixture(scope="module")
def checked(run, place) -> dict:
    said = command("--home", place, "check", run, "--json")
    assert said.code == 0 and "Traceback" not in said.err
    return json.loads(said.out)


@pytest.fixture(scope="module")
def trained(run, place):
    said = command("--home", place, "train", run)
    assert said.code == 0, said.err
    return said


def problems_of(name: str, lines: list[str]) -> list[str]:
    return [line for line in lines if f"/{name}: " in line]


def test_new_names_every_broken_picture_and_no_other(nasty, made):
    lines = made.sentences()
    for name, words in nasty.broken.items():
        assert any(words in line for line in problems_of(name, lines)), name
    assert len(lines) == len(nasty.broken)


def test_check_names_every_broken_file_and_its_reason_in_json(nasty, checked):
    for name, words in {**nasty.broken, **nasty.odd}.items():
        assert any(words in line for line in problems_of(name, checked["problems"])), name


def test_check_counts_every_usable_picture(nasty, checked):
    assert checked["pictures"]["usable"] == len(nasty.usable)
    assert len(checked["crops"]) == len(nasty.usable)


def test_check_says_the_same_as_text(nasty, run, place, checked, capsys):
    said = here(capsys)("--home", place, "check", run)
    assert said.code == 0
    assert all(problem in said.out for problem in checked["problems"])


def test_train_names_what_it_leaves_out_and_trains_the_rest(nasty, trained):
    notes = trained.err.splitlines()
    for name, words in {**nasty.broken, **PLAIN}.items():
        assert any(words in line for line in problems_of(name, notes)), name
    assert f"on {len(nasty.usable)} pictures" in trained.err
    assert "Traceback" not in trained.err and "Traceback" not in trained.out


def test_train_writes_a_whole_adapter(run, trained):
    adapter = Path(trained.out.strip().removeprefix("Adapter: "))
    assert adapter.parent == run / "output"
    assert identify(adapter).kind == "LoRA adapter"
    metadata = read_header(adapter)[1]
    assert metadata["ss_steps"] == "2"


def test_not_one_byte_time_mode_or_name_in_the_folder_changed(nasty, before, checked, trained):
    assert snapshot(nasty.folder) == before
