"""The Concept page in a browser: pictures with odd names come in, captions are edited, originals stay."""

import re
import time
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import Locator, Page, expect

from app import drafts, projects
from tests.gui.conftest import PATIENCE

SCRIPT = "<img src=x onerror=alert(1)>"
NAMES = (  # as a system other than Windows allows them
    "Größe ‘quotes’ 漢字.png",
    "two  spaces .jpg",
    f"{SCRIPT}.png",
    "UPPER.JPG",
    'it\'s "quoted".png',
    "${alert(2)} {{value}}.png",
    "100% & more #1.jpeg",
    "emoji 🎉.webp",
    "-dash.png",
    "CON.png",
    "a.b.c.png",
    "e\u0301 decomposed.png",
)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Twelve real pictures, each different, and a caption for the first."""
    folder = tmp_path / "of the person"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        picture = Image.new("RGB", (300 + 20 * number, 200), (20 * number, 255 - 20 * number, 90))
        draw = ImageDraw.Draw(picture)
        for line in range(0, 300, 7 + number):
            draw.line((line, 0, 300 - line * number % 300, 200), "white", 2)
        picture.save(folder / name)
    (folder / NAMES[0]).with_suffix(".txt").write_text("a first caption", "utf-8")
    return sorted(folder.iterdir())


def own_project(page: Page, address: str, name: str) -> None:
    page.get_by_role("button", name="New project").first.click()
    page.get_by_label("Name of the new project").fill(name)


def captions(folder: str) -> dict[str, str]:
    return {file.stem: file.read_text("utf-8") for file in Path(folder).glob("*.txt")}


def test_first_start_shows_a_sample_that_is_ready_to_train(served, open_page):
    page = open_page(served.address)
    expect(page.get_by_label("Caption of banana.png")).to_have_value("a fluent style banana")
    expect(page.locator(".dr-crop")).to_have_count(24)
    page.get_by_role("button", name="Next page").click()
    expect(page.locator(".dr-picture")).to_have_count(16)
    page.get_by_role("button", name="Continue to Train").click()
    expect(page).to_have_url(re.compile("show=train.*project=fluent-style"))


def test_crops_are_those_of_the_run_that_the_train_page_would_make(served, open_page):
    page = open_page(served.address)
    shown, facts = page.get_by_label("Show crops for"), page.locator(".dr-picture-facts").first
    expect(shown).to_have_value("This project's base (built-in, 64 px)")
    expect(facts).to_contain_text("trained at 64 x 64")
    (project,) = projects.list_projects(served.context.home)
    drafts.change(served.context.home, project, "data.resolution", "96")
    drafts.change(served.context.home, project, "data.bucketing", "false")
    page.get_by_role("tab", name="Train", exact=True).click()
    page.get_by_role("tab", name="Concept", exact=True).click()
    expect(shown).to_have_value("This project's base (built-in, 96 px)")
    expect(facts).to_contain_text("trained at 96 x 96")
    expect(page.get_by_text("All are cut to squares.")).to_be_visible()
    shown.click()
    page.get_by_role("option", name="512 px").click()
    expect(facts).to_contain_text("trained at 512 x 512")


def test_odd_names_are_copied_captioned_and_the_originals_stay_as_they_were(served, open_page, pictures):
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in pictures}
    page = open_page(served.address)
    own_project(page, served.address, f"Cat {SCRIPT}")
    page.locator(".dr-new input[type=file]").set_input_files(pictures)
    expect(page.locator(".dr-new").get_by_text("UPPER", exact=False).first).to_be_visible()
    page.get_by_role("button", name="Create project").click()
    expect(page.locator(".dr-picture")).to_have_count(12)
    expect(page.get_by_text("12 pictures added, 1 caption.")).to_be_visible()
    expect(page.locator(".dr-crop")).to_have_count(12)
    frame, crop = page.locator(".dr-frame").first.bounding_box(), page.locator(".dr-crop").first.bounding_box()
    assert crop["width"] < frame["width"] and abs(crop["height"] - frame["height"]) < 2  # 300x200 is cut to 80x48
    project = next(one for one in projects.list_projects(served.context.home) if one.name.startswith("Cat"))
    assert captions(project.pictures) == {"Größe ‘quotes’ 漢字": "a first caption"}

    field = page.get_by_label("Caption of UPPER.JPG")
    field.fill(f"a loud cat {SCRIPT} ${{1}} é漢")
    field.press("Tab")
    expect(page.get_by_text("Last change: the caption of UPPER.JPG")).to_be_visible()
    assert captions(project.pictures)["UPPER"] == f"a loud cat {SCRIPT} ${{1}} é漢"
    page.reload()
    expect(field).to_have_value(f"a loud cat {SCRIPT} ${{1}} é漢")
    page.get_by_role("button", name="Undo", exact=True).click()
    expect(field).to_have_value("")
    assert "UPPER" not in captions(project.pictures)
    assert page.evaluate("document.querySelectorAll('img[src=\"x\"]').length") == 0
    assert before == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in pictures}


def test_many_captions_change_at_once_and_come_back(served, open_page):
    page = open_page(served.address)
    banana = page.get_by_label("Caption of banana.png")
    expect(banana).to_have_value("a fluent style banana")
    page.get_by_role("button", name="Edit many captions").click()
    page.get_by_label("Tag or text").press_sequentially("soft light")
    expect(page.get_by_text("Changes 40 captions of the 40 pictures shown.")).to_be_visible()
    page.get_by_role("button", name="Apply").click()
    expect(banana).to_have_value("soft light, a fluent style banana")
    page.get_by_role("button", name="Undo", exact=True).click()
    expect(banana).to_have_value("a fluent style banana")
    page.get_by_role("button", name="Leave out: banana.png").click()
    expect(page.get_by_text("40 pictures, 1 left out, no warnings")).to_be_visible()
    page.get_by_label("Trigger word", exact=True).fill("cat")
    page.get_by_label("Trigger word", exact=True).press("Tab")
    expect(page.get_by_text('"cat" is a common word')).to_be_visible()


def test_wrong_input_is_a_sentence_at_its_field(served, open_page, tmp_path):
    page = open_page(served.address)
    own_project(page, served.address, " ")
    note = page.locator(".dr-new [role=alert]")
    page.get_by_role("button", name="Create project").click()
    expect(note).to_contain_text("A project needs a name.")
    page.get_by_label("Name of the new project").fill("Cat")
    page.get_by_label("Or link a folder").fill(str(tmp_path / "nowhere"))
    page.get_by_role("button", name="Create project").click()
    expect(note).to_contain_text("There is no folder")
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"PK\3\4 no zip")
    page.get_by_label("Or link a folder").fill("")
    page.locator(".dr-new input[type=file]").set_input_files(broken)
    expect(page.locator(".dr-new").get_by_text("broken", exact=False).first).to_be_visible()
    page.get_by_role("button", name="Create project").click()
    expect(page.get_by_text("broken.zip is damaged, or no zip file.")).to_be_visible()


def test_a_trigger_word_of_another_tab_stays_when_its_field_is_only_entered_and_left(served, open_page):
    early, late = open_page(served.address), open_page(served.address)
    for page in (early, late):
        expect(page.get_by_label("Caption of banana.png")).to_be_visible()
    (project,) = projects.list_projects(served.context.home)
    for page, word in ((early, "first"), (late, "second")):
        trigger_word(page).fill(word)
        with page.expect_response(lambda answer: "/run/predict" in answer.url):
            trigger_word(page).press("Tab")
        until = time.monotonic() + PATIENCE / 1000
        while projects.find(served.context.home, project.slug).trigger != word:
            assert time.monotonic() < until, f"{word} was not saved"
            page.evaluate("0")  # events are heard meanwhile
    expect(trigger_word(early)).to_have_value("first")
    trigger_word(early).focus()
    with early.expect_response(lambda answer: "/run/predict" in answer.url):
        trigger_word(early).press("Tab")
    assert projects.find(served.context.home, project.slug).trigger == "second"


def trigger_word(page: Page) -> Locator:
    return page.get_by_role("tabpanel", name="Concept").get_by_label("Trigger word", exact=True)
