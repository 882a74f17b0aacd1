"""The Monitor page in a browser: it follows a run, ends it, picks it up again, and says what went wrong."""

import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from app import jobs, projects, runs
from app.gui.server import serving
from app.runs import Run
from app.window import listen
from tests.gui.conftest import photograph
from trainers.config import DataConfig, PreviewConfig, SavingConfig, ScheduleConfig, TrainConfig

FAKE = Path(__file__).parents[1] / "app" / "fake_engine.py"
NASTY = '<img src=x onerror=alert(1)> & "quotes" ‘漢字’'


@pytest.fixture
def started(served, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Run]]:
    """Call it with a mode of the fake engine: a run that is in training in that mode. At the end nothing trains."""
    made: list[Run] = []

    def call(mode: str) -> Run:
        monkeypatch.setattr(jobs, "ENGINE", (sys.executable, str(FAKE), mode))
        home = served.context.home
        pictures = home.root / "pictures"
        pictures.mkdir()
        Image.new("RGB", (8, 8)).save(pictures / "a.png")
        config = TrainConfig(
            data=DataConfig(folders=(str(pictures),), trigger="sks"),
            preview=PreviewConfig(prompts=(NASTY, "sks on a beach")),
            saving=SavingConfig(name="cat"),
            schedule=ScheduleConfig(steps=1600),
        )
        made.append(runs.create(projects.create(home, "Whiskers", pictures, "object"), config))
        served.context.queue.add(made[0])
        return made[0]

    yield call
    for run in made:
        jobs.end(run)


def go_on(run: Run) -> None:
    """Let the fake engine take its next ten steps."""
    run.control.mkdir(exist_ok=True)
    (run.control / "go").touch()


def shown(page: Page, words: str) -> None:
    expect(page.locator(".dr-word")).to_have_text(words)


def test_a_run_grows_before_ones_eyes_and_draws_what_is_asked_for(served, open_page, started):
    run = started("live")
    page = open_page(f"{served.address}?show=monitor")  # of no run in particular: the one that trains
    shown(page, "Training")
    grid = page.get_by_role("region", name="Samples by prompt and step")
    expect(grid.get_by_role("columnheader")).to_have_text(["Prompt", "Base"])
    expect(grid.get_by_role("rowheader").first).to_have_text(NASTY)
    page.evaluate("document.querySelector('.dr-shot img').stays = true")
    for step in (10, 20):
        go_on(run)
        expect(page.locator(".dr-line")).to_contain_text(f"Step {step} of 1,600, 1.3 s/step, about 34 min left")
        expect(grid.get_by_role("columnheader").last).to_have_text(f"Step {step}")
    assert page.evaluate("document.querySelector('.dr-shot img').stays")  # nothing flickers
    expect(page.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "1")
    expect(page.get_by_role("img", name="Loss by step")).to_be_visible()

    page.get_by_label("Preview prompts").fill(f"sks asleep\n\n  {NASTY}")
    page.get_by_role("button", name="Save prompts").click()
    expect(page.get_by_text("They are drawn from the next preview on.")).to_be_visible()
    page.get_by_label("Sample now: prompt").fill(NASTY)
    page.get_by_label("Strength", exact=True).fill("0.8")
    page.get_by_role("button", name="Sample now").click()
    strip = page.locator(".dr-strip")
    expect(strip).to_contain_text("Step 20, seed 42, strength 0.8")
    expect(strip).to_contain_text(NASTY)
    page.get_by_label("Sample now: prompt").fill("sks asleep")
    page.get_by_role("button", name="Sample now").click()
    strip.get_by_role("button", name="sks asleep").click()
    dialog = page.get_by_role("dialog")
    named = [f"Step 20, seed 42, strength 0.8: {prompt}" for prompt in (NASTY, "sks asleep")]
    dialog.get_by_label("Beside it").select_option(named[0])  # two that differ by their prompt alone
    expect(dialog.locator("figcaption")).to_have_text(named)
    page.keyboard.press("Escape")
    go_on(run)
    expect(grid.get_by_role("rowheader").last).to_have_text("sks asleep")

    grid.get_by_role("button", name="Step 20: sks on a beach").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("figcaption")).to_have_text(["Base", "Step 20"])
    page.keyboard.press("ArrowLeft")
    expect(dialog.locator("figcaption")).to_have_text(["Base", "Step 10"])
    page.keyboard.press("ArrowUp")
    expect(dialog.get_by_text(NASTY)).to_be_visible()
    go_on(run)  # while it is open, the grid is another
    expect(page.locator(".dr-line")).to_contain_text("Step 40 of")
    dialog.get_by_role("button", name="Next picture").click()
    expect(dialog.locator("figcaption")).to_have_text(["Base", "Step 20"])
    photograph(page, "monitor_enlarged")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(grid.get_by_role("button", name=f"Step 20: {NASTY}", exact=True)).to_be_focused()
    expect(page.get_by_text("Memory of the process: 0.5 GB at most")).to_be_visible()
    photograph(page, "monitor_trains")
    assert page.evaluate("document.querySelectorAll('img[src=x]').length") == 0

    with listen() as listening, serving(served.context.home, listening) as again:  # as after a restart of the app
        page = open_page(f"{again.address}?show=monitor")
        grid = page.get_by_role("region", name="Samples by prompt and step")
        expect(grid.get_by_role("columnheader").last).to_have_text("Step 40")
        go_on(run)
        expect(grid.get_by_role("columnheader").last).to_have_text("Step 50")
        page.reload()
        expect(grid.get_by_role("columnheader").last).to_have_text("Step 50")
        expect(page.locator(".dr-strip")).to_contain_text(NASTY)
        page.context.close()


def test_pause_resume_and_stop_and_keep(served, open_page, started):
    run = started("live")
    page = open_page(f"{served.address}?show=monitor&run={run.key}")
    second = open_page(f"{served.address}?show=monitor&run={run.key}")
    go_on(run)
    expect(page.locator(".dr-line")).to_contain_text("Step 10 of")
    page.get_by_role("button", name="Pause", exact=True).click()
    for one in (page, second):
        shown(one, "Paused")
        expect(one.get_by_text("the processor is free")).to_be_visible()
    assert not runs.is_alive(run)
    page.get_by_role("button", name="Resume").click()
    for one in (page, second):
        shown(one, "Training")
    go_on(run)
    expect(second.locator(".dr-line")).to_contain_text("Step 20 of")
    second.get_by_role("button", name="Stop and keep").click()
    for one in (page, second):
        shown(one, "Stopped and kept")
        expect(one.get_by_text("Saved as cat.safetensors")).to_be_visible()
    page.get_by_role("button", name="Copy trigger word").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    page.get_by_role("button", name="Compare checkpoints").click()
    expect(page).to_have_url(re.compile("show=results.*run=whiskers"))


def test_an_engine_that_was_killed_is_told_and_its_run_resumes(served, open_page, started):
    run = started("live")
    page = open_page(f"{served.address}?show=monitor&run={run.key}")
    go_on(run)
    expect(page.locator(".dr-line")).to_contain_text("Step 10 of")
    with run.log.open("a", encoding="utf-8") as log:
        log.write("the <b>last</b> words\n")
    os.kill(json.loads(run.process.read_text("utf-8"))["pid"], signal.SIGKILL)
    shown(page, "Interrupted")
    expect(page.get_by_role("alert")).to_contain_text("The training ended without a word. The system may have ended it")
    page.get_by_role("button", name="Details").click()
    expect(page.get_by_label("Log", exact=True)).to_contain_text("the <b>last</b> words")
    page.get_by_role("button", name="Resume").click()
    shown(page, "Training")
    expect(page.get_by_role("alert")).to_have_count(0)
    go_on(run)
    expect(page.locator(".dr-line")).to_contain_text("Step 20 of")


def test_a_failure_is_advice_and_leads_to_the_settings(served, open_page, started):
    run = started("fail")
    page = open_page(f"{served.address}?show=monitor&run={run.key}")
    shown(page, "Failed")
    expect(page.get_by_role("alert")).to_contain_text("The model is a text file.Choose a .safetensors file.")
    page.get_by_role("button", name="Change the settings").click()
    expect(page).to_have_url(re.compile("show=train.*run=whiskers"))


def test_before_the_first_run_the_page_says_what_will_appear(served, open_page):
    page = open_page(f"{served.address}?show=monitor")
    expect(page.get_by_text("No training yet")).to_be_visible()
    expect(page.get_by_role("button", name="Sample now")).to_be_hidden()
