"""What the Concept page's handlers refuse and leave alone when a browser tab has gone on to another project."""

from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest
from PIL import Image

from app import dropped, picture_folder, projects
from app.gui.concept_pictures import Look, PictureHandlers
from app.gui.concept_project import ProjectHandlers
from app.gui.concept_views import Told
from app.gui.context import Where
from app.gui.markup import in_words
from app.picture_facts import Facts, Measured
from tests.app.own_pictures import held
from trainers.data import captions as read_captions
from trainers.errors import UserError


@pytest.fixture
def page(place):
    return ProjectHandlers(PictureHandlers(place, Measured(place, lambda path: Facts((8, 8), "x", 0))))


@pytest.fixture
def cat(place, tmp_path):
    return filled(projects.create_own(place, "Cat", "object"), tmp_path)


@pytest.fixture
def dog(place, tmp_path):
    return filled(projects.create_own(place, "Dog", "object"), tmp_path)


def filled(project: projects.Project, folder: Path) -> projects.Project:
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    dropped.add(project, [folder / "a.png"])
    return project


def on_card(page, slug, **values):
    return page.pictures.act(Where(project=slug), slug, *Look(), SimpleNamespace(_data=values))


@pytest.mark.parametrize("act", ["caption", "leave", "use", "trigger", "again", "give_up"])
def test_a_click_on_a_card_of_another_project_changes_neither(place, page, cat, dog, act):
    with pytest.raises(UserError, match="Another project is shown by now"):
        on_card(page, dog.slug, act=act, project=cat.slug, picture="a.png", value="a cat")
    assert projects.list_projects(place) == [cat, dog]
    assert held(cat) == held(dog) == {"a.png": None}


def test_cards_say_which_project_they_belong_to(page, cat, dog):
    for project in (cat, dog):
        grid = page.pictures.drawn(Where(project=project.slug), project.slug, *Look())[2]
        assert grid.count(f"&quot;project&quot;: &quot;{project.slug}&quot;") == grid.count("data-values") > 1


@pytest.mark.parametrize("name", ["b.png", "../a.png", "", "a.png\0"])
def test_only_a_picture_that_is_there_is_left_out(place, page, cat, name):
    with pytest.raises(UserError, match="There is no picture"):
        on_card(page, cat.slug, act="leave", project=cat.slug, picture=name)
    on_card(page, cat.slug, act="leave", project=cat.slug, picture="a.png")
    assert projects.find(place, cat.slug).left_out == ("a.png",)


def test_what_was_copied_is_told_where_its_project_is_shown_and_nowhere_else(page, cat, dog, tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "b.png")
    told = page.add(Where(project=cat.slug), [str(tmp_path / "b.png")])
    assert told.project == cat.slug and "1 picture added." in told.note
    note, _, _, grid, *_ = page.show_added(Where(project=cat.slug), told, *Look())
    assert note == told.note and "b.png" in grid
    assert page.show_added(Where(project=dog.slug), told, *Look()) == [gr.skip()] * 7
    assert page.fill("", [str(tmp_path / "b.png")]) == gr.skip()


def test_what_was_told_of_a_project_is_told_again_when_a_person_comes_back_to_it(page, cat, dog):
    for told, shown in [(Told(cat.slug, "12 pictures added."), "12 pictures added."), (Told(dog.slug, "No."), "")]:
        answer = page.refresh(Where(project=cat.slug), cat.slug, told, *Look())
        assert answer[8] == shown


def test_the_clock_of_the_measuring_stops_off_the_page(page, cat):
    *rest, clock = page.pictures.tick(Where("train", cat.slug), cat.slug, *Look())
    assert isinstance(clock, gr.Timer) and not clock.active and rest == [gr.skip()] * 5


def test_what_is_typed_when_another_project_is_chosen_already_is_of_the_one_in_sight(place, page, cat, dog):
    chosen = Where(project=dog.slug)
    assert page.save_kind(chosen, cat.slug, "person", *Look()) == [gr.skip()] * 6
    page.save_trigger(chosen, cat.slug, "zib", *Look())
    page.pictures.bulk(chosen, cat.slug, "front", "blue", "", *Look())
    assert [(one.kind, one.trigger) for one in projects.list_projects(place)] == [("person", "zib"), ("object", "")]
    assert held(projects.find(place, cat.slug)) == {"a.png": "blue"} and held(dog) == {"a.png": None}


def test_a_caption_that_cannot_be_read_is_no_empty_one(page, cat, monkeypatch):
    caption, look = Path(cat.pictures, "a.txt"), (Where(project=cat.slug), cat.slug)
    caption.write_text("a long caption", "utf-8")
    with monkeypatch.context() as locked:
        for reader in (picture_folder, read_captions):
            locked.setattr(reader, "read_bytes", unreadable)
        grid = page.pictures.drawn(*look, *Look())[2]
        assert "a long caption" not in grid
        told = in_words(page.pictures.bulk)
        with pytest.raises(gr.Error, match="in use"):
            told(*look, "front", "zib", "", *Look())
    assert caption.read_text("utf-8") == "a long caption"
    assert "a long caption" in page.pictures.drawn(*look, *Look())[2]


def unreadable(file: Path) -> bytes:
    raise PermissionError(13, "in use", str(file))


def test_beside_a_file_that_is_no_caption_a_picture_can_be_left_out_and_what_is_typed_stays(page, cat, place):
    caption = Path(cat.pictures, "a.txt")
    caption.write_bytes(b"x" * 2_000_000)
    name = {"project": cat.slug, "picture": "a.png"}
    grid = on_card(page, cat.slug, act="caption", value="a cat", **name)[2]
    assert 'value="a cat"' in grid and "too large to be a caption" in grid
    on_card(page, cat.slug, act="leave", **name)
    assert projects.find(place, cat.slug).left_out == ("a.png",) and caption.stat().st_size == 2_000_000


def test_a_trigger_word_of_another_tab_stays_when_its_field_is_only_entered_and_left(place, page, cat):
    page.save_trigger(Where(project=cat.slug), cat.slug, "zib", *Look())
    page.leave_trigger(Where(project=cat.slug), cat.slug, None, *Look())
    assert projects.find(place, cat.slug).trigger == "zib"
