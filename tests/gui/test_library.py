"""The Library page: the queue is put in order, runs are found, named, thrown away and put back, files inspected."""

import json
import shutil

import psutil
import pytest
from playwright.sync_api import expect

from app import projects
from app.about import annotate, read_about, record_preset, rename_run
from app.gui import server
from app.paths import Home
from app.trash import list_trash
from tests.app.library_runs import make_run
from tests.gui.conftest import photograph
from trainers.errors import UserError
from trainers.events import EventLog, Finished, Started, Step

pytestmark = pytest.mark.gui  # the browser comes by `request`
ODD = "<img src=x onerror=alert(1)>"
FACTS = {
    "family": "Stable Diffusion 1.x",
    "rank": {"16": 192},
    "problems": [],
    "interfaces": {"A1111": "loads", "ComfyUI": "loads in part: 1 key unmatched"},
    "unmatched keys": {"ComfyUI": ["lora_<b>odd</b>"]},
}


class FakeQueue:
    """Holds an order, and starts nothing."""

    def __init__(self, home):
        self.runs, self.told = [], []

    def add(self, run):
        self.runs.append(run)

    def waiting(self):
        return list(self.runs)

    def running(self):
        return None

    def held(self):
        return False

    def problems(self):
        return self.told

    def dismiss(self, key):
        self.told = [(run, said) for run, said in self.told if run.key != key]

    def move(self, run, place):
        self.runs.remove(run)
        self.runs.insert(place, run)

    def remove(self, run):
        self.runs.remove(run)

    def watch(self):
        pass

    close = watch


class FakeWorker:
    def __init__(self, home):
        pass

    def ask(self, name, report=None, *, file):
        assert name == "inspect"
        if file.endswith(".txt"):
            raise UserError("It is a text file.", "Choose an adapter file.")
        return FACTS

    def close(self):
        pass


@pytest.fixture
def made(home, pictures_folder):
    """Three runs of one project."""
    project = projects.create(Home(home), "Cats <b>bold</b>", pictures_folder, "object")
    runs = {name: make_run(project, name) for name in ("tabby", "grey", "odd")}
    rename_run(runs["odd"], ODD)
    return runs


@pytest.fixture
def pictures_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "a.png").write_bytes(b"")
    return folder


@pytest.fixture
def pretended(made, monkeypatch, request):
    """The window, with a queue and a worker that only pretend."""
    monkeypatch.setattr(server, "Queue", FakeQueue)
    monkeypatch.setattr(server, "Worker", FakeWorker)
    return request.getfixturevalue("served")


@pytest.fixture
def library(pretended, open_page):
    """Its page with three runs."""
    page = open_page(f"{pretended.address}?show=library")
    page.served = pretended
    expect(page.get_by_role("article")).to_have_count(3)
    return page


def test_a_waiting_run_whose_folder_is_gone_is_named_until_that_was_read(pretended, open_page, made):
    queue, gone = pretended.context.queue, made["grey"]
    shutil.move(gone.folder, pretended.context.home.root / "elsewhere")
    queue.told = [(gone, "Its folder is not there any more.")]
    library = open_page(f"{pretended.address}?show=library")
    expect(library.get_by_text("Its folder is not there any more.")).to_be_visible()
    expect(library.get_by_role("article")).to_have_count(2)
    library.get_by_role("button", name="Understood").click()
    expect(library.get_by_text("Its folder is not there any more.")).to_have_count(0)
    assert queue.told == []


def test_the_queue_is_put_in_order(library, made):
    queue = library.served.context.queue
    for run in made.values():
        queue.add(run)
    rows = library.get_by_role("list", name="Waiting runs").get_by_role("listitem")
    expect(rows).to_have_count(3)
    library.get_by_role("button", name=f"Train {ODD} next").click()
    expect(rows.nth(0)).to_contain_text(ODD)
    library.get_by_role("button", name="Move tabby down").click()
    expect(rows.nth(2)).to_contain_text("tabby")
    library.get_by_role("button", name="Remove grey from the queue").click()
    expect(rows).to_have_count(2)
    assert queue.runs == [made["odd"], made["tabby"]]


def test_a_run_is_named_thrown_away_and_put_back(library, made, home):
    library.get_by_label("Search runs").fill("tabby")
    expect(library.get_by_text("1 of 3 runs")).to_be_visible()
    library.get_by_role("article", name="tabby").get_by_role("button", name="Details", exact=True).click()
    name = library.get_by_label("Name of this run")
    name.fill("<i>Tabby</i>")
    name.press("Tab")
    expect(library.get_by_role("heading", name="<i>Tabby</i>")).to_be_visible()
    assert read_about(made["tabby"]).name == "<i>Tabby</i>"
    library.get_by_role("button", name="Move to trash", exact=True).click()
    expect(library.get_by_text("<i>Tabby</i> was moved to the trash.")).to_be_visible()
    assert not made["tabby"].folder.exists() and len(list_trash(Home(home))) == 1
    library.get_by_role("button", name="Put back", exact=True).click()
    expect(library.get_by_role("article", name="<i>Tabby</i>")).to_be_visible()
    assert made["tabby"].config.exists() and not list_trash(Home(home))


def test_an_open_run_goes_on_before_ones_eyes_and_leaves_what_is_typed(library, made, home):
    run = made["tabby"]
    record_preset(run, "style", "Style")
    emit = EventLog(run.events)
    emit(Started(1600, 0, "cpu", 3, "tabby"))
    emit(Step(10, 1600, 0.1, 1e-4, 1.0, 0.5))
    me = psutil.Process()
    run.process.write_text(json.dumps({"pid": me.pid, "create_time": me.create_time()}))
    card = library.get_by_role("article", name="tabby")
    expect(card).to_contain_text("Object · Preset Style")
    photograph(library, "library_cards")
    card.get_by_role("button", name="Details", exact=True).click()
    expect(library.get_by_text("Step 10 of 1,600")).to_be_visible()
    note = library.get_by_label("Note")
    note.press_sequentially("half a thou")
    emit(Step(20, 1600, 0.1, 1e-4, 1.0, 0.5))
    expect(library.get_by_text("Step 20 of 1,600")).to_be_visible()
    expect(note).to_be_focused()
    expect(note).to_have_value("half a thou")
    photograph(library, "library_details")
    run.process.unlink()
    emit(Finished(1600, "output/tabby.safetensors", 9.0))
    expect(library.get_by_text("Finished")).to_be_visible()
    expect(note).to_have_value("half a thou")


def test_a_dropped_file_is_inspected_and_a_bad_one_is_a_sentence(library):
    library.get_by_role("button", name="Inspect an adapter file").click()
    field = library.locator("input[type=file]").first
    field.set_input_files([{"name": "a.safetensors", "mimeType": "", "buffer": b"x"}])
    expect(library.get_by_role("row", name="ComfyUI")).to_contain_text("lora_<b>odd</b>")
    library.get_by_role("button", name="Clear").click()
    library.locator("input[type=file]").first.set_input_files([{"name": "a.txt", "mimeType": "", "buffer": b"x"}])
    expect(library.get_by_role("alert")).to_contain_text("It is a text file.")


def test_two_runs_are_compared_and_one_trained_again_with_a_change(library, made):
    for name in ("tabby", "grey"):
        library.get_by_role("article", name=name).get_by_role("button", name="Choose").click()
        expect(library.get_by_role("article", name=name).get_by_role("button", name="Chosen")).to_be_visible()
    library.get_by_role("button", name="Compare them").click()
    expect(library.get_by_role("row", name="saving.name")).to_contain_text("tabby")
    library.get_by_role("button", name="All runs").click()
    library.get_by_role("article", name="grey").get_by_role("button", name="Details", exact=True).click()
    library.get_by_label("Setting to change").click()
    library.get_by_label("Setting to change").fill("adapter.rank")
    library.get_by_role("option", name="Rank (adapter.rank)").click()
    value = library.get_by_label("Its new value")
    expect(value).to_have_value("16")
    value.fill("0")
    expect(library.get_by_role("alert")).to_contain_text("between 1 and 1024")
    value.fill("8")
    expect(library.get_by_text("Rank: 8 instead of 16")).to_be_visible()
    library.get_by_label("Setting to change").focus()
    value.focus()  # leaving the setting changes nothing
    library.get_by_role("tab", name="Monitor").click()
    expect(library.get_by_role("tabpanel", name="Monitor")).to_be_visible()
    annotate(made["grey"], "ink on paper")
    library.get_by_role("tab", name="Library").click()
    expect(library.get_by_label("Note")).to_have_value("ink on paper")  # the page is up to date
    expect(value).to_have_value("8")
    library.get_by_role("button", name="Train with this change").click()
    expect(library.get_by_role("tabpanel", name="Monitor")).to_be_visible()
    (run,) = library.served.context.queue.runs
    assert run.folder.parent == made["grey"].folder.parent and "rank = 8" in run.config.read_text("utf-8")
