"""Results: checkpoints compared while they are drawn, the best one picked, saved under a name, and sent on."""

import re
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import expect

from app import projects, runs, send_to, tasks
from app.paths import Home
from app.tasks import TaskStatus
from tests.app.test_picks import Engine
from tests.app.test_send_to import weights
from tests.gui.conftest import photograph
from trainers import comparison, config_io
from trainers.events import EventLog, RunState, Started, Validation

STEPS = (250, 500, 1000)
NAME = "<b>zib</b> & 漢字"


class Drawer:
    """Stands in for the process that draws: draws when it is told to."""

    def __init__(self):
        self.folder, self.alive = Path(), False

    def start(self, folder: Path, function: str, values: dict, home: Home) -> None:
        assert function == "compare" and Path(values["run"]).is_dir()
        self.folder, self.alive = folder, True

    def status(self, folder: Path) -> TaskStatus:
        word = "running" if self.alive and folder == self.folder else "stopped"
        return TaskStatus(folder, word, RunState(phase="Drawing"))

    def stop(self, folder: Path) -> None:
        self.alive = False

    def draw(self, count: int | None = None) -> None:
        for i, cell in enumerate(comparison.load(self.folder).missing()[:count]):
            Image.new("RGB", (64, 64), (cell.step % 256, 60 + i * 4, 120)).save(self.folder / cell.file)
        self.alive = count is not None


@pytest.fixture
def drawer(monkeypatch: pytest.MonkeyPatch) -> Drawer:
    made = Drawer()
    for name in ("start", "status", "stop"):
        monkeypatch.setattr(tasks, name, getattr(made, name))
    return made


@pytest.fixture
def run(home: Path) -> runs.Run:
    pictures = home / "pictures"
    pictures.mkdir()
    Image.new("RGB", (8, 8)).save(pictures / "0.png")
    project = projects.create(Home(home), NAME, pictures, "object", "zib")
    data = {"folders": [str(pictures)], "trigger": "zib", "kind": "object"}
    preview = {"prompts": ["zib", f"{NAME} on a table", "a dog"]}
    return runs.create(project, config_io.parse({"data": data, "preview": preview, "saving": {"name": "zib-lora"}}))


def checkpoints(run: runs.Run) -> None:
    for step in STEPS:
        (run.folder / "checkpoints" / f"step_{step:06d}").mkdir(parents=True)


def test_checkpoints_are_compared_picked_saved_and_sent(served, open_page, run, drawer, home, monkeypatch):
    checkpoints(run)
    engine = Engine(kohya={"ComfyUI": "loads", "A1111": "does not load: no class"})
    monkeypatch.setattr(served.context.worker, "ask", engine.ask)
    loras = home / "ComfyUI" / "models" / "loras"
    loras.mkdir(parents=True)
    monkeypatch.setattr(send_to, "_installed", lambda person: {"ComfyUI": loras})

    page = open_page(f"{served.address}?show=results")
    expect(page.get_by_text("That makes 27 pictures")).to_be_visible()
    page.get_by_label("Step 250").uncheck()
    page.get_by_label("Prompts to compare").fill(f"zib\n{NAME}")
    page.get_by_label("Strengths to compare").fill("much")
    expect(page.get_by_text("Strengths are numbers")).to_be_visible()
    page.get_by_label("Strengths to compare").fill("0.6, 1")
    expect(page.get_by_text("That makes 16 pictures")).to_be_visible()

    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.get_by_text("0 of 16 pictures")).to_be_visible()
    drawer.draw(5)
    expect(page.get_by_text("5 of 16 pictures")).to_be_visible()
    expect(page.get_by_alt_text("Base model, seed 42: zib", exact=True)).to_be_visible()
    page = open_page(f"{served.address}?show=results")  # as after a reload
    expect(page.get_by_text("5 of 16 pictures")).to_be_visible()
    page.get_by_role("button", name="Stop comparing").click()
    expect(page.get_by_text("Stopped at 5 of 16 pictures.")).to_be_visible()
    page.get_by_role("button", name="What to compare").click()
    expect(page.get_by_label("Step 250")).not_to_be_checked()  # the fields are those of the comparison
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.get_by_text("Drawing: 5 of 16 pictures")).to_be_visible()
    drawer.draw()
    page.get_by_role("button", name=NAME, exact=True).click()  # the prompt's tab
    picture = page.get_by_role("button", name=f"Enlarge: Step 500, strength 0.6, seed 42: {NAME}")
    picture.click()
    dialog = page.get_by_role("dialog", name="Enlarged picture")
    expect(dialog).to_contain_text(NAME)
    expect(dialog.locator("figcaption")).to_have_text(["Base model", "Step 500, strength 0.6"])
    page.keyboard.press("ArrowRight")
    expect(dialog.locator("figcaption")).to_have_text(["Base model", "Step 500, strength 1"])
    page.keyboard.press("ArrowDown")
    expect(dialog.locator("figcaption")).to_have_text(["Base model", "Step 1,000, strength 1"])
    dialog.get_by_label("Beside it").select_option("Step 500, strength 1")
    expect(dialog.locator("figcaption")).to_have_text(["Step 500, strength 1", "Step 1,000, strength 1"])
    dialog.get_by_role("button", name="Look closer").click()
    expect(dialog.get_by_role("button", name="Look closer")).to_have_attribute("aria-pressed", "true")
    for picture in dialog.get_by_role("img").all():
        expect(picture).to_have_css("transform", "matrix(3, 0, 0, 3, 0, 0)")
    photograph(page, "enlarged")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("button", name=f"Enlarge: Step 1,000, strength 1, seed 42: {NAME}")).to_be_focused()

    page.get_by_role("button", name="Pick step 500 at strength 0.6").click()
    expect(page.get_by_text("Picked: step 500 at strength 0.6")).to_be_visible()
    page.get_by_label("Name of the adapter file").fill("best zib")
    page.get_by_role("button", name="Save adapter file").click()
    expect(page.get_by_text("best zib.safetensors")).to_be_visible()
    expect(page.get_by_text("all 8 layers read back as trained")).to_be_visible()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy suggested strength: 0.6").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == "0.6"

    weights(run.folder / "output" / "best zib.safetensors")
    weights(loras / "best zib.safetensors", b"\4\3\2\1")  # another one of that name
    page.get_by_role("button", name="Send to ComfyUI").click()
    page.get_by_role("button", name="Send as best zib-2").click()
    expect(page.get_by_text("best zib-2.safetensors is in")).to_be_visible()
    assert (loras / "best zib-2.safetensors").read_bytes() == (
        run.folder / "output" / "best zib.safetensors"
    ).read_bytes()
    page.get_by_role("button", name="Send to A1111").click()
    other = home / "webui" / "models" / "Lora"
    other.mkdir(parents=True)
    page.get_by_label("LoRA folder of A1111").fill(str(home / "webui"))
    page.get_by_label("LoRA folder of A1111").press("Enter")
    expect(page.get_by_text(re.compile("^A1111(: made for the small base| will not )"))).to_be_visible()
    assert (other / "best zib.safetensors").is_file()

    page = open_page(f"{served.address}?show=results")  # as after a reload
    expect(page.get_by_text("Picked: step 500 at strength 0.6")).to_be_visible()
    expect(page.get_by_text("Saved as")).to_be_visible()


def test_a_drifting_checkpoint_and_a_training_beside_the_comparison_are_told(
    served, open_page, run, drawer, home, monkeypatch
):
    checkpoints(run)
    emit = EventLog(run.events)
    emit(Started(1000, 0, "cpu", 1, "zib-lora"))
    for step, loss in zip(STEPS, (0.2, 0.15, 0.18), strict=True):
        emit(Validation(step, loss, 0.1))
    other = runs.create(projects.list_projects(Home(home))[0], config_io.parse({"saving": {"name": "& other"}}))
    EventLog(other.events)(Started(1000, 0, "cpu", 1, "other"))
    monkeypatch.setattr(served.context.queue, "running", lambda: other)
    page = open_page(f"{served.address}?show=results&run={run.key}")
    expect(page.get_by_text("& other is training on the same device.")).to_be_visible()
    photograph(page, "results_beside")
    page.get_by_role("button", name="Compare", exact=True).click()  # it is no refusal
    expect(page.get_by_text("0 of 27 pictures")).to_be_visible()
    expect(page.get_by_text("Validation loss is lowest")).to_have_count(0)
    drawer.draw()
    expect(page.get_by_text("Validation loss is lowest at step 500 (0.15); at step 1,000 it is 0.18.")).to_be_visible()
    photograph(page, "results_drift")
    monkeypatch.setattr(served.context.queue, "running", lambda: None)
    expect(page.get_by_text("is training on the same device.")).to_be_hidden()


def test_what_a_person_chose_and_typed_is_there_when_they_come_back_to_the_page(served, open_page, run, drawer):
    checkpoints(run)
    page = open_page(f"{served.address}?show=results&run={run.key}")
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.get_by_text("0 of 27 pictures")).to_be_visible()
    drawer.draw()
    tab = page.get_by_role("button", name=f"{NAME} on a table", exact=True)  # of a prompt
    tab.click()
    expect(tab).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Pick step 500 at strength 1").click()
    name, layout = page.get_by_label("Name of the adapter file"), page.get_by_label("Layout")
    expect(name).to_have_value("zib-lora")
    name.fill("my own")
    layout.click()
    page.get_by_role("option", name=re.compile("diffusers")).click()
    chosen = layout.input_value()
    checkpoint = run.folder / "checkpoints" / "step_001100"
    page.get_by_role("tab", name="Library").click()
    expect(page.get_by_role("tabpanel", name="Library")).to_be_visible()
    checkpoint.mkdir()
    page.get_by_role("tab", name="Results").click()
    expect(page.get_by_label("Step 1,100")).to_have_count(1)  # the page is up to date
    for step in (1000, 500):  # other picks, the same suggestion
        expect(name).to_have_value("my own")
        expect(layout).to_have_value(chosen)
        expect(tab).to_have_attribute("aria-pressed", "true")
        page.get_by_role("button", name=f"Pick step {step} at strength 1").click()
        expect(page.get_by_text(f"Picked: step {step:,} at strength 1")).to_be_visible()


def test_a_checkpoint_that_the_training_removes_is_compared_no_more(served, open_page, run, drawer):
    checkpoints(run)
    page = open_page(f"{served.address}?show=results&run={run.key}")
    expect(page.get_by_text("That makes 27 pictures")).to_be_visible()
    (run.folder / "checkpoints" / "step_000250").rmdir()
    expect(page.get_by_label("Step 250")).to_have_count(0)
    page.get_by_label("Seeds to compare").fill("42, 43")
    expect(page.get_by_text("That makes 42 pictures")).to_be_visible()
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.get_by_text("0 of 42 pictures")).to_be_visible()


def test_a_run_without_checkpoints_says_what_will_appear_and_then_it_does(served, open_page, run, drawer):
    page = open_page(f"{served.address}?show=results&run={run.key}")
    expect(page.get_by_text("has no checkpoint yet")).to_be_visible()
    checkpoints(run)
    expect(page.get_by_label("Step 1,000")).to_be_checked()
    expect(page.get_by_text("No comparison yet")).to_be_visible()
