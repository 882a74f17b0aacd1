"""Projects of one's own pictures, of a linked folder and of the samples; what is wrong is told in a sentence."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from app import concepts, projects
from app.paths import CONCEPTS, Home
from tests.app.own_pictures import held
from trainers.errors import UserError


@pytest.fixture
def project(place):
    return projects.create_own(place, "Cat", "object")


def test_wrong_names_and_folders_are_sentences(place, project, pictures, tmp_path):
    (tmp_path / "empty").mkdir()
    cases = [
        ("  ", "", "needs a name"),
        ("Cat", "", "already a project"),
        ("Cat", str(tmp_path), "already a project"),
        ("Dog", str(tmp_path / "none"), "no folder"),
        ("Dog", str(tmp_path / "empty"), "no picture"),
        ("Dog", str(pictures / "0.png"), "is a file"),
    ]
    for name, linked, words in cases:
        with pytest.raises(UserError, match=words):
            concepts.make(place, name, "object", linked)
    assert projects.list_projects(place) == [project]


def test_a_sample_is_a_copy_with_its_captions(place):
    project = concepts.use_sample(place, "style")
    bundled = CONCEPTS / "fluent"
    assert (project.kind, project.trigger, project.owns_pictures) == ("style", "fluent", True)
    assert held(project)["banana.png"] == (bundled / "banana.txt").read_text("utf-8")
    assert len(held(project)) == len(list(bundled.glob("*.png")))
    assert concepts.use_sample(place, "style") == project and concepts.use_sample(place, "mascot") != project


def test_two_tabs_that_ask_for_a_sample_or_a_name_at_the_same_time_get_one_project(place, monkeypatch):
    ask = threading.Barrier(2)
    listed = projects.list_projects

    def together(home):
        found = listed(home)
        with suppress(threading.BrokenBarrierError):
            ask.wait(0.3)  # both have looked, if they can, before either makes it
        return found

    monkeypatch.setattr(projects, "list_projects", together)
    with ThreadPoolExecutor(2) as tabs:
        first, second = tabs.map(lambda name: concepts.use_sample(place, name), ("style", "style"))
    assert first == second and len(listed(place)) == 1 and held(first)["banana.png"]


def test_a_sample_that_is_none_is_a_sentence(place):
    with pytest.raises(UserError, match='no sample "cat"'):
        concepts.use_sample(place, "cat")


def test_a_project_is_changed_on_disk_and_what_else_it_says_stays(place, project):
    file = project.folder / "project.toml"
    file.write_text(file.read_text("utf-8") + 'note = "mine"\n', "utf-8")
    changed = projects.update(project, trigger="zorb", left_out=("a.png", "sub/b.png"))
    assert projects.find(place, project.slug) == changed
    assert 'note = "mine"' in file.read_text("utf-8")
    assert projects.data_settings(changed)["left_out"] == ["a.png", "sub/b.png"]


def test_a_moved_home_finds_its_own_pictures_again(place, project, tmp_path):
    elsewhere = Home(tmp_path / "elsewhere")
    elsewhere.root.mkdir()
    place.projects.rename(elsewhere.projects)
    found = projects.list_projects(elsewhere)
    assert found[0].owns_pictures and Path(found[0].pictures).is_dir()
