"""Projects take any name and only read pictures; runs are found again, and their state is what the disk says."""

import json
import os
from pathlib import Path

import psutil
import pytest

from app import about, paths, projects, runs, settings
from tests.app.conftest import NASTY_NAME
from trainers import config_io
from trainers.config import AdapterConfig, DataConfig, ModelConfig, SavingConfig, TrainConfig
from trainers.errors import UserError
from trainers.events import EventLog, Finished, Started, Step


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        (NASTY_NAME, "ünïcode-quotes-漢字"),
        ("My cat", "my-cat"),
        ("हिन्दी", "हिन्दी"),
        ("../../etc/passwd", "etc-passwd"),
        ("CON", "con-1"),
        ("🎉", "project"),
        ("a\nb\0c", "a-b-c"),
    ],
)
def test_any_name_becomes_a_folder(tmp_path, name, slug):
    assert projects.slug(name) == slug
    (tmp_path / slug).mkdir()


def test_long_names_stay_short_on_disk():
    assert len(projects.slug("漢" * 500).encode()) <= 80


def test_project_links_its_pictures_and_leaves_them_alone(place, pictures):
    before = {file.name: file.stat().st_mtime_ns for file in pictures.iterdir()}
    project = projects.create(place, NASTY_NAME, pictures, "object", "zorb")
    assert projects.list_projects(place) == [project]
    assert (project.name, project.pictures, project.trigger) == (NASTY_NAME, str(pictures), "zorb")
    assert {file.name: file.stat().st_mtime_ns for file in pictures.iterdir()} == before


def test_same_name_and_pictures_are_the_same_project_and_others_are_refused(place, pictures, tmp_path):
    first = projects.create(place, "Cat", pictures, "object")
    assert projects.create(place, "Cat", pictures, "object") == first
    assert projects.create(place, "cat!", pictures, "object").slug == "cat-2"
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.PNG").touch()
    with pytest.raises(UserError, match="already a project"):
        projects.create(place, "Cat", other, "object")


def test_folder_without_pictures_is_refused_in_words(place, tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    (folder / ".hidden.png").touch()
    for wrong, words in (
        (folder, "no picture"),
        (tmp_path / "none", "no folder"),
        (folder / ".hidden.png", "is a file"),
    ):
        with pytest.raises(UserError, match=words):
            projects.create(place, "x", wrong, "object")


def test_damaged_project_does_not_hide_the_others(place, pictures):
    good = projects.create(place, "good", pictures, "object")
    (place.projects / "bad").mkdir()
    (place.projects / "bad" / "project.toml").write_text("name = ", "utf-8")
    assert projects.list_projects(place) == [good]


def test_run_holds_all_settings_with_absolute_paths(place, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    config = TrainConfig(
        data=DataConfig(folders=(pictures.name,)),
        model=ModelConfig(base="base", vae="gone.safetensors"),
        adapter=AdapterConfig(init_from="start.safetensors"),
    )
    project = projects.create(place, "x", pictures, "object")
    stored = config_io.load(runs.create(project, config).config)
    assert stored.data.folders == (str(pictures),)
    assert stored.adapter.init_from == str(tmp_path / "start.safetensors")
    assert stored.model.base == str(tmp_path / "base") and stored.model.vae == str(tmp_path / "gone.safetensors")
    hub = TrainConfig(model=ModelConfig(base="someone/a-model"))
    assert runs.with_absolute_paths(hub).model.base == "someone/a-model"


def test_runs_of_the_same_second_get_folders_of_their_own(place, run):
    project = projects.list_projects(place)[0]
    others = {runs.create(project, config_io.load(run.config)).folder for _ in range(3)}
    assert len(others | {run.folder}) == 4


def test_run_is_found_by_path_name_project_and_last(place, run, monkeypatch):
    for text in (str(run.folder), run.folder.name, "last", NASTY_NAME, projects.slug(NASTY_NAME)):
        assert runs.find(place, text) == run
    monkeypatch.chdir(run.folder.parent)
    assert runs.find(place, run.folder.name) == run


def test_run_of_a_renamed_project_is_found_by_its_new_name_before_anothers_slug(place, run, pictures):
    about.rename_project(place, projects.list_projects(place)[0], "Whiskers")
    other = projects.create(place, "whiskers!", pictures, "object")
    later = runs.create(other, config_io.load(run.config))
    assert runs.find(place, "Whiskers") == runs.find(place, projects.slug(NASTY_NAME)) == run
    assert runs.find(place, "whiskers") == later
    with pytest.raises(UserError, match="no run Whiskerz") as told:
        runs.find(place, "Whiskerz")
    assert told.value.hint == "Did you mean Whiskers?"


def test_unknown_run_and_wrong_folder_are_sentences(place, tmp_path):
    with pytest.raises(UserError, match="no run yet"):
        runs.find(place, "last")
    with pytest.raises(UserError, match="holds no config.toml"):
        runs.find(place, str(tmp_path))


def write_process(run: runs.Run, pid: int, born: float) -> None:
    run.process.write_text(json.dumps({"pid": pid, "create_time": born}), "utf-8")


def test_process_counts_as_alive_only_while_it_is_the_same(run):
    born = psutil.Process().create_time()
    assert not runs.is_alive(run)
    write_process(run, os.getpid(), born)
    assert runs.is_alive(run)
    write_process(run, os.getpid(), born - 3600)  # the number was given to another process since
    assert not runs.is_alive(run)
    write_process(run, 2**22 + 1, born)  # above the largest process number
    assert not runs.is_alive(run)
    run.process.write_text('{"pid": ', "utf-8")
    assert not runs.is_alive(run)


def test_run_whose_process_is_gone_is_interrupted_not_running(run):
    assert runs.status(run).word == "new"
    log = EventLog(run.events)
    log(Started(100, 0, "cpu", 3, "cat"))
    log(Step(10, 100, 0.5, 1e-4, 2.0, 0.1))
    write_process(run, os.getpid(), psutil.Process().create_time())
    status = runs.status(run)
    assert (status.word, status.seconds_left) == ("running", 180)
    log(Step(20, 100, 0.5, 1e-4, 2.0, 0.1, beside_left=7.0))
    assert runs.status(run).seconds_left == 167
    write_process(run, os.getpid(), 0)
    status = runs.status(run)
    assert (status.word, status.seconds_left) == ("interrupted", None)
    log(Finished(100, "output/cat.safetensors", 1.0))
    assert runs.status(run).word == "finished"
    assert runs.status(run).adapter == run.folder / "output" / "cat.safetensors"


def test_home_is_the_named_folder_or_the_systems(monkeypatch, tmp_path):
    monkeypatch.setenv("DARKROOM_HOME", str(tmp_path / "a"))
    assert paths.find_home().root == tmp_path / "a"
    assert paths.find_home(tmp_path / "b").root == tmp_path / "b"
    monkeypatch.delenv("DARKROOM_HOME")
    monkeypatch.setattr(paths.platformdirs, "user_data_dir", lambda *_, **__: str(tmp_path / "c"))
    assert paths.find_home().root == tmp_path / "c"
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--home"):
        paths.find_home(tmp_path / "file")


def test_app_settings_survive_the_disk_and_damage_is_named(place):
    assert settings.load_settings(place) == settings.Settings()
    chosen = settings.Settings(base="C:\\models\\漢字", cache="elsewhere")
    settings.save_settings(place, chosen)
    assert settings.load_settings(place) == chosen
    assert chosen.cache_folder(place) == place.root / "elsewhere"
    place.settings.write_text("colour = 3", "utf-8")
    with pytest.raises(UserError, match="colour"):
        settings.load_settings(place)


def test_saving_name_of_a_run_never_leaves_its_folder(place, pictures):
    project = projects.create(place, "x", pictures, "object")
    run = runs.create(project, TrainConfig(saving=SavingConfig(name="a cat")))
    assert run.folder.parent == project.runs and Path(run.folder).name.endswith("_a-cat")
