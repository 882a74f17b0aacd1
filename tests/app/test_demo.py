"""The demo's project: made once, whichever copy of Darkroom asks for it, and never in place of a person's own."""

import shutil
from pathlib import Path

import pytest

from app import demo, projects
from app.paths import CONCEPTS, Home
from trainers import config_io
from trainers.errors import UserError

PICTURE = CONCEPTS / "fluent" / "banana.png"


def elsewhere(folder: Path) -> Path:
    folder.mkdir(parents=True)
    shutil.copy(PICTURE, folder)
    return folder


def test_the_demo_runs_again_from_another_copy_of_darkroom(tmp_path):
    home = Home(tmp_path / "home")
    before = projects.create(home, "demo", elsewhere(tmp_path / "older/assets/concepts/fluent"), "style", "fluent")
    run = demo.make_run(home, "style", steps=1)
    assert config_io.load(run.config).data.folders == (str(CONCEPTS / "fluent"),)
    assert run.folder.parent == before.runs
    assert projects.find(home, before.slug).pictures == str(CONCEPTS / "fluent")


def test_a_persons_own_project_of_that_name_stays(tmp_path):
    home, own = Home(tmp_path / "home"), elsewhere(tmp_path / "mine")
    projects.create(home, "demo", own, "object")
    with pytest.raises(UserError, match='already a project "demo"'):
        demo.make_run(home, "style", steps=1)
    assert projects.find(home, "demo").pictures == str(own)
