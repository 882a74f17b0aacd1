"""While pictures are being copied, others can be dropped and other projects made; each gets all of its own."""

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from app import dropped, projects


@pytest.fixture
def held_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """What is named slow.png is copied once this is set."""
    may, add = threading.Event(), dropped.add

    def slowly(project: projects.Project, files: list[str]) -> dropped.Added:
        if any(Path(file).name == "slow.png" for file in files):
            assert may.wait(60)
        return add(project, files)

    monkeypatch.setattr(dropped, "add", slowly)
    yield may
    may.set()


@pytest.fixture
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pictures")
    for number, name in enumerate(("slow", "quick", "quicker")):
        Image.new("RGB", (80, 70 + number)).save(folder / f"{name}.png")
    return {path.stem: path for path in folder.iterdir()}


def make(page: Page, name: str, picture: Path) -> None:
    page.get_by_role("button", name="New project").first.click()
    page.get_by_label("Name of the new project").fill(name)
    form = page.locator(".dr-new")
    expect(form.get_by_role("row")).to_have_count(0)
    form.locator("input[type=file]").set_input_files(picture)
    expect(form.get_by_role("row", name=picture.name)).to_be_visible()
    form.get_by_role("button", name="Create project").click()
    expect(form).to_be_hidden()


def test_a_second_project_is_filled_while_the_first_is_still_being_copied(served, open_page, held_back, pictures):
    page = open_page(served.address)
    expect(page.get_by_label("Caption of banana.png")).to_be_visible()
    make(page, "First", pictures["slow"])
    expect(page.get_by_text("Copying 1 file ...")).to_be_visible()
    make(page, "Second", pictures["quick"])
    expect(page.get_by_text("1 picture added.")).to_be_visible()
    expect(page.get_by_role("article", name="quick.png")).to_be_visible()
    page.get_by_role("button", name="New project").first.click()
    form = page.locator(".dr-new")
    form.locator("input[type=file]").set_input_files(pictures["quicker"])
    expect(form.get_by_role("row", name="quicker.png")).to_be_visible()
    with page.expect_response(lambda answer: "1 picture added." in answer.text()):
        held_back.set()
    expect(form.get_by_role("row", name="quicker.png")).to_be_visible()  # what waits for the next project stays
    form.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("article", name="quick.png")).to_be_visible()
    expect(page.get_by_role("article", name="slow.png")).to_have_count(0)
    page.get_by_label("Project", exact=True).click()
    page.get_by_role("option", name="First").click()
    expect(page.get_by_role("article", name="slow.png")).to_be_visible()
    expect(page.get_by_text("1 picture added.")).to_be_visible()


def test_more_pictures_come_in_while_the_first_are_still_being_copied(served, open_page, held_back, pictures):
    projects.create_own(served.context.home, "Cat", "object")
    page = open_page(f"{served.address}?project=cat")
    expect(page).to_have_url(re.compile("show=concept"))  # it knows where it is
    page.get_by_role("button", name="Add pictures").click()
    zone = page.locator(".dr-drop:visible input[type=file]")
    with page.expect_request(lambda asked: "/run/predict" in asked.url and "slow.png" in asked.post_data):
        zone.set_input_files(pictures["slow"])
    for name in ("quick", "quicker"):
        expect(page.locator(".dr-drop:visible").get_by_role("row")).to_have_count(0)  # there is room for more
        zone.set_input_files(pictures[name])
        expect(page.get_by_role("article", name=f"{name}.png")).to_be_visible()
    expect(page.get_by_role("article")).to_have_count(2)
    held_back.set()
    expect(page.get_by_role("article")).to_have_count(3)
