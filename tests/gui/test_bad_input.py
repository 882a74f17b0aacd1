"""Bad input is a sentence at its field, on Concept and Train: what is wrong, where, what to do. Never a toast alone."""

import errno
import os
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from app import base_models, captions_edit, concepts, projects, runs
from app.queue import Queue
from app.worker import Worker
from tests.bad_input.files import safetensors
from tests.bad_input.test_bases import BASES
from trainers.errors import UserError
from trainers.families.locate import embedded_base

ODD = "<img src=x onerror=alert(1)>"


@pytest.fixture(autouse=True)
def nothing_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """And no model of this machine is offered; what only the engine could tell is not asked."""

    def ask(self: Worker, name: str, *_: object, **__: object) -> None:
        raise UserError("Not asked here.")

    monkeypatch.setattr(Worker, "ask", ask)
    monkeypatch.setattr(Queue, "add", lambda self, run: None)
    monkeypatch.setattr(base_models, "_places", lambda: [])


@pytest.fixture
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("three pictures")
    for number in range(3):
        Image.new("RGB", (64, 64), (80 * number, 90, 40)).save(folder / f"{number}.png")
    return folder


def no_toast(page: Page) -> None:
    expect(page.get_by_test_id("toast-body").or_(page.locator(".dr-told"))).to_have_count(0)


def test_a_new_project_that_cannot_be_made_says_why_in_its_form(served, open_page, tmp_path, pictures):
    (tmp_path / "empty").mkdir()
    page = open_page(served.address)
    expect(page.get_by_label("Caption of banana.png")).to_be_visible()
    page.get_by_role("button", name="New project").first.click()
    form = page.locator(".dr-new")
    for name, linked, words in [
        (" ", "", "A project needs a name."),
        ("Fluent style", "", 'There is already a project "Fluent style".'),
        ("Cat", tmp_path / "gone" / ODD, f"There is no folder {tmp_path / 'gone' / ODD}."),
        ("Cat", pictures / "0.png", "Name the folder that holds your pictures."),
        ("Cat", tmp_path / "empty", f"There is no picture in {tmp_path / 'empty'}."),
    ]:
        page.get_by_label("Name of the new project").fill(name)
        page.get_by_label("Or link a folder").fill(str(linked))
        form.get_by_role("button", name="Create project").click()
        expect(form.get_by_role("alert")).to_contain_text(words)
    form.locator("input[type=file]").set_input_files(pictures / "0.png")
    expect(form.get_by_role("cell", name="0.png")).to_be_visible()  # not only on its way
    page.get_by_label("Or link a folder").fill(str(pictures))
    form.get_by_role("button", name="Create project").click()
    expect(form.get_by_role("alert")).to_contain_text("Pictures were dropped, and a folder is named.")
    no_toast(page)
    assert [one.name for one in projects.list_projects(served.context.home)] == ["Fluent style"]


def nasty(folder: Path, whole: Path) -> list[Path]:
    """What people drop by mistake, beside one good picture with a caption in an old encoding."""
    noise = Image.effect_noise((300, 300), 90)
    noise.save(folder / "good.jpg")
    (folder / "good.txt").write_bytes("zib at the café".encode("cp1252"))
    (folder / "cut.jpg").write_bytes((folder / "good.jpg").read_bytes()[:9000])
    (folder / "letter.png").write_text("Dear diary, this is no picture.\n", "utf-8")
    (folder / "nothing.png").touch()
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    Image.effect_noise((20, 24), 90).save(folder / "tiny.png")
    (folder / "list.pdf").write_bytes(b"%PDF-1.4")
    (folder / "broken.zip").write_bytes(b"PK\3\4 no zip")
    picture = whole.read_bytes()
    with zipfile.ZipFile(folder / "odd.zip", "w") as packed:
        packed.writestr("../../../escaped.png", picture)
        packed.writestr("inner.zip", b"PK")
    with zipfile.ZipFile(folder / "secret.zip", "w") as packed:
        packed.writestr("a.png", picture + b"more")
    locked = (folder / "secret.zip").read_bytes().replace(b"PK\1\2\x14\3\x14\0\0", b"PK\1\2\x14\3\x14\0\1")
    (folder / "secret.zip").write_bytes(locked.replace(b"PK\3\4\x14\0\0", b"PK\3\4\x14\0\1"))
    with zipfile.ZipFile(folder / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for number in range(6):
            packed.writestr(f"{number}.png", bytes(1000))
    claimed = (folder / "bomb.zip").read_bytes().replace((1000).to_bytes(4, "little"), b"\xf0\xff\xff\xff")
    (folder / "bomb.zip").write_bytes(claimed)  # six files of 4 GB, it says
    return sorted(folder.iterdir())


def test_what_is_no_picture_is_named_where_it_was_dropped_and_on_its_card(served, open_page, tmp_path, pictures):
    dropped = tmp_path / "dropped"
    dropped.mkdir()
    files = {path.name: path for path in nasty(dropped, pictures / "0.png")}
    project = projects.create_own(served.context.home, "Zib", "object")
    page = open_page(f"{served.address}?project=zib")
    page.get_by_role("button", name="Add pictures").click()
    for names, said in [
        ("good.jpg good.txt cut.jpg letter.png nothing.png dot.png tiny.png", ["6 pictures added, 1 caption."]),
        ("list.pdf broken.zip", ["list.pdf is no picture", "broken.zip is damaged, or no zip file."]),
        (
            "odd.zip secret.zip bomb.zip",
            [
                "1 picture added.",
                "inner.zip lies inside a zip file and is one itself.",
                "a.png cannot be unpacked: it is protected by a password.",
                "bomb.zip would unpack to 24.0 GB",
            ],
        ),
    ]:
        page.locator(".dr-drop:visible input[type=file]").set_input_files([files[name] for name in names.split()])
        for words in said:
            expect(page.get_by_text(words).first).to_be_visible()
    for name, words in [
        ("cut.jpg", "Cannot be used: it is damaged or cut off"),
        ("letter.png", "Cannot be used: this is not a picture"),
        ("nothing.png", "Cannot be used: "),
        ("dot.png", "Cannot be used: 1x1 pixels are too few: each side needs 16."),
        ("tiny.png", "Too small: it would be enlarged 3.2 times."),
    ]:
        expect(page.get_by_role("article", name=name)).to_contain_text(words)
    expect(page.get_by_label("Caption of good.jpg")).to_have_value("zib at the café")
    no_toast(page)
    held = {path.name for path in Path(project.pictures).iterdir()}
    assert held == set("good.jpg good.txt cut.jpg letter.png nothing.png dot.png tiny.png escaped.png".split())
    assert [path.parent for path in tmp_path.rglob("escaped.png")] == [Path(project.pictures)]


def test_a_trigger_word_that_learns_badly_is_remarked_on_at_its_field(served, open_page):
    concepts.use_sample(served.context.home, "style")
    page = open_page(f"{served.address}?project=fluent-style")
    trigger = page.get_by_label("Trigger word", exact=True)
    expect(trigger).to_have_value("fluent")
    for word, words in [
        ("cat", '"cat" is a common word'),
        ("red house", "These are common words"),
        ("zib,bo", "Use letters and digits"),
        ("qzxwvkqzxwvkqzxwvk", "A shorter word learns better."),
    ]:
        trigger.fill(word)
        trigger.press("Tab")
        expect(page.locator(".dr-notice.warning").filter(has_text=words)).to_be_visible()
    trigger.fill("")
    trigger.press("Tab")
    expect(page.get_by_role("article", name="banana.png")).not_to_contain_text("The trigger word")
    no_toast(page)


def test_a_base_that_is_none_is_named_for_what_it_is_below_its_field(served, open_page, tmp_path, pictures):
    projects.create(served.context.home, "Cat", pictures, "object")
    page = open_page(f"{served.address}?show=train&project=cat")
    field, train = page.get_by_label("Base model (choose"), page.get_by_role("button", name="Train", exact=True)
    expect(train).to_be_enabled()
    kinds = {
        **BASES,
        "text encoder": (lambda _: embedded_base() / "text_encoder" / "model.safetensors", "text encoder"),
        "cut": (cut_off, "cut.safetensors"),
    }
    for kind, (make, words) in kinds.items():
        folder = tmp_path / kind
        folder.mkdir()
        field.fill(str(make(folder)))
        field.press("Enter")
        note = page.locator(".dr-base [role=alert]")
        expect(note).to_contain_text(words)
        expect(train).to_be_disabled()
    no_toast(page)


def cut_off(folder: Path) -> Path:
    path = safetensors(folder / "cut.safetensors", {"model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3)})
    os.truncate(path, path.stat().st_size - 1)
    return path


WRONG = [  # setting's label, what is typed, what its field says
    ("Rank", "many", "This must be a whole number between 1 and 1024."),
    ("Rank", "-1", "This must be a whole number"),
    ("Rank", "4096", "This must be a whole number"),
    ("Rank", "8.5", "This must be a whole number"),
    ("Learning rate", "nan", "This must be a number above 0"),
    ("Learning rate", "0", "This must be a number above 0"),
    ("Learning rate", "1e-4x", "This must be a number above 0"),
    ("Steps", "-5", "This must be a whole number"),
    ("Resolution px", "7", "This must be a whole number"),
    ("Name", "../cat", 'cannot be a file name: it holds "/"'),
    ("Name", "", "This must be text of 1 to 120 letters."),
    ("Preview width px", "64.5", "This must be a whole number"),
    ("Ranks by block", "{ a", "This must be"),
    ("Ranks by block", '{ "(" = 8 }', "which is no regular expression"),
    ("Last timestep", "-3", "This must be a whole number"),
    ("Class pictures", "9", "“Class pictures” = 9 needs"),  # of what, two other settings say
]


def test_a_wrong_setting_is_a_sentence_at_its_field_and_a_link_leads_there(served, open_page, pictures):
    projects.create(served.context.home, "Cat", pictures, "object")
    page = open_page(f"{served.address}?show=train&project=cat")
    page.get_by_role("button", name="All settings").click()
    for label, value, words in WRONG:
        setting = page.locator(".dr-setting").filter(has=page.get_by_label(label, exact=True))
        control = setting.get_by_label(label, exact=True)
        before = control.input_value()
        control.fill(value)
        control.press("Tab")
        expect(setting.get_by_role("alert")).to_contain_text(words)
        expect(control).to_have_attribute("aria-invalid", "true")
        expect(page.get_by_role("link", name=label.removesuffix(" px"), exact=True)).to_be_visible()
        control.fill(before)
        control.press("Tab")
        expect(control).to_have_attribute("aria-invalid", "false")
    no_toast(page)


def test_settings_of_others_presets_and_folders_that_are_none_are_told_beside_their_buttons(
    served, open_page, tmp_path, pictures
):
    projects.create(served.context.home, "Cat", pictures, "object")
    page = open_page(f"{served.address}?show=train&project=cat")
    page.get_by_role("button", name="Import settings of").click()
    for name, content, words in [
        ("half.json", b'{"LoRA_type": "Standard", ', "half.json is not valid JSON"),
        ("half.toml", b"network_dim = \n", "half.toml is not valid TOML"),
        ("noise.json", b"\xff\xfe\0\1", "noise.json is not a text file in UTF-8."),
        ("list.json", b"[1, 2]", "list.json"),
    ]:
        page.locator(".dr-import input[type=file]").set_input_files(
            {"name": name, "mimeType": "application/octet-stream", "buffer": content}
        )
        expect(page.locator(".dr-import [role=alert]")).to_contain_text(words)

    page.get_by_role("button", name="Save these settings as a preset").click()
    for title, words in [("  ", "A preset needs a name."), ("style", '"style" is the name of a preset that comes')]:
        page.get_by_label("Preset name").fill(title)
        page.get_by_role("button", name="Save preset").click()
        expect(page.get_by_role("alert").filter(has_text=words)).to_be_visible()

    page.get_by_role("button", name="Look for base models in another folder").click()
    for folder, words in [("", "There is no folder"), (tmp_path / ODD, str(ODD)), (pictures, "There is no base model")]:
        page.get_by_label("Folder with base models").fill(str(folder))
        page.get_by_role("button", name="Add the folder").click()
        expect(page.get_by_role("alert").filter(has_text=words)).to_be_visible()
    no_toast(page)


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_a_sentence_and_costs_nothing_that_was_saved(served, open_page, monkeypatch):
    home = served.context.home
    concepts.use_sample(home, "style")
    page = open_page(f"{served.address}?project=fluent-style")
    caption = page.get_by_label("Caption of banana.png")
    expect(caption).to_have_value("a fluent style banana")
    with monkeypatch.context() as refusing:
        refusing.setattr(captions_edit, "_replace", full)
        refusing.setattr(projects, "write_whole", full)
        refusing.setattr(runs, "create", full)
        caption.fill("a yellow banana")
        caption.press("Tab")
        card = page.get_by_role("article", name="banana.png")
        expect(card.get_by_role("alert")).to_contain_text("banana.txt cannot be written: The disk is full.")
        page.reload()
        expect(card.get_by_role("alert")).to_be_visible()
        expect(caption).to_have_value("a yellow banana")
        page.get_by_role("button", name="New project").first.click()
        page.get_by_label("Name of the new project").fill("Cat")
        page.get_by_role("button", name="Create project").click()
        expect(page.locator(".dr-new [role=alert]")).to_contain_text("The disk is full.")
        page.get_by_role("tab", name="Train", exact=True).click()
        page.get_by_role("button", name="Train", exact=True).click()
        note = page.locator(".dr-side [role=alert]")
        expect(note).to_have_text("The disk is full.Make room, and do it again.")
        no_toast(page)
    page.get_by_role("tab", name="Concept", exact=True).click()
    card.get_by_role("button", name="Save again: banana.png").click()
    expect(card.get_by_role("alert")).to_have_count(0)
    expect(caption).to_have_value("a yellow banana")
    assert (Path(projects.list_projects(home)[0].pictures) / "banana.txt").read_text() == "a yellow banana"
    assert [one.name for one in projects.list_projects(home)] == ["Fluent style"] and not runs.list_runs(home)
