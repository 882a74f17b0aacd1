"""Bad input on the Library page is a sentence beside its field, in sight, and changes nothing."""

import json
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from app import about, archive, projects, runs
from app.about import read_about
from app.queue import Queue
from app.runs import Run
from app.trash import throw_run
from tests.app.library_runs import make_run
from tests.gui.test_bad_input import ODD, full, no_toast
from trainers.files import write_whole


@pytest.fixture
def tabby(served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run of one of two projects; nothing is trained here."""
    monkeypatch.setattr(Queue, "add", lambda self, run: None)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.new("RGB", (8, 8)).save(pictures / "0.png")
    projects.create(served.context.home, "Dogs", pictures, "object")
    return make_run(projects.create(served.context.home, "Cats", pictures, "object"), "tabby")


@pytest.fixture
def page(served, tabby, open_page) -> Page:
    page = open_page(f"{served.address}?show=library")
    expect(page.get_by_role("article", name="tabby")).to_be_visible()
    return page


def refused(page: Page, words: str) -> None:
    """It says so where one looks."""
    alert = page.get_by_role("alert").filter(has_text=words)
    expect(alert).to_be_visible()
    expect(alert).to_be_in_viewport()


def test_a_name_that_no_project_can_have_is_refused_below_the_projects(page, served, monkeypatch):
    page.get_by_role("button", name="Projects").click()
    field = page.get_by_label("Name of the project Cats")
    for typed, words in [(" ", "A project needs a name."), ("Dogs", 'There is already a project "Dogs".')]:
        field.fill(typed)
        field.press("Tab")
        refused(page, words)
        expect(field).to_have_value(typed)
    monkeypatch.setattr(about, "write_whole", full)
    field.fill("Kittens")
    field.press("Tab")
    refused(page, "The disk is full.")
    monkeypatch.setattr(about, "write_whole", write_whole)
    folders = {one.folder for one in projects.list_projects(served.context.home)}
    field.fill(f"../{ODD}")
    field.press("Tab")
    expect(page.get_by_label(f"Name of the project ../{ODD}")).to_be_visible()  # a name is no path: it may be anything
    expect(page.get_by_role("alert")).to_have_count(0)
    no_toast(page)
    assert {one.folder for one in projects.list_projects(served.context.home)} == folders


def test_what_cannot_be_kept_of_a_run_is_told_at_its_name_and_a_wrong_change_at_its_value(
    page, served, tabby, monkeypatch
):
    page.get_by_role("article", name="tabby").get_by_role("button", name="Details", exact=True).click()
    name, note = page.get_by_label("Name of this run"), page.get_by_label("Note")
    with monkeypatch.context() as refusing:
        refusing.setattr(about, "write_whole", full)
        name.fill("a/b")
        name.press("Tab")
        refused(page, "The disk is full.")
        note.fill("kept?")
        note.press("Tab")
        expect(name).to_have_value("a/b")
        expect(note).to_have_value("kept?")
    name.fill("../c")
    name.press("Tab")
    expect(page.get_by_role("heading", name="../c")).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)
    assert read_about(tabby).name == "../c" and tabby.folder.is_dir()
    name.fill(" ")
    name.press("Tab")
    expect(page.get_by_role("heading", name="tabby")).to_be_visible()  # the adapter's own

    setting, value = page.get_by_label("Setting to change"), page.get_by_label("Its new value")
    for title, now, wrong in [
        ("Rank (adapter.rank)", "16", [("many", "must be a whole number"), ("", "must be"), ("4096", "between 1 and")]),
        ("Name (saving.name)", "tabby", [("a/b", "cannot be a file name"), ("", "of 1 to 120 letters")]),
    ]:
        setting.click()
        setting.fill(title.split()[-1].strip("()"))
        page.get_by_role("option", name=title, exact=True).click()
        expect(value).to_have_value(now)
        for typed, words in wrong:
            value.fill(typed)
            expect(page.get_by_role("alert").filter(has_text=words)).to_be_visible()
            expect(page.get_by_role("button", name="Train with this change")).to_be_disabled()
            value.fill(now)
            expect(page.get_by_role("alert")).to_have_count(0)
    no_toast(page)
    assert len(runs.list_runs(served.context.home)) == 1


def test_a_zip_that_is_no_archive_of_a_run_is_refused_beside_where_it_was_chosen(page, served, tabby):
    home = served.context.home
    good = archive.save_zip(home, tabby, [])
    bad = home.archive
    (bad / "empty.zip").touch()
    (bad / "cut.zip").write_bytes(good.read_bytes()[:-200])
    with zipfile.ZipFile(bad / "pictures.zip", "w") as packed:
        packed.writestr("a.png", b"")
    with zipfile.ZipFile(bad / "list.zip", "w") as packed:
        packed.writestr(archive.CONTENTS, json.dumps({"project": "../x"}))
    whole = bytearray(good.read_bytes())
    whole[whole.index(bytes(range(256))) + 7] ^= 1  # in the adapter's weights
    (bad / "flipped.zip").write_bytes(whole)
    before = contents_of(home.projects)

    page.get_by_role("button", name="Archives").click()
    letter = {"name": "letter.zip", "mimeType": "application/zip", "buffer": b"Dear diary"}
    page.locator("input[type=file]").last.set_input_files(letter)
    refused(page, "letter.zip is no zip that can be read")
    for file, words in [
        (bad / "empty.zip", "empty.zip is no zip that can be read"),
        (bad / "cut.zip", "cut.zip is no zip that can be read"),
        (bad / "pictures.zip", "pictures.zip is no archive of a run."),
        (bad / "list.zip", "list.zip is no archive of a run: its list of files is damaged."),
        (good, f"The run {tabby.folder.name} is in the library already."),
    ]:
        page.get_by_role("button", name=f"Restore {file.name}").click()
        refused(page, words)
    assert contents_of(home.projects) == before
    throw_run(home, tabby, [])
    without = contents_of(home.projects)
    page.get_by_role("button", name="Restore flipped.zip").click()
    refused(page, "flipped.zip is no zip that can be read: Bad CRC-32")
    expect(page.get_by_role("alert")).to_have_count(1)
    assert contents_of(home.projects) == without and not list(home.archive.glob(".*"))
    page.get_by_role("button", name=f"Restore {good.name}").click()
    expect(page.get_by_text(f"{tabby.folder.name} is in the library again.")).to_be_in_viewport()
    no_toast(page)


def contents_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
