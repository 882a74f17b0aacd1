"""Bad input on the Results page is a sentence beside its field, and writes nothing."""

import errno
import shutil
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from app import picks, projects, runs, send_to
from app.runs import Run
from tests.app.test_picks import Engine
from tests.app.test_send_to import weights
from tests.gui.test_bad_input import ODD, full, no_toast
from trainers import config_io

BIGGEST = 2**63 - 1
WRONG_WISHES = [  # field, what is typed, what is said
    *(("Strengths", typed, "Strengths are numbers above 0 and up to 4.") for typed in ("much", "", "0", "-1", "nan")),
    ("Strengths", "0.6 4.1", "Strengths are numbers above 0 and up to 4."),
    *(("Seeds", typed, "Seeds are whole numbers from 0 to") for typed in ("x", "", "-1", "1.5", str(BIGGEST + 1))),
    ("Prompts", " \n ", "Write at least one prompt."),
]
WRONG_NAMES = [
    (" ", "The adapter needs a name."),
    ("../zib", 'cannot be a file name: it holds "/"'),
    ("a\\b", 'cannot be a file name: it holds "\\"'),
    ("...", "begins or ends with a space or a dot"),
    (ODD, 'cannot be a file name: it holds "<"'),
    ("x" * 121, "must be text of 1 to 120 letters"),
    ("漢" * 100, "too long for a file name"),
]


@pytest.fixture
def run(served, tmp_path: Path) -> Run:
    """With two checkpoints, the last of which is picked."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.new("RGB", (8, 8)).save(pictures / "0.png")
    project = projects.create(served.context.home, "Zib", pictures, "object", "zib")
    settings = {"data": {"folders": [str(pictures)], "trigger": "zib"}, "preview": {"prompts": ["zib"]}}
    made = runs.create(project, config_io.parse(settings | {"saving": {"name": "zib-lora"}}))
    for step in (250, 500):
        (made.folder / "checkpoints" / f"step_{step:06d}").mkdir(parents=True)
    picks.pick(made, 500, 0.6)
    return made


@pytest.fixture
def page(served, run, open_page, monkeypatch: pytest.MonkeyPatch) -> Page:
    monkeypatch.setattr(served.context.worker, "ask", Engine().ask)
    monkeypatch.setattr(send_to, "_installed", lambda person: {})
    return open_page(f"{served.address}?show=results&run={run.key}")


def test_a_wish_that_cannot_be_compared_says_why_beside_its_fields(page, run):
    makes = page.get_by_text("That makes ")
    expect(makes).to_be_visible()
    for name, typed, words in WRONG_WISHES:
        field = page.get_by_label(f"{name} to compare")
        before = field.input_value()
        field.fill(typed)
        expect(page.get_by_role("status").filter(has_text=words)).to_be_visible()
        field.fill(before)
        expect(makes).to_be_visible()
    for step in (250, 500):
        page.get_by_label(f"Step {step}").uncheck()
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.get_by_role("alert").filter(has_text="Choose at least one checkpoint.")).to_be_visible()
    no_toast(page)
    assert not (run.folder / "comparisons").exists()


def test_a_name_that_no_file_can_have_is_refused_below_its_field(page, run, monkeypatch):
    name, save = page.get_by_label("Name of the adapter file"), page.get_by_role("button", name="Save adapter file")
    for typed, words in WRONG_NAMES:
        name.fill(typed)
        save.click()
        expect(page.get_by_role("alert").filter(has_text=words)).to_be_visible()
        expect(name).to_have_value(typed)
    assert not (run.folder / "output").exists()
    with monkeypatch.context() as refusing:
        refusing.setattr(picks, "write_whole", full)
        name.fill("best")
        save.click()
        expect(page.get_by_role("alert")).to_contain_text("The disk is full.")
    save.click()
    expect(page.get_by_text("Saved as")).to_be_visible()
    no_toast(page)


def test_a_lora_folder_that_is_none_or_takes_no_file_is_named_above_its_field(page, run, tmp_path, monkeypatch):
    page.get_by_label("Name of the adapter file").fill("best")
    page.get_by_role("button", name="Save adapter file").click()
    expect(page.get_by_text("Saved as")).to_be_visible()
    letter, locked = tmp_path / "letter.txt", tmp_path / "locked"
    weights(run.folder / "output" / "best.safetensors")
    letter.touch()
    locked.mkdir()

    def refused(source: Path, goal: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(goal))

    monkeypatch.setattr(shutil, "copyfile", refused)
    page.get_by_role("button", name="Send to A1111").click()
    field = page.get_by_label("LoRA folder of A1111")
    for typed, words in [
        (tmp_path / ODD, f"There is no folder {tmp_path / ODD}."),
        (letter, f"{letter} is a file."),
        ("a" * 5000, "There is no folder"),
        (" ", "Name the folder in which A1111 keeps LoRA files."),
        (locked, f"could not be written to {locked}"),
    ]:
        field.fill(str(typed))
        field.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text(words)
        expect(field).to_have_value(str(typed))
    no_toast(page)
    assert not any(locked.iterdir())
