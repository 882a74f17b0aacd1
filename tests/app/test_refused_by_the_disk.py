"""What a full or read-only disk refuses on Concept and Train: the sentence at its place, and nothing typed is lost."""

import errno
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest

from app import captions_edit, drafts, projects, runs
from app.estimates import Estimates
from app.gui.concept_pictures import Look, PictureHandlers
from app.gui.context import Context, Where
from app.gui.train_handlers import Drafting
from app.gui.train_layout import build_layout
from app.picture_facts import Facts, Measured
from app.queue import Queue

GRID = 2  # of the regions that the Concept page's handlers answer with
TYPED = 'a "yellow" <b>banana</b>'
SHOWN = 'value="a &quot;yellow&quot; &lt;b&gt;banana&lt;/b&gt;"'
REFUSED = [
    (OSError(errno.ENOSPC, "No space left on device"), "cannot be written: The disk is full."),
    (PermissionError(errno.EACCES, "Permission denied"), "cannot be written: Permission denied."),
]


@pytest.fixture
def project(place, pictures):
    (pictures / "0.txt").write_text("a banana", "utf-8")
    return projects.create(place, "Cat", pictures, "object", "zib")


@pytest.fixture
def concept(place):
    return PictureHandlers(place, Measured(place, lambda path: Facts((8, 8), "x", 0)))


def on_card(concept, project, act, **values):
    """The grid of cards after something was done on the first picture's."""
    event = SimpleNamespace(_data={"act": act, "project": project.slug, "picture": "0.png", **values})
    return concept.act(Where(project=project.slug), project.slug, *Look(), event)[GRID]


def refuse(monkeypatch, error):
    def refused(*_):
        raise error

    monkeypatch.setattr(captions_edit, "_replace", refused)


@pytest.mark.parametrize(("error", "words"), REFUSED, ids=["full", "read-only"])
def test_a_caption_that_cannot_be_written_stays_in_its_field_until_it_is_saved(
    concept, project, monkeypatch, error, words
):
    with monkeypatch.context() as refusing:
        refuse(refusing, error)
        for grid in (
            on_card(concept, project, "caption", value=TYPED),
            concept.drawn(Where(project=project.slug), project.slug, *Look())[GRID],  # any later look
            on_card(concept, project, "again"),
        ):
            assert grid.count(SHOWN) == 1 and grid.count('aria-invalid="true"') == 1
            assert grid.count('role="alert"') == 1 and words in grid
        assert (pictures_of(project) / "0.txt").read_text("utf-8") == "a banana"
    grid = on_card(concept, project, "again")
    assert SHOWN in grid and 'role="alert"' not in grid and 'aria-invalid="true"' not in grid
    assert (pictures_of(project) / "0.txt").read_text("utf-8") == TYPED


def test_a_caption_that_cannot_be_written_can_be_taken_back_and_typed_again(concept, project, monkeypatch):
    with monkeypatch.context() as refusing:
        refuse(refusing, REFUSED[0][0])
        on_card(concept, project, "caption", value=TYPED)
        grid = on_card(concept, project, "give_up")
        assert 'value="a banana"' in grid and 'role="alert"' not in grid
        on_card(concept, project, "trigger")
        grid = on_card(concept, project, "caption", value=TYPED)
        assert SHOWN in grid and 'role="alert"' in grid
    grid = on_card(concept, project, "caption", value="a green banana")
    assert 'value="a green banana"' in grid and 'role="alert"' not in grid


def test_a_change_to_many_captions_and_its_way_back_say_beside_them_why_not(concept, project, monkeypatch):
    on_card(concept, project, "caption", value=TYPED)
    refuse(monkeypatch, REFUSED[0][0])
    where = Where(project=project.slug)
    told, *_ = concept.bulk(where, project.slug, "front", "blue", "", *Look())
    assert 'role="alert"' in told and "The disk is full." in told
    event = SimpleNamespace(_data={"act": "undo", "change": captions_edit.undoable(project)[1]})
    undoing = concept.undo(where, project.slug, *Look(), event)[1]
    assert ">Undo<" in undoing and 'role="alert"' in undoing and "The disk is full." in undoing


def test_a_run_that_cannot_be_made_is_a_sentence_beside_the_button(place, project, monkeypatch):
    worker = SimpleNamespace()
    with gr.Blocks():
        drafting = Drafting(Context(place, Queue(place), worker), Estimates(worker), build_layout())
    where = Where("train", project.slug)

    def full(*_):
        raise REFUSED[0][0]

    with monkeypatch.context() as refusing:
        refusing.setattr(runs, "create", full)
        went, note, _ = drafting.train(where, project.slug)
    assert "The disk is full." in note and "Make room, and do it again." in note and went == gr.skip()
    drafts.change(place, project, "adapter.rank", "0")
    went, note, _ = drafting.train(where, project.slug)
    assert "Rank: This must be a whole number" in note and went == gr.skip()
    assert not runs.list_runs(place)


def pictures_of(project):
    return Path(project.pictures)
