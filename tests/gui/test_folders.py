"""A whole folder comes in by being chosen or dropped: its pictures with their captions, and nothing hidden."""

from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from app import projects


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders with a picture of the same name in each, a caption for one of them, and what no person wants."""
    top = tmp_path_factory.mktemp("von der Größe 漢字")
    for number, place in enumerate(("cats", "dogs/small")):
        (top / place).mkdir(parents=True)
        Image.effect_noise((90 + number, 90), 80).save(top / place / "1.png")
    (top / "dogs" / "small" / "1.txt").write_text("a small dog", "utf-8")
    (top / ".hidden.png").write_bytes((top / "cats" / "1.png").read_bytes())
    return top


def drop(page: Page, folder: Path) -> None:
    """Drag the folder in from the desktop and let go over the drop zone, as the system does it."""
    zone = page.locator(".dr-drop:visible button").first
    zone.scroll_into_view_if_needed()
    box = zone.bounding_box()
    place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(folder)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "data": data, **place})


def choose(page: Page, folder: Path) -> None:
    page.locator("#page-concept input[type=file][webkitdirectory]").set_input_files(folder)


@pytest.mark.parametrize("way", [choose, drop], ids=["chosen", "dropped"])
def test_a_folder_brings_its_pictures_and_their_captions(served, open_page, folder, way):
    project = projects.create_own(served.context.home, "Pets", "object")
    page = open_page(f"{served.address}?project=pets")
    expect(page.get_by_role("radio", name="Object")).to_be_checked()  # the page knows its project
    page.get_by_role("button", name="Add pictures").click()
    expect(page.get_by_role("button", name="Choose a folder")).to_be_visible()
    way(page, folder)
    expect(page.get_by_text("2 pictures added, 1 caption.")).to_be_visible()
    expect(page.get_by_role("article")).to_have_count(2)
    found = {path.name: path.read_bytes() for path in Path(project.pictures).iterdir()}
    captions = [name for name, data in found.items() if data == b"a small dog"]
    assert len(captions) == 1 and len(found) == 3
    dog = (folder / "dogs" / "small" / "1.png").read_bytes()
    assert found[captions[0].replace(".txt", ".png")] == dog
