"""What the Train page's handlers do at the moments when browser tabs and the server disagree on where they are."""

import time
from types import SimpleNamespace

import gradio as gr
import pytest

from app import drafts, projects, runs
from app.estimates import Estimates
from app.gui import train_handlers
from app.gui.context import Context, Where
from app.gui.train_handlers import Drafting
from app.gui.train_layout import build_layout
from app.queue import Queue
from trainers.errors import UserError


class Hushed(Estimates):
    """Estimates that are noted and never asked for: nothing works in the background."""

    def _work(self) -> None:
        pass

    def answer_with(self, key, found):
        self._wanted.clear()
        self._known[key], self._answered[key] = found, time.monotonic()


@pytest.fixture
def cat(place, pictures):
    return projects.create(place, "Cat", pictures, "object", "zib")


@pytest.fixture
def drafting(place, monkeypatch):
    monkeypatch.setattr(Queue, "add", lambda self, run: None)
    with gr.Blocks():
        return Drafting(Context(place, Queue(place), None), Hushed(None), build_layout())


def test_a_run_is_made_whatever_page_the_server_takes_the_tab_to_be_on(place, drafting, cat):
    for page in ("train", "monitor"):
        went, note, button = drafting.train(Where(page, cat.slug), cat.slug)
        assert went.page == "monitor" and note == "" and button["interactive"] is False
    assert len(runs.list_runs(place)) == 2
    shown = drafting.arrive(Where("train", cat.slug))
    assert shown[drafting.layout.side.train]["interactive"] is True


def test_an_estimate_that_another_tabs_question_pushed_out_is_asked_again(place, drafting, cat):
    where, asked, clock = Where("train", cat.slug), drafting.layout.asked, drafting.layout.tick
    first = looked(drafting, where)[asked]
    assert drafting.tick(where, cat.slug, first) == {drafting.layout.side.estimate: gr.skip()}
    drafts.change(place, cat, "adapter.rank", "3")
    other = drafting.show(where, cat.slug)[asked]
    assert not drafting.estimates.awaits(first) and drafting.estimates.awaits(other)
    answer = drafting.tick(where, cat.slug, first)
    assert answer[asked] == other and answer[clock].active


def test_an_edit_when_another_project_is_chosen_already_is_of_the_one_in_sight(place, drafting, cat, pictures):
    dog = projects.create(place, "Dog", pictures, "object", "zob")
    event = SimpleNamespace(_data={"act": "set", "setting": "adapter.rank", "value": "3"})
    answer = drafting.edit(Where("train", dog.slug), cat.slug, event)
    assert answer == {drafting.layout.side.note: gr.skip()}
    assert [drafts.load(place, one).texts for one in (cat, dog)] == [{"adapter.rank": "3"}, {}]


def test_an_estimate_is_of_the_captions_that_there_are_and_of_what_trains_beside_it(
    drafting, cat, pictures, monkeypatch
):
    where, asked = Where("train", cat.slug), drafting.layout.asked
    keys = [looked(drafting, where)[asked] for _ in range(2)]
    (pictures / "0.txt").write_text("a cat", "utf-8")
    keys.append(looked(drafting, where)[asked])
    monkeypatch.setattr(Queue, "running", lambda self: runs.Run(cat.runs / "other"))
    keys.append(looked(drafting, where)[asked])
    assert keys[0] == keys[1] and len(set(keys)) == 3


def test_the_page_is_turned_before_files_are_looked_at_and_shows_the_last_estimate_meanwhile(
    drafting, cat, monkeypatch
):
    where, layout = Where("train", cat.slug), drafting.layout
    asked, clock, estimate = layout.asked, layout.tick, layout.side.estimate
    looks = []
    monkeypatch.setattr(train_handlers, "contents", lambda folders: looks.append(folders) or "the same")
    shown = drafting.arrive(where)
    assert not looks and shown[asked] == "" and shown[clock].active and "Estimating" in shown[estimate]
    found = drafting.tick(where, cat.slug, "")
    assert len(looks) == 1 and found[asked] and found[clock].active
    drafting.estimates.answer_with(found[asked], UserError("No such base.", "Choose another."))
    assert not drafting.tick(where, cat.slug, found[asked])[clock].active
    again = drafting.show(where, cat.slug)
    assert len(looks) == 1 and again[asked] == found[asked] and "No such base." in again[estimate]
    monkeypatch.setattr(drafting.estimates, "forget_stale", lambda: None)
    back = drafting.arrive(where)
    assert len(looks) == 1 and "No such base." in back[estimate] and back[clock].active and back[asked] == ""
    assert drafting.tick(where, cat.slug, "")[asked] == found[asked] and len(looks) == 2
    drafting.estimates.answer_with(found[asked], None)
    stale = drafting.arrive(where)
    assert "Estimating" in stale[estimate] and not drafting.estimates.awaits(found[asked])  # until the files are known


def test_epochs_of_an_import_whose_pictures_are_elsewhere_are_counted_in_the_projects(drafting, place, cat, tmp_path):
    theirs = tmp_path / "kohya.toml"
    length = "epoch = 20\nsave_every_n_epochs = 2\nsample_every_n_epochs = 4\n"
    theirs.write_text(f'train_data_dir = "/gone"\ntrain_batch_size = 1\nnetwork_dim = 12\n{length}', "utf-8")
    drafting.take_over(Where("train", cat.slug), cat.slug, [str(theirs)])
    config = drafts.plan(place, cat).config
    assert (config.schedule.views, config.saving.every, config.preview.every) == (20 * 3, 2 * 3, 4 * 3)
    assert config.data.folders == (cat.pictures,)


def looked(drafting, where):
    """The page as it is shown, once its clock has ticked."""
    drafting.arrive(where)
    return drafting.tick(where, where.project, "")
